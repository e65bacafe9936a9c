"""The whole pipeline: pretrain, distil, preference model, PPO, report.

  python -m experiments.quickstart --config=configs/quickstart.py --workdir=runs/quickstart
  :smoke  a minute on a CPU, nothing to learn from;  :hh  published data (RLHF_DATA_DIR or download)
Expected on 2 cores: 6 minutes; docs/results.md has the numbers.
"""
from ml_collections import ConfigDict

from configs import distill_context, presets, pretrain_lm, train_pm, train_ppo
from rlhf_jax.run.config import variant

SHARED = ('main', 'seed', 'mesh', 'model', 'data', 'teacher', 'init', 'preference_model')


def stage(module, arg):
  """A stage's own settings; what all stages share is set once, at the top."""
  config = module.get_config(arg)
  for key in SHARED:
    if key in config:
      del config[key]
  if 'policy' in config and module is train_ppo:
    del config['policy']
  return config


def get_config(arg=''):
  def make(arg, data, model):
    return ConfigDict({
      'main': 'experiments.quickstart', 'seed': 0, 'mesh': presets.mesh(), 'model': model,
      'data': data, 'lm': stage(pretrain_lm, arg), 'policy': stage(distill_context, arg),
      'pm': stage(train_pm, arg), 'ppo': stage(train_ppo, arg), 'best_of_n_prompts': 256,
      'samples_shown': 12, 'checks': arg == ''})
  return variant(
    arg, default=lambda: make('', presets.oracle_data(), presets.model(presets.RUNG)),
    smoke=lambda: smoke(make('smoke', presets.oracle_data(), presets.model('micro'))),
    hh=lambda: make('hh', presets.hh_data(), presets.model('mini', vocab_size=2048)))()


def smoke(config):
  config.data.update({'documents': 2000, 'dialogues': 256, 'comparisons': 128,
                      'validation_comparisons': 64, 'test_comparisons': 64})
  config.update({'best_of_n_prompts': 8, 'samples_shown': 2})
  return config
