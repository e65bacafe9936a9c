"""Calibration against hand counts, scipy's Wilson interval and sklearn's reliability curve."""
import numpy as np
import pytest
from scipy import stats
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression

from rlhf_jax.analysis import calibration


def _comparisons(count=6000, seed=0):
  """Signed score differences whose sign is right with chance sigmoid(|difference|)."""
  rng = np.random.default_rng(seed)
  diff = 1.3 * rng.normal(size=count)
  return diff, rng.random(count) < 1 / (1 + np.exp(-np.abs(diff)))


def test_curve_by_hand():
  """Five comparisons in two bins, 3 and 2 by size: {0, ln 3, ln 3} and {ln 4, ln 9}. Expected:
  (1/2 + 3/4 + 3/4) / 3 = 2/3 and (4/5 + 9/10) / 2 = 0.85. Right: 2 of 3, 1 of 2."""
  diff = np.log([9, 3, 1, 1 / 4, 1 / 3])          # the last two prefer the other answer
  curve = calibration.curve(diff, np.array([1, 0, 1, 0, 1]), 2)
  np.testing.assert_array_equal(curve.count, [3, 2])
  np.testing.assert_allclose(curve.centre, [2 * np.log(3) / 3, (np.log(4) + np.log(9)) / 2])
  np.testing.assert_allclose(curve.accuracy, [2 / 3, 1 / 2])
  np.testing.assert_allclose(curve.expected, [2 / 3, 0.85])


@pytest.mark.parametrize('right, count', [(0, 7), (7, 7), (3, 10), (412, 500)])
def test_wilson_interval_matches_scipy(right, count):
  oracle = stats.binomtest(right, count).proportion_ci(method='wilson')
  low, high = calibration.wilson(right / count, count)
  np.testing.assert_allclose([low, high], [oracle.low, oracle.high], atol=1e-12)
  assert low <= right / count <= high


def test_curve_matches_sklearn_and_carries_the_wilson_interval():
  diff, correct = _comparisons()
  curve = calibration.curve(diff, correct, 10)
  true, stated = calibration_curve(correct, 1 / (1 + np.exp(-np.abs(diff))), n_bins=10,
                                   strategy='quantile')
  np.testing.assert_allclose(curve.accuracy, true)
  np.testing.assert_allclose(curve.expected, stated)
  np.testing.assert_allclose([curve.low, curve.high], calibration.wilson(curve.accuracy, 600))


def test_curve_ignores_the_order_and_which_answer_is_named_first():
  diff, correct = _comparisons(500)
  order = np.random.default_rng(1).permutation(500)
  for got in (calibration.curve(diff[order], correct[order], 7),
              calibration.curve(-diff, correct, 7)):
    for ours, theirs in zip(got, calibration.curve(diff, correct, 7), strict=True):
      np.testing.assert_allclose(ours, theirs)


def test_error_by_hand():
  """Bins of width 1/2, upper edges inside: {0.2, 0.5} and {0.6, 1.0, 0.9}. Gaps: |0.7 - 1| / 5 and
  |2.5 - 1| / 5, in all 1.8 / 5 = 0.36."""
  prob, correct = [0.2, 0.6, 0.5, 1.0, 0.9], [1, 1, 0, 0, 0]
  np.testing.assert_allclose(calibration.expected_calibration_error(prob, correct, 2), 0.36)
  # one bin: mean 0.64 against 0.4
  np.testing.assert_allclose(calibration.expected_calibration_error(prob, correct, 1), 0.24)


def test_error_matches_sklearns_bins():
  diff, correct = _comparisons(2000, seed=2)
  prob = 1 / (1 + np.exp(-2 * diff))
  true, stated = calibration_curve(correct, prob, n_bins=10)
  count = np.histogram(prob, np.linspace(0, 1, 11))[0]
  np.testing.assert_allclose(calibration.expected_calibration_error(prob, correct, 10),
                             (count * np.abs(true - stated)).sum() / 2000)


def test_error_interval_matches_resampling_in_a_loop():
  diff, correct = _comparisons(400, seed=3)
  prob, rng = 1 / (1 + np.exp(-np.abs(3 * diff))), np.random.default_rng(4)
  draws = [calibration.expected_calibration_error(prob[rows], correct[rows], 5)
           for rows in rng.integers(0, 400, (2000, 400))]
  interval = calibration.error_interval(prob, correct, 5, samples=2000)
  np.testing.assert_allclose(interval, np.quantile(draws, [0.025, 0.975]), atol=0.005)


