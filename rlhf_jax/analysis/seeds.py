"""What several seeds say together: each has networks, an order of the data and noise of its own. What a
study's seeds share (its language models, its prompts, its test comparisons) is in none of these
intervals."""
from typing import NamedTuple

import numpy as np
from scipy import stats


class Interval(NamedTuple):
  """A mean over seeds with its confidence interval: numbers, or arrays of them."""
  mean: np.ndarray
  low: np.ndarray
  high: np.ndarray


def text(found):
  """A number with its interval, (mean, low, high), for tables."""
  return '{:.3f} [{:.3f}, {:.3f}]'.format(*found)


def equal(value_GS):
  """The p of an F test that G groups have one mean, where a column is one seed of all of them: what a
  seed does to every group alike is taken out first (two-way analysis of variance, a value a cell). NaN
  where nothing varies."""
  value_GS = np.asarray(value_GS, np.float64)
  groups, seeds = value_GS.shape
  if groups < 2 or seeds < 2:
    raise ValueError(f'an F test needs two groups of two seeds or more, not {groups} of {seeds}')
  mean_G1 = value_GS.mean(axis=1, keepdims=True)
  rest_GS = value_GS - mean_G1 - value_GS.mean(axis=0) + value_GS.mean()
  freedom = groups - 1, (groups - 1) * (seeds - 1)
  between = seeds * mean_G1.var(ddof=1)
  with np.errstate(divide='ignore', invalid='ignore'):
    ratio = between / ((rest_GS ** 2).sum() / freedom[1])
  return float(stats.f.sf(ratio, *freedom))


def interval(value_SN, level=0.95):
  """The mean over the leading axis, the seeds, and Student's t interval of `level`.

  For the difference of two methods that share their seeds, pass the differences: what a seed does
  to both then drops out.
  """
  value_SN = np.asarray(value_SN, np.float64)
  count = len(value_SN)
  if count < 2:
    raise ValueError(f'an interval over seeds needs two seeds or more, not {count}: run more seeds')
  mean = value_SN.mean(axis=0)
  half = stats.t.ppf((1 + level) / 2, count - 1) * value_SN.std(axis=0, ddof=1) / count ** 0.5
  return Interval(mean, mean - half, mean + half)
