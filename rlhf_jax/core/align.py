"""Where a token stands: the one shift, from 'after token t-1' to 'before token t', and the end.

Both skip invalid columns, so the amount and the side of padding change nothing.
"""
import jax
import jax.numpy as jnp


def before(valid_BT):
  """The last valid column before t, -1 where there is none."""
  column_T = jnp.arange(valid_BT.shape[1])
  seen_BT = jax.lax.cummax(jnp.where(valid_BT > 0, column_T[None], -1), axis=1)
  return jnp.pad(seen_BT[:, :-1], ((0, 0), (1, 0)), constant_values=-1)


def has_previous(valid_BT, segment_BT=None):
  """Whether a valid token stands before column t, inside the segment of t."""
  before_BT = before(valid_BT)
  if segment_BT is None:
    return before_BT >= 0
  return (before_BT >= 0) & (take_columns(segment_BT, before_BT) == segment_BT)


def placed(x_BS, counts_BT):
  """x_BS, also of more axes, as the last S columns of [B, T]; 0 before and where nothing counts."""
  start, axes = counts_BT.shape[1] - x_BS.shape[1], x_BS.ndim - 2
  x_BT = jnp.pad(x_BS, ((0, 0), (start, 0)) + ((0, 0),) * axes)
  return jnp.where(counts_BT.reshape(counts_BT.shape + (1,) * axes), x_BT, 0)


def end(valid_BT):
  """The last valid column of each row, 0 where there is none."""
  return jnp.max(jnp.where(valid_BT > 0, jnp.arange(valid_BT.shape[1])[None], 0), axis=1)


def take_columns(x_BT, column_BK):
  """x_BT[b, column_BK[b, k]], columns out of range clipped. Sharded rows need no communication."""
  def one(x_T, column_K):
    return jnp.take(x_T, column_K, axis=0, mode='clip')
  return jax.vmap(one)(x_BT, column_BK)
