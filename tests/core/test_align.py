"""The one-token shift and the last token, against plain loops over random padding."""
import jax.numpy as jnp
import numpy as np

from rlhf_jax.core import align


def _text(seed=0, rows=6, time=9):
  rng = np.random.default_rng(seed)
  valid_BT = (rng.random((rows, time)) < 0.7).astype(np.float32)
  segment_BT = np.cumsum(rng.random((rows, time)) < 0.3, axis=1).astype(np.int32)
  return rng.normal(size=(rows, time, 2)).astype(np.float32), valid_BT, segment_BT


def _previous(x_BT, valid_BT, segment_BT, fill):
  out = np.full_like(x_BT, fill)
  for b, t in np.ndindex(*valid_BT.shape):
    for s in range(t - 1, -1, -1):
      if valid_BT[b, s]:
        if segment_BT[b, s] == segment_BT[b, t]:
          out[b, t] = x_BT[b, s]
        break
  return out


def test_previous_equals_a_loop():
  x_BTD, valid_BT, segment_BT = _text()
  for segment in (segment_BT, np.zeros_like(segment_BT)):
    expected = _previous(x_BTD, valid_BT, segment, 7.0)
    np.testing.assert_array_equal(align.previous(x_BTD, valid_BT, segment, 7.0), expected)
    np.testing.assert_array_equal(
      align.previous(x_BTD[..., 0], valid_BT, segment, 7.0, start=4), expected[:, 4:, 0])
  np.testing.assert_array_equal(align.previous(x_BTD, valid_BT), _previous(
    x_BTD, valid_BT, np.zeros_like(segment_BT), 0.0))


def test_without_padding_it_is_a_shift_by_one():
  x_BT = jnp.array([[3, 1, 4, 1]])
  np.testing.assert_array_equal(align.previous(x_BT, jnp.ones((1, 4)), fill=-1), [[-1, 3, 1, 4]])


def test_has_previous():
  valid_BT, segment_BT = jnp.array([[0, 1, 1, 0, 1, 1]]), jnp.array([[0, 0, 0, 0, 5, 5]])
  np.testing.assert_array_equal(align.has_previous(valid_BT), [[0, 0, 1, 1, 1, 1]])
  np.testing.assert_array_equal(align.has_previous(valid_BT, segment_BT), [[0, 0, 1, 1, 0, 1]])


def test_last_skips_padding_on_both_sides_and_inside():
  valid_BT = jnp.array([[1, 1, 0, 0], [0, 0, 1, 1], [0, 1, 0, 0], [1, 0, 1, 0]])
  x_BT = jnp.arange(16).reshape(4, 4)
  np.testing.assert_array_equal(align.last(x_BT, valid_BT), [1, 7, 9, 14])
