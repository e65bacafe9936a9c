"""Figures 4, 13 and 33: train and test preference models along RL, for all pairs of sizes.

  python -m experiments.robustness --config=configs/paper/fig13_robustness.py --workdir=runs/fig13
  :smoke  a minute on a CPU;  :overoptimisation  no KL penalty
Expected: sqrt(KL) laws in all nine cells; with a KL penalty the two do not part at these sizes
(docs/results.md).
"""
from configs import robustness


def get_config(arg=''):
  return robustness.get_config(arg)
