"""Preference-model scores of a file of dialogues.

  python -m experiments.score --config=configs/score.py --workdir=runs/scores \\
    --config.preference_model=runs/pm --config.file=dialogues.jsonl.gz
  :smoke  small parts
part: lines that are scored and written at a time; a killed job loses one part. on_error: 'raise'
stops at a line that cannot be scored, 'skip' says why in its place.
Expected: a `mini` model of the published comparisons reads 270 answers a second on 2 cores, 6
compilations included.
"""
from ml_collections import ConfigDict

from configs import presets
from rlhf_jax.run.config import variant


def get_config(arg=''):
  config = ConfigDict({
    'main': 'experiments.score', 'mesh': presets.mesh(), 'preference_model': 'runs/pm', 'file': '',
    'batch_size': 64, 'part': 4096, 'on_error': 'raise'})
  return variant(arg, default=lambda: config, smoke=lambda: smoke(config))()


def smoke(config):
  config.update({'batch_size': 8, 'part': 16})
  return config
