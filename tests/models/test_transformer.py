"""The decoder against an implementation in numpy, and what must not change its result."""
import dataclasses
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.core import mesh, spec
from rlhf_jax.models import attention, logp, parts, sizes, transformer


def _norm(x, scale):
  return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * scale


def _rotated(x_K, position):
  half = x_K.size // 2
  out = np.zeros_like(x_K)
  for i in range(half):
    angle = position * 10000.0 ** (-i / half)
    turn = (x_K[i] + 1j * x_K[i + half]) * np.exp(1j * angle)
    out[i], out[i + half] = turn.real, turn.imag
  return out


def reference(config, params, tokens_T):
  """hidden_TD of one unpadded text: one token, one head at a time, in float64."""
  params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
  x_TD = params['embed'][tokens_T]
  for i in range(config.layers):
    w = {name: x[i] for name, x in params['layers'].items()}
    y_TD, mixed_TD = _norm(x_TD, w['attention_norm']), np.zeros_like(x_TD)
    for h in range(config.heads):
      q, k, v = (y_TD @ w[name][:, h] for name in ('query', 'key', 'value'))
      q, k = (np.stack([_rotated(row, t) for t, row in enumerate(x)]) for x in (q, k))
      for t in range(len(tokens_T)):
        score = k[:t + 1] @ q[t] / np.sqrt(config.head_size)
        weight = np.exp(score - score.max())
        mixed_TD[t] += (weight / weight.sum()) @ v[:t + 1] @ w['output'][h]
    x_TD = x_TD + mixed_TD
    y_TF = _norm(x_TD, w['mlp_norm']) @ w['up']
    gelu = 0.5 * y_TF * (1 + np.tanh(np.sqrt(2 / np.pi) * (y_TF + 0.044715 * y_TF**3)))
    x_TD = x_TD + gelu @ w['down']
  return _norm(x_TD, params['norm'])


def test_equals_numpy_whatever_the_padding(tiny, text):
  tokens_BT, valid_BT = text
  hidden_BTD = tiny.apply(tiny.params, tokens_BT, valid_BT)
  for tokens_T, valid_T, hidden_TD in zip(tokens_BT, valid_BT > 0, hidden_BTD, strict=True):
    np.testing.assert_allclose(hidden_TD[valid_T],
                               reference(tiny.config, tiny.params, tokens_T[valid_T]),
                               atol=2e-5)


def test_the_content_of_padding_changes_nothing(tiny, text):
  tokens_BT, valid_BT = text
  first = tiny.apply(tiny.params, tokens_BT, valid_BT)
  # Ids outside the vocabulary included.
  second = tiny.apply(tiny.params, np.where(valid_BT > 0, tokens_BT, [-1, 99] * 4), valid_BT)
  np.testing.assert_array_equal(first, second)


def test_rows_without_any_text_stay_finite(tiny):
  hidden_BTD = tiny.apply(tiny.params, np.zeros((5, 8), np.int32), np.zeros((5, 8), np.float32))
  assert np.isfinite(hidden_BTD).all()


def test_packed_segments_equal_separate_texts(tiny):
  rng = np.random.default_rng(1)
  parts = [rng.integers(0, 23, n) for n in (3, 4, 1)]
  tokens_1T, valid_1T = np.concatenate(parts)[None], np.ones((1, 8), np.float32)
  segment_1T = np.array([[4, 4, 4, 2, 2, 2, 2, 7]])
  packed_TD = jax.jit(tiny.model.apply)(tiny.params, tokens_1T, valid_1T, segment_1T)[0]
  separate_TD = np.concatenate([reference(tiny.config, tiny.params, part) for part in parts])
  np.testing.assert_allclose(packed_TD, separate_TD, atol=2e-5)


def test_positions_count_valid_tokens_inside_a_segment():
  valid_BT = jnp.array([[0, 1, 1, 0, 1, 1, 1]])
  np.testing.assert_array_equal(transformer.positions(valid_BT)[0, [1, 2, 4, 5, 6]],
                                [0, 1, 2, 3, 4])
  segment_BT = jnp.array([[0, 0, 0, 0, 0, 9, 9]])
  np.testing.assert_array_equal(transformer.positions(valid_BT, segment_BT)[0, [1, 2, 4, 5, 6]],
                                [0, 1, 2, 0, 1])


