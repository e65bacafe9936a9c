"""Fits against numpy, scipy and the normal equations; laws planted and found again."""
import numpy as np
import pytest
from scipy import optimize, stats

from rlhf_jax.analysis import fits


def _points(seed=0, count=25):
  rng = np.random.default_rng(seed)
  x = rng.uniform(0, 9, count)
  return x, 0.7 * x - 0.2 + 0.3 * rng.normal(size=count)


def test_line_by_hand():
  """x = 0, 1, 2 and y = 0, 3, 0: slope 0, intercept 1, all scatter left (r2 0). Residuals -1, 2,
  -1: 6 over 3 - 2 = 1 degree of freedom; Sxx = 2: slope error sqrt(6 / 2), intercept
  sqrt(6 * (1/3 + 1/2)) = sqrt(5)."""
  fit = fits.linear([0, 1, 2], [0, 3, 0])
  np.testing.assert_allclose(fit[:3], [0, 1, 0], atol=1e-12)
  np.testing.assert_allclose(fit.stderr, [np.sqrt(3), np.sqrt(5)])


def test_line_matches_scipy():
  x, y = _points()
  fit, oracle = fits.linear(x, y), stats.linregress(x, y)
  np.testing.assert_allclose(fit[:3], [oracle.slope, oracle.intercept, oracle.rvalue ** 2])
  np.testing.assert_allclose(fit.stderr, [oracle.stderr, oracle.intercept_stderr])


def test_sqrt_kl_is_a_line_in_the_root():
  kl, reward = _points(1)
  fit = fits.sqrt_kl(kl, reward)
  np.testing.assert_allclose(fit[:2], np.polyfit(np.sqrt(kl), reward, 1))
  rounded = fits.sqrt_kl(np.append(kl, -1e-6), np.append(reward, 0))
  assert rounded == fits.sqrt_kl(np.append(kl, 0), np.append(reward, 0))
  with pytest.raises(ValueError, match='KL -0.5 is below 0'):
    fits.sqrt_kl([0, 1, -0.5], [0, 1, 2])


def test_gaussian_tilt_obeys_the_law_exactly():
  """Reward N(m, s^2) under pi0 and pi = pi0 exp(beta r) / Z: gain beta s^2, KL beta^2 s^2 / 2, so
  gain = s sqrt(2) sqrt(KL). Here s = 1.5, and the reward starts at m = -4."""
  beta = np.linspace(0, 2, 20)
  report = fits.sqrt_kl_report(beta ** 2 * 1.5 ** 2 / 2, -4 + beta * 1.5 ** 2)
  np.testing.assert_allclose(report['slope'], 1.5 * np.sqrt(2))
  np.testing.assert_allclose([report['intercept'], report['r2']], [0, 1], atol=1e-9)
  assert report['exponent'] == report['exponent_low'] == report['exponent_high'] == 0.5
  assert report['r2_kl'] < 0.96             # the rival law, a line in KL, is worse


def test_report_takes_the_gain_over_the_first_point():
  kl, reward = np.arange(6.0), np.array([3, 4, 4.5, 5, 5, 5.5])
  report = fits.sqrt_kl_report(kl, reward)
  slope, intercept = np.polyfit(np.sqrt(kl), reward - 3, 1)
  np.testing.assert_allclose([report['slope'], report['intercept']], [slope, intercept])
  np.testing.assert_allclose(report['r2_kl'], stats.pearsonr(kl, reward)[0] ** 2)
  power = fits.power_law(kl, reward - 3)
  assert (report['exponent'], report['exponent_low'], report['exponent_high']) == power[:3]


def test_report_of_a_run_too_short_or_unchanged_is_empty():
  for kl, reward in [([], []), (np.arange(4), np.arange(4)), (np.arange(9), np.ones(9))]:
    assert set(fits.sqrt_kl_report(kl, reward).values()) == {None}


@pytest.mark.parametrize('exponent, scale', [(0.5, 2.0), (1.0, 0.3), (0.37, -1.0)])
def test_power_law_finds_what_was_planted(exponent, scale):
  kl = np.linspace(0, 20, 30)
  law = fits.power_law(kl, scale * kl ** exponent)
  np.testing.assert_allclose([law.exponent, law.scale], [exponent, scale], rtol=1e-6)


