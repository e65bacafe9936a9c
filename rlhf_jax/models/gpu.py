"""Attention on NVIDIA GPUs: of whole texts by cuDNN's kernel, whose scores never leave the chip,
forwards and backwards; of one token to its past in pieces."""
import math
from functools import partial

import jax
import jax.numpy as jnp

from rlhf_jax.models import attention as plain

_TYPES = jnp.bfloat16, jnp.float16          # what the kernel takes: of these types,
_LARGEST, _MULTIPLE = 128, 8                # heads of at most this size, a multiple of that,
_COLUMNS = 64                               # and an even number of columns; 64 are one of its tiles
_PIECES = 16                                # of a past: 24 heads of one row on 132 multiprocessors


def attention(mesh, implementation='cudnn'):
  """A function as `models.attention.attention`, on the mesh as of `models.attention.on_mesh`. What the
  kernel does not take (float32, heads of more than 128) is computed in plain JAX. JAX cannot `vmap` it:
  see `run.build.check_vary`.

  implementation: of `jax.nn.dot_product_attention`, 'xla' where there is no such GPU.
  """
  local = plain.on_mesh(mesh, partial(_local, implementation))

  def attend(q_BTHK, k_BTGK, v_BTGK, group_BT, branch_BT=None):
    size = q_BTHK.shape[-1]
    if q_BTHK.dtype not in _TYPES or size > _LARGEST or size % _MULTIPLE:
      return plain.attention(q_BTHK, k_BTGK, v_BTGK, group_BT, branch_BT)
    return local(q_BTHK, k_BTGK, v_BTGK, *plain.relations(group_BT, branch_BT))
  return attend


def _local(implementation, q_BTHK, k_BTGK, v_BTGK, *texts):
  """One device's rows and heads."""
  time = q_BTHK.shape[1]
  q_BTHK, k_BTGK, v_BTGK, *texts = (plain.filled(x, _COLUMNS) for x in (q_BTHK, k_BTGK, v_BTGK, *texts))
  related_BTS = plain.related(texts, texts)                # the kernel skips keys that come after
  return jax.nn.dot_product_attention(q_BTHK, k_BTGK, v_BTGK, mask=related_BTS[:, None], is_causal=True,
                                      implementation=implementation)[:, :time]


@partial(plain.grouped, keys_axis=1)
def attend_cache(q_BHK, k_BHTK, v_BHTK, valid_BT):
  """`models.attention.attend_cache`, values added up in pieces first: XLA gives the sum of a head to
  one multiprocessor, and a few rows have fewer heads than there are of those."""
  weight_BHT = plain.cache_weights(q_BHK, k_BHTK, valid_BT)
  pieces = math.gcd(weight_BHT.shape[-1], _PIECES)
  weight_BHST, v_BHSTK = (x.reshape(*x.shape[:2], pieces, -1, *x.shape[3:])
                          for x in (weight_BHT, v_BHTK))
  sum_BHSK = jnp.einsum('bhst,bhstk->bhsk', weight_BHST, v_BHSTK, preferred_element_type=jnp.float32)
  return sum_BHSK.sum(axis=2).astype(q_BHK.dtype)
