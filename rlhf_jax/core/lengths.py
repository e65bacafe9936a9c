"""Texts of mixed lengths in arrays of one width: computed at the width that they need.

A program has fixed shapes; here it holds one computation for each of a few widths and does the smallest
that holds the rows at hand. Rows sorted by length and taken a few at a time need little more than
their tokens. Nothing past the last valid column of a row may matter, as in all that reads text here.
"""
import functools

import jax
import jax.numpy as jnp


def needed(valid_BT):
  """Columns up to the last one that is valid, of each row."""
  column_T = jnp.arange(1, valid_BT.shape[1] + 1)
  return jnp.max(jnp.where(valid_BT > 0, column_T[None], 0), axis=1)


def at_width(run, widths, most):
  """run(width) at the smallest of `widths` that holds `most` columns, at the last where none does. The
  results have the same shapes whatever the width. Under `vmap` all widths are computed."""
  fits = jnp.sum(most > jnp.asarray(widths[:-1], jnp.int32), dtype=jnp.int32)
  return jax.lax.switch(fits, [functools.partial(run, w) for w in widths])


def by_length(tree, valid_BT):
  """The rows of a tree of arrays [B, ...], shortest first; and where each of them stands then."""
  order_B = jnp.argsort(needed(valid_BT))
  return jax.tree.map(lambda x: x[order_B], tree), jnp.argsort(order_B)


def in_parts(read, widths, parts):
  """read(tokens_BT, valid_BT, rest) on `parts` equal parts of the rows, shortest first, each at the
  width it needs; arrays [B, T] of the result are filled up with 0. widths: ascending, the last is T."""
  def one(part):
    tokens_BT, valid_BT, rest = part
    def run(width):
      made = read(tokens_BT[:, :width], valid_BT[:, :width], rest)
      return jax.tree.map(lambda x: jnp.pad(x, ((0, 0), (0, widths[-1] - width))) if x.ndim > 1 else x,
                          made)
    return at_width(run, widths, needed(valid_BT).max())

  def whole(tokens_BT, valid_BT, rest):
    rows = valid_BT.shape[0]
    texts, place_B = by_length((tokens_BT, valid_BT, rest), valid_BT)
    made = jax.lax.map(one, jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), texts))
    return jax.tree.map(lambda x: x.reshape(rows, *x.shape[2:])[place_B], made)
  return whole
