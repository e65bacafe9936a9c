"""Best-of-n against a preference model.

  python -m experiments.best_of_n --config=configs/best_of_n.py --workdir=runs/best_of_n \\
    --config.policy=runs/policy --config.preference_model=runs/pm
  :smoke  seconds on a CPU;  :hh  published prompts
Over-optimisation without any reinforcement learning: a small model that saw 1,000 comparisons, made by
pretrain_lm --config.model.name=micro and train_pm --config.model.name=micro
--config.data.comparisons=1000, against the default one.
Expected: the true reward peaks at n = 32 with the small one and falls below that of n = 1 at 1,024;
with the default one it peaks at n = 64. 1 minute each on 2 cores.
"""
from ml_collections import ConfigDict

from configs import presets
from rlhf_jax.run.config import variant


def get_config(arg=''):
  config = ConfigDict({
    'main': 'experiments.best_of_n', 'seed': 0, 'mesh': presets.mesh(), 'data': presets.oracle_data(),
    'policy': 'runs/policy', 'preference_model': 'runs/pm', 'prompts': 128, 'samples': 1024})
  return variant(arg, default=lambda: config, smoke=lambda: smoke(config), hh=lambda: hh(config))()


def smoke(config):
  config.update({'prompts': 8, 'samples': 8})
  return config


def hh(config):
  config.data = presets.hh_data()
  return config
