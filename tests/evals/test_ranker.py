"""A policy as a ranker: log-probs by the plain softmax, accuracies and summary by hand."""
import jax
import numpy as np
import pytest
from scipy import special

from rlhf_jax.core import spec
from rlhf_jax.evals import baselines, ranker
from rlhf_jax.models import sizes, transformer

START = 3


@pytest.fixture(scope='module')
def model():
  return transformer.decoder(sizes.config('micro', width=16, heads=2, vocab_size=19, context=16,
                                          unroll=False))


@pytest.fixture(scope='module')
def params(model):
  rng, shapes = np.random.default_rng(0), spec.abstract(model.spec)
  return jax.tree.map(lambda s: rng.normal(0, 0.5, s.shape).astype(np.float32), shapes)


def side(seed, rows=6):
  """Prompts of 1 to 3 tokens, padded on the left, and answers of 1 to 5, padded on the right."""
  rng = np.random.default_rng(seed)
  prompt = np.arange(START) >= np.random.default_rng(9).integers(0, START, (rows, 1))
  answer = np.arange(5) < rng.integers(1, 6, (rows, 1))
  tokens = np.concatenate([np.random.default_rng(8).integers(1, 19, (rows, START)),
                           rng.integers(1, 19, (rows, 5))], 1).astype(np.int32)
  return tokens, np.concatenate([prompt, answer], 1).astype(np.float32)


def plain(model, params, tokens_BT, valid_BT):
  """Mean log-prob of an answer's tokens, each row alone and without padding."""
  out, width = [], tokens_BT.shape[1]
  logits = jax.jit(lambda tokens: model.unembed(
    params, model.apply(params, tokens, np.ones((1, width), np.float32))[0]))
  for row, keep in zip(tokens_BT, valid_BT, strict=True):
    text, first = row[keep > 0], int(keep[:START].sum())
    behind = np.zeros((1, width - len(text)), np.int32)    # a causal model does not see it
    logp = special.log_softmax(np.asarray(logits(np.concatenate([text[None], behind], 1)),
                                          np.float64), -1)
    out.append(np.mean([logp[t - 1, text[t]] for t in range(first, len(text))]))
  return np.array(out)


def test_margin_and_accuracy_are_of_the_mean_token_of_the_answer(model, params):
  pairs = {'helpful': {'chosen': side(1), 'rejected': side(2)},
           'harmful': {'chosen': side(3, 4), 'rejected': side(4, 4)}}
  rows = jax.jit(lambda p, x: ranker.rows(model, p, x, START))(params, pairs)
  margins = {kind: plain(model, params, *sides['chosen']) - plain(model, params, *sides['rejected'])
             for kind, sides in sorted(pairs.items())}
  np.testing.assert_allclose(rows['rank_margin'], np.concatenate([*margins.values()]), atol=2e-4)
  for kind, margin in margins.items():
    assert np.abs(margin).min() > 1e-3
    np.testing.assert_array_equal(rows[f'rank_{kind}'], margin > 0)
  assert 0 < rows['rank_accuracy'].mean() < 1 and len(rows['rank_accuracy']) == 10


def test_a_long_answer_is_not_a_bad_one_and_equal_ones_tie(model, params):
  tokens, valid = side(1)
  same = jax.jit(lambda p, x: ranker.rows(model, p, x, START))(
    params, {'helpful': {'chosen': (tokens, valid), 'rejected': (tokens, valid)}})
  np.testing.assert_array_equal(same['rank_accuracy'], 0.5)
  uniform = jax.tree.map(np.zeros_like, params)          # every token has log-prob -ln 19
  mean = ranker.mean_logp(model, uniform, *side(2), START)
  np.testing.assert_allclose(mean, -np.log(19), rtol=1e-5)


def test_the_ceiling_is_the_score_and_no_comparisons_are_no_rows(model, params):
  pairs = {'harmful': {'chosen': side(1), 'rejected': side(3)}}
  made = ranker.ceiling(lambda scale, tokens, valid, extra: scale * valid.sum(1), 2.0, pairs)
  gap = side(1)[1].sum(1) - side(3)[1].sum(1)
  assert (gap == 0).any() and (gap > 0).any() and (gap < 0).any()
  for name in ('rank_harmful', 'rank_accuracy'):
    np.testing.assert_array_equal(made[name], (1 + np.sign(gap)) / 2)
  assert ranker.rows(model, params, {}, START) == ranker.ceiling(None, None, {}) == {}
  assert ranker.summary({}, {}, {}) == {}


def test_summary_by_hand():
  start, end, best = np.array([0., 1, 0, 0.5]), np.array([1., 1, 0, 0]), np.array([1., 1, 1, 0])
  made = ranker.summary(*({'rank_accuracy': x, 'rank_margin': x + 1} for x in (start, end)),
                        {'rank_accuracy': best})
  assert made.pop('rank_margin') == {'start': 1.375, 'end': 1.5}
  made, = made.values()
  assert (made['start'], made['end'], made['ceiling']) == (0.375, 0.5, 0.75)
  assert made['ceiling_interval'] == list(baselines.accuracy_interval(best)[1:])
  assert made['end_interval'] == list(baselines.accuracy_interval(end)[1:])
  # differences 1, 0, 0, -1/2: mean 1/8, squares (49 + 1 + 1 + 25) / 64
  assert made['gain'] == 0.125
  assert made['gain_stderr'] == pytest.approx(np.sqrt(76 / 64 / 3 / 4))
