"""Intervals over seeds against the table of Student's t and against their own promise."""
import numpy as np
import pytest
from scipy import stats

from rlhf_jax.analysis import seeds


def test_interval_by_hand():
  """1, 2, 3: mean 2, standard deviation 1; t for 2 degrees of freedom is 4.3027, for 4 it is 2.7764.
  0, 0, 0, 0, 5: mean 1, variance 5."""
  mean, low, high = seeds.interval([1, 2, 3])
  half = 4.3027 / 3 ** 0.5
  np.testing.assert_allclose([mean, low, high], [2, 2 - half, 2 + half], rtol=1e-4)
  made = seeds.interval(np.array([[0, 7], [0, 7], [0, 7], [0, 7], [5, 7]]))
  np.testing.assert_allclose(made, [[1, 7], [1 - 2.7764, 7], [1 + 2.7764, 7]], rtol=1e-4)


@pytest.mark.parametrize('level', [0.8, 0.95])
def test_the_interval_holds_the_mean_as_often_as_it_says(level):
  draws_SN = np.random.default_rng(0).normal(3, 2, (5, 20_000))
  _, low_N, high_N = seeds.interval(draws_SN, level)
  np.testing.assert_allclose(((low_N < 3) & (3 < high_N)).mean(), level, atol=0.01)


def test_what_a_seed_does_to_both_drops_out_of_a_difference():
  easy_S = np.array([0.1, 0.5, 0.9])
  gap = seeds.interval((easy_S + 0.02) - easy_S)
  np.testing.assert_allclose(gap, 0.02, rtol=1e-9)


@pytest.mark.parametrize('values', [[0.5], []])
def test_one_seed_has_no_interval(values):
  with pytest.raises(ValueError, match=f'two seeds or more, not {len(values)}'):
    seeds.interval(values)


def test_equal_means_by_hand():
  """2.0 and 2.4 against 3.0 and 3.6: without seeds 0.05 is left in each cell, F = 1.21 / 0.01."""
  assert seeds.equal([[2.0, 2.4], [3.0, 3.6]]) == pytest.approx(stats.f.sf(121, 1, 1))
  # A paired t test says the same of two groups.
  a, b = np.random.default_rng(0).normal(size=(2, 6))
  assert seeds.equal([a, b]) == pytest.approx(stats.ttest_rel(a, b).pvalue)


def test_equal_means_are_rejected_as_often_as_said():
  rng = np.random.default_rng(1)
  shared = rng.normal(0, 5, (4000, 1, 3))                       # easy and hard seeds change nothing
  p = [seeds.equal(value_GS) for value_GS in shared + rng.normal(size=(4000, 3, 3))]
  assert np.mean(np.array(p) < 0.05) == pytest.approx(0.05, abs=0.011)


@pytest.mark.parametrize('values', [[[1.0, 2.0]], [[1.0], [2.0]]])
def test_an_f_test_of_too_few_is_refused(values):
  with pytest.raises(ValueError, match='two groups of two seeds or more'):
    seeds.equal(values)
