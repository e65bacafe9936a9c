"""KL over the teacher's K categories and the rest: hand number, scipy, bounds, gradients."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, rel_entr

from rlhf_jax.algorithms import distillation
from rlhf_jax.core.types import DistillationBatch

ONE = jnp.ones((1, 1))


def logps(seed, rows, vocabulary, scale=2.0):
  """Two random [1, rows, vocabulary] log-distributions, float32."""
  logits = scale * np.random.default_rng(seed).normal(size=(2, 1, rows, vocabulary))
  return jnp.array(log_softmax(logits, axis=-1), jnp.float32)


def top(teacher_BTV, student_BTV, k):
  top_BTK, id_BTK = jax.lax.top_k(teacher_BTV, k)
  return top_BTK, jnp.take_along_axis(student_BTV, id_BTK, axis=-1)


def test_number_by_hand():
  # teacher 1/2, 1/4 and a rest of 1/4; student 1/4, 1/4 and a rest of 1/2:
  # 1/2 ln 2 + 1/4 ln 1 + 1/4 ln(1/2) = 1/4 ln 2
  teacher_BTK = jnp.log(jnp.array([[[0.5, 0.25]]]))
  student_BTK = jnp.log(jnp.array([[[0.25, 0.25]]]))
  value = distillation.top_k_kl(teacher_BTK, student_BTK, 3 * ONE)
  assert float(value) == pytest.approx(0.75 * np.log(2), rel=1e-6)


def test_equals_scipy_with_all_categories_and_is_below_it_with_fewer():
  rows, vocabulary = 64, 8
  teacher_BTV, student_BTV = logps(0, rows, vocabulary)
  full_T = rel_entr(np.exp(np.float64(teacher_BTV)), np.exp(np.float64(student_BTV))).sum(-1)[0]

  @jax.jit
  def top_kl_T(top_BTK, student_BTK):
    one = jax.vmap(lambda t, s: distillation.top_k_kl(t[None, None], s[None, None], ONE))
    return one(top_BTK[0], student_BTK[0])

  previous_T = np.zeros(rows)
  for k in (1, 2, 4, 7, 8):
    kl_T = np.array(top_kl_T(*top(teacher_BTV, student_BTV, k)))
    assert np.all(kl_T <= full_T + 1e-5)
    assert np.all(kl_T >= previous_T - 1e-5)        # more categories never show less
    if k >= vocabulary - 1:                         # the rest is one category, or none
      np.testing.assert_allclose(kl_T, full_T, atol=2e-5)
    previous_T = kl_T


def test_gradient_is_the_softmax_difference_with_all_categories():
  teacher_BTV, student_BTV = logps(1, 5, 6)
  weight_BT = jnp.array([[1.0, 2.0, 0.5, 0.0, 1.0]])

  def through_logits(logits_BTV):
    return distillation.top_k_kl(teacher_BTV, jax.nn.log_softmax(logits_BTV), weight_BT)

  expected_BTV = weight_BT[..., None] * (jnp.exp(student_BTV) - jnp.exp(teacher_BTV))
  grad_BTV = jax.jit(jax.grad(through_logits))(student_BTV)
  np.testing.assert_allclose(grad_BTV, expected_BTV, atol=1e-5)


@pytest.mark.parametrize('k', [2, 6])
def test_gradient_is_finite_when_the_top_holds_all_mass(k):
  @jax.jit
  @jax.value_and_grad
  def through_logits(student_BTV, teacher_BTV):
    pair = top(teacher_BTV, jax.nn.log_softmax(student_BTV), k)
    return distillation.top_k_kl(*pair, ONE)

  flat_V = np.zeros(6)
  for spread in (2.0, 7.5, 40.0, 200.0):            # the rest of the top 2 is 2e-2, 3e-7, 0, 0
    sharp_V = spread * np.arange(6)
    for student_V, teacher_V in ((sharp_V, flat_V), (flat_V, sharp_V), (sharp_V, sharp_V)):
      teacher_BTV = jnp.array(log_softmax(teacher_V), jnp.float32)[None, None]
      value, grad = through_logits(jnp.array(student_V, jnp.float32)[None, None], teacher_BTV)
      assert np.isfinite(value) and np.all(np.isfinite(grad))
      assert value > -1e-5


def test_impossible_categories_and_weight_zero_hide_everything():
  teacher_BTK = jnp.log(jnp.array([[[0.5, 0.5, 0.0], [jnp.nan] * 3]]))
  student_BTK = jnp.log(jnp.array([[[0.25, 0.75, 0.0], [jnp.nan] * 3]]))
  weight_BT = jnp.array([[1.0, 0.0]])
  value, grad = jax.jit(jax.value_and_grad(distillation.top_k_kl, argnums=1))(
      teacher_BTK, student_BTK, weight_BT)
  # 1/2 ln 2 + 1/2 ln(2/3)
  assert float(value) == pytest.approx(0.5 * np.log(4 / 3), rel=1e-5)
  np.testing.assert_array_equal(grad[0, 1], 0.0)
  assert np.all(np.isfinite(grad))


def test_loss_reads_the_student_at_the_teachers_ids():
  batch = DistillationBatch(
      tokens_BT=jnp.array([[3]]), valid_BT=ONE, weight_BT=5 * ONE,
      top_logp_BTK=jnp.log(jnp.array([[[0.5, 0.25]]])), top_id_BTK=jnp.array([[[2, 0]]]),
      index_B=jnp.array([0])).normalise()

  def logp_at(logp_V, tokens_BT, valid_BT, id_BTK):
    return logp_V[id_BTK]

  logp_V = jnp.log(jnp.array([0.25, 0.3, 0.25, 0.2]))
  value, aux = distillation.make_loss(logp_at)(logp_V, batch, None, {})
  # ids 2 and 0 have 1/4 each: the case done by hand above, at weight 1
  assert float(value) == pytest.approx(0.25 * np.log(2), rel=1e-6)
  assert float(aux['distillation_kl']) == float(value)
