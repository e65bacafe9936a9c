"""Best of n against brute force over all subsets, closed forms, and large K."""
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from rlhf_jax.algorithms import best_of_n


def brute_force(score_K, n, value_K):
  """Mean over subsets of the mean value of the subset's highest-scored members."""
  def chosen(subset):
    high = max(score_K[i] for i in subset)
    return np.mean([value_K[i] for i in subset if score_K[i] == high])
  return np.mean([chosen(s) for s in itertools.combinations(range(len(score_K)), n)])


@pytest.mark.parametrize('score_K', [
    [0.3, -1.0, 2.0, 0.7, 0.1, -0.2, 5.0],
    [1.0, 0.0, 1.0, 2.0, 0.0, 1.0, 2.0],                 # ties at every level
    [1.0] * 7])
def test_equals_brute_force(score_K):
  value_K = np.random.default_rng(0).normal(size=7)
  for n in (1, 2, 3, 6, 7):
    got = best_of_n.expected_max(jnp.array(score_K), n, jnp.array(value_K))
    assert float(got) == pytest.approx(brute_force(score_K, n, value_K), abs=1e-6)
    got = best_of_n.expected_max(jnp.array(score_K), n)
    assert float(got) == pytest.approx(brute_force(score_K, n, score_K), abs=1e-6)


def test_one_of_one_is_sampling_and_all_of_them_is_the_maximum():
  score_K = jnp.array([4.0, -2.0, 1.0, 3.0])
  assert float(best_of_n.expected_max(score_K, 1)) == 1.5
  assert float(best_of_n.expected_max(score_K, 4)) == 4.0
  # two of four, by hand: 4 in 3 of the 6 pairs, 3 in 2, 1 in 1: (12 + 6 + 1) / 6
  assert float(best_of_n.expected_max(score_K, 2)) == pytest.approx(19 / 6, rel=1e-6)


@pytest.mark.parametrize('n', [1, 2, 64, 512, 1024])
def test_is_precise_for_1024_candidates(n):
  # The highest of n of the ranks 1..K is n (K + 1) / (n + 1) on average.
  rank_K = np.random.default_rng(1).permutation(1024) + 1.0
  got = jax.jit(lambda x: best_of_n.expected_max(x, n))(jnp.array(rank_K))
  assert float(got) == pytest.approx(n * 1025 / (n + 1), rel=1e-6)


def test_vmaps_over_prompts():
  score_NK = jnp.array(np.random.default_rng(2).normal(size=(5, 8)), jnp.float32)
  value_NK = score_NK ** 2
  got_N = jax.vmap(lambda s, v: best_of_n.expected_max(s, 3, v))(score_NK, value_NK)
  expected_N = [brute_force(s, 3, s ** 2) for s in np.array(score_NK)]
  np.testing.assert_allclose(got_N, expected_N, rtol=1e-5)


@pytest.mark.parametrize('n', [0, 5, -1])
def test_an_impossible_n_is_refused_in_one_line(n):
  with pytest.raises(ValueError, match=f'n = {n} needs 1 <= n <= 4') as error:
    best_of_n.expected_max(jnp.zeros(4), n)
  assert '\n' not in str(error.value)


def test_kl_of_the_best_of_n():
  assert float(best_of_n.kl(1)) == 0.0
  assert float(best_of_n.kl(64)) == pytest.approx(3.1745, abs=1e-4)      # ln 64 - 63/64
  # The density ratio of the best of n at quantile u is n u^(n-1): integrate its log numerically.
  u = (np.arange(200_000) + 0.5) / 200_000
  ratio = 4 * u ** 3
  np.testing.assert_allclose(best_of_n.kl(jnp.array([4])), [np.mean(ratio * np.log(ratio))],
                             rtol=1e-4)


def test_normal_scores_give_the_known_expected_maximum():
  # E max of 2 standard normals is 1 / sqrt(pi); candidates at the quantiles stand for the normal.
  score_K = norm.ppf((np.arange(1000) + 0.5) / 1000)
  got = best_of_n.expected_max(jnp.array(score_K), 2)
  assert float(got) == pytest.approx(1 / math.sqrt(math.pi), abs=2e-3)
