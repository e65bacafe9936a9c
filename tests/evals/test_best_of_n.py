"""What choosing among samples gives, against brute force over all subsets."""
from itertools import combinations

import jax
import numpy as np
import pytest

from rlhf_jax.algorithms import best_of_n
from rlhf_jax.evals import best_of_n as evals


def expected_max(score_NK, n, value_NK):
  """By brute force; the scores below have no ties."""
  subsets = [list(s) for s in combinations(range(score_NK.shape[1]), n)]
  return np.array([np.mean([v[s][np.argmax(k[s])] for s in subsets])
                   for k, v in zip(score_NK, value_NK, strict=True)])


def test_the_table_is_the_mean_over_all_subsets():
  rng = np.random.default_rng(0)
  score_NK, reward_NK = rng.normal(size=(2, 7, 4))
  got = evals.table(score_NK, reward_NK, (1, 2, 4), expected_max)
  assert list(got) == ['1', '2', '4']
  top = np.take_along_axis(reward_NK, score_NK.argmax(1)[:, None], 1)[:, 0]
  assert got['4'] == pytest.approx({'pm_score': score_NK.max(1).mean(), 'true_reward': top.mean(),
                                    'stderr': top.std(ddof=1) / np.sqrt(7)})
  assert got['1']['true_reward'] == pytest.approx(reward_NK.mean())
  ours = evals.table(score_NK, reward_NK, (1, 2, 4), lambda s, n, v: jax.vmap(
    lambda s, v: best_of_n.expected_max(s, n, v))(s, v))
  for n in got:
    assert ours[n] == pytest.approx(got[n], rel=1e-5)


def test_the_table_without_a_known_truth_has_the_error_of_the_score():
  score_NK = np.random.default_rng(1).normal(size=(5, 3))
  got = evals.table(score_NK, None, (3,), expected_max)['3']
  best = score_NK.max(1)
  assert got == pytest.approx({'pm_score': best.mean(), 'stderr': best.std(ddof=1) / np.sqrt(5)})
