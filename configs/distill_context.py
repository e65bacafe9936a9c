"""Context distillation of the HHH prompt.

  python -m experiments.distill_context --config=configs/distill_context.py --workdir=runs/policy \\
    --config.teacher=runs/lm
  :smoke  seconds on a CPU;  :hh  on published dialogues
Expected: the KL to the prompted teacher falls from 0.080 to 0.076 nats per token,
30 seconds on 2 cores.
"""
from ml_collections import ConfigDict

from configs import presets
from rlhf_jax.run.config import variant


def get_config(arg=''):
  config = ConfigDict({
    'main': 'experiments.distill_context', 'seed': 0, 'mesh': presets.mesh(),
    'model': presets.model(presets.RUNG), 'data': presets.oracle_data(), 'teacher': 'runs/lm',
    'top_k': 50, 'length': 45,
    'optimizer': presets.optimizer(presets.rate('distill'), decay='linear'),
    'steps': 350, 'batch_size': 32, 'microbatches': 1, 'log_every': 10, 'eval_every': 50,
    'checkpoint_every': 350})
  return variant(arg, default=lambda: config, smoke=lambda: smoke(config), hh=lambda: hh(config))()


def smoke(config):
  config.model = presets.model('micro')
  config.update({'steps': 4, 'eval_every': 2, 'log_every': 1})
  config.data.dialogues = 256
  return config


def hh(config):
  config.data = presets.hh_data()
  config.model = presets.model('mini', vocab_size=2048)
  config.update({'steps': 200, 'length': 256, 'batch_size': 16})
  return config
