"""Policies as rankers of other people's answers.

  python -m experiments.rank_answers --config=configs/rank_answers.py --workdir=runs/ranks \\
    --config.policies=runs/policy,runs/ppo
  :smoke  small batches
policies: run directories of any stage, DIR@STEP for an earlier checkpoint; the first is what the others
are compared with. Needs a folder of answers (RLHF_DATA_DIR or data_dir).
Expected: a minute on 2 cores for two `mini` policies; docs/results.md has the numbers.
"""
from ml_collections import ConfigDict

from configs import presets
from rlhf_jax.run.config import variant


def get_config(arg=''):
  config = ConfigDict({
    'main': 'experiments.rank_answers', 'mesh': presets.mesh(), 'policies': 'runs/policy,runs/ppo',
    'data_dir': '', 'sets': ('stackexchange', 'hhh', 'webgpt', 'llmbar'), 'on_error': 'raise',
    'batch_size': 64, 'widths': (96, 192, 384)})
  return variant(arg, default=lambda: config, smoke=lambda: smoke(config))()


def smoke(config):
  config.batch_size = 16
  return config
