"""Texts of mixed lengths in fewer rows: several in one, each a segment, for the same numbers.

A program has fixed shapes; here it holds one computation for each of a few numbers of rows and does the
smallest that holds the texts at hand. Layers, and above all the gradients of their weights, then see
all texts at once and little padding.
"""
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlhf_jax.core import align


class Layout(NamedTuple):
  """Where texts go. at_BT: the place of each valid token in the rows of its block, written one after
  another, and one past them all for others. rows: of each block. blocks: parts of the texts with rows
  of their own, as many as devices hold rows."""
  at_BT: jax.Array
  rows: int
  blocks: int


def packed(model, layout):
  """`model` reading texts as the Layout of their valid tokens says, giving 0 at padding; without one as
  they come. Of all columns the last layer too: those asked for stand anywhere in their rows."""
  if layout is None:
    return model
  at_BT, rows, blocks = layout

  def apply(params, tokens_BT, valid_BT, segment_BT=None, branch_BT=None, at_BN=None):
    if segment_BT is not None:
      raise ValueError('these texts have segments, so they are packed already: read them by the model '
                       'itself')
    (batch, time), size = valid_BT.shape, rows * valid_BT.shape[1]
    text_BT = jnp.broadcast_to(jnp.arange(batch, dtype=jnp.int32)[:, None], valid_BT.shape)

    at_GN = at_BT.reshape(blocks, -1)

    def lay(x_BT):
      made = jax.vmap(lambda x_N, at_N: jnp.zeros(size, x_N.dtype).at[at_N].set(x_N, mode='drop'))(
        x_BT.reshape(blocks, -1), at_GN)
      return made.reshape(-1, time)

    out = model.apply(params, *map(lay, (tokens_BT, valid_BT, text_BT)))
    kept_BN, real_BN = (x if at_BN is None else align.take_columns(x, at_BN) for x in (at_BT, valid_BT))
    out = align.take_columns(out.reshape(blocks, size, *out.shape[2:]), kept_BN.reshape(blocks, -1))
    out = out.reshape(*kept_BN.shape, *out.shape[2:])
    return jnp.where(real_BN.reshape(*real_BN.shape, *[1] * (out.ndim - 2)) > 0, out, 0)
  return model._replace(apply=apply)


def fitted(model, shares, blocks):
  """`model` reading its texts in the smallest of these shares of their rows that holds them, or as they
  come, as they do too where they do not divide into blocks. Its gradient keeps what every share needs:
  for that use `in_rows`."""
  if not shares:
    return model

  def apply(params, tokens_BT, valid_BT, *segments, at_BN=None):
    def run(layout):
      return packed(model, layout).apply(params, tokens_BT, valid_BT, *segments, at_BN=at_BN)
    return run(None) if len(valid_BT) % blocks else in_rows(run, shares, valid_BT, blocks)
  return model._replace(apply=apply)


def in_rows(run, shares, valid_BT, blocks):
  """run(Layout) in the smallest of these shares of the rows of a block that holds the texts, run(None)
  where none does. The results have the same shapes whatever the rows. Under `vmap` all are computed."""
  choices = numbers(shares, len(valid_BT) // blocks) if shares else []
  if not choices:
    return run(None)
  at_BT, most = places(valid_BT, blocks)
  fits = jnp.sum(most > jnp.asarray(choices, jnp.int32), dtype=jnp.int32)
  return jax.lax.switch(fits, [functools.partial(run, layout) for layout in (
    *(Layout(at_BT, rows, blocks) for rows in choices), None)])


def numbers(shares, each):
  """The numbers of rows, fewer than `each`, that are these shares of it, ascending."""
  return [rows for rows in sorted({math.ceil(share * each) for share in shares}) if rows < each]


def places(valid_BT, blocks):
  """(`Layout.at_BT`, the rows of T columns that the fullest block takes)."""
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
