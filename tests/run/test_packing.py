"""Pairs packed into rows, the prompt once: the loss and the gradients of a row for each text."""
import functools

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from rlhf_jax.core import mesh as meshes
from rlhf_jax.data import batches, layouts
from rlhf_jax.data.pairs import Comparisons
from rlhf_jax.run import build, comparisons
from tests.contracts import tiny

EOC, PAD = 2, 22
WIDTH = 48


def made(seed=0, n=8):
  """Comparisons of 0 to 9 tokens of prompt and 1 to 9 of each answer; the first has no prompt."""
  rng = np.random.default_rng(seed)
  def rows(low):
    return [rng.integers(3, 20, k).tolist() for k in rng.integers(low, 10, n)]
  prompt = rows(0)
  prompt[0] = []
  return Comparisons(prompt, rows(1), rows(1), [''] * n, [''] * n, np.arange(n, dtype=np.int32) % 3)


DATA, WEIGHT_B = made(), np.array([1, 1, 0, 1, 2, 1, 1, 1], np.float32)


@functools.cache
def gradient(packed, lm_weight=0.7):
  loss = build.preference_loss(tiny.MODEL, lm_weight, packed)
  return jax.jit(jax.value_and_grad(lambda params, batch: loss(params, batch, None, {}), has_aux=True))


def normalised(packed, rows=None, order=range(8), end=EOC, width=WIDTH):
  bucket = batches.Bucket(width, np.array(order), WEIGHT_B[np.array(order)])
  made = layouts.pack(DATA, bucket, rows, end, PAD) if packed else layouts.batch(
    DATA, bucket, end, PAD)
  return made.normalise()


def test_a_packed_row_by_hand():
  data = Comparisons([[3], [4, 5]], [[6, 7], [8]], [[9], [10]], [''] * 2, [''] * 2, np.array([5, 6]))
  bucket = batches.Bucket(64, np.array([1, 0]), np.array([1, 2], np.float32))
  made = layouts.pack(data, bucket, 2, EOC, PAD)
  # equally long pairs: in the order of the bucket; prompt, chosen, end, rejected, end
  assert made.tokens_NT[0, :13].tolist() == [4, 5, 8, 2, 10, 2, 3, 6, 7, 2, 9, 2, PAD]
  assert made.segment_NT[0, :13].tolist() == [1] * 6 + [2] * 6 + [0]
  assert made.branch_NT[0, :13].tolist() == [0, 0, 1, 1, 2, 2, 0, 1, 1, 1, 2, 2, 0]
  assert made.valid_NT.sum() == 12 and not made.valid_NT[1].any()
  assert made.lm_at_NM[0, :6].tolist() == [0, 1, 2, 6, 7, 8]
  assert made.lm_weight_NM[0, :7].tolist() == [1, 1, 1, 2, 2, 2, 0] and not made.lm_weight_NM[1].any()
  assert made.chosen_at_NP.tolist() == [[3, 9], [0, 0]]
  assert made.rejected_at_NP.tolist() == [[5, 11], [0, 0]]
  assert made.weight_NP.tolist() == [[1, 2], [0, 0]] and made.label_NP.tolist() == [[1, 1], [0, 0]]
  assert made.group_NP.tolist() == [[6, 5], [0, 0]] and made.index_NP.tolist() == [[1, 0], [0, 0]]


@pytest.mark.parametrize('end', [EOC, None])
def test_packed_is_unpacked(end):
  params = tiny.parameters(1, True)
  plain = gradient(False)(params, normalised(False, end=end, width=24))
  packed = gradient(True)(params, normalised(True, 6, end=end, width=64))
  tiny.assert_close(packed, plain, rtol=2e-5, atol=2e-6)
  assert abs(float(plain[0][1]['lm_loss'])) > 1 and float(plain[0][1]['preference_loss']) > 0.1


