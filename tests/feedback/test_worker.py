"""The simulated worker: its choices against the logistic, strengths, agreement and ceiling."""
import numpy as np
import pytest
from scipy import special, stats

from rlhf_jax.feedback import worker


def rng(seed=0):
  return np.random.default_rng(seed)


@pytest.mark.parametrize('difference, beta', [(0.5, 2.0), (-1.5, 0.4), (0.0, 3.0), (0.25, 8.0)])
def test_choices_follow_the_logistic(difference, beta):
  n = 20_000
  judged = worker.judge(np.full(n, difference + 0.7), np.full(n, 0.7), beta, rng())
  wanted = special.expit(beta * difference)
  low, high = stats.binom.interval(0.9999, n, wanted)
  assert low <= judged.prefers_a_N.sum() <= high


def test_strength_has_four_levels_and_the_weakest_is_dropped():
  # beta is huge, so the noise vanishes and the strength is that of the difference itself
  a = np.array([8., -1, 3, -6, 5, 2, -7, 4])
  judged = worker.judge(a, np.zeros(8), 1e9, rng())
  assert judged.strength_N.tolist() == [4, 1, 2, 3, 3, 1, 4, 2]
  assert judged.kept_N.tolist() == [True, False, True, True, True, False, True, True]
  assert judged.prefers_a_N.tolist() == [True, False, True, False, True, True, False, True]


def test_levels_are_quarters_of_the_noisy_differences():
  a = rng(1).normal(size=10_000)
  judged = worker.judge(a, np.zeros(10_000), 1.5, rng())
  assert np.bincount(judged.strength_N).tolist() == [0, 2500, 2500, 2500, 2500]
  assert judged.kept_N.mean() == 1 - worker.WEAKEST_SHARE
  # strong judgements are more often right: their noisy difference is larger
  right = judged.prefers_a_N == (a > 0)
  assert (np.diff([right[judged.strength_N == s].mean() for s in (1, 2, 3, 4)]) > 0.05).all()


def test_agreement_of_clear_and_of_guessed_pairs():
  a = rng(2).choice([-1., 1], 8000)
  clear = worker.judge(a, np.zeros(8000), 1e3, rng())
  assert worker.agreement(a, np.zeros(8000), clear, 1e3, rng(3)) == 1
  guessed = worker.judge(a, a, 1.0, rng())
  assert abs(worker.agreement(a, a, guessed, 1.0, rng(3)) - 0.5) < 0.03       # sd 0.0065


def test_agreement_is_the_mean_chance_of_the_second_worker_over_the_kept_pairs():
  a, b = rng(4).normal(size=(2, 40_000))
  first = worker.judge(a, b, 1.0, rng())
  chance = special.expit(np.where(first.prefers_a_N, 1, -1) * (a - b))[first.kept_N]
  got = worker.agreement(a, b, first, 1.0, rng(5))
  assert abs(got - chance.mean()) < 4 * 0.5 / np.sqrt(len(chance))
  # dropping the weakest raises agreement: the first worker was surer of the rest
  every = first._replace(kept_N=np.ones(40_000, bool))
  assert got > worker.agreement(a, b, every, 1.0, rng(5)) + 0.01


def test_ceiling_by_hand():
  # right, tie, wrong, right: (1 + 1/2 + 0 + 1) / 4
  assert worker.ceiling(np.array([1., 2, -3, 4]), np.array([0., 2, 5, 1])) == 0.625


def test_the_ceiling_is_1_for_a_worker_without_noise_and_1_half_for_one_that_guesses():
  a, b = rng(6).normal(size=(2, 4000))
  for beta, low, high in ((1e9, 1, 1), (1e-9, 0.46, 0.54)):
    prefers = worker.judge(a, b, beta, rng()).prefers_a_N
    assert low <= worker.ceiling(np.where(prefers, a, b), np.where(prefers, b, a)) <= high


def test_judgements_depend_on_the_seed_alone():
  a, b = rng(7).normal(size=(2, 500))
  first, again, other = (worker.judge(a, b, 1.0, rng(seed)) for seed in (1, 1, 2))
  for x, y in zip(first, again, strict=True):
    np.testing.assert_array_equal(x, y)
  assert (first.prefers_a_N != other.prefers_a_N).any()
