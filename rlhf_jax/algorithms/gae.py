"""Generalised advantage estimation (Schulman et al. 2016) on padded, masked episodes."""
import jax
import jax.numpy as jnp

from rlhf_jax.core import masked


def gae(reward_BT, value_BT, mask_BT, discount, lam):
  """Advantages and returns (advantage + value) of the masked tokens, 0 on all others.

  value_BT[:, t] is V of the state before token t, so delta_t = r_t + discount * V_next - V_t, where
  `next` is the next *masked* token: gaps inside an answer are skipped, and after the last one the
  value is 0, because the episode has ended or was cut there for good. Values and rewards outside
  the mask are never read.
  """
  reward_TB = masked.select(reward_BT, mask_BT).T
  value_TB = masked.select(value_BT, mask_BT).T
  on_TB = jnp.asarray(mask_BT).T > 0

  def step(later, now):
    advantage_next_B, value_next_B = later
    reward_B, value_B, on_B = now
    delta_B = reward_B + discount * value_next_B - value_B
    advantage_B = delta_B + discount * lam * advantage_next_B
    carry = (jnp.where(on_B, advantage_B, advantage_next_B),
             jnp.where(on_B, value_B, value_next_B))
    return carry, jnp.where(on_B, advantage_B, 0.0)

  after_B = jnp.zeros_like(value_TB[0])
  _, advantage_TB = jax.lax.scan(step, (after_B, after_B), (reward_TB, value_TB, on_TB),
                                 reverse=True)
  return advantage_TB.T, (advantage_TB + value_TB).T
