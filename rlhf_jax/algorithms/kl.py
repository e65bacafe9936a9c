"""Estimates of KL(policy || reference) from the policy's own samples, and the adaptive coefficient.

Per token in nats; a sequence's KL is the sum over its tokens. Both estimators are unbiased for the
same sum; the reward penalty is k1, and neither is used as a loss.
"""
import jax.numpy as jnp

from rlhf_jax.core import masked


def k1(logp, ref_logp):
  """log(pi / ref) of the sampled token: unbiased, of either sign."""
  return jnp.asarray(logp, jnp.float32) - jnp.asarray(ref_logp, jnp.float32)


def k3(logp, ref_logp):
  """ref / pi - 1 - log(ref / pi) of the sampled token: unbiased, never negative, less variance."""
  log_ratio = -k1(logp, ref_logp)
  return jnp.expm1(log_ratio) - log_ratio


def sequence(kl_BT, mask_BT):
  """The KL of each sequence in nats: the sum over its masked tokens."""
  return masked.select(kl_BT, mask_BT).sum(axis=1)


def adaptive_coefficient(coef, observed_kl, target, horizon, samples):
  """The KL coefficient after `samples` more episodes that showed observed_kl nats per sequence.

  Ziegler et al. 2019: proportional control of log(coef), the relative error clipped to +-0.2.
  Bai et al. 2022 keep the coefficient fixed.
  """
  error = jnp.clip(observed_kl / target - 1, -0.2, 0.2)
  return coef * (1 + error * samples / horizon)
