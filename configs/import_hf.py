"""A Hugging Face folder as a run directory.

  python -m experiments.import_hf --config=configs/import_hf.py --workdir=runs/pythia \\
    --config.folder=pythia-70m
  :smoke  no row beyond the tokens
end_token_id: None for that of config.json. multiple_of: of the rows of the vocabulary, so that a mesh
divides them. widths: of the batches of a reward model.
Expected: the logits of `transformers` to 1e-4 in float32; 2 new tokens, in spare rows where there are.
"""
from ml_collections import ConfigDict

from rlhf_jax.run.config import variant


def get_config(arg=''):
  config = ConfigDict({
    'main': 'experiments.import_hf', 'folder': '', 'end_token_id': None, 'multiple_of': 64,
    'options': {'dtype': 'float32', 'param_dtype': 'float32', 'remat': False, 'unroll': True},
    'widths': (64, 128, 256, 512), 'end_of_context': False})
  return variant(arg, default=lambda: config, smoke=lambda: smoke(config))()


def smoke(config):
  config.multiple_of = 1
  return config
