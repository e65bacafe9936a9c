"""What choosing among samples gives, against brute force over all subsets."""
from itertools import combinations

import numpy as np
import pytest

from rlhf_jax.evals import best_of_n as evals


def expected_max(score_NK, n, value_NK):
  """By brute force; the scores below have no ties."""
  subsets = [list(s) for s in combinations(range(score_NK.shape[1]), n)]
  return np.array([np.mean([v[s][np.argmax(k[s])] for s in subsets])
                   for k, v in zip(score_NK, value_NK, strict=True)])


def test_the_table_is_the_mean_over_all_subsets():
  rng = np.random.default_rng(0)
  score_NK, reward_NK = rng.normal(size=(2, 7, 4))
  got = evals.table(score_NK, reward_NK, (1, 2, 4))
  assert list(got) == ['1', '2', '4']
  top = np.take_along_axis(reward_NK, score_NK.argmax(1)[:, None], 1)[:, 0]
  assert got['4'] == pytest.approx({'pm_score': score_NK.max(1).mean(), 'true_reward': top.mean(),
                                    'stderr': top.std(ddof=1) / np.sqrt(7)}, rel=1e-5)
  assert got['1']['true_reward'] == pytest.approx(reward_NK.mean(), rel=1e-5)
  score_N, reward_N = (expected_max(score_NK, 2, x) for x in (score_NK, reward_NK))
  assert got['2'] == pytest.approx({
    'pm_score': score_N.mean(), 'true_reward': reward_N.mean(),
    'stderr': reward_N.std(ddof=1) / np.sqrt(7)}, rel=1e-5)


def test_the_table_without_a_known_truth_has_the_error_of_the_score():
  score_NK = np.random.default_rng(1).normal(size=(5, 3))
  got = evals.table(score_NK, None, (3,))['3']
  best = score_NK.max(1)
  assert got == pytest.approx({'pm_score': best.mean(),
                               'stderr': best.std(ddof=1) / np.sqrt(5)}, rel=1e-5)
