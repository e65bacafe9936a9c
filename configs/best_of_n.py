"""Best-of-n against a preference model.

  python -m experiments.best_of_n --config=configs/best_of_n.py --workdir=runs/best_of_n \\
    --config.policy=runs/policy --config.preference_model=runs/pm
  :smoke  seconds on a CPU
Expected: the true reward peaks at n = 8 with a preference model of 1,000 comparisons (train_pm with
--config.data.comparisons=1000), at n = 16 with the default one; 1 minute on 2 cores.
"""
from ml_collections import ConfigDict

from configs import presets
from rlhf_jax.run.config import variant


def get_config(arg=''):
  config = ConfigDict({
    'main': 'experiments.best_of_n', 'seed': 0, 'mesh': presets.mesh(), 'data': presets.oracle_data(),
    'policy': 'runs/policy', 'preference_model': 'runs/pm', 'prompts': 128, 'samples': 1024})
  return variant(arg, default=lambda: config, smoke=lambda: smoke(config))()


def smoke(config):
  config.update({'prompts': 8, 'samples': 8})
  return config
