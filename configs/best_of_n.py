"""Best-of-n against a preference model.

  python -m experiments.best_of_n --config=configs/best_of_n.py --workdir=runs/best_of_n \\
    --config.policy=runs/policy --config.preference_model=runs/pm
  :smoke  seconds on a CPU
Expected: with a micro preference model trained on 1,000 comparisons
(--config.data.comparisons=1000 of experiments.train_pm) the true reward turns down before n = 1,024.
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
