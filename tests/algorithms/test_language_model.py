"""Language-model loss: hand numbers, and what weight 0 hides."""
import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax.algorithms import language_model
from rlhf_jax.core.types import TokenBatch


def test_weighted_sum_by_hand():
  logp_BT = jnp.array([[-1.0, -2.0, -3.0]])
  # 0.5 * 1 + 0.25 * 2 + 0 * 3 = 1.0
  assert float(language_model.loss(logp_BT, jnp.array([[0.5, 0.25, 0.0]]))) == 1.0


def test_nothing_of_weight_zero_enters_value_or_gradient():
  weight_BT = jnp.array([[1.0, 0.0]])
  value, grad = jax.value_and_grad(language_model.loss)(jnp.array([[-1.0, -jnp.inf]]), weight_BT)
  assert float(value) == 1.0
  np.testing.assert_array_equal(grad, [[-1.0, 0.0]])


def test_loss_hands_segments_to_the_network_and_uses_the_batch_weights():
  def token_logp(scale, tokens_BT, valid_BT, segment_BT):
    return -scale * (tokens_BT + 10.0 * segment_BT) * valid_BT

  batch = TokenBatch(tokens_BT=jnp.array([[1, 2]]), valid_BT=jnp.ones((1, 2)),
                     weight_BT=jnp.array([[2.0, 2.0]]), segment_BT=jnp.array([[0, 1]]),
                     index_B=jnp.array([0])).normalise()
  loss = language_model.make_loss(token_logp)
  (value, aux), grad = jax.value_and_grad(loss, has_aux=True)(jnp.float32(3.0), batch, None, {})
  # weights 1/2 each: 3 * (1 + 12) / 2 = 19.5, and its derivative 6.5
  assert float(value) == float(aux['lm_loss']) == 19.5
  assert float(grad) == 6.5
