"""Masked statistics, float32 whatever comes in; a mask is a weight. Nothing where the mask is 0
influences any result, not even a NaN."""
import jax.numpy as jnp


def normalise(mask):
  """Weights proportional to `mask` that add up to 1 over the whole array; all 0 for an empty mask.

  Called once, on the global minibatch, before it is split into microbatches or shards: sums over
  the parts then add up to the mean over the whole, exactly.
  """
  mask = jnp.asarray(mask, jnp.float32)
  total = mask.sum()
  return mask / jnp.where(total > 0, total, 1.0)


def select(x, mask):
  """x where mask > 0, and 0 elsewhere, in float32."""
  return jnp.where(mask > 0, jnp.asarray(x, jnp.float32), 0.0)


def mean(x, mask):
  """The mean of x weighted by mask; 0 for an empty mask."""
  return (select(x, mask) * normalise(mask)).sum()


def variance(x, mask):
  """The biased variance of x weighted by mask."""
  return mean((select(x, mask) - mean(x, mask)) ** 2, mask)


def whiten(x, mask, shift_mean=True, eps=1e-8):
  """x scaled to variance 1 over the masked entries, its mean removed unless `shift_mean` is False;
  0 outside the mask. Statistics are over the whole array: the global batch when it is sharded."""
  centre = mean(x, mask)
  white = (select(x, mask) - centre) / jnp.sqrt(variance(x, mask) + eps)
  return select(white if shift_mean else white + centre, mask)