def test_unrolling_and_remat_change_neither_value_nor_gradient(tiny, text):
  tokens_BT, valid_BT = text
  def compiled(**change):
    apply = transformer.decoder(dataclasses.replace(tiny.config, **change)).apply
    def value(params):
      return (valid_BT[..., None] * jnp.sin(apply(params, tokens_BT, valid_BT))).sum()
    traced = jax.jit(jax.value_and_grad(value)).trace(tiny.params)
    return str(traced.jaxpr), traced.lower().compile()(tiny.params)
  program, expected = compiled()
  for change in {'unroll': True}, {'remat': True}, {'remat': 'dots'}:
    changed, out = compiled(**change)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), expected, out)
    assert program != changed                              # the option does something


def test_what_is_kept_for_the_backward_pass(tiny, text):
  """Products of the program: with remat those of the forward pass come twice, with 'dots' only those
  between activations, scores and weighted values."""
  def products(remat):
    apply = transformer.decoder(dataclasses.replace(tiny.config, unroll=True, remat=remat)).apply
    gradient = jax.grad(lambda params: jnp.sin(apply(params, *text)).sum())
    return str(jax.make_jaxpr(gradient)(tiny.params)).count(' dot_general[')
  none, dots, full = (products(remat) for remat in (False, 'dots', True))
  blocks = 1                                               # 8 columns are one block of queries
  assert dots - none in (blocks, 2 * blocks) and full - none > 3 + blocks


def test_blocks_of_queries_change_nothing(monkeypatch):
  rng = np.random.default_rng(3)
  q, k, v = (jnp.array(rng.normal(size=(2, 11, 2, 4)), jnp.float32) for _ in range(3))
  group_BT = jnp.array(rng.integers(0, 2, (2, 11)))
  branch_BT = jnp.array(rng.integers(0, 3, (2, 11)))
  whole = [attention.attention(q, k, v, group_BT, b) for b in (None, branch_BT)]
  monkeypatch.setattr(attention, '_LEAST', 1)              # 11 columns in blocks of 3
  parts = [attention.attention(q, k, v, group_BT, b) for b in (None, branch_BT)]
  for a, b in zip(whole, parts, strict=True):
    np.testing.assert_allclose(a, b, atol=1e-6)
  assert np.abs(whole[0] - whole[1]).max() > 0.01


def test_branches_equal_separate_texts(tiny):
  """[stem, branch 1, branch 2] is the two texts stem + branch, each read alone; so is a second tree."""
  rng = np.random.default_rng(1)
  trees = [[rng.integers(0, 23, n).tolist() for n in sizes] for sizes in ((2, 2, 1), (0, 1, 2))]
  rows = [(ids, s, branch) for s, tree in enumerate(trees) for branch, part in enumerate(tree)
          for ids in part]
  tokens_1T, segment_1T, branch_1T = (np.array(x)[None] for x in zip(*rows, strict=True))
  made_TD = jax.jit(tiny.model.apply)(tiny.params, tokens_1T, np.ones((1, 8), np.float32), segment_1T,
                                      branch_1T)[0]
  expected = []
  for stem, first, second in trees:
    alone = [reference(tiny.config, tiny.params, np.array(stem + part)) for part in (first, second)]
    expected += [alone[0], alone[1][len(stem):]]
  np.testing.assert_allclose(made_TD, np.concatenate(expected), atol=2e-5)


@pytest.mark.parametrize('change', [
  {'unroll': False}, {'remat': 'dots', 'layers': 1},
  {'parallel': True, 'positions': 'learned', 'kv_heads': 1, 'qk_norm': True}])
def test_columns_alone_are_those_of_the_whole(tiny, change):
  """Values and gradients of a few columns, some asked for twice and some out of range, of texts with
  padding, segments and branches."""
  model = transformer.decoder(dataclasses.replace(tiny.config, **{'unroll': True} | change))
  params, rng = spec.init(model.spec, jax.random.key(3)), np.random.default_rng(4)
  tokens_BT, valid_BT = rng.integers(0, 23, (3, 8)), (rng.random((3, 8)) < 0.8).astype(np.float32)
  segment_BT = np.array([[0] * 8, [1] * 5 + [2] * 3, [0] * 8])
  texts = segment_BT, np.array([[0] * 8, [0] * 8, [0, 0, 1, 1, 1, 2, 2, 2]])
  at_BN = np.array([[7, 3, 3], [4, 5, 0], [-1, 99, 6]])
  weight_BND = rng.normal(size=(3, 3, 16))

  def some(params):
    made_BND = model.apply(params, tokens_BT, valid_BT, *texts, at_BN=at_BN)
    return (made_BND * weight_BND).sum(), made_BND

  def whole(params):
    made_BTD = model.apply(params, tokens_BT, valid_BT, *texts)
    made_BND = made_BTD[jnp.arange(3)[:, None], np.clip(at_BN, 0, 7)]
    return (made_BND * weight_BND).sum(), made_BND
  ((_, value), grads), ((_, expected), expected_grads) = (
    jax.jit(jax.value_and_grad(f, has_aux=True))(params) for f in (some, whole))
  np.testing.assert_allclose(value, expected, atol=1e-5)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), grads, expected_grads)


