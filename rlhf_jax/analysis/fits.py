"""Least squares for the laws of the paper: reward against sqrt(KL), accuracy against sizes.

Bai et al. 2022, section 4.3 (reward grows linearly in sqrt(KL) early in training, because reward
changes at first order and KL at second order in the change of the policy) and eq. A.1 (preference
model accuracy). Double precision on the host. The paper states no errors; the standard errors here
take the scatter about the fit as independent noise. KL in nats per sequence.
"""
from typing import NamedTuple

import numpy as np

_ROUNDING = 1e-3                              # nats: an exact KL may fall this far below 0
_EXPONENTS = np.arange(1, 3001) / 1000


class Fit(NamedTuple):
  """y = slope * x + intercept. stderr: of slope and intercept."""
  slope: float
  intercept: float
  r2: float
  stderr: tuple[float, float]


class PowerLaw(NamedTuple):
  """gain = scale * KL ** exponent, with the 95% bootstrap interval of the exponent."""
  exponent: float
  low: float
  high: float
  scale: float


class AccuracyLaw(NamedTuple):
  """accuracy = a + b ln(P / 1e11) + c ln(D / 8e4). stderr: of a, b and c."""
  a: float
  b: float
  c: float
  r2: float
  stderr: tuple[float, float, float]


def linear(x, y):
  """The least-squares line through three or more points."""
  x, y = _finite(x=x, y=y)
  (slope, intercept), stderr, r2 = _least_squares(np.stack([x, np.ones_like(x)], axis=1), y)
  return Fit(slope, intercept, r2, stderr)


def sqrt_kl(kl, reward):
  """The least-squares line of reward against sqrt(KL)."""
  return linear(np.sqrt(_kl(kl)), reward)


def power_law(kl, gain, samples=1000, seed=0):
  """The exponent b of gain = a * KL^b, with a 95% interval from resampled points.

  Least squares in the gain itself, not in its logarithm: evaluation noise is additive, the smallest
  gains are mostly noise and may be negative. For each b on a grid up to 3 the best a is known in
  closed form, so the fit cannot fail to converge; points with KL 0 say nothing.
  """
  kl, gain = _finite(kl=_kl(kl), gain=gain)
  largest = kl.max(initial=0)
  if len(kl) < 3 or not largest > kl.min():
    raise ValueError(f'a power law needs three points or more with different KL, not {len(kl)} '
                     'points: evaluate the run more often')
  if not gain.any():
    raise ValueError('a gain of 0 everywhere has no exponent: fit a run whose reward changed')
  draws = np.random.default_rng(seed).multinomial(len(kl), np.full(len(kl), 1 / len(kl)), samples)
  weight_SN = np.concatenate([np.ones((1, len(kl))), draws])     # row 0: the points as they are
  power_NB = (kl[:, None] / largest) ** _EXPONENTS
  product_SB, norm_SB = weight_SN @ (gain[:, None] * power_NB), weight_SN @ power_NB ** 2
  # the sum of squares that b explains; the tiny norm is a draw of KL 0 points alone
  best_S = np.argmax(product_SB ** 2 / np.maximum(norm_SB, 1e-300), axis=1)
  exponent_S = _EXPONENTS[best_S]
  low, high = np.quantile(exponent_S[1:], [0.025, 0.975])
  scale = product_SB[0, best_S[0]] / norm_SB[0, best_S[0]] / largest ** exponent_S[0]
  return PowerLaw(float(exponent_S[0]), float(low), float(high), float(scale))


def early_part(score):
  """Mask of the points before the score first passes half of its total gain, last minus first.

  The part of a run over which the sqrt(KL) law is fitted; chosen by the preference model's score
  also where the true reward is fitted. A score that did not rise has no early part.
  """
  score, = _finite(score=score)
  gain = score - score[:1]
  if not len(gain) or gain[-1] <= 0:
    return np.zeros(len(gain), bool)
  return np.cumsum(gain > gain[-1] / 2) == 0


def sqrt_kl_report(kl, reward):
  """The numbers of the sqrt(KL) law for the gain of `reward` over its first point, the start.

  r2_kl: of a straight line in KL itself, the rival law. All are None where fewer than five points
  with different KL are left, or nothing changed: the end of a run is no place to fail.
  """
  kl, reward = _finite(kl=_kl(kl), reward=reward)
  names = ('slope', 'intercept', 'r2', 'r2_kl', 'exponent', 'exponent_low', 'exponent_high')
  gain = reward - reward[:1]
  if len(np.unique(kl)) < 5 or not gain.any():
    return dict.fromkeys(names)
  fit, power = sqrt_kl(kl, gain), power_law(kl, gain)
  return dict(zip(names, (fit.slope, fit.intercept, fit.r2, linear(kl, gain).r2,
                          power.exponent, power.low, power.high), strict=True))


def accuracy_law(params, data, accuracy):
  """Accuracy of preference models with P parameters after D comparisons: a + b ln(P/1e11) +
  c ln(D/8e4), in natural logarithms.

  Bai et al. 2022, eq. A.1 (0.72, 0.007 and 0.015 on the helpfulness data).
  """
  params, data, accuracy = _finite(params=params, data=data, accuracy=accuracy)
  if (params <= 0).any() or (data <= 0).any():
    raise ValueError('parameters and comparisons must be above 0 to have a logarithm')
  design = np.stack([np.ones_like(params), np.log(params / 1e11), np.log(data / 8e4)], axis=1)
  (a, b, c), stderr, r2 = _least_squares(design, accuracy)
  return AccuracyLaw(a, b, c, r2, stderr)


def _least_squares(design_NK, y_N):
  """(coefficients, standard errors, r2); r2 is 0 for a constant y."""
  count, terms = design_NK.shape
  if count <= terms or np.linalg.matrix_rank(design_NK) < terms:
    raise ValueError(f'{terms} coefficients need more than {terms} points whose x vary '
                     f'independently, not {count} such points: add points or sizes')
  coefficient_K = np.linalg.lstsq(design_NK, y_N, rcond=None)[0]
  residual = ((y_N - design_NK @ coefficient_K) ** 2).sum()
  total = ((y_N - y_N.mean()) ** 2).sum()
  variance_K = np.diag(np.linalg.inv(design_NK.T @ design_NK)) * residual / (count - terms)
  r2 = 1 - residual / total if total > 0 else 0.0
  return coefficient_K.tolist(), tuple(np.sqrt(variance_K).tolist()), float(r2)


def _finite(**columns):
  """The columns as float64 vectors of one length."""
  columns = {name: np.asarray(column, np.float64) for name, column in columns.items()}
  shapes = {name: column.shape for name, column in columns.items()}
  if len(set(shapes.values())) > 1 or any(len(shape) != 1 for shape in shapes.values()):
    raise ValueError(f'a fit needs vectors of one length, not {shapes}')
  for name, column in columns.items():
    if not np.isfinite(column).all():
      raise ValueError(f'{name}[{np.argmin(np.isfinite(column))}] is not finite: '
                       'leave that point out of the fit')
  return columns.values()


def _kl(kl):
  kl = np.asarray(kl, np.float64)
  if (kl < -_ROUNDING).any():
    raise ValueError(f'KL {kl.min():.4g} is below 0: fit the exact KL, not a per-token estimate')
  return np.maximum(kl, 0)
