"""What several seeds say together. Seeds are the only spread that counts here: each has a network, an
order of the data and test questions of its own."""
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
