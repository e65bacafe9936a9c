"""The one-token shift and the last token, against plain loops over random padding."""
import jax.numpy as jnp
import numpy as np

from rlhf_jax.core import align


def test_before_and_has_previous_equal_a_loop():
  rng = np.random.default_rng(0)
  valid_BT = (rng.random((6, 9)) < 0.7).astype(np.float32)
  segment_BT = np.cumsum(rng.random((6, 9)) < 0.3, axis=1).astype(np.int32)
  before_BT = np.asarray(align.before(valid_BT))
  found_BT, whole_BT = align.has_previous(valid_BT, segment_BT), align.has_previous(valid_BT)
  for b, t in np.ndindex(*valid_BT.shape):
    past = np.flatnonzero(valid_BT[b, :t])
    assert before_BT[b, t] == (past[-1] if len(past) else -1)
    assert whole_BT[b, t] == (len(past) > 0)
    assert found_BT[b, t] == (len(past) > 0 and segment_BT[b, past[-1]] == segment_BT[b, t])


def test_without_padding_it_is_a_shift_by_one():
  np.testing.assert_array_equal(align.before(jnp.ones((1, 4))), [[-1, 0, 1, 2]])


def test_has_previous():
  valid_BT, segment_BT = jnp.array([[0, 1, 1, 0, 1, 1]]), jnp.array([[0, 0, 0, 0, 5, 5]])
  np.testing.assert_array_equal(align.has_previous(valid_BT), [[0, 0, 1, 1, 1, 1]])
  np.testing.assert_array_equal(align.has_previous(valid_BT, segment_BT), [[0, 0, 1, 1, 0, 1]])


def test_the_end_skips_padding_on_both_sides_and_inside():
  valid_BT = jnp.array([[1, 1, 0, 0], [0, 0, 1, 1], [0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]])
  np.testing.assert_array_equal(align.end(valid_BT), [1, 3, 1, 2, 0])


def test_columns_are_taken_row_by_row_and_clipped():
  x_BTD = jnp.arange(12).reshape(2, 3, 2)
  np.testing.assert_array_equal(align.take_columns(x_BTD, jnp.array([[2, -1], [0, 7]])),
                                [[[4, 5], [0, 1]], [[6, 7], [10, 11]]])
