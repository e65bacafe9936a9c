"""Figures 7 and 31: accuracy of preference models against comparisons and parameters.

  python -m experiments.pm_study --config=configs/paper/fig07_pm_scaling.py --workdir=runs/fig07
  :smoke  seconds on a CPU
Expected: eq. A.1 with b and c above 0 (docs/results.md).
"""
from configs import pm_study


def get_config(arg=''):
  return pm_study.get_config(arg or 'scaling')
