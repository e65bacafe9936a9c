"""Advantages: fixed numbers, a naive loop over masked tokens, identities, what must not leak."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.algorithms import gae as module

gae = jax.jit(module.gae)


def loop(reward_BT, value_BT, mask_BT, discount, lam):
  """Advantages from the definition: sum over k of (discount * lam)^k delta, per row, in float64."""
  out_BT = np.zeros(reward_BT.shape)
  for row in range(len(reward_BT)):
    columns = np.flatnonzero(mask_BT[row])
    r, v = np.float64(reward_BT[row, columns]), np.float64(value_BT[row, columns])
    delta = [r[i] + (discount * v[i + 1] if i + 1 < len(v) else 0) - v[i] for i in range(len(v))]
    for i, column in enumerate(columns):
      out_BT[row, column] = sum((discount * lam) ** (k - i) * delta[k] for k in range(i, len(v)))
  return out_BT


def random_case(seed, rows=6, columns=9):
  rng = np.random.default_rng(seed)
  reward_BT, value_BT = rng.normal(size=(2, rows, columns)).astype(np.float32)
  mask_BT = (rng.random((rows, columns)) < 0.6).astype(np.float32)
  mask_BT[0], mask_BT[1] = 0, 1
  return reward_BT, value_BT, mask_BT


@pytest.mark.parametrize('reward, value, discount, lam, expected', [
    # the sixth: -1 + 0 - (-1) = 0, the episode ends there
    ([0, 0, 1, 0, -.5, -1], [1, 4, -3, -2, -1, -1], 0.99, 1.0,
     [-1.45119, -4.45575, 2.53965, 0.5249, -0.49, 0.0]),
    # delta: .9 * -2 + 3, .9 * -1 + 2, 0 + 1, 0; lam 1 telescopes to 0 - V
    ([0, 0, 0, 0], [-3, -2, -1, 0], 0.9, 1.0, [3, 2, 1, 0]),
    # 1 + .9 * -1 - 5 = -4.9; -1 + 1 = 0
    ([1, -1], [5, -1], 0.9, 1.0, [-4.9, 0]),
    # last: 1 - .2 = .8; then -.1 + .95 * .8 = .66; -.1 + .95 * .66 = .527; .40065
    ([0, 0, 0, 1], [.5, .4, .3, .2], 1.0, 0.95, [.40065, .527, .66, .8]),
])
def test_fixed_numbers(reward, value, discount, lam, expected):
  reward_BT, value_BT = jnp.array([reward], jnp.float32), jnp.array([value], jnp.float32)
  advantage_BT, return_BT = gae(reward_BT, value_BT, jnp.ones_like(reward_BT), discount, lam)
  np.testing.assert_allclose(advantage_BT[0], expected, atol=1e-5)
  np.testing.assert_allclose(return_BT[0], np.array(expected) + value, atol=1e-5)


@pytest.mark.parametrize('discount, lam', [(1.0, 0.95), (0.9, 0.7), (1.0, 0.0)])
def test_equals_the_naive_loop_with_gaps_and_empty_rows(discount, lam):
  reward_BT, value_BT, mask_BT = random_case(0)
  advantage_BT, return_BT = gae(reward_BT, value_BT, mask_BT, discount, lam)
  expected_BT = loop(reward_BT, value_BT, mask_BT, discount, lam)
  np.testing.assert_allclose(advantage_BT, expected_BT, atol=1e-5)
  np.testing.assert_allclose(return_BT, expected_BT + value_BT * mask_BT, atol=1e-5)


def test_discount_and_lambda_one_give_the_rewards_to_come_minus_the_value():
  reward_BT, value_BT, mask_BT = random_case(1)
  advantage_BT, return_BT = gae(reward_BT, value_BT, mask_BT, 1.0, 1.0)
  to_come_BT = np.cumsum((reward_BT * mask_BT)[:, ::-1], axis=1)[:, ::-1] * mask_BT
  np.testing.assert_allclose(return_BT, to_come_BT, atol=1e-5)
  np.testing.assert_allclose(advantage_BT, to_come_BT - value_BT * mask_BT, atol=1e-5)


def test_a_gap_is_as_if_it_were_not_there():
  packed = gae(jnp.array([[1., 2.]]), jnp.array([[.5, .25]]), jnp.ones((1, 2)), 0.9, 0.8)
  spaced = gae(jnp.array([[9., 1., 9., 2.]]), jnp.array([[9., .5, 9., .25]]),
               jnp.array([[0., 1., 0., 1.]]), 0.9, 0.8)
  for x_BT, gap_BT in zip(packed, spaced, strict=True):
    np.testing.assert_array_equal(gap_BT, [[0, x_BT[0, 0], 0, x_BT[0, 1]]])


@pytest.mark.parametrize('garbage', [1e30, np.inf, np.nan])
def test_nothing_outside_the_mask_leaks_into_values_or_gradients(garbage):
  reward_BT, value_BT, mask_BT = random_case(2)

  @jax.jit
  def run(junk):
    def total(reward_BT, value_BT):
      advantage_BT, return_BT = gae(reward_BT, value_BT, mask_BT, 0.9, 0.8)
      return (advantage_BT ** 2 + return_BT).sum(), (advantage_BT, return_BT)

    inputs = [jnp.where(mask_BT > 0, x, junk) for x in (reward_BT, value_BT)]
    return jax.value_and_grad(total, argnums=(0, 1), has_aux=True)(*inputs)

  jax.tree.map(np.testing.assert_array_equal, run(0.0), run(garbage))


def test_integer_rewards_are_not_truncated_and_bfloat16_is_summed_in_float32():
  advantage_BT, return_BT = gae(jnp.array([[0, 1]]), jnp.array([[.5, .25]], jnp.bfloat16),
                                jnp.array([[1, 1]]), 1.0, 0.5)
  # last: 1 - .25 = .75; first: .25 - .5 + .5 * .75 = .125
  assert advantage_BT.dtype == return_BT.dtype == jnp.float32
  np.testing.assert_array_equal(advantage_BT, [[.125, .75]])


def test_vmap_over_runs_is_a_loop_over_runs():
  cases = [random_case(seed) for seed in (3, 4)]
  stacked = jax.vmap(lambda r, v, m: gae(r, v, m, 0.9, 0.8))(
      *(np.stack(arrays) for arrays in zip(*cases, strict=True)))
  for run in range(2):
    for x_BT, y_SBT in zip(gae(*cases[run], 0.9, 0.8), stacked, strict=True):
      np.testing.assert_allclose(y_SBT[run], x_BT, rtol=1e-6)