@pytest.mark.parametrize('scale, sign', [(1, 0), (3, 1), (1 / 3, -1)])
def test_wrongly_scaled_scores_are_flagged_and_right_ones_are_not(scale, sign):
  """Planted logistic scores: error near 0, all but a few bins inside the Wilson bars. Scores x 3
  claim too much (expected above the bars), scores / 3 too little."""
  diff, correct = _comparisons()
  curve = calibration.curve(scale * diff, correct, 10)
  prob = 1 / (1 + np.exp(-np.abs(scale * diff)))
  error = calibration.expected_calibration_error(prob, correct, 10)
  low, high = calibration.error_interval(prob, correct, 10)
  above, below = (curve.expected > curve.high).sum(), (curve.expected < curve.low).sum()
  if sign == 0:
    assert error < 0.02 and high < 0.04 and above + below <= 2
  else:
    assert low > 0.07 and low < error < high
    assert (above if sign > 0 else below) >= 7


def _gaps(count=6000, seed=0, scale=1.0):
  """Score differences chosen - rejected of the same kind, multiplied by `scale`."""
  diff, correct = _comparisons(count, seed)
  return scale * np.abs(diff) * np.where(correct, 1, -1)


def test_the_share_of_bins_inside_by_hand():
  curve = calibration.Curve(*np.zeros((5, 4)), np.zeros(4))._replace(
    low=np.array([0.5, 0.5, 0.5, 0.6]), high=np.array([0.7, 0.7, 0.7, 0.8]),
    expected=np.array([0.6, 0.75, 0.7, 0.55]))
  assert calibration.inside(curve) == 0.5


def test_slope_matches_sklearn_and_its_interval_the_spread_of_redrawn_labels():
  gap = _gaps(2000)
  sign = np.where(np.arange(2000) % 2, 1, -1)           # sklearn wants both classes
  oracle = LogisticRegression(fit_intercept=False, C=1e6).fit((gap * sign)[:, None], sign).coef_
  a, low, high = calibration.slope(gap)
  np.testing.assert_allclose(a, oracle[0, 0], rtol=1e-3)
  spread = np.std([calibration.slope(_gaps(2000, seed))[0] for seed in range(100)])
  np.testing.assert_allclose((high - low) / 2 / 1.96, spread, rtol=0.3)
  np.testing.assert_allclose(calibration.slope(3 * gap), np.array([a, low, high]) / 3, rtol=1e-6)
  assert 1 < calibration.slope([1.0, 2.0])[0] < 100        # all right: finite


@pytest.mark.parametrize('scale, said', [(1, 'calibrated'), (3, 'overconfident'),
                                         (1 / 3, 'underconfident')])
def test_the_verdict_on_planted_scores(scale, said):
  found = calibration.verdict(_gaps(4000, scale=scale))
  assert found['verdict'] == said and found['bins'] == 10
  low, high = found['slope_interval']
  assert low < 1 / scale < high
  low, high = found['error_interval']
  assert low <= found['error'] <= high and found['noise'] < 0.03
  if scale == 1:
    assert found['error'] <= 0.03 and found['inside'] >= 0.8
    assert found['inside_interval'][0] <= found['inside'] <= found['inside_interval'][1]
  else:
    assert low > 0.08 and found['inside'] <= 0.3 and found['inside_interval'][1] < 0.8


def test_few_comparisons_are_not_held_against_a_model_and_gross_errors_are_seen():
  right = [calibration.verdict(_gaps(90, seed), samples=60) for seed in range(20)]
  assert all(found['bins'] == 4 and found['noise'] > 0.06 for found in right)
  assert sum(found['error'] > 0.03 for found in right) >= 15
  assert sum(found['verdict'] == 'calibrated' for found in right) >= 17
  wrong = [calibration.verdict(_gaps(90, seed, scale=6), samples=60) for seed in range(20)]
  assert sum(found['verdict'] == 'overconfident' for found in wrong) >= 18


def test_a_small_error_with_bins_outside_is_flagged():
  """Differences of one size claim 0.6, and 0.62 come true in 40,000: an error of 0.02, and every bin
  outside or nearly so."""
  gap = np.full(40_000, np.log(0.6 / 0.4)) * np.where(np.arange(40_000) % 50 < 31, 1, -1)
  found = calibration.verdict(gap, samples=4)
  np.testing.assert_allclose(found['error'], 0.02)
  assert found['verdict'] == 'underconfident' and found['inside'] < 0.8


@pytest.mark.parametrize('call, words', [
  (lambda: calibration.curve([1.0, 2.0], [1, 0], 3), '2 comparisons do not fill 3 bins'),
  (lambda: calibration.curve([1.0, 2.0], [1], 1), 'one length'),
  (lambda: calibration.curve([1.0, np.nan], [1, 0], 1), 'finite'),
  (lambda: calibration.curve([1.0, 2.0], [1, 2], 1), r'\[0, 1\]'),
  (lambda: calibration.curve([1.0, 2.0], [1, 0], 0), 'too few'),
  (lambda: calibration.expected_calibration_error([1.5], [1], 2), 'logistic first'),
])
def test_bad_input_is_said_in_one_line(call, words):
  with pytest.raises(ValueError, match=words):
    call()
