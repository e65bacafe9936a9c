"""The losses against independent implementations: rlax, optax, scipy, scikit-learn."""
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import log_expit, xlogy

from rlhf_jax.algorithms import language_model, ppo, preference
from rlhf_jax.algorithms.gae import gae

RNG = np.random.default_rng(0)


def test_gae_equals_rlax_on_a_full_episode():
  rlax = pytest.importorskip('rlax')
  reward_T, value_T = RNG.normal(size=(2, 12)).astype(np.float32)
  # rlax takes T + 1 values (the last one bootstraps) and a discount per step
  expected_T = rlax.truncated_generalized_advantage_estimation(
      jnp.array(reward_T), jnp.full(12, 0.97), 0.9, jnp.append(value_T, 0.0))
  advantage_BT, _ = gae(reward_T[None], value_T[None], jnp.ones((1, 12)), 0.97, 0.9)
  np.testing.assert_allclose(advantage_BT[0], expected_T, rtol=1e-4, atol=1e-5)


def test_policy_loss_and_its_gradient_equal_rlax():
  rlax = pytest.importorskip('rlax')
  logp_BT, old_BT, advantage_BT = RNG.normal(size=(3, 1, 40)).astype(np.float32)

  def ours(logp_BT):
    return ppo.policy_loss(logp_BT, old_BT, advantage_BT, jnp.full((1, 40), 1 / 40), 0.2)

  def theirs(logp_BT):
    return rlax.clipped_surrogate_pg_loss(jnp.exp(logp_BT - old_BT)[0], advantage_BT[0], 0.2)

  got, expected = (jax.value_and_grad(f)(jnp.array(logp_BT)) for f in (ours, theirs))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), got, expected)


def test_preference_loss_equals_optax_and_scipy():
  chosen_B, rejected_B = RNG.normal(size=(2, 50)).astype(np.float32) * 4
  label_B = RNG.random(50).astype(np.float32)
  got = float(preference.loss(chosen_B, rejected_B, label_B))
  gap_B = chosen_B - rejected_B
  assert got == pytest.approx(float(optax.sigmoid_binary_cross_entropy(gap_B, label_B).mean()),
                              rel=1e-5)
  scipy_B = -label_B * log_expit(gap_B) - (1 - label_B) * log_expit(-gap_B)
  assert got == pytest.approx(scipy_B.mean(), rel=1e-5)


def test_language_model_loss_equals_optax():
  logits_NV, target_N = RNG.normal(size=(20, 7)).astype(np.float32), RNG.integers(0, 7, 20)
  logp_N = jnp.take_along_axis(jax.nn.log_softmax(logits_NV), target_N[:, None], axis=1)[:, 0]
  expected = optax.softmax_cross_entropy_with_integer_labels(logits_NV, target_N).mean()
  got = language_model.loss(logp_N[None], jnp.full((1, 20), 1 / 20))
  assert float(got) == pytest.approx(float(expected), rel=1e-5)


def test_explained_variance_equals_scikit_learn():
  metrics = pytest.importorskip('sklearn.metrics')
  value_BT, return_BT = RNG.normal(size=(2, 4, 9)).astype(np.float32)
  weight_BT = RNG.random((4, 9)).astype(np.float32)
  expected = metrics.explained_variance_score(return_BT.ravel(), value_BT.ravel(),
                                              sample_weight=weight_BT.ravel())
  assert float(ppo.explained_variance(value_BT, return_BT, weight_BT)) == pytest.approx(
      expected, rel=1e-4)


def test_entropy_estimate_on_its_own_samples_equals_scipy():
  prob_V = RNG.dirichlet(np.ones(6)).astype(np.float32)
  logp_V1 = jnp.log(prob_V)[:, None]
  got = ppo.entropy_estimate(logp_V1, logp_V1, prob_V[:, None])
  assert float(got) == pytest.approx(-xlogy(prob_V, prob_V).sum(), rel=1e-5)
