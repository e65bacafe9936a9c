"""Texts of mixed lengths in fewer rows: several in one, each a segment, for the same numbers.

A program has fixed shapes; here it holds one computation for each of a few numbers of rows and does the
smallest that holds the texts at hand. Layers, and above all the gradients of their weights, then see
all texts at once and little padding.
"""
import functools
import math

import jax
import jax.numpy as jnp


def packed(model, rows, blocks=1):
  """`model` reading its texts in `rows` rows of each block, which must hold them, as `places` lays them
  out; rows None, or segments given: as they come. What it gives at padding is 0. blocks: parts of the
  texts with rows of their own, as many as devices hold rows."""
  if rows is None:
    return model

  def apply(params, tokens_BT, valid_BT, *segments):
    if _given(segments):
      return model.apply(params, tokens_BT, valid_BT, *segments)
    (batch, time), size = valid_BT.shape, rows * valid_BT.shape[1]
    at_BT, text_BT = places(valid_BT, blocks)[0], jnp.broadcast_to(
      jnp.arange(batch, dtype=jnp.int32)[:, None], valid_BT.shape)

    def in_blocks(function, *arrays):
      made = jax.vmap(function)(*(x.reshape(blocks, -1, *x.shape[1:]) for x in arrays))
      return made.reshape(-1, *made.shape[2:])

    def lay(x_BT):
      return in_blocks(lambda x, at: jnp.zeros(size, x.dtype).at[at].set(x, mode='drop').reshape(
        rows, time), x_BT, at_BT)

    out = model.apply(params, *map(lay, (tokens_BT, valid_BT, text_BT)))
    return in_blocks(lambda x, at: jnp.take(
      x.reshape(size, *x.shape[2:]), at, axis=0, mode='fill', fill_value=0), out, at_BT)
  return model._replace(apply=apply)


def fitted(model, shares, blocks=1):
  """`model` reading its texts in the smallest of these shares of their rows that holds them, or as they
  come. Its gradient keeps what every share needs: for that use `in_rows`."""
  if not shares:
    return model

  def apply(params, tokens_BT, valid_BT, *segments):
    if _given(segments):
      return model.apply(params, tokens_BT, valid_BT, *segments)
    parts = blocks if len(valid_BT) % blocks == 0 else 1
    return in_rows(lambda rows: packed(model, rows, parts).apply(params, tokens_BT, valid_BT),
                   shares, valid_BT, parts)
  return model._replace(apply=apply)


def _given(segments):
  return any(x is not None for x in segments)


def in_rows(run, shares, valid_BT, blocks=1):
  """run(rows) for the smallest of these shares of the rows of a block that holds these texts, run(None)
  where none does. The results have the same shapes whatever the rows. Under `vmap` all are computed."""
  if not shares:
    return run(None)
  each = len(valid_BT) // blocks
  choices = [rows for rows in sorted({math.ceil(share * each) for share in shares}) if rows < each]
  most = places(valid_BT, blocks)[1]
  fits = jnp.sum(most > jnp.asarray(choices, jnp.int32), dtype=jnp.int32)
  return jax.lax.switch(fits, [functools.partial(run, rows) for rows in (*choices, None)])


def places(valid_BT, blocks=1):
  """(at_BT, rows): where each valid token goes in the rows of its block, written one after another, and
  past them all for others; how many rows of T columns the fullest block takes."""
  batch, time = valid_BT.shape
  real_BT = valid_BT > 0
  length_GB = real_BT.sum(axis=1, dtype=jnp.int32).reshape(blocks, -1)
  row_GB, start_GB = jax.vmap(functools.partial(first_fit, room=time))(length_GB)
  first_B1 = (row_GB * time + start_GB).reshape(batch, 1)
  rank_BT = jnp.cumsum(real_BT, axis=1, dtype=jnp.int32) - 1
  return jnp.where(real_BT, first_B1 + rank_BT, batch * time), row_GB.max() + 1


def first_fit(length_B, room):
  """(row_B, start_B) of texts of these lengths in rows of `room` columns: the longest first, each into
  the first row that it fits into (first-fit decreasing: at most 11/9 of the fewest rows, and 2/3 of one
  more, Dosa 2007)."""
  def put(filled_R, length):
    row = jnp.argmax(filled_R + length <= room)
    return filled_R.at[row].add(length), (row, filled_R[row])
  order_B = jnp.argsort(-length_B)
  _, placed = jax.lax.scan(put, jnp.zeros_like(length_B), length_B[order_B])
  return jax.tree.map(lambda x_B: x_B[jnp.argsort(order_B)].astype(jnp.int32), placed)
