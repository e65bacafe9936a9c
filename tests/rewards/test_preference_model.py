"""The score is read on an end-of-context token behind the last valid one, wherever that stands."""
import jax.numpy as jnp
import numpy as np

from rlhf_jax.core.types import Model
from rlhf_jax.rewards.preference_model import preference_model, with_end_of_context

EOC = 9
TOKENS = np.array([[0, 0, 4, 5], [4, 5, 0, 0], [0, 4, 5, 7], [4, 0, 5, 0]])
VALID = np.array([[0.0, 0, 1, 1], [1, 1, 0, 0], [0, 1, 1, 1], [1, 0, 1, 0]])


def test_it_stands_in_the_first_free_column():
  tokens, valid = with_end_of_context(jnp.array(TOKENS), jnp.array(VALID), EOC)
  np.testing.assert_array_equal(tokens, [[0, 0, 4, 5, 9], [4, 5, 9, 0, 0], [0, 4, 5, 7, 9],
                                         [4, 0, 5, 9, 0]])
  np.testing.assert_array_equal(valid, [[0, 0, 1, 1, 1], [1, 1, 1, 0, 0], [0, 1, 1, 1, 1],
                                        [1, 0, 1, 1, 0]])


def running_sum(params, tokens_BT, valid_BT, *, at_BN):
  """A 'network' whose value is 100 times the token plus the sum of the valid tokens so far."""
  value_BT = params * tokens_BT + jnp.cumsum(tokens_BT * valid_BT, axis=1)
  return jnp.take_along_axis(value_BT, at_BN, axis=1)


def test_the_score_is_read_there_and_padding_changes_nothing():
  score = preference_model(Model(None, running_sum, None), EOC)
  # 900 on the token itself, and 4 + 5 + 9, or 4 + 5 + 7 + 9, before and on it.
  expected = [918, 918, 925, 918]
  np.testing.assert_allclose(score(100, jnp.array(TOKENS), jnp.array(VALID), {}), expected)
  junk = np.where(VALID > 0, TOKENS, 7)
  wide = [jnp.array(np.pad(x, ((0, 0), (2, 3)), constant_values=c)) for x, c in ((junk, 7), (VALID, 0))]
  np.testing.assert_allclose(score(100, *wide), expected)


def test_without_the_token_it_is_read_on_the_last_valid_one():
  score = preference_model(Model(None, running_sum, None), None)
  # 500 or 700 on the last token of the answer, and the sum up to it
  np.testing.assert_allclose(score(100, jnp.array(TOKENS), jnp.array(VALID), {}), [509, 509, 716, 509])
