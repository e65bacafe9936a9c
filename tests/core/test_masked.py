"""Masked statistics: numbers by hand, numpy on the kept entries, and nothing from behind the mask."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.core import masked

X_BT = jnp.array([[1.0, 2.0, 3.0], [4.0, jnp.nan, jnp.inf]])
MASK_BT = jnp.array([[1.0, 1.0, 0.0], [2.0, 0.0, 0.0]])


def test_normalise_by_hand():
  np.testing.assert_allclose(masked.normalise(MASK_BT), [[0.25, 0.25, 0], [0.5, 0, 0]])
  np.testing.assert_array_equal(masked.normalise(jnp.zeros((2, 3))), np.zeros((2, 3)))
  assert masked.normalise(jnp.array([True, False, True])).dtype == jnp.float32


def test_mean_and_variance_by_hand():
  # Weights 1, 1, 2 on 1, 2, 4: mean 11/4, squares (49 + 9 + 2 * 25) / 16 / 4 = 27/16.
  assert masked.mean(X_BT, MASK_BT) == 11 / 4
  np.testing.assert_allclose(masked.variance(X_BT, MASK_BT), 27 / 16)
  assert masked.mean(X_BT, 0 * MASK_BT) == 0 and masked.variance(X_BT, 0 * MASK_BT) == 0


def test_whiten_by_hand():
  sd = (27 / 16) ** 0.5
  expected_BT = np.array([[-7 / 4, -3 / 4, 0], [5 / 4, 0, 0]]) / sd
  np.testing.assert_allclose(masked.whiten(X_BT, MASK_BT), expected_BT, rtol=1e-6)
  # Without the shift the mean stays and the spread is 1 all the same.
  kept_BT = masked.whiten(X_BT, MASK_BT, shift_mean=False)
  np.testing.assert_allclose(kept_BT, expected_BT + 11 / 4 * (np.asarray(MASK_BT) > 0), rtol=1e-6)


@pytest.mark.parametrize('dtype', ['float16', 'int32', 'bfloat16'])
def test_statistics_are_float32_and_equal_numpy(dtype):
  rng = np.random.default_rng(0)
  x = rng.integers(0, 2000, 4000)                    # in float16 the sum overflows
  mask = rng.random(4000) < 0.3
  kept = np.asarray(jnp.asarray(x, dtype), np.float64)[mask]
  np.testing.assert_allclose(masked.mean(jnp.asarray(x, dtype), mask), kept.mean(), rtol=1e-5)
  np.testing.assert_allclose(masked.variance(jnp.asarray(x, dtype), mask), kept.var(), rtol=1e-4)
  white = masked.whiten(jnp.asarray(x, dtype), mask)
  assert white.dtype == jnp.float32
  np.testing.assert_allclose(white[mask], (kept - kept.mean()) / kept.std(), atol=1e-4)


def test_gradient_of_what_is_masked_is_zero_even_at_nan():
  grad_BT = jax.grad(lambda x_BT: masked.mean(x_BT ** 2, MASK_BT))(X_BT)
  # d/dx of sum(weight * x^2): 2 * x * (1/4, 1/4, 1/2).
  np.testing.assert_allclose(grad_BT[0, :2], [0.5, 1.0])
  assert grad_BT[1, 0] == 4.0 and grad_BT[0, 2] == 0
  white_BT = jax.grad(lambda x_BT: masked.whiten(x_BT, MASK_BT)[0, 0])(jnp.where(
    MASK_BT > 0, X_BT, jnp.nan))
  assert np.isfinite(white_BT).all()


def test_constant_entries_whiten_to_zero():
  np.testing.assert_allclose(masked.whiten(jnp.full((2, 3), 7.0), MASK_BT), np.zeros((2, 3)))