def test_power_law_matches_a_nonlinear_optimiser():
  rng = np.random.default_rng(2)
  kl = rng.uniform(0, 6, 40)
  gain = 0.8 * kl ** 0.6 + 0.2 * rng.normal(size=40)
  law = fits.power_law(kl, gain)
  (scale, exponent), _ = optimize.curve_fit(lambda x, a, b: a * x ** b, kl, gain, (1, 1))
  np.testing.assert_allclose([law.exponent, law.scale], [exponent, scale], atol=1e-3)


def test_power_law_interval_covers_the_truth_and_is_not_idle():
  """40 made runs with exponent 0.5: a 95% bootstrap interval of 30 points covers in most, not
  always in all, and noise twice as large widens it about twice."""
  rng = np.random.default_rng(3)
  kl = np.linspace(0.1, 8, 30)
  noise = rng.normal(size=(40, 30))
  laws = [[fits.power_law(kl, np.sqrt(kl) + sd * row, samples=200) for row in noise]
          for sd in (0.1, 0.2)]
  assert 33 <= sum(law.low <= 0.5 <= law.high for law in laws[0]) <= 40
  width = [np.mean([law.high - law.low for law in part]) for part in laws]
  assert 1.7 < width[1] / width[0] < 2.3
  # 3.92 sd of the estimates over runs: the width of a right 95% interval
  spread = 3.92 * np.std([law.exponent for law in laws[0]])
  assert 0.7 < width[0] / spread < 1.3


def test_early_part_ends_where_half_of_the_gain_is_first_passed():
  """From 1 to 5: half is at 3. The point at 3.2 ends it, although 2.9 follows."""
  score = [1, 2, 1.5, 3, 3.2, 2.9, 4, 5]
  assert fits.early_part(score).tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
  assert fits.early_part(np.array(score) - 7).tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
  assert not fits.early_part([2, 3, 1]).any()


def test_accuracy_law_matches_the_normal_equations_and_finds_the_paper():
  """Bai et al. eq. A.1 planted: 0.72 + 0.007 ln(P/1e11) + 0.015 ln(D/8e4); 13M parameters at
  D = 8e4 give 0.72 + 0.007 * ln(1.3e-4) = 0.6574."""
  params, data = (grid.ravel() for grid in np.meshgrid([13e6, 2e8, 3e9, 52e9], [1e3, 1e4, 8e4]))
  true = 0.72 + 0.007 * np.log(params / 1e11) + 0.015 * np.log(data / 8e4)
  np.testing.assert_allclose(true[-4], 0.6574, atol=1e-4)
  np.testing.assert_allclose(fits.accuracy_law(params, data, true)[:4], [0.72, 0.007, 0.015, 1])
  noisy = true + 0.01 * np.random.default_rng(4).normal(size=12)
  law = fits.accuracy_law(params, data, noisy)
  x = np.stack([np.ones(12), np.log(params) - np.log(1e11), np.log(data) - np.log(8e4)], 1)
  beta = np.linalg.solve(x.T @ x, x.T @ noisy)
  residual = noisy - x @ beta
  error = np.sqrt(np.diag(np.linalg.inv(x.T @ x)) * (residual @ residual) / 9)
  np.testing.assert_allclose(law[:3], beta)
  np.testing.assert_allclose(law.stderr, error)
  np.testing.assert_allclose(law.r2, 1 - residual.var() / noisy.var())


@pytest.mark.parametrize('call, words', [
  (lambda: fits.linear([1, 2], [1, 2]), 'more than 2 points'),
  (lambda: fits.linear([1, 1, 1], [1, 2, 3]), 'vary'),
  (lambda: fits.linear([1, 2, 3], [1, 2]), 'one length'),
  (lambda: fits.linear([1, 2, 3], [1, np.nan, 3]), r'y\[1\] is not finite'),
  (lambda: fits.accuracy_law([1e6] * 5, [1, 2, 3, 4, 5], [.5] * 5), 'vary independently'),
  (lambda: fits.accuracy_law([0, 1, 2, 3], [1, 2, 3, 4], [.5] * 4), 'above 0'),
  (lambda: fits.power_law([0, 0, 0], [1, 2, 3]), 'different KL'),
  (lambda: fits.power_law([0, 1, 2], [0, 0, 0]), 'no exponent'),
])
def test_what_cannot_be_fitted_is_said_in_one_line(call, words):
  with pytest.raises(ValueError, match=words):
    call()
