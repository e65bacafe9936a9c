"""Every rung of the ladder on a pod of 512 chips: does it lower, and what does a chip hold?

  python -m experiments.lower --config=configs/lower.py --workdir=runs/lower
  :smoke  the smallest rungs, seconds on a CPU
Expected: all 33 programs lower in half a minute; all but PPO at 52B (35 GiB) fit in 32 GiB a chip, and
that does in two microbatches: --config.microbatches=2 --config.meshes='(("52B", 4, 16, 8),)'.
"""
from ml_collections import ConfigDict

from configs import presets
from rlhf_jax.run.config import variant

# rung, data, fsdp, tensor: 512 chips. Heads divide over 'tensor', the width over 'fsdp'.
MESHES = (('micro', 512, 1, 1), ('mini', 512, 1, 1), ('tiny', 512, 1, 1), ('small', 512, 1, 1),
          ('13M', 512, 1, 1), ('42M', 512, 1, 1), ('197M', 128, 2, 2), ('810M', 32, 8, 2),
          ('2.7B', 16, 8, 4), ('13B', 8, 16, 4), ('52B', 4, 16, 8))


def get_config(arg=''):
  """Widths of Bai et al. 2022, appendix B.1: preference models read 1,024 tokens, answers have up to
  128 of them. Batches are so large that each of 512 chips has a row of every minibatch."""
  config = ConfigDict({
    'main': 'experiments.lower', 'meshes': MESHES, 'platform': 'tpu', 'topology': '', 'chip_gib': 32,
    'model': {**presets.model('52B', vocab_size=2**16), 'dtype': None},
    'optimizer': presets.optimizer(1e-4),
    'preference_model': {'batch_size': 512, 'length': 1024, 'microbatches': 1, 'lm_weight': 1.0},
    'ppo': presets.bai2022().ppo, 'prompt_width': 896, 'answer_width': 128, 'microbatches': 1})
  config.ppo.batch_size = 2048
  return variant(arg, default=lambda: config, smoke=lambda: smoke(config))()


def smoke(config):
  config.meshes = (('micro', 512, 1, 1), ('13M', 64, 4, 2))
  return config