def test_a_prompt_is_read_alike_whether_layers_are_written_out(tiny, text):
  written_out = transformer.decoder(dataclasses.replace(tiny.config, unroll=True))
  one, other = (jax.jit(partial(model.prefill, room=2))(tiny.params, *text)
                for model in (tiny.model, written_out))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), one, other)


def test_the_last_layer_is_computed_for_the_columns_asked_for(tiny, text):
  """Of 2 layers' products, 12 D^2 a token each, the second is left with its keys and values, 2 D^2."""
  def flops(**at):
    apply = jax.jit(lambda params: transformer.decoder(dataclasses.replace(
      tiny.config, unroll=True)).apply(params, *text, **at))
    return apply.lower(tiny.params).compile().cost_analysis()['flops']
  assert flops(at_BN=np.zeros((5, 1), np.int32)) < 0.7 * flops()


@pytest.mark.parametrize('inner, columns', [(5, 3), (3, 5)])
def test_products_and_their_gradients(inner, columns):
  rng = np.random.default_rng(2)
  x_ND, weight_DF, grad_NF = (rng.normal(size=s) for s in ((7, inner), (inner, columns), (7, columns)))
  for dtype, tolerance in (('float32', 1e-6), ('bfloat16', 2e-2)):
    arrays = [jnp.array(a, dtype) for a in (x_ND, weight_DF)]
    def outcome(x_ND, weight_DF):
      value, pull = jax.vjp(parts.product, x_ND, weight_DF)
      return value, *pull(jnp.array(grad_NF, dtype))
    made = jax.jit(outcome)(*arrays)
    for a, b in zip(made, (x_ND @ weight_DF, grad_NF @ weight_DF.T, x_ND.T @ grad_NF), strict=True):
      assert a.dtype == dtype
      np.testing.assert_allclose(a.astype(jnp.float32), b, rtol=tolerance, atol=3 * tolerance)


def test_products_of_float32_numbers_and_bfloat16_weights():
  """Rounded once; sums and what comes out are float32; gradients of weights are of their type."""
  rng = np.random.default_rng(3)
  x_ND, weight_DF, grad_NF = (jnp.array(rng.normal(size=s), jnp.float32)
                              for s in ((7, 300), (300, 4), (7, 4)))
  def outcome(x_ND, weight_DF):
    value, pull = jax.vjp(parts.product, x_ND, weight_DF)
    return value, *pull(grad_NF)
  arrays = x_ND, weight_DF.astype(jnp.bfloat16)
  rounded = [np.asarray(a.astype(jnp.bfloat16), np.float64) for a in (x_ND, weight_DF, grad_NF)]
  x, weight, grad = rounded
  made = jax.jit(outcome)(*arrays)
  for a, b, dtype, tolerance in zip(made, (x @ weight, grad @ weight.T, x.T @ grad),
                                    ('float32', 'float32', 'bfloat16'), (1e-5, 1e-5, 2**-8),
                                    strict=True):
    assert a.dtype == dtype
    np.testing.assert_allclose(a.astype(jnp.float32), b, rtol=tolerance, atol=tolerance)
  # Products take bfloat16 numbers and write float32. XLA's CPU backend would multiply float32 copies of
  # weights that are turned: the axis that sums go across is named instead.
  products = re.findall(r'dot_general.*?dims = \[1\] x \[(.)\].*?: \((\S+), (\S+)\) -> (\S+)',
                        jax.jit(outcome).lower(*arrays).as_text())
  assert sorted(axis for axis, *_ in products) == ['0', '0', '1']
  assert all('bf16' in a and 'bf16' in b and 'f32' in out for _, a, b, out in products)


