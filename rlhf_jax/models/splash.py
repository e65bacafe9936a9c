"""Attention by the TPU's kernel, splash (shipped with JAX): scores never leave the chip, blocks of keys
after a query are skipped, forwards and backwards.

Memory is linear in the length. Not run on a TPU by us yet: its numbers are tested by interpreting the
kernel on CPU, and that it lowers for TPU.
"""
from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import splash_attention as kernels

from rlhf_jax.models.attention import filled, grouped, on_mesh

_LANES = 128                                # blocks are a multiple of it
_BLOCKS = 512, 256, _LANES                  # queries and keys in a block, the largest that divides
_BRANCHES = 1, 2                            # the answers of a packed pair
_NOWHERE = jnp.iinfo(jnp.int32).max         # the group of the other branch


def attention(mesh, interpret=False):
  """A function as `models.attention.attention`, on the mesh as of `models.attention.on_mesh`.

  A text may have branches 1 and 2 after its stem, no more: each is attended to with the stem in a pass
  of its own, since the kernel knows groups only.
  """
  local = on_mesh(mesh, partial(_local, interpret=interpret))

  def attend(q_BTHK, k_BTHK, v_BTHK, group_BT, branch_BT=None):
    passes = [group_BT] if branch_BT is None else [
      jnp.where((branch_BT == 0) | (branch_BT == branch), group_BT, _NOWHERE) for branch in _BRANCHES]
    first, *others = (local(q_BTHK, k_BTHK, v_BTHK, ids_BT) for ids_BT in passes)
    for branch, other_BTHK in zip(_BRANCHES[1:], others, strict=False):
      first = jnp.where((branch_BT == branch)[..., None, None], other_BTHK, first)
    return first
  return grouped(attend, keys_axis=2)


def _local(q_BTHK, k_BTHK, v_BTHK, group_BT, interpret):
  """One device's rows and heads; columns are filled up to whole blocks."""
  time, heads, size = q_BTHK.shape[1:]
  q_BTHK *= jnp.asarray(size ** -0.5, q_BTHK.dtype)
  q_BTHK, k_BTHK, v_BTHK, ids_BT = (filled(x, _LANES) for x in (q_BTHK, k_BTHK, v_BTHK, group_BT))
  width = ids_BT.shape[1]
  block = next(block for block in _BLOCKS if width % block == 0)
  kernel = kernels.make_splash_mha_single_device(
    kernels.MultiHeadMask([kernels.CausalMask((width, width))] * heads), interpret=interpret,
    block_sizes=kernels.BlockSizes(*[block] * 8))
  q_BHTK, k_BHTK, v_BHTK = (x.swapaxes(1, 2) for x in (q_BTHK, k_BTHK, v_BTHK))
  mixed_BHTK = jax.vmap(kernel)(q_BHTK, k_BHTK, v_BHTK, kernels.SegmentIds(ids_BT, ids_BT))
  return mixed_BHTK.swapaxes(1, 2)[:, :time]
