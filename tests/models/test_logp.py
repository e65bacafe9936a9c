"""Token log-probs against a full log-softmax in numpy, in value and gradient."""
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, rel_entr

from rlhf_jax.core import mesh, spec
from rlhf_jax.models import logp, sizes, transformer

TEMPERATURE = 0.7


def full(tiny, tokens_BT, valid_BT, segment_BT=None, params=None):
  """(logp_BTV of token t given the tokens before it, whether it counts), by a loop."""
  params = tiny.params if params is None else params
  hidden_BTD = np.asarray(jax.jit(tiny.model.apply)(params, tokens_BT, valid_BT, segment_BT))
  logits_BTV = hidden_BTD @ np.asarray(params['embed'], np.float64).T / TEMPERATURE
  out_BTV, counts_BT = np.zeros(logits_BTV.shape), np.zeros(tokens_BT.shape, bool)
  segment_BT = np.zeros_like(tokens_BT) if segment_BT is None else segment_BT
  for b, t in np.ndindex(*tokens_BT.shape):
    before = [s for s in range(t) if valid_BT[b, s] and segment_BT[b, s] == segment_BT[b, t]]
    if before and valid_BT[b, t]:
      out_BTV[b, t], counts_BT[b, t] = log_softmax(logits_BTV[b, before[-1]]), True
  return out_BTV, counts_BT


def run(function, tiny, *args, **options):
  """function(model, ...) in one program."""
  return jax.jit(lambda params: function(tiny.model, params, *args, **options))(tiny.params)


def at(logp_BTV, id_BTK):
  return np.take_along_axis(logp_BTV, id_BTK, axis=-1)


@pytest.fixture
def parts(monkeypatch):
  """At most 12 rows at a time: 40 are 4 parts; 35, 30 and 15 need padding."""
  monkeypatch.setattr(logp, '_CHUNK', 23 * 12)
  monkeypatch.setattr(logp, '_LEAST', 1)


def test_token_logp(tiny, text):
  tokens_BT, valid_BT = text
  segment_BT = np.array([[0, 0, 0, 0, 1, 1, 1, 1]] * 5)
  for segment in (None, segment_BT):
    expected_BTV, _ = full(tiny, tokens_BT, valid_BT, segment)
    out_BT = run(logp.token_logp, tiny, tokens_BT, valid_BT, TEMPERATURE, segment)
    np.testing.assert_allclose(out_BT, at(expected_BTV, tokens_BT[..., None])[..., 0], atol=1e-5)
    assert out_BT.dtype == jnp.float32


def test_start_leaves_out_columns(tiny, text, parts):
  tokens_BT, valid_BT = text
  whole_BT = run(logp.token_logp, tiny, tokens_BT, valid_BT)
  part_BT = run(logp.token_logp, tiny, tokens_BT, valid_BT, start=5)
  np.testing.assert_allclose(part_BT[:, 5:], whole_BT[:, 5:], atol=1e-6)
  np.testing.assert_array_equal(part_BT[:, :5], np.zeros((5, 5)))
  whole, part = (run(logp.top_logp, tiny, tokens_BT, valid_BT, k=4, start=s) for s in (0, 5))
  np.testing.assert_allclose(part[0][:, 5:], whole[0][:, 5:], atol=1e-6)
  np.testing.assert_array_equal(part[1][:, 5:], whole[1][:, 5:])
  assert not part[0][:, :5].any()


def test_nothing_after_a_token_matters(tiny, text):
  tokens_BT, valid_BT = text
  other_BT = np.where(np.arange(8) < 5, tokens_BT, (tokens_BT + 1) % 23)
  function = jax.jit(lambda x_BT: logp.token_logp(tiny.model, tiny.params, x_BT, valid_BT))
  first, second = function(tokens_BT), function(other_BT)
  np.testing.assert_array_equal(first[:, :5], second[:, :5])
  assert np.abs(first[0, 5:] - second[0, 5:]).min() > 0


def test_gradient(tiny, text, parts):
  tokens_BT, valid_BT = text
  weight_BT = np.random.default_rng(1).normal(size=tokens_BT.shape).astype(np.float32)
  _, counts_BT = full(tiny, tokens_BT, valid_BT)
  def naive(params):
    hidden_BTD = tiny.model.apply(params, tokens_BT, valid_BT)
    # Row by row, the hidden state of the valid token before: written out by hand for `text`.
    before = np.array([[0, 0, 1, 2, 3, 4, 5, 6], [0, 0, 0, 0, 3, 4, 5, 6],
                       [0, 0, 1, 2, 0, 0, 0, 0], [0, 0, 1, 2, 3, 4, 0, 0],
                       [0, 0, 1, 0, 0, 2, 5, 6]])
    moved_BTD = hidden_BTD[np.arange(5)[:, None], before]
    logp_BTV = jax.nn.log_softmax(moved_BTD @ params['embed'].T / TEMPERATURE)
    logp_BT = jnp.take_along_axis(logp_BTV, tokens_BT[..., None], -1)[..., 0]
    return (jnp.where(counts_BT, logp_BT, 0) * weight_BT).sum()
  def ours(params, temperature):
    logp_BT = logp.token_logp(tiny.model, params, tokens_BT, valid_BT, temperature, start=1)
    return (logp_BT * weight_BT).sum()                     # column 0 is 0 in any case
  expected = jax.jit(jax.grad(naive))(tiny.params)
  out = jax.jit(jax.grad(ours))(tiny.params, jnp.float32(TEMPERATURE))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), out, expected)


