"""KL estimators against the exact KL of small distributions, and the adaptive coefficient."""
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import entropy

from rlhf_jax.algorithms import kl

P, Q = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.2, 0.6])


@pytest.mark.parametrize('estimator', [kl.k1, kl.k3])
def test_the_mean_over_the_policy_is_the_exact_kl(estimator):
  estimate = estimator(jnp.log(P), jnp.log(Q))
  assert float((P * estimate).sum()) == pytest.approx(entropy(P, Q), rel=1e-5)


def test_per_token_numbers_by_hand():
  logp, ref_logp = jnp.log(jnp.array([0.5, 0.25])), jnp.log(jnp.array([0.25, 0.5]))
  np.testing.assert_allclose(kl.k1(logp, ref_logp), [np.log(2), -np.log(2)], rtol=1e-6)
  # ratio ref / pi: 1/2 and 2; ratio - 1 - ln ratio
  np.testing.assert_allclose(kl.k3(logp, ref_logp), [-0.5 + np.log(2), 1 - np.log(2)], rtol=1e-6)


def test_k3_is_never_negative_and_precise_for_small_differences():
  difference = np.array([-1e-3, -1e-4, 0.0, 1e-4, 1e-3])
  k3 = np.array(kl.k3(jnp.array(difference), jnp.zeros(5)))
  assert np.all(k3 >= 0) and k3[2] == 0
  np.testing.assert_allclose(k3[[0, -1]], 1e-6 / 2, rtol=1e-3)


def test_bfloat16_inputs_are_subtracted_in_float32():
  k1 = kl.k1(jnp.array(256.0, jnp.bfloat16), jnp.array(1.0, jnp.bfloat16))
  assert k1.dtype == jnp.float32 and float(k1) == 255.0            # 255 is not a bfloat16 number


def test_a_sequence_adds_up_its_masked_tokens_only():
  kl_BT = jnp.array([[1.0, 2.0, jnp.nan], [4.0, jnp.inf, 8.0]])
  mask_BT = jnp.array([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
  np.testing.assert_array_equal(kl.sequence(kl_BT, mask_BT), [3.0, 8.0])


@pytest.mark.parametrize('observed, factor', [
    (12.0, 1.01024),                  # error 1, clipped to .2: 1 + .2 * 512 / 10000
    (0.0, 1 - 0.01024),               # error -1, clipped to -.2
    (6.0, 1.0),
    (6.6, 1.00512),                   # error .1: 1 + .1 * 512 / 10000
])
def test_adaptive_coefficient(observed, factor):
  coef = kl.adaptive_coefficient(0.15, observed, target=6.0, horizon=10_000, samples=512)
  assert float(coef) == pytest.approx(0.15 * factor, rel=1e-6)
