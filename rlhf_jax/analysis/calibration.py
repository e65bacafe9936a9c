"""Whether a preference model means what it says: accuracy against the size of its score difference.

Bai et al. 2022, section 3.3 and figure 9: trained by the logistic loss, a calibrated model is right
with chance 1 / (1 + exp(-|difference|)). The paper shows curves only; the expected calibration
error (Guo et al. 2017), the slope (Cox 1958) and the verdict are additions. Shapes: N comparisons,
B bins.
"""
from typing import NamedTuple

import numpy as np

from rlhf_jax.evals import baselines
from rlhf_jax.evals.baselines import wilson
from rlhf_jax.evals.preference import correct as right

LIMIT, SHARE_INSIDE = 0.03, 0.8      # a calibrated model: error at most, share of bins inside at least


class Curve(NamedTuple):
  """Per bin: mean |score difference|, accuracy with its Wilson 95% interval, number of
  comparisons, and the accuracy that a calibrated model would have there."""
  centre: np.ndarray
  accuracy: np.ndarray
  low: np.ndarray
  high: np.ndarray
  count: np.ndarray
  expected: np.ndarray


def curve(score_diff, correct, bins):
  """The calibration curve over bins of equal count, from the smallest |score difference| up.

  correct: whether the sign of the difference matches the label (1/2 for a tie). The sign itself is
  not used, so differences may be signed or not. `expected` averages the logistic over the bin: the
  logistic of the centre would be too high, as the curve is concave.
  """
  size_N, correct_N = _checked('score_diff', np.abs(score_diff), correct, bins)
  if bins > len(size_N):
    raise ValueError(f'{len(size_N)} comparisons do not fill {bins} bins: use fewer bins')
  parts = np.array_split(np.argsort(size_N, kind='stable'), bins)
  count = np.array([len(part) for part in parts])
  accuracy = np.array([correct_N[part].mean() for part in parts])
  low, high = wilson(accuracy, count)
  centre = np.array([size_N[part].mean() for part in parts])
  expected = np.array([_logistic(size_N[part]).mean() for part in parts])
  return Curve(centre, accuracy, low, high, count, expected)


def expected_calibration_error(prob, correct, bins):
  """The mean over bins of |mean predicted chance - share that came true|, weighted by their counts.

  Guo et al. 2017, eq. 3: bins of equal width on [0, 1], each with its upper edge. prob is the
  stated chance of the event that `correct` records. Noise never cancels inside the absolute value:
  a calibrated model has an error above 0, smaller with more comparisons a bin.
  """
  return float(np.abs(_gap_NB(prob, correct, bins).mean(0)).sum())


def error_interval(prob, correct, bins, samples=500, seed=0):
  """(low, high): the 95% bootstrap interval of the expected calibration error.

  Resampling adds noise to every bin, so the interval leans upward, most for a calibrated model.
  """
  gap_NB = _gap_NB(prob, correct, bins)
  count = len(gap_NB)
  draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), samples)
  low, high = np.quantile(np.abs(draws @ gap_NB / count).sum(1), [0.025, 0.975])
  return float(low), float(high)


def inside(curve):
  """The share of bins whose expected accuracy lies inside the Wilson interval of the observed one."""
  return float(np.mean((curve.low <= curve.expected) & (curve.expected <= curve.high)))


def slope(gap_N):
  """(a, low, high): the factor by which score differences must be multiplied to be calibrated, with
  its 95% interval. Below 1 the model claims too much, above 1 too little.

  gap: chosen score - rejected score. The likelihood of sigmoid(a gap) is largest at a (Cox 1958); a
  weak Gaussian prior keeps a finite where all comparisons are right.
  """
  gap_N = np.asarray(gap_N, np.float64)
  scale = np.sqrt(np.mean(gap_N ** 2)) or 1.0
  x_N1 = (gap_N / scale)[:, None]
  a = baselines.fit(x_N1, 1e3, np.zeros(1))[0]
  prob_N = _logistic(a * x_N1[:, 0])
  half = 1.96 / np.sqrt(x_N1[:, 0] ** 2 @ (prob_N * (1 - prob_N)) + 1e-3)
  return tuple(float(v / scale) for v in (a, a - half, a + half))


def verdict(gap_N, samples=200, seed=0):
  """Whether score differences (chosen - rejected) are calibrated, and the numbers that say so.

  verdict: 'calibrated' where the expected calibration error is at most LIMIT, or what label noise
  alone gives in 97.5% of redraws from the logistic (`noise`, so that few comparisons are not held
  against a model), and SHARE_INSIDE of the bins are `inside`; else 'overconfident' or
  'underconfident' where the interval of the `slope` lies below or above 1, 'miscalibrated' where it
  holds 1. Ten bins, fewer where they would hold less than 20 comparisons.
  Intervals are 95%; the bootstrap's lean away from calibrated, as resampling adds noise to each bin.
  """
  gap_N = np.asarray(gap_N, np.float64)
  rng, bins = np.random.default_rng(seed), int(np.clip(len(gap_N) // 20, 1, 10))
  prob_N, right_N = _logistic(np.abs(gap_N)), right(gap_N, 0)
  error = expected_calibration_error(prob_N, right_N, 10)
  redrawn = [expected_calibration_error(prob_N, rng.random(len(prob_N)) < prob_N, 10)
             for _ in range(samples)]
  share = inside(curve(gap_N, right_N, bins))
  resampled = [inside(curve(gap_N[rows], right_N[rows], bins))
               for rows in rng.integers(0, len(gap_N), (samples, len(gap_N)))]
  noise, (a, low, high) = float(np.quantile(redrawn, 0.975)), slope(gap_N)
  holds = error <= max(LIMIT, noise) and share >= SHARE_INSIDE
  return {'error': error, 'error_interval': list(error_interval(prob_N, right_N, 10, seed=seed)),
          'noise': noise, 'bins': bins, 'inside': share,
          'inside_interval': np.quantile(resampled, [0.025, 0.975]).tolist(),
          'slope': a, 'slope_interval': [low, high],
          'verdict': 'calibrated' if holds else 'overconfident' if high < 1 else
          'underconfident' if low > 1 else 'miscalibrated'}


def _logistic(x):
  return 1 / (1 + np.exp(-x))


def _gap_NB(prob, correct, bins):
  """prob - correct in the column of each comparison's bin, 0 in the others."""
  prob_N, correct_N = _checked('prob', prob, correct, bins)
  if (prob_N < 0).any() or (prob_N > 1).any():
    raise ValueError('prob must lie in [0, 1]: pass score differences through the logistic first')
  bin_N = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], prob_N)
  return np.eye(bins)[bin_N] * (prob_N - correct_N)[:, None]


def _checked(name, value, correct, bins):
  value, correct = np.asarray(value, np.float64), np.asarray(correct, np.float64)
  if value.ndim != 1 or value.shape != correct.shape or not len(value):
    raise ValueError(f'{name} {value.shape} and correct {correct.shape} must be vectors of one '
                     'length, one entry a comparison')
  if not (np.isfinite(value).all() and ((correct >= 0) & (correct <= 1)).all()):
    raise ValueError(f'{name} must be finite and correct in [0, 1]: drop the other comparisons')
  if bins < 1:
    raise ValueError(f'{bins} bins are too few: use 10 or so')
  return value, correct
