"""Elo scores of policies.

  python -m experiments.elo --config=configs/elo.py --workdir=runs/elo \\
    --config.policies=runs/policy,runs/ppo --config.preference_model=runs/pm
  :smoke  seconds on a CPU;  :hh  published prompts
policies: run directories, a comma between two, DIR@STEP for an earlier checkpoint that is still there.
Expected: PPO ends 138 to 156 Elo above the distilled policy by the preference model, 163 to 206 by the
simulated worker (five seeds, standard errors 7 and 20); 10 seconds on 2 cores.
"""
from ml_collections import ConfigDict

from configs import presets
from rlhf_jax.run.config import variant


def get_config(arg=''):
  config = ConfigDict({
    'main': 'experiments.elo', 'seed': 0, 'mesh': presets.mesh(), 'data': presets.oracle_data(),
    'policies': 'runs/policy,runs/ppo', 'preference_model': 'runs/pm', 'prompts': 512,
    'anchor': 0})                                                  # the policy whose Elo is 0
  return variant(arg, default=lambda: config, smoke=lambda: smoke(config), hh=lambda: hh(config))()


def smoke(config):
  config.prompts = 8
  return config


def hh(config):
  config.data = presets.hh_data()
  return config
