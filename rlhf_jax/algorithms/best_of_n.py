"""Best of n: what taking the highest score among n samples gains, and how far it moves the policy.

Bai et al. 2022, section 4.3, use D_KL = log n; here is the exact value. Rewards come from all
n-subsets of K candidates at once, which wastes no sample and needs no random choice.
"""
import math

import jax
import jax.numpy as jnp
import numpy as np


def kl(n):
  """KL of the best of n samples from the sampled policy, log n - (n - 1) / n, in nats.

  Stiennon et al. 2020. An upper bound when scores tie.
  """
  n = jnp.asarray(n, jnp.float32)
  return jnp.log(n) - (n - 1) / n


def expected_max(score_K, n, value_K=None):
  """The mean, over all n-subsets of K candidates, of `value` at the one with the highest score.

  value_K is the score itself by default; another value (a true reward, correctness) shows what the
  choice by score brings in it. Candidates of equal score share their chances. n is a plain integer.
  Unbiased for n fresh samples (the estimator of Askell et al. 2021 for re-ranked answers).
  """
  score_K = jnp.asarray(score_K, jnp.float32)
  value_K = score_K if value_K is None else jnp.asarray(value_K, jnp.float32)
  candidates = score_K.shape[0]
  if not 1 <= n <= candidates:
    raise ValueError(f'best of n = {n} needs 1 <= n <= {candidates}, the number of candidates: '
                     'choose a smaller n or sample more')
  order_K = jnp.argsort(score_K)
  score_K, value_K = score_K[order_K], value_K[order_K]
  first_K = jnp.searchsorted(score_K, score_K, side='left')
  tied_K = jnp.searchsorted(score_K, score_K, side='right') - first_K
  shared_K = jax.ops.segment_sum(value_K, first_K, candidates)[first_K] / tied_K
  return (jnp.asarray(_rank_chances(candidates, n)) * shared_K).sum()


def _rank_chances(candidates, n):
  """Chance of each rank (lowest score first) to be the highest of a random n-subset: the n - 1
  others must come from the `rank` candidates below. Exact integers, rounded once."""
  subsets = math.comb(candidates, n)
  return np.array([math.comb(rank, n - 1) / subsets for rank in range(candidates)], np.float32)
