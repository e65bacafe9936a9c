"""Figures 8, 9, 10 and 25: accuracy by turn and by height of the scores, calibration, HHH.

  python -m experiments.evaluate_pm --config=configs/paper/fig09_calibration.py --workdir=runs/fig09 \\
    --config.preference_model=runs/quickstart/pm
  :smoke  small batches
Expected: a calibration error of at most 0.03 on the oracle world (docs/results.md).
"""
from configs import evaluate_pm


def get_config(arg=''):
  return evaluate_pm.get_config(arg)
