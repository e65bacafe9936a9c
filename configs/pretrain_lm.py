"""Language-model pretraining.

  python -m experiments.pretrain_lm --config=configs/pretrain_lm.py --workdir=runs/lm
  :smoke  seconds on a CPU;  :hh  dialogues and texts of RLHF_DATA_DIR
Expected: 0.95 nats per token on the oracle world's held-out documents, 2.6 minutes on 2 cores.
"""
from ml_collections import ConfigDict

from configs import presets
from rlhf_jax.run.config import variant


def get_config(arg=''):
  config = ConfigDict({
    'main': 'experiments.pretrain_lm', 'seed': 0, 'mesh': presets.mesh(),
    'model': presets.model(presets.RUNG), 'data': presets.oracle_data(),
    'optimizer': presets.optimizer(presets.LEARNING_RATE, name=presets.laptop('lm.optimizer'),
                                   decay='linear', b2=0.99),
    'steps': 6500, 'batch_size': 16, 'length': 64,
    'microbatches': 1, 'log_every': 50, 'eval_every': 1000, 'eval_rows': 128,
    'checkpoint_every': 5000})
  return variant(arg, default=lambda: config, smoke=lambda: smoke(config), hh=lambda: hh(config))()


def smoke(config):
  config.model = presets.model('micro')
  config.update({'steps': 8, 'eval_every': 4, 'checkpoint_every': 4, 'log_every': 1})
  config.data.documents = 2000
  return config


def hh(config):
  config.data = presets.hh_data()
  config.model = presets.model('mini', vocab_size=2048)
  config.update({'steps': 2000, 'batch_size': 8, 'length': 256})
  return config
