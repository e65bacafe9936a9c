"""Episodes: the layout of rows, and that each number comes from the right role."""
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.models.decode import Sample
from rlhf_jax.rollout.candidates import candidates
from rlhf_jax.rollout.episodes import Parts, episodes, sampled

# Two prompts of 3 columns, the first with one column of padding; answers of 2 and 3 tokens.
PROMPT, PROMPT_VALID = np.array([[0, 5, 6], [7, 8, 9]]), np.array([[0.0, 1, 1], [1, 1, 1]])
BATCH = {'prompt': PROMPT, 'valid': PROMPT_VALID, 'group': np.array([3, 4]),
         'index': np.array([40, 41])}
MASK = np.array([[0.0, 0, 0, 1, 1, 0], [0, 0, 0, 1, 1, 1]])
VALID = np.array([[0.0, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1]])


def generate(params, prompt_BP, prompt_valid_BP, key, samples=1):
  """Answers of 20 + params; the third column is after the end in even rows."""
  np.testing.assert_array_equal(prompt_valid_BP, PROMPT_VALID)
  prompt = jnp.repeat(prompt_BP, samples, axis=0)
  answer = 20 + params + jnp.arange(3)[None] + 3 * jnp.arange(len(prompt))[:, None]
  mask = jnp.tile(jnp.array(MASK), (1, 1)).repeat(samples, axis=0)
  return Sample(jnp.concatenate([prompt, answer], 1), mask, -0.5 * mask)


def token_logp(params, tokens_BT, valid_BT):
  """Not 0 outside the answer: that is for `episodes` to see to."""
  np.testing.assert_array_equal(valid_BT, VALID)
  return -(params + tokens_BT / 100)


def read(params, tokens_BT, valid_BT):
  return token_logp(params['policy'], tokens_BT, valid_BT), params['value'] + tokens_BT * valid_BT


def score(params, tokens_BT, valid_BT, extra):
  return params + (tokens_BT * valid_BT).sum(1) + extra.get('bonus_B', 0)


@pytest.fixture(scope='module')
def made():
  parts = Parts(generate, read, token_logp, score)
  def run(params, frozen, batch, kl_coef):
    return episodes(parts, params, frozen, sampled(parts, params, batch, None), kl_coef)
  return SimpleNamespace(run=run, rollout=run(
    {'policy': 1, 'value': 0.25}, {'reference': 2, 'score': 1000.0}, BATCH, 0.1))


def test_rows_are_prompt_then_answer(made):
  out = made.rollout
  np.testing.assert_array_equal(out.tokens_BT, [[0, 5, 6, 21, 22, 23], [7, 8, 9, 24, 25, 26]])
  np.testing.assert_array_equal(out.valid_BT, VALID)
  np.testing.assert_array_equal(out.mask_BT, MASK)
  np.testing.assert_array_equal(out.sampled_logp_BT, -0.5 * MASK)


def test_each_number_is_of_its_role_and_log_probs_are_those_of_the_answer(made):
  out = made.rollout
  np.testing.assert_allclose(out.logp_BT, [[0, 0, 0, -1.21, -1.22, 0],
                                           [0, 0, 0, -1.24, -1.25, -1.26]], rtol=1e-6)
  np.testing.assert_allclose(out.ref_logp_BT - out.logp_BT, -MASK, atol=1e-6)     # 1 lower everywhere
  np.testing.assert_allclose(out.value_BT[0], [0.25, 5.25, 6.25, 21.25, 22.25, 0.25])
  # The score reads valid tokens only: 5 + 6 + 21 + 22 and 7 + ... + 26.
  np.testing.assert_allclose(out.score_B, [1054, 1099])


def test_defaults_and_what_is_passed_on(made):
  out = made.rollout
  np.testing.assert_array_equal(out.weight_B, [1, 1])
  np.testing.assert_allclose(out.kl_coef_B, [0.1, 0.1], rtol=1e-6)
  np.testing.assert_array_equal(out.index_B, [40, 41])
  np.testing.assert_array_equal(out.group_B, [3, 4])
  other = made.run({'policy': 1, 'value': 0.0}, {'reference': 2, 'score': 0.0},
                   BATCH | {'extra': {'bonus_B': np.array([0.5, 0.75])}}, jnp.array([0.1, 0.3]))
  np.testing.assert_allclose(other.kl_coef_B, [0.1, 0.3], rtol=1e-6)
  np.testing.assert_allclose(other.score_B, [54.5, 99.75])
  assert all(x.dtype == jnp.float32 for x in jax.tree.leaves((other.logp_BT, other.score_B)))


def test_candidates_are_prompt_major_and_scored_on_what_is_valid():
  two = partial(generate, samples=2)
  out = candidates(1, 1000.0, PROMPT, PROMPT_VALID, None, generate=two, score=score)
  assert out.tokens_BKT.shape == (2, 2, 6)
  np.testing.assert_array_equal(out.tokens_BKT[:, :, 3], [[21, 24], [27, 30]])
  np.testing.assert_array_equal(out.tokens_BKT[1, :, :3], [[7, 8, 9]] * 2)
  np.testing.assert_array_equal(out.mask_BKT[:, 1], MASK)
  # Prompt 0: 11 + 21 + 22 and 11 + 24 + 25; prompt 1: 24 + 27 + 28 + 29 and 24 + 30 + 31 + 32.
  np.testing.assert_allclose(out.score_BK, [[1054, 1060], [1108, 1117]])
  none = candidates(1, None, PROMPT, PROMPT_VALID, None, generate=two, score=None)
  np.testing.assert_array_equal(none.score_BK, np.zeros((2, 2)))