def test_bfloat16_computes_in_bfloat16_and_stays_close(tiny, text):
  tokens_BT, valid_BT = text
  model = transformer.decoder(dataclasses.replace(tiny.config, dtype='bfloat16'))
  hidden_BTD = jax.jit(model.apply)(tiny.params, tokens_BT, valid_BT)
  assert hidden_BTD.dtype == jnp.bfloat16
  exact_BTD = tiny.apply(tiny.params, tokens_BT, valid_BT)
  error_BTD = (hidden_BTD.astype(jnp.float32) - exact_BTD)[valid_BT > 0]
  assert 1e-4 < np.abs(error_BTD).mean() < 0.05       # 8 bits: about 0.4% of values near 1.5
  assert model.unembed(tiny.params, hidden_BTD[0]).dtype == jnp.float32
  # Nearer where products alone are in bfloat16, and decoding then keeps its past in float32.
  mixed = transformer.decoder(dataclasses.replace(tiny.config, dtype='bfloat16',
                                                  activation_dtype='float32'))
  mixed_BTD = jax.jit(mixed.apply)(tiny.params, tokens_BT, valid_BT)
  assert mixed_BTD.dtype == jnp.float32
  nearer_BTD = (mixed_BTD - exact_BTD)[valid_BT > 0]
  assert 1e-4 < np.abs(nearer_BTD).mean() < 0.8 * np.abs(error_BTD).mean()
  hidden_BD, cache = mixed.prefill(tiny.params, tokens_BT[:, :-1], valid_BT[:, :-1], 1)
  assert {hidden_BD.dtype, cache.keys[0].dtype} == {jnp.dtype('float32')}
  last_BD, _ = mixed.decode(mixed.ready(tiny.params), tokens_BT[:, -1], cache)
  real_B = valid_BT[:, -1] > 0
  np.testing.assert_allclose(last_BD[real_B], mixed_BTD[real_B, -1], atol=0.02)


def test_initial_sizes():
  model = transformer.decoder(sizes.config('micro'))       # 2 layers, D = 64, F = 256
  params = spec.init(model.spec, jax.random.key(0))
  layers = params['layers']
  # 1 / sqrt(64) = 0.125; those that write into the residual stream 1 / sqrt(2 * 2) of it.
  for array, stddev in ((params['embed'], 0.125), (layers['query'], 0.125), (layers['up'], 0.125),
                        (layers['output'], 0.125 / 2), (layers['down'], 0.0625 / 2)):
    assert abs(float(array.std()) / stddev - 1) < 0.03     # at least 8,192 draws: error 0.8%


def test_untied_tables(tiny):
  model = transformer.decoder(dataclasses.replace(tiny.config, tie_embeddings=False))
  table_VD = jnp.arange(23 * 16.0).reshape(23, 16)
  hidden_ND = np.eye(16, dtype=np.float32)[:3]
  logits_NV = model.unembed({**tiny.params, 'unembed': table_VD}, hidden_ND)
  np.testing.assert_allclose(logits_NV, table_VD[:, :3].T)
  np.testing.assert_allclose(tiny.model.unembed(tiny.params, hidden_ND),
                             tiny.params['embed'][:, :3].T, rtol=1e-6)


def test_too_long_a_text_is_refused(tiny):
  with pytest.raises(ValueError, match='65 columns do not fit model micro: its context is 64'):
    tiny.model.apply(tiny.params, np.zeros((1, 65), np.int32), np.ones((1, 65)))
  with pytest.raises(ValueError, match='65 columns do not fit'):
    tiny.model.prefill(tiny.params, np.zeros((1, 60), np.int32), np.ones((1, 60)), 5)


@pytest.mark.parametrize('name', sizes.PAPER_LAYERS)
def test_every_rung_lowers_with_its_gradient(name):
  """Value, gradient and shardings of the whole model, without its memory."""
  model, made = transformer.decoder(sizes.config(name)), mesh.make(2, 2, 2)
  def loss(params, tokens_BT, valid_BT):
    return -logp.token_logp(model, params, tokens_BT, valid_BT).sum()
  places, rows = spec.shardings(model.spec, made, mesh.TRAIN_RULES), mesh.batch_sharding(made)
  step = jax.jit(jax.value_and_grad(loss), in_shardings=(places, rows, rows),
                 out_shardings=(mesh.replicated(made), places))
  out = step.lower(spec.abstract(model.spec), jax.ShapeDtypeStruct((8, 64), jnp.int32),
                   jax.ShapeDtypeStruct((8, 64), jnp.float32)).out_info
  shapes = jax.tree.map(lambda x: (x.shape, x.dtype), out[1])
  assert shapes == jax.tree.map(lambda x: (x.shape, x.dtype), spec.abstract(model.spec))
