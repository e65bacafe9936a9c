"""All instruments of a preference model, on its own test set and on sets from elsewhere.

  python -m experiments.evaluate_pm --config=configs/evaluate_pm.py --workdir=runs/pm_report \\
    --config.preference_model=runs/pm
  :smoke  the same, small batches;  :hh  a model of the published comparisons, with HHH, WebGPT and
  LLMBar where their files lie below $RLHF_DATA_DIR (or data_dir)
policy: the run whose samples the comparisons were made of, if it was moved since. The default takes a
model of the oracle world.
Expected: the quickstart's model is calibrated (error 0.006, 10 of 10 bins inside), its scores times 3
and divided by 3 are flagged, 20 seconds on 2 cores; :hh 1 minute.
"""
from ml_collections import ConfigDict

from configs import presets
from rlhf_jax.run.config import variant


def get_config(arg=''):
  config = ConfigDict({
    'main': 'experiments.evaluate_pm', 'mesh': presets.mesh(), 'preference_model': 'runs/pm',
    'policy': '', 'data_dir': '', 'sets': (), 'on_error': 'raise', 'batch_size': 64})
  return variant(arg, default=lambda: config, smoke=lambda: smoke(config), hh=lambda: hh(config))()


def smoke(config):
  config.batch_size = 16
  return config


def hh(config):
  config.sets = ('hhh', 'webgpt', 'llmbar')
  return config
