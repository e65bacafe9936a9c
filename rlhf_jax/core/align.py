"""Where a token stands: the one shift, from 'after token t-1' to 'before token t', and the end.

Both skip invalid columns, so the amount and the side of padding change nothing.
"""
import jax
import jax.numpy as jnp


def previous(x_BT, valid_BT, segment_BT=None, fill=0, start=0):
  """x at the last valid column before t, inside the segment of t; `fill` where there is none.

  x is [B, T] or [B, T, ...]. start (static): the first column t of the result.
  """
  column_T = jnp.arange(valid_BT.shape[1])
  seen_BT = jax.lax.cummax(jnp.where(valid_BT > 0, column_T[None], -1), axis=1)
  source_BT = jnp.pad(seen_BT[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
  exists_BT = source_BT >= 0
  if segment_BT is not None:
    exists_BT &= take_columns(segment_BT, source_BT) == segment_BT
  source_BT, exists_BT = source_BT[:, start:], exists_BT[:, start:]
  moved = take_columns(x_BT, source_BT)
  return jnp.where(exists_BT.reshape(exists_BT.shape + (1,) * (moved.ndim - 2)), moved, fill)


def has_previous(valid_BT, segment_BT=None, start=0):
  """Whether a valid token stands before column t, inside the segment of t."""
  return previous(jnp.ones(valid_BT.shape, bool), valid_BT, segment_BT, False, start)


def last(x_BT, valid_BT):
  """x at the last valid column of each row; x is [B, T] or [B, T, ...]."""
  end_B = jnp.max(jnp.where(valid_BT > 0, jnp.arange(valid_BT.shape[1])[None], 0), axis=1)
  return take_columns(x_BT, end_B[:, None])[:, 0]


def take_columns(x_BT, column_BK):
  """x_BT[b, column_BK[b, k]], columns out of range clipped. Sharded rows need no communication."""
  def one(x_T, column_K):
    return jnp.take(x_T, column_K, axis=0, mode='clip')
  return jax.vmap(one)(x_BT, column_BK)
