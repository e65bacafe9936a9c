"""Figure 20: a specialised skill beside everything else, and the two specialists.

  python -m experiments.pm_study --config=configs/paper/fig20_skills.py --workdir=runs/fig20
  :smoke  seconds on a CPU
Expected: the mixture loses nothing of either specialist (docs/results.md); 11 minutes on one core.
"""
from configs import pm_study


def get_config(arg=''):
  return pm_study.get_config(arg or 'skills')
