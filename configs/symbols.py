"""The 676 symbols of Askell et al. 2021, appendix C.6: how fast is a true order learnt after another?

  python -m experiments.symbols --config=configs/symbols.py --workdir=runs/symbols
  :smoke  seconds on a CPU
Learning rates and sizes were chosen on seeds 100 and 101 by the mean accuracy over all orders.
Expected, means over seeds 0 to 4: T1 0.90, T2 0.87, binary 0.75, T3 0.73, T4 0.55 and none 0.52 after
64 pairs; T1 0.90, T2 0.88, binary 0.82, T3 0.78, T4 0.69, none 0.64 after 5,120. 4 minutes on 2 cores.
"""
from ml_collections import ConfigDict

from configs import presets
from rlhf_jax.run.config import variant


def get_config(arg=''):
  config = ConfigDict({
    'main': 'experiments.symbols', 'seed': 0, 'seeds': 5, 'mesh': presets.mesh(),
    'model': {**presets.model('micro', vocab_size=27), 'width': 32}, 'test_pairs': 8192,
    'pretrain': stage(presets.optimizer(1e-2, name='muon'), pairs=65_536, batch_size=64,
                      eval_every=256),
    'finetune': stage(presets.optimizer(3e-4, warmup=0.0, decay='constant'), pairs=5120, batch_size=8,
                      eval_every=8)})
  return variant(arg, default=lambda: config, smoke=lambda: smoke(config))()


def stage(optimizer, pairs, batch_size, eval_every):
  return {'pairs': pairs, 'batch_size': batch_size, 'optimizer': optimizer, 'log_every': eval_every,
          'eval_every': eval_every, 'checkpoint_every': pairs // batch_size}


def smoke(config):
  config.seeds = 2
  for name in ('pretrain', 'finetune'):
    config[name].update(stage(config[name].optimizer, 32, 8, 1))
  return config
