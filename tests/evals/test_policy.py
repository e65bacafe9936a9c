"""Evaluation of a policy: its exact KL against a naive one, the summary by hand, equal parts."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from rlhf_jax.core import spec
from rlhf_jax.evals import policy
from rlhf_jax.models import decode, sizes, transformer

PROMPT = np.array([[0, 0, 5, 6, 7], [8, 9, 5, 6, 7], [0, 5, 9, 9, 8]], np.int32)
PROMPT_VALID = (PROMPT > 0).astype(np.float32)
ANSWER = np.array([[11, 12, 2, 0], [13, 14, 15, 16], [2, 0, 0, 0]], np.int32)
MASK = np.array([[1, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 0]], np.float32)


@pytest.fixture(scope='module')
def model():
  return transformer.decoder(sizes.config('micro', width=16, heads=2, vocab_size=23, context=16,
                                          unroll=False))


@pytest.fixture(scope='module')
def two_params(model):
  rng, shapes = np.random.default_rng(0), spec.abstract(model.spec)
  return tuple(jax.tree.map(lambda s: rng.normal(0, 0.3, s.shape).astype(np.float32), shapes)
               for _ in range(2))


def generate(params, prompt, valid, key):
  """The answers above, whatever the policy."""
  del params, valid, key
  mask = jnp.pad(MASK, ((0, 0), (PROMPT.shape[1], 0)))
  return decode.Sample(jnp.concatenate([prompt, ANSWER], 1), mask, jnp.zeros(mask.shape))


def evaluate(model, params, reference, with_truth=True, harmful_B=None, ranked=None):
  """Scores that show what they were given: the scale times the sum of the tokens they may see."""
  def score(scale, tokens, valid, extra):
    assert extra == {}
    return scale * (tokens * valid).sum(1)

  def truth(params, tokens, valid, extra):
    return extra['worth'] + valid.sum(1)

  run = policy.make(model, generate=generate, score=score, truths={'true_reward': truth} if with_truth
                    else {}, prompt_width=PROMPT.shape[1], harmful_B=harmful_B,
                    tests={'a': score, 'b': score})
  frozen = {'reference': reference, 'score': 0.5, 'tests': {'a': 1.0, 'b': 10.0}, 'held': {
    'prompt': PROMPT, 'valid': PROMPT_VALID, 'extra': {'worth': np.array([100., 200, 300])},
    'ranked': ranked or {}}}
  return jax.jit(run)(params, frozen, jax.random.key(0))


def test_rows_by_hand(model, two_params):
  rows = evaluate(model, two_params[0], two_params[0])
  # prompts add up to 18, 35, 31 and answers to 25, 58, 2; padding inside answers is 0 here
  np.testing.assert_allclose(rows['score'], [43 / 2, 93 / 2, 33 / 2])
  np.testing.assert_allclose(rows['score_a'], [43, 93, 33])
  np.testing.assert_allclose(rows['score_b'], [430, 930, 330])
  assert rows['length'].tolist() == [3, 4, 1]
  np.testing.assert_allclose(rows['true_reward'], [100 + 6, 200 + 9, 300 + 5])
  np.testing.assert_allclose(rows['kl'], 0, atol=1e-6)


def test_kl_is_the_sum_over_sampled_prefixes_of_the_exact_one(model, two_params):
  rows = evaluate(model, *two_params, with_truth=False)
  assert 'true_reward' not in rows
  apply = jax.jit(lambda params, tokens: model.unembed(params, model.apply(
    params, tokens, jnp.ones(tokens.shape))[0]))
  for b in range(3):
    tokens = np.concatenate([PROMPT[b][PROMPT_VALID[b] > 0], ANSWER[b][MASK[b] > 0]])
    row = np.zeros((1, 9), np.int32)
    row[0, :len(tokens)] = tokens                       # padded behind, which causal models ignore
    new, old = (special.log_softmax(np.asarray(apply(p, row), np.float64), -1) for p in two_params)
    start = int(PROMPT_VALID[b].sum())
    expected = sum((np.exp(new[t - 1]) * (new[t - 1] - old[t - 1])).sum()
                   for t in range(start, len(tokens)))
    assert expected > 0.05
    assert float(rows['kl'][b]) == pytest.approx(expected, rel=1e-4)


def test_helpful_and_harmful_prompts_apart(model, two_params):
  rows = evaluate(model, two_params[0], two_params[0], harmful_B=np.array([False, True, False]))
  np.testing.assert_allclose(rows['score_helpful'], [43 / 2, 33 / 2])
  np.testing.assert_allclose(rows['score_harmful'], [93 / 2])
  np.testing.assert_allclose(rows['true_reward_harmful'], [209])
  assert 'refusal_benign' not in rows                  # nothing here knows what a refusal is
  whole = {'refusal': np.array([1., 0, 1, 0])}
  parts = policy.by_kind(whole, np.array([False, True, True, False]))
  assert {k: v.tolist() for k, v in parts.items()} == {'refusal_benign': [1, 0],
                                                       'refusal_harmful': [0, 1]}
  assert list(policy.by_kind(whole, np.zeros(4, bool))) == ['refusal_benign']      # no empty array
  assert policy.by_kind(whole, None) == {}


def test_kinds_by_hand():
  start = {'refusal_benign': np.array([1., 1, 0, 0]), 'score_harmful': np.array([5.]), 'score': 0}
  end = {'refusal_benign': np.array([1., 0, 0, 0]), 'score_harmful': np.array([7.]), 'score': 0}
  got = policy.kinds(start, end)
  z2 = 1.959964 ** 2                                                       # Wilson's at 1 of 4
  centre, half = (1 / 4 + z2 / 8) / (1 + z2 / 4), np.sqrt(z2 * (3 + z2) / 64) / (1 + z2 / 4)
  assert got['refusal_benign'] == pytest.approx(
    {'start': 0.5, 'end': 0.25, 'low': centre - half, 'high': centre + half}, rel=1e-5)
  assert got['score_harmful'] == {'start': 5, 'end': 7, 'low': 7, 'high': 7}
  many = np.array([1., 2, 3, 6])                                             # sd sqrt(14 / 3)
  spread = 1.96 * np.sqrt(14 / 3 / 4)
  got = policy.kinds({'score_helpful': many}, {'score_helpful': many})['score_helpful']
  assert [got['low'], got['high']] == pytest.approx([3 - spread, 3 + spread])


def test_the_policy_ranks_comparisons_beside(model, two_params):
  pairs = {'helpful': {'chosen': (PROMPT, PROMPT_VALID), 'rejected': (PROMPT, PROMPT_VALID)}}
  wide = jax.tree.map(lambda x: np.concatenate([x, x], 1), pairs)
  rows = evaluate(model, two_params[0], two_params[0], ranked=wide)
  assert rows['rank_accuracy'].tolist() == [0.5, 0.5, 0.5] and not rows['rank_margin'].any()
  assert 'rank_accuracy' not in evaluate(model, two_params[0], two_params[0])


def test_means():
  both = policy.means(lambda x, y: {'a': x + y, 'b': x * y})(jnp.array([1., 3]), jnp.array([2., 4]))
  assert {k: float(v) for k, v in both.items()} == {'a': 5, 'b': 7}


START = {'score': np.array([1., 2, 3]), 'kl': np.zeros(3), 'length': np.array([4., 5, 9]),
         'true_reward': np.array([0., 0.5, 1])}
END = {'score': np.array([2., 4, 6]), 'kl': np.array([1., 2, 6]), 'length': np.array([1., 2, 3]),
       'true_reward': np.array([0.5, 0.5, 0.8])}


def test_gain_by_hand():
  got = policy.gain(START, END, {'eval/true_reward': np.array([0.5, 0.9, 0.6])})
  # score: differences 1, 2, 3, sd 1; reward: 0.5, 0, -0.2, mean 0.1, squares 0.16 + 0.01 + 0.09
  expected = {'pm_score_start': 2, 'pm_score_end': 4, 'kl_end': 3, 'length_start': 6,
              'length_end': 2, 'pm_score_sd_start': np.sqrt(2 / 3), 'pm_gain': 2,
              'pm_gain_stderr': 1 / np.sqrt(3), 'true_reward_start': 0.5, 'true_reward_end': 0.6,
              'true_reward_peak': 0.9, 'gain': 0.1, 'gain_stderr': np.sqrt(0.26 / 2 / 3)}
  assert got == pytest.approx(expected) and all(type(v) is float for v in got.values())
  assert policy.line(got) == ('true reward 0.500 -> 0.600 (gain 0.100 +- 0.208), '
                              'score 2.00 -> 4.00, KL 3.00 nats')


def test_gain_without_a_known_truth():
  start, end = ({k: v for k, v in rows.items() if k != 'true_reward'} for rows in (START, END))
  got = policy.gain(start, end, {})
  assert not any('true' in k or k.startswith('gain') for k in got) and got['pm_gain'] == 2
  assert policy.line(got) == 'score 2.00 -> 4.00, KL 3.00 nats'


@pytest.mark.parametrize('n', [1, 3, 4, 7, 8])
def test_parts_of_one_shape_join_to_the_whole(n):
  shapes = []

  def function(part):
    shapes.append(part['x'].shape)
    return {'twice': jnp.asarray(2 * part['x']), 'sum': jnp.asarray(part['x'].sum(1) + part['y'])}
  rows = {'x': np.arange(2. * n).reshape(n, 2), 'y': 100. * np.arange(n)}
  got = policy.in_parts(function, rows, 4)
  np.testing.assert_array_equal(got['twice'], 2 * rows['x'])
  np.testing.assert_array_equal(got['sum'], rows['x'].sum(1) + rows['y'])
  assert set(shapes) == {(4, 2)} and len(shapes) == -(-n // 4)
