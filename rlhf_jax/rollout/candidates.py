"""Candidates: K answers to each prompt with their scores, for best-of-n and for comparisons."""
import jax
import jax.numpy as jnp
from flax import struct


@struct.dataclass
class Candidates:
  """K answers a prompt, prompt-major. score_BK: the Score of each; mask_BKT: generated tokens."""
  tokens_BKT: jax.Array
  mask_BKT: jax.Array
  score_BK: jax.Array


def best_of(made, n):
  """The best of every n candidates, in order: rejection sampling -> Candidates with K / n a prompt."""
  rows, k = made.score_BK.shape
  at_BG = jnp.argmax(made.score_BK.reshape(rows, k // n, n), axis=2) + n * jnp.arange(k // n)[None]
  return jax.tree.map(lambda x: jnp.take_along_axis(
    x, at_BG.reshape(*at_BG.shape, *[1] * (x.ndim - 2)), axis=1), made)


def candidates(params, score_params, prompt_BP, prompt_valid_BP, key, *, generate, score):
  """The answers of `generate` to each prompt and their scores; score None gives zeros.

  generate(params, prompt, valid, key) -> Sample with K rows a prompt, from one prefill.
  """
  rows, width = prompt_BP.shape
  sample = generate(params, prompt_BP, prompt_valid_BP, key)
  samples = sample.tokens_BT.shape[0] // rows
  prompt_valid = jnp.repeat(prompt_valid_BP, samples, axis=0)
  valid_NT = jnp.concatenate([prompt_valid, sample.mask_BT[:, width:]], axis=1)
  score_N = (jnp.zeros(rows * samples) if score is None
             else score(score_params, sample.tokens_BT, valid_NT, {}))
  shape = rows, samples
  return Candidates(sample.tokens_BT.reshape(*shape, -1), sample.mask_BT.reshape(*shape, -1),
                    score_N.reshape(shape))