def test_logp_at_and_top_logp(tiny, text, parts):
  tokens_BT, valid_BT = text
  expected_BTV, counts_BT = full(tiny, tokens_BT, valid_BT)
  id_BTK = np.random.default_rng(2).integers(0, 23, (5, 8, 3))
  out_BTK = run(logp.logp_at, tiny, tokens_BT, valid_BT, id_BTK, TEMPERATURE)
  np.testing.assert_allclose(out_BTK, at(expected_BTV, id_BTK), atol=1e-5)
  top_BTK, top_id_BTK = run(logp.top_logp, tiny, tokens_BT, valid_BT, 4, TEMPERATURE)
  np.testing.assert_allclose(top_BTK, -np.sort(-expected_BTV, axis=-1)[..., :4], atol=1e-5)
  np.testing.assert_allclose(at(expected_BTV, top_id_BTK)[counts_BT], top_BTK[counts_BT], atol=1e-5)


def test_of_hidden_is_token_logp(tiny, text):
  tokens_BT, valid_BT = text
  before_BSD = run(logp.hidden_before, tiny, tokens_BT, valid_BT, start=2)
  np.testing.assert_allclose(run(logp.of_hidden, tiny, before_BSD, tokens_BT, valid_BT),
                             run(logp.token_logp, tiny, tokens_BT, valid_BT, start=2), atol=1e-6)
  hidden_BTD, counts_BT = np.asarray(tiny.apply(tiny.params, *text)), np.asarray(valid_BT) > 0
  for b, s in np.ndindex(*before_BSD.shape[:2]):
    past = np.flatnonzero(counts_BT[b, :2 + s])
    if len(past):
      np.testing.assert_allclose(before_BSD[b, s], hidden_BTD[b, past[-1]], atol=1e-5)


def test_exact_kl(tiny, text, parts):
  tokens_BT, valid_BT = text
  other = jax.tree.map(lambda x: x * np.float32(1.2), tiny.params)
  p_BTV, counts_BT = full(tiny, tokens_BT, valid_BT)
  q_BTV, _ = full(tiny, tokens_BT, valid_BT, params=other)
  expected_BT = rel_entr(np.exp(p_BTV), np.exp(q_BTV)).sum(-1)
  function = jax.jit(lambda ref: logp.exact_kl(tiny.model, tiny.params, ref, tokens_BT, valid_BT,
                                               TEMPERATURE, start=2))
  out_BT = function(other)
  np.testing.assert_allclose(out_BT[:, 2:], expected_BT[:, 2:], atol=1e-5)
  assert expected_BT[counts_BT].min() > 1e-3
  np.testing.assert_array_equal(out_BT[:, :2], 0)
  np.testing.assert_allclose(function(tiny.params), 0, atol=1e-7)
  # Rounding alone makes some of these sums negative.
  near = jax.tree.map(lambda x: x * np.float32(1 + 1e-6), tiny.params)
  assert function(near).min() >= 0


def _shapes(jaxpr):
  """Shapes of every array a program makes, in all its inner programs."""
  for equation in jaxpr.eqns:
    yield from (x.aval.shape for x in equation.outvars)
    for value in equation.params.values():
      for inner in value if isinstance(value, (list, tuple)) else [value]:
        inner = getattr(inner, 'jaxpr', inner)
        if hasattr(inner, 'eqns'):
          yield from _shapes(inner)


def test_no_array_of_batch_time_vocabulary():
  vocab = 4099                                             # a number no other dimension has
  model = transformer.decoder(sizes.config('micro', vocab_size=vocab))
  ints, floats = (jax.ShapeDtypeStruct((4, 600), dtype) for dtype in (jnp.int32, jnp.float32))
  def loss(params, tokens_BT, valid_BT):
    return logp.token_logp(model, params, tokens_BT, valid_BT).sum()
  program = jax.make_jaxpr(jax.grad(loss))(spec.abstract(model.spec), ints, floats)
  wide = [shape for shape in _shapes(program.jaxpr) if vocab in shape and 64 not in shape]
  assert any(shape[-1] == vocab for shape in wide)         # the logits of a part are there
  assert max(np.prod(shape) for shape in wide) <= 2**21 < 4 * 600 * vocab


def test_eight_devices_compute_what_one_does(tiny, text):
  """Of some columns alone, so that the last layer is computed for those; only weights travel."""
  tokens_BT, valid_BT = (np.concatenate([x, x[:3]]) for x in text)
  config, made = sizes.config('micro', width=16, heads=2, vocab_size=24), mesh.make(2, 2, 2)
  model, pinned = transformer.decoder(config), transformer.decoder(config, mesh.pin(made))
  params = jax.device_get(spec.init(model.spec, jax.random.key(3)))
  def loss(model, params, tokens_BT, valid_BT):
    logp_BT = logp.token_logp(model, params, tokens_BT, valid_BT, start=2)
    return (logp_BT**2).sum(), logp_BT
  one, eight = (jax.jit(jax.value_and_grad(functools.partial(loss, m), has_aux=True))
                for m in (model, pinned))
  expected = one(params, tokens_BT, valid_BT)
  places = spec.shardings(model.spec, made, mesh.TRAIN_RULES)
  spread = jax.device_put(params, places)
  assert spread['layers']['up'].addressable_shards[0].data.shape == (2, 8, 32)
  batch = mesh.put_batch((tokens_BT, valid_BT), made)
  eight = eight.lower(spread, *batch).compile()
  gathered = re.findall(r'= \w+\[([\d,]+)\]\S* all-gather\(', eight.as_text())
  assert gathered and not [shape for shape in gathered if shape.split(',')[0] in ('64', '48', '24')]
  out = eight(spread, *batch)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4), out, expected)
