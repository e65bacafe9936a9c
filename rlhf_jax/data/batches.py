"""Which rows make batch i, and how ragged token lists become rectangles. NumPy only.

Everything is a pure function of its arguments: batch i needs a seed and i, so a resumed run needs
no iterator state. Shapes: N items or rows, B batch, T columns; valid is 1 on real tokens.
"""
import bisect
from itertools import chain
from typing import NamedTuple

import numpy as np


class Bucket(NamedTuple):
  """One batch of a plan: pad the items to `width`. weight_B is 0 on repeats that fill the batch."""
  width: int
  index_B: np.ndarray
  weight_B: np.ndarray


def rows(n, batch_size, i, seed):
  """The items of batch i out of n: a fresh permutation every epoch, each item once an epoch.

  Batches run on over the end of an epoch, so all have the same size and no item is left out.
  """
  if n < 1:
    raise ValueError('no items to draw batches from')
  epoch_B, place_B = np.divmod(i * batch_size + np.arange(batch_size), n)
  index_B = np.empty(batch_size, np.int64)
  for epoch in np.unique(epoch_B):
    here_B = epoch_B == epoch
    index_B[here_B] = np.random.default_rng([seed, epoch]).permutation(n)[place_B[here_B]]
  return index_B


def pad(token_rows, width, side, pad_id):
  """(tokens_NT int32, valid_NT float32): lists of ids as rows of `width`, padded on `side`."""
  length_N = np.array([len(row) for row in token_rows], np.int64)
  if (length_N > width).any():
    longest = int(length_N.argmax())
    raise ValueError(f'row {longest} has {length_N[longest]} tokens, more than {width}: '
                     'cut it or raise the width')
  column_T = np.arange(width)
  if side == 'left':
    real_NT = column_T >= width - length_N[:, None]
  elif side == 'right':
    real_NT = column_T < length_N[:, None]
  else:
    raise ValueError(f"side is 'left' or 'right', not {side!r}")
  tokens_NT = np.full(real_NT.shape, pad_id, np.int32)
  tokens_NT[real_NT] = _flat(token_rows)
  return tokens_NT, real_NT.astype(np.float32)


def pack(documents, length, pad_id):
  """(tokens_NT, valid_NT, segment_NT): documents packed whole into rows of `length` tokens.

  Longer ones are cut into pieces of `length`; empty ones vanish. Best fit, longest first, leaves
  hardly any padding and sorts the rows, so draw them by `rows`. Segments count from 1 in each row,
  0 is padding; all three arrays are for attention inside a segment only.
  """
  flat, cuts, start = _flat(documents), [], 0
  for document in documents:
    end = start + len(document)
    cuts += [(place, min(length, end - place)) for place in range(start, end, length)]
    start = end
  source_N, size_N = np.array(cuts, np.int64).reshape(-1, 2).T
  row_N, column_N, order_N, n_rows = _best_fit(size_N, length)
  offset = np.arange(size_N.sum()) - np.repeat(np.cumsum(size_N) - size_N, size_N)
  target = np.repeat(row_N * length + column_N, size_N) + offset
  tokens, segment = np.full(n_rows * length, pad_id, np.int32), np.zeros(n_rows * length, np.int32)
  tokens[target] = flat[np.repeat(source_N, size_N) + offset]
  segment[target] = np.repeat(order_N, size_N)
  shape = (n_rows, length)
  return tokens.reshape(shape), (segment > 0).astype(np.float32).reshape(shape), segment.reshape(
    shape)


def buckets(length_N, batch_size, widths, seed):
  """One epoch of batches by length, in random order: each item once, in the narrowest width.

  seed: a number or (seed, epoch) deals the items out; the widths follow one another in the same order
  for every seed, so that runs of several seeds can share one program. The last batch of a width is
  filled up with its own items at weight 0, so there is one shape per width.
  """
  length_N, widths = np.asarray(length_N), np.sort(widths)
  if len(length_N) and length_N.max() > widths[-1]:
    raise ValueError(f'item {length_N.argmax()} has {length_N.max()} tokens, more than the widest '
                     f'bucket {widths[-1]}: cut it or add a width')
  rng, plan = np.random.default_rng(seed), []
  bucket_N = np.searchsorted(widths, length_N)
  for bucket in np.unique(bucket_N):
    index = rng.permutation(np.flatnonzero(bucket_N == bucket))
    filled = -(-len(index) // batch_size) * batch_size
    weight = (np.arange(filled) < len(index)).astype(np.float32)
    plan += [Bucket(int(widths[bucket]), *part) for part in zip(
      np.resize(index, filled).reshape(-1, batch_size), weight.reshape(-1, batch_size),
      strict=True)]
  return [plan[i] for i in np.random.default_rng(len(plan)).permutation(len(plan))]


def fit(size_NK, room_K):
  """row_N: which row each of N items goes to, when rows have room_K of K measures each. The largest go
  first, each to the fullest row that still holds it."""
  size_NK, room_K = np.asarray(size_NK), np.asarray(room_K)
  if (size_NK > room_K).any():
    raise ValueError(f'an item of {size_NK.max(axis=0)} does not fit into a row of {room_K}')
  row_N, left_RK = np.zeros(len(size_NK), np.int64), np.tile(room_K, (len(size_NK), 1))
  for item in np.argsort(-size_NK[:, 0], kind='stable'):
    after_RK = left_RK - size_NK[item]
    row_N[item] = np.where((after_RK >= 0).all(axis=1), after_RK[:, 0], room_K[0]).argmin()
    left_RK[row_N[item]] = after_RK[row_N[item]]
  return row_N


def _flat(token_rows):
  """All tokens one after another."""
  return np.fromiter(chain.from_iterable(token_rows), np.int32)


def _best_fit(size_N, length):
  """(row_N, column_N, order in the row from 1, number of rows): each piece goes, longest first, to
  a row with the least room that still holds it."""
  row_N, column_N, order_N = np.zeros((3, len(size_N)), np.int64)
  rows_with_room, rooms, n_rows, pieces = {}, [], 0, []      # rooms: the sorted keys of the first
  for piece in np.argsort(-size_N, kind='stable').tolist():
    size = int(size_N[piece])
    at = bisect.bisect_left(rooms, size)
    if at < len(rooms):
      room = rooms[at]
      row = rows_with_room[room].pop()
      if not rows_with_room[room]:
        del rows_with_room[room], rooms[at]
    else:
      room, row, n_rows = length, n_rows, n_rows + 1
      pieces.append(0)
    pieces[row] += 1
    row_N[piece], column_N[piece], order_N[piece] = row, length - room, pieces[row]
    if room > size:
      if room - size not in rows_with_room:
        bisect.insort(rooms, room - size)
        rows_with_room[room - size] = []
      rows_with_room[room - size].append(row)
  return row_N, column_N, order_N, n_rows
