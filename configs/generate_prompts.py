"""Prompts for RL, written by a language model.

  python -m experiments.generate_prompts --config=configs/generate_prompts.py --workdir=runs/prompts \\
    --config.language_model=runs/lm
  :hh  published prompts, ten of them in the context;  :smoke  seconds on a CPU
shots: existing queries shown before each new one. A model of the oracle world has seen dialogues from
their start only, so it is shown none there and begins one itself. context: tokens for them;
most_batches: after how many batches to give up on `count`.
Expected: docs/results.md.
"""
from ml_collections import ConfigDict

from configs import presets
from rlhf_jax.run.config import variant


def get_config(arg=''):
  config = ConfigDict({
    'main': 'experiments.generate_prompts', 'seed': 0, 'mesh': presets.mesh(),
    'data': presets.oracle_data(), 'language_model': 'runs/lm', 'count': 4096, 'shots': 0,
    'context': 8, 'new_tokens': 24, 'temperature': 1.0, 'top_p': 1.0, 'batch_size': 256,
    'most_batches': 64, 'known_prompts': 10_240, 'held_out_prompts': 512})
  return variant(arg, default=lambda: config, smoke=lambda: smoke(config), hh=lambda: hh(config))()


def smoke(config):
  config.data.documents = 2000
  config.update({'count': 16, 'batch_size': 16, 'most_batches': 2, 'known_prompts': 64,
                 'held_out_prompts': 16})
  return config


def hh(config):
  config.data = presets.hh_data()
  config.update({'shots': 10, 'context': 320, 'new_tokens': 64, 'batch_size': 64, 'most_batches': 256})
  return config
