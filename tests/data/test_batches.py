"""Batches by position: every item once an epoch, nothing lost or doubled in padding and packing."""
from collections import Counter

import numpy as np
import pytest

from rlhf_jax.data import batches


@pytest.mark.parametrize('n, batch_size', [(12, 4), (10, 4), (3, 8), (1, 2), (7, 7)])
def test_rows_every_item_once_an_epoch(n, batch_size):
  stream = np.concatenate([batches.rows(n, batch_size, i, seed=5) for i in range(3 * n)])
  for epoch in stream[:len(stream) // n * n].reshape(-1, n):
    assert sorted(epoch) == list(range(n))


def test_rows_depend_on_seed_and_position_only():
  first = [batches.rows(50, 8, i, seed=1) for i in range(20)]
  assert all((batches.rows(50, 8, i, seed=1) == first[i]).all() for i in (19, 3, 11))
  epochs = np.concatenate(first)[:150].reshape(3, 50)
  other = np.concatenate([batches.rows(50, 8, i, seed=2) for i in range(20)])[:50]
  # two fresh permutations of 50 agree in one place on average
  for a, b in ((epochs[0], epochs[1]), (epochs[1], epochs[2]), (epochs[0], other),
               (epochs[0], np.arange(50))):
    assert (a == b).sum() < 8


def test_rows_of_nothing_are_refused():
  with pytest.raises(ValueError, match='no items'):
    batches.rows(0, 4, 0, seed=1)


def test_pad_by_hand():
  tokens, valid = batches.pad([[5, 6], [], [0, 7, 8]], 3, 'right', pad_id=9)
  assert tokens.tolist() == [[5, 6, 9], [9, 9, 9], [0, 7, 8]]
  assert valid.tolist() == [[1, 1, 0], [0, 0, 0], [1, 1, 1]]
  tokens, valid = batches.pad([[5, 6], [], [0, 7, 8]], 4, 'left', pad_id=9)
  assert tokens.tolist() == [[9, 9, 5, 6], [9, 9, 9, 9], [9, 0, 7, 8]]
  assert valid.tolist() == [[0, 0, 1, 1], [0, 0, 0, 0], [0, 1, 1, 1]]
  assert (tokens.dtype, valid.dtype) == (np.int32, np.float32)
  assert batches.pad([], 3, 'left', 0)[0].shape == (0, 3)


def test_pad_refuses_what_does_not_fit():
  with pytest.raises(ValueError, match='row 1 has 3 tokens, more than 2'):
    batches.pad([[1], [1, 2, 3]], 2, 'left', 0)
  with pytest.raises(ValueError, match="not 'both'"):
    batches.pad([[1]], 2, 'both', 0)


def unpack(tokens, valid, segment):
  """The documents of packed rows, by a naive loop; checks that segments are runs from 1 on."""
  found = []
  for row_tokens, row_valid, row_segment in zip(tokens, valid, segment, strict=True):
    count = row_segment.max()
    in_order = np.sort(row_segment[row_segment > 0])
    assert (row_segment[:len(in_order)] == in_order).all()      # runs, padding behind them
    assert set(in_order) == set(range(1, count + 1))
    assert ((row_segment > 0) == (row_valid > 0)).all()
    found += [tuple(row_tokens[row_segment == s].tolist()) for s in range(1, count + 1)]
  return found


def test_pack_loses_and_doubles_nothing():
  rng = np.random.default_rng(0)
  documents = [rng.integers(0, 99, size).tolist() for size in rng.integers(0, 60, 300)]
  packed = batches.pack(documents, 16, pad_id=99)
  pieces = [tuple(d[i:i + 16]) for d in documents for i in range(0, len(d), 16)]
  assert Counter(unpack(*packed)) == Counter(pieces)
  tokens, valid, segment = packed
  assert (tokens[valid == 0] == 99).all() and (tokens[valid == 1] < 99).all()
  assert tokens.shape[1] == 16 and valid.mean() > 0.97
  assert (tokens.dtype, valid.dtype, segment.dtype) == (np.int32, np.float32, np.int32)


def test_pack_by_hand():
  # longest first: 3 opens a row with room 1; 2 opens a row with room 2; of the two ones, the first
  # goes where it leaves nothing, the second where room is left
  documents = [np.array([1]), np.array([2, 2]), np.array([3, 3, 3]), [4]]
  tokens, _, segment = batches.pack(documents, 4, pad_id=0)
  assert tokens.tolist() == [[3, 3, 3, 1], [2, 2, 4, 0]]
  assert segment.tolist() == [[1, 1, 1, 2], [1, 1, 2, 0]]


def test_pack_of_nothing_is_empty():
  for documents in ([], [[]]):
    assert [part.shape for part in batches.pack(documents, 4, 0)] == [(0, 4)] * 3


LENGTHS = np.random.default_rng(3).integers(0, 33, 101)


def test_buckets_cover_every_item_once_in_the_narrowest_width():
  plan = batches.buckets(LENGTHS, 8, [32, 8, 16], seed=4)
  seen = Counter()
  for width, index, weight in plan:
    assert index.shape == weight.shape == (8,) and weight.dtype == np.float32
    for i, w in zip(index.tolist(), weight.tolist(), strict=True):
      assert width == min(x for x in (8, 16, 32) if x >= LENGTHS[i])
      seen[i] += w
  assert seen == dict.fromkeys(range(101), 1.0)
  in_bucket = np.histogram(LENGTHS, [0, 9, 17, 33])[0]
  assert len(plan) == sum(-(-n // 8) for n in in_bucket)      # rounded up: no batch too many
  assert Counter(b.width for b in plan).keys() == {8, 16, 32}


def test_buckets_are_shuffled_by_seed_and_epoch():
  def plan(seed):
    return [(b.width, *b.index_B) for b in batches.buckets(LENGTHS, 8, [8, 32], seed)]

  assert plan((4, 0)) == plan((4, 0)) and len(plan((4, 0))) == len(plan((4, 1)))
  assert not set(plan((4, 0))) & set(plan((4, 1)))
  widths = [p[0] for p in plan(4)]
  assert widths not in (sorted(widths), sorted(widths)[::-1])
  # Runs of other seeds in the same program get batches of the same shapes.
  assert widths == [p[0] for p in plan(5)] == [p[0] for p in plan((5, 3))]


def test_buckets_fill_a_small_bucket_with_its_own_items():
  (only,) = batches.buckets([3, 2], 5, [4], seed=0)
  assert set(only.index_B) == {0, 1} and only.weight_B.tolist() == [1, 1, 0, 0, 0]
  assert len(batches.buckets([1] * 6, 3, [4], seed=0)) == 2      # full batches need no filling
  assert batches.buckets([], 5, [4], seed=0) == []


def test_buckets_refuse_an_item_wider_than_all():
  with pytest.raises(ValueError, match='item 1 has 9 tokens, more than the widest bucket 8'):
    batches.buckets([2, 9], 4, [4, 8], seed=0)
