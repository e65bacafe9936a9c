"""A policy or a preference model as a Hugging Face folder.

  python -m experiments.export_hf --config=configs/export_hf.py --workdir=runs/export \\
    --config.run=runs/pm
  :smoke  the same
run: a run directory of an imported model, of any stage; DIR@STEP is an earlier checkpoint of a policy.
Expected: `transformers` reads it without a missing or unexpected weight, and gives the same logits.
"""
from ml_collections import ConfigDict

from configs import presets
from rlhf_jax.run.config import variant


def get_config(arg=''):
  config = ConfigDict({'main': 'experiments.export_hf', 'mesh': presets.mesh(), 'run': 'runs/pm'})
  return variant(arg, default=lambda: config, smoke=lambda: config)()
