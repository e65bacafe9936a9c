"""The networks of the PPO benchmark, as folders that every contender reads.

A language model of the Llama family with random weights, whose answers have lengths that are known
beforehand: one channel of its hidden states is the same for all text, and the end token is read from
that channel alone. So its probability is the same at every step: 1 in `mean`, or none.
"""
import math
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers

from experiments.benchmarks import contest
from rlhf_jax.core import spec
from rlhf_jax.models import heads, huggingface, sizes, transformer

END, PAD = 0, 1
SPECIAL = '<end>', '<pad>'      # their names
NEVER = -100.0                # logit of what is never sampled


def make(folder, mean, tiny=False):
  """Writes policy/, reward/ and tokenizer.json into `folder`; returns the TransformerConfig.

  mean: of the answers' lengths, geometric; None: no answer ends by itself.
  """
  folder = pathlib.Path(folder)
  shutil.rmtree(folder, ignore_errors=True)
  small = {'layers': 2, 'width': 48, 'heads': 2, 'vocab_size': 64} if tiny else {}
  config = sizes.config(**contest.LLAMA | small, rope_base=1e6)        # Tunix 0.1.7 knows no other
  model = transformer.decoder(config)
  params = jax.tree.map(np.array, spec.init(model.spec, jax.random.key(0)))
  params['embed'][:, 0] = 1.0
  for name in ('output', 'down'):                  # nothing is written into the channel
    params['layers'][name][..., 0] = 0
  params['unembed'][:, 0] = 0
  params['unembed'][[END, PAD]] = 0
  constant, rest = _read(model, params, config)
  params['unembed'][PAD, 0] = NEVER / constant
  params['unembed'][END, 0] = (NEVER if mean is None else rest - math.log(mean - 1)) / constant
  ids = {'eos_token_id': END, 'pad_token_id': PAD}
  huggingface.save(folder / 'policy', config, params, ids)
  scalar = heads.scalar(model, heads.initial_normal(config.width))
  reward = jax.tree.map(np.array, spec.init(scalar.spec, jax.random.key(1)))
  huggingface.save(folder / 'reward', config, reward, ids)
  names = [*SPECIAL, *(f't{i}' for i in range(2, config.vocab_size))]
  words = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token='t2'))
  words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
  words.save(str(folder / 'tokenizer.json'))
  return config


def _read(model, params, config):
  """(the channel's value, log of the sum of exp over all other tokens), means over random text."""
  rng = np.random.default_rng(0)
  tokens_BT = jnp.asarray(rng.integers(2, config.vocab_size, (4, 64)))
  hidden_ND = model.apply(params, tokens_BT, jnp.ones(tokens_BT.shape)).reshape(-1, config.width)
  logits_NV = model.unembed(params, hidden_ND)[:, 2:]
  return float(hidden_ND[:, 0].mean()), float(jax.nn.logsumexp(logits_NV, axis=1).mean())


def prompts(folder, config, count, width):
  """The path of `count` random prompts of `width` tokens."""
  file = pathlib.Path(folder) / 'prompts.npy'
  tokens_NP = np.random.default_rng(1).integers(2, config.vocab_size, (count, width))
  np.save(file, tokens_NP.astype(np.int32))
  return file


def peer_sizes(config):
  """The same sizes as Tunix names them."""
  return {'num_layers': config.layers, 'vocab_size': config.vocab_size, 'embed_dim': config.width,
          'hidden_dim': config.mlp_width, 'num_heads': config.heads, 'head_dim': config.head_size,
          'num_kv_heads': config.heads, 'rope_theta': int(config.rope_base),
          'norm_eps': config.norm_eps}

