"""Rows of mixed lengths at the width that they need: the same numbers, in fewer columns."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.core import lengths
from rlhf_jax.core.types import Experience, Rollout

VALID = np.array([[0, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1], [0, 1, 0, 1, 0, 0], [1, 0, 0, 0, 0, 0.0]])
TOKENS = np.arange(24).reshape(4, 6)


def test_columns_up_to_the_last_valid_one():
  assert lengths.needed(VALID).tolist() == [3, 6, 4, 1]
  assert lengths.needed(np.zeros((1, 3))).tolist() == [0]


@pytest.mark.parametrize('most, width', [(1, 2), (2, 2), (3, 4), (4, 4), (5, 7), (7, 7), (9, 7)])
def test_the_smallest_width_that_holds_them(most, width):
  assert lengths.at_width(lambda w: jnp.int32(w), (2, 4, 7), jnp.int32(most)) == width
  assert lengths.at_width(lambda w: jnp.int32(w), (7,), jnp.int32(most)) == 7


def test_rows_shortest_first_and_back():
  made, place_B = lengths.by_length({'x': TOKENS}, VALID)
  assert made['x'][:, 0].tolist() == [18, 0, 12, 6]
  np.testing.assert_array_equal(made['x'][place_B], TOKENS)


@pytest.mark.parametrize('parts, widths', [(1, [6, 6, 6, 6]), (2, [4, 6, 6, 4]), (4, [4, 6, 4, 2])])
def test_parts_are_read_at_their_width_and_put_back_in_order(parts, widths):
  """Of widths 2, 4 and 6; lengths in order are 1, 3, 4 and 6."""
  def read(tokens_BT, valid_BT, rest):
    width_B = 0 * rest['bonus_B'] + tokens_BT.shape[1]
    return tokens_BT * valid_BT, (tokens_BT * valid_BT).sum(1) + rest['bonus_B'], width_B
  whole = jax.jit(lengths.in_parts(read, (2, 4, 6), parts))
  bonus_B = np.array([0.5, 0.25, 0.125, 0.0])
  all_BT, sum_B, width_B = whole(TOKENS, VALID, {'bonus_B': bonus_B})
  np.testing.assert_array_equal(all_BT, TOKENS * VALID)
  np.testing.assert_array_equal(sum_B, (TOKENS * VALID).sum(1) + bonus_B)
  assert width_B.tolist() == widths


def test_an_experience_is_cut_and_its_documents_are_not():
  row_B, text = np.arange(4), {'tokens': np.ones((4, 20))}
  rollout = Rollout(*[TOKENS] * 7, *[row_B] * 5)
  made = Experience(rollout, TOKENS, TOKENS, TOKENS, text).columns(2)
  np.testing.assert_array_equal(made.rollout.value_BT, TOKENS[:, :2])
  assert made.weight_BT.shape == (4, 2) and made.rollout.score_B is row_B and made.text is text
