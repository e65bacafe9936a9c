"""Figure 27: accuracy on both sides against the weight of harmful comparisons in the loss.

  python -m experiments.pm_study --config=configs/paper/fig27_loss_weight.py --workdir=runs/fig27
  :smoke  seconds on a CPU
Expected: little moves between 1 and 3, larger weights are unsteady (docs/results.md).
"""
from configs import pm_study


def get_config(arg=''):
  return pm_study.get_config(arg or 'weights')
