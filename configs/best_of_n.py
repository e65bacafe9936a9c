"""Best-of-n against a preference model.

  python -m experiments.best_of_n --config=configs/best_of_n.py --workdir=runs/best_of_n \\
    --config.policy=runs/policy --config.preference_model=runs/pm
  :smoke  seconds on a CPU
What to look for: with a preference model trained on few comparisons (experiments.train_pm with
--config.data.comparisons=1000) the true reward turns down as n grows; see docs/results.md.
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
