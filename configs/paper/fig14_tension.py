"""Figures 14 and 34: score, true reward, refusals and ranking on helpful and harmful prompts along RL.

  python -m experiments.train_ppo --config=configs/paper/fig14_tension.py --workdir=runs/fig14 \\
    --config.policy=runs/quickstart/policy --config.preference_model=runs/quickstart/pm
  python -m experiments.sweep --config=configs/paper/fig14_tension.py --sweep=tension \\
    --workdir=runs/tension --config.policy=runs/quickstart/policy \\
    --config.preference_model=runs/quickstart/pm
  :smoke  seconds on a CPU
Expected: benign refusals fall as the helpful share rises (docs/results.md).
"""
from configs import train_ppo

sweep_tension, report_tension = train_ppo.sweep_tension, train_ppo.report_tension


def get_config(arg=''):
  config = train_ppo.get_config(arg)
  config.eval_comparisons = 64 if arg == 'smoke' else 2048
  return config
