"""Figures 19 and 26: accuracy on both sides against the share of harmful comparisons.

  python -m experiments.pm_study --config=configs/paper/fig19_mixture.py --workdir=runs/fig19
  :smoke  seconds on a CPU
Expected: at each end the other side falls below chance (docs/results.md).
"""
from configs import pm_study


def get_config(arg=''):
  return pm_study.get_config(arg or 'fractions')