def test_neither_order_nor_padding_nor_what_it_holds_changes_the_loss():
  params, batch = tiny.parameters(1, True), normalised(True, 6, width=64)
  expected = gradient(True)(params, batch)
  for other in (normalised(True, 6, [5, 1, 7, 0, 3, 2, 6, 4], width=64), batch.replace(
      tokens_NT=np.where(batch.valid_NT > 0, batch.tokens_NT, 7))):
    tiny.assert_close(gradient(True)(params, other), expected, rtol=2e-5, atol=2e-6)
  # Two columns of padding after each prompt token move everything, and change nothing.
  def spread(x):
    return np.stack([x, np.zeros_like(x)], 2).reshape(len(x), -1)
  wide = batch.replace(
    tokens_NT=spread(batch.tokens_NT), valid_NT=spread(batch.valid_NT),
    segment_NT=np.repeat(batch.segment_NT, 2, 1), branch_NT=np.repeat(batch.branch_NT, 2, 1),
    chosen_at_NP=2 * batch.chosen_at_NP, rejected_at_NP=2 * batch.rejected_at_NP,
    lm_weight_NM=batch.lm_weight_NM * 0)
  (_, narrow_aux), _ = expected
  long = jax.jit(build.preference_loss(build.transformer.decoder(tiny.sizes.config(
    'micro', width=16, heads=2, vocab_size=tiny.VOCAB, context=128, unroll=False)), 0.0, True))
  _, aux = long(params, wide, None, {})
  for name in ('preference_loss', 'margin'):
    np.testing.assert_allclose(aux[name], narrow_aux[name], rtol=2e-5)


def test_eight_devices_are_one():
  batch, params = normalised(True, 8, width=64), tiny.parameters(1, True)
  mesh = meshes.make(2, 2, 2)
  there = build.place(params, tiny.JUDGE.spec, mesh)
  made = gradient(True)(there, meshes.put_batch(batch, mesh))
  tiny.assert_close(made, gradient(True)(params, batch), rtol=2e-5, atol=2e-6)
  assert len(jax.tree.leaves(made)[-1].sharding.device_set) == 8


@pytest.mark.parametrize('parts', [1, 3])
def test_every_pair_once_in_few_shapes_the_same_for_all_seeds(parts):
  # Lengths of a long tail: batches of the two seeds need other numbers of rows.
  rng, short = np.random.default_rng(0), made(1, 400)
  data = short._replace(prompt=[rng.integers(3, 20, 1 + int(n)).tolist()
                                for n in rng.exponential(60, 400).clip(max=360)])
  def config(seed):
    return ConfigDict({'seed': seed, 'batch_size': 32, 'pack': (256, 512), 'harmful_weight': 3.0,
                       'eval_pairs': 64})
  harmful_N = np.arange(400) % 2 == 0
  laid = comparisons.layout(data, config(0), EOC, PAD)
  sources = [comparisons.source(laid, harmful_N, config(s), [0, 1], parts) for s in (0, 1)]
  shapes, seen = [], {0: [], 1: []}
  for i in range(sources[0][1]):
    rows = [host(config(s), i) for s, (host, _) in enumerate(sources)]
    shapes += {b.tokens_NT.shape for b in rows}
    assert rows[0].tokens_NT.shape == rows[1].tokens_NT.shape and len(rows[0].tokens_NT) % parts == 0
    for s, b in enumerate(rows):
      used = b.label_NP > 0
      seen[s] += b.index_NP[used & (b.weight_NP > 0)].tolist()
      expected = np.where(harmful_N[b.index_NP[used]], 3, 1) * (b.weight_NP[used] > 0)
      np.testing.assert_array_equal(b.weight_NP[used], expected)
  assert sorted(seen[0]) == sorted(seen[1]) == list(range(400)) and seen[0] != seen[1]
  assert len(set(shapes)) <= 2 * 8
  held = comparisons.held_out(laid, config(0), 2)
  np.testing.assert_allclose([held.weight_NP.sum(), held.lm_weight_NM.sum()], 1, rtol=1e-6)
  assert held.tokens_NT.shape[0] == 2 and held.tokens_NT.shape[1] % 2 == 0
  assert sorted(held.index_NP[held.weight_NP > 0]) == list(range(64))


def test_fit_by_hand():
  # 6 and 4 fill a row of 10; 5 opens the next, and 3 goes there: the fuller one is full
  assert batches.fit([[5], [6], [3], [4]], [10]).tolist() == [1, 0, 1, 0]
  # of the second measure a row holds 3 only
  assert batches.fit([[5, 2], [6, 2], [3, 1], [4, 1]], [10, 3]).tolist() == [1, 0, 1, 0]
  assert batches.fit([[5, 2], [6, 2], [4, 2]], [10, 3]).tolist() == [1, 0, 2]
  with pytest.raises(ValueError, match='does not fit into a row'):
    batches.fit([[5], [11]], [10])
