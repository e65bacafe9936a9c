"""Texts of mixed lengths in fewer rows: where they go, and the same numbers as they come."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.core import mesh
from rlhf_jax.models import heads, logp, packed


def test_the_longest_first_each_into_the_first_row_with_room():
  """5 | 4 2 | 3, in order of length; then 4 4 and 3 3 2, which fill their rows."""
  row_B, start_B = packed.first_fit(jnp.array([3, 5, 2, 4]), room=6)
  assert (row_B.tolist(), start_B.tolist()) == ([2, 0, 1, 1], [0, 0, 4, 0])
  row_B, start_B = packed.first_fit(jnp.array([3, 4, 2, 4, 3]), room=8)
  assert (row_B.tolist(), start_B.tolist()) == ([1, 0, 1, 0, 1], [0, 0, 6, 4, 3])


VALID = np.array([[0, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 1], [0, 0, 0, 1], [0, 1, 1, 1], [0, 0, 0, 0]])


@pytest.mark.parametrize('blocks, rows, expected', [
  (1, 3, [[24, 8, 9, 24], [0, 1, 2, 3], [10, 24, 24, 11], [24, 24, 24, 7], [24, 4, 5, 6], [24] * 4]),
  (2, 2, [[24, 4, 5, 24], [0, 1, 2, 3], [6, 24, 24, 7], [24, 24, 24, 3], [24, 0, 1, 2], [24] * 4])])
def test_valid_tokens_follow_one_another_in_the_rows_of_their_block(blocks, rows, expected):
  at_BT, most = packed.places(jnp.array(VALID), blocks)
  assert at_BT.tolist() == expected and most == rows


@pytest.mark.parametrize('blocks, rows', [(1, 3), (5, 1)])
def test_packed_texts_give_what_they_give_alone(tiny, text, blocks, rows):
  """Values and gradients of texts of 8, 3, 4, 5 and 4 tokens, which three rows of 8 hold."""
  tokens_BT, valid_BT = text
  valid_BT = valid_BT * (np.cumsum(valid_BT, axis=1) <= [[8], [3], [4], [5], [4]])
  weight_BTD = np.random.default_rng(1).normal(size=(5, 8, 16)) * valid_BT[..., None]
  def total(params, model):
    hidden_BTD = model.apply(params, tokens_BT, valid_BT)
    return (hidden_BTD * weight_BTD).sum(), hidden_BTD
  def run(model):
    return jax.jit(jax.value_and_grad(lambda params: total(params, model), has_aux=True))(tiny.params)
  (_, plain_BTD), expected = run(tiny.model)
  layout = packed.Layout(packed.places(valid_BT, blocks)[0], rows, blocks)
  (_, out_BTD), grads = run(packed.packed(tiny.model, layout))
  np.testing.assert_allclose(out_BTD, plain_BTD * valid_BT[..., None], atol=1e-5)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), grads, expected)
  at_BN = np.random.default_rng(2).integers(0, 8, (5, 3))
  some_BND = packed.packed(tiny.model, layout).apply(tiny.params, tokens_BT, valid_BT, at_BN=at_BN)
  np.testing.assert_allclose(some_BND, out_BTD[np.arange(5)[:, None], at_BN], atol=1e-5)


def test_texts_with_segments_are_refused(tiny, text):
  layout = packed.Layout(packed.places(text[1], 1)[0], 4, 1)
  with pytest.raises(ValueError, match='packed already: read them by the model itself'):
    packed.packed(tiny.model, layout).apply(tiny.params, *text, np.zeros((5, 8), int))
  assert packed.packed(tiny.model, None) is tiny.model is packed.fitted(tiny.model, (), None)


def rows_of(layout):
  return jnp.int32(-1 if layout is None else layout.rows)


@pytest.mark.parametrize('lengths, rows', [
  ([1, 1, 1, 1], 1), ([4, 1, 1, 1], 2), ([4, 4, 1, 1], 3), ([4, 4, 4, 1], -1)])
def test_the_fewest_rows_that_hold_the_texts(lengths, rows):
  """Of 1, 2 and 3 of 4; a share that rounds up to all rows is no choice."""
  valid_BT = jnp.arange(4)[None] < jnp.array(lengths)[:, None]
  assert packed.in_rows(rows_of, (0.25, 0.5, 0.7, 0.9), valid_BT, 1) == rows


def test_the_block_that_needs_most_decides_and_no_share_means_as_they_come():
  valid_BT = jnp.arange(4)[None] < jnp.array([1, 1, 4, 4])[:, None]
  assert packed.in_rows(rows_of, (0.5,), valid_BT, 2) == -1
  assert packed.in_rows(rows_of, (0.5,), valid_BT[:2], 1) == 1
  assert packed.in_rows(rows_of, (), valid_BT, None) == -1
  assert packed.in_rows(rows_of, (0.6,), valid_BT, 4) == -1


def test_values_of_fitted_texts_in_blocks_or_as_they_come(tiny, text):
  """5 texts do not divide into 2 blocks: nothing is 0 at their padding."""
  model = heads.scalar(tiny.model)
  params = {'body': tiny.params, 'head': {'weight': np.linspace(-1, 1, 16, dtype=np.float32),
                                          'bias': np.float32(0.5)}}
  tokens_BT, valid_BT = (np.concatenate([x, x[:1] * 0]) for x in text)
  valid_BT[0, 4:] = valid_BT[4, 3:] = 0
  expected_BT = jax.jit(model.apply)(params, tokens_BT, valid_BT) * valid_BT
  for blocks, rows in ((1, 6), (2, 6), (2, 5)):
    fitted = packed.fitted(model, (0.5,), blocks)
    out_BT = jax.jit(fitted.apply)(params, tokens_BT[:rows], valid_BT[:rows])
    np.testing.assert_allclose(out_BT * valid_BT[:rows], expected_BT[:rows], atol=1e-5)
    assert np.asarray(out_BT)[valid_BT[:rows] == 0].any() == (rows % blocks > 0)


def test_log_probs_where_few_tokens_count(tiny, monkeypatch):
  """Values and gradients with parts of 6 of 42 places, in one block and in three."""
  monkeypatch.setattr(logp, '_CHUNK', 23 * 4)
  monkeypatch.setattr(logp, '_LEAST', 1)
  rng = np.random.default_rng(0)
  tokens_BT = rng.integers(0, 23, (6, 9)).astype(np.int32)
  valid_BT = (np.arange(9)[None] < np.array([9, 3, 4, 5, 2, 3])[:, None]).astype(np.float32)
  weight_BT = rng.normal(size=(6, 9))
  def run(blocks):
    def total(params):
      logp_BT = logp.token_logp(tiny.model, params, tokens_BT, valid_BT, start=2, blocks=blocks)
      return (logp_BT * weight_BT).sum(), logp_BT
    return jax.jit(jax.value_and_grad(total, has_aux=True))(tiny.params)
  (_, plain_BT), expected = run(None)
  for blocks in (1, 3):
    (_, out_BT), grads = run(blocks)
    np.testing.assert_allclose(out_BT, plain_BT, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), grads, expected)


@pytest.mark.parametrize('counting, computed', [
  ([], 0), ([11], 4), ([0, 5, 6, 11], 4), ([0, 1, 2, 6, 11], 8), (list(range(12)), 12)])
def test_parts_without_a_token_that_counts_are_left_out(counting, computed):
  """12 places in parts of 4, or of 2 places of each of 2 blocks."""
  counts_N = np.isin(np.arange(12), counting)
  def run(blocks):
    return np.asarray(logp._by_counted_rows(
      lambda x_N: x_N + 1, 4, [jnp.arange(12)], jnp.array(counts_N).reshape(blocks, -1)))
  assert (run(1) > 0).sum() == computed
  for blocks in (1, 2):
    np.testing.assert_array_equal(run(blocks)[counts_N], np.arange(1, 13)[counts_N])


def test_the_gradient_keeps_no_unembedding_for_each_part(tiny, monkeypatch):
  """Half of a table of 23 x 16 numbers at most, beside what the whole needs once."""
  monkeypatch.setattr(logp, '_CHUNK', 23 * 4)
  monkeypatch.setattr(logp, '_LEAST', 1)
  hidden_BTD, tokens_BT = jnp.ones((4, 8, 16)), jnp.ones((4, 8), jnp.int32)
  def kept(blocks):
    _, back = jax.vjp(lambda params: logp.of_hidden(
      tiny.model, params, hidden_BTD, tokens_BT, jnp.ones((4, 8)), blocks=blocks), tiny.params)
    return sum(x.size for x in jax.tree.leaves(back))
  assert kept(1) < kept(None) + 23 * 16 / 2


def test_rows_stay_on_their_devices(tiny):
  """Each of eight devices packs 4 texts of its own into 2 rows, forwards and backwards, and looks for
  their tokens that count: nothing but numbers of rows and sums goes from one to another."""
  eight = mesh.make(data=8)
  rows, whole = mesh.batch_sharding(eight), mesh.replicated(eight)
  tokens_BT = np.random.default_rng(0).integers(0, 23, (32, 8)).astype(np.int32)
  valid_BT = (np.arange(8)[None] < np.tile([3, 5, 2, 6], 8)[:, None]).astype(np.float32)
  def gradient(shares, blocks):
    def total(params, tokens_BT, valid_BT, layout):
      model = packed.packed(tiny.model, layout)
      return logp.token_logp(model, params, tokens_BT, valid_BT, start=1, blocks=blocks).sum()
    return lambda params, tokens_BT, valid_BT: packed.in_rows(
      lambda layout: (rows_of(layout), jax.grad(total)(params, tokens_BT, valid_BT, layout)),
      shares, valid_BT, blocks)
  made = jax.jit(gradient((0.5,), 8), in_shardings=(whole, rows, rows), out_shardings=whole).lower(
    tiny.params, tokens_BT, valid_BT).compile()
  assert 'all-gather' not in made.as_text() and 'all-reduce' in made.as_text()
  taken, grads = made(*jax.device_put((tiny.params, tokens_BT, valid_BT), (whole, rows, rows)))
  _, expected = jax.jit(gradient((), None))(tiny.params, tokens_BT, valid_BT)
  assert taken == 2
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), grads, expected)
