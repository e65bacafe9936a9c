"""Figure 36 and section 4.3: the best of n samples by the preference model.

  python -m experiments.best_of_n --config=configs/paper/fig36_best_of_n.py --workdir=runs/fig36 \\
    --config.policy=runs/quickstart/policy --config.preference_model=runs/quickstart/pm
  :smoke  seconds on a CPU
Expected: true reward rises to n = 64 (docs/results.md).
"""
from configs import best_of_n


def get_config(arg=''):
  return best_of_n.get_config(arg)
