"""What a preference model must beat: length, and a bag of words. No neural network.

Each baseline says for every test comparison whether it is right (1), wrong (0) or undecided (1/2),
so that it can be compared with a model pair by pair. Length alone scores about 0.59 on the public
comparisons of Bai et al. 2022 once its sign is learnt per subset. Shapes: N comparisons, D answers,
F features.
"""
import re
from collections import Counter
from itertools import pairwise

import numpy as np
from scipy import optimize, sparse, special

_Z95 = 1.959963984540054                      # 97.5% point of the standard normal
_WORD = re.compile(r'\w+')
PENALTIES = (0.001, 0.003, 0.01, 0.03)        # values of C; on the public pairs 0.01 wins


def longer(chosen, rejected):
  """Whether the chosen answer has more characters."""
  return _right(np.array([len(a) - len(b) for a, b in zip(chosen, rejected, strict=True)]))


def longer_signed(train_correct_N, train_subset_N, test_correct_N, test_subset_N):
  """`longer` with its sign learnt: in subsets where the shorter answer wins on train, shorter. A subset
  that train has nothing of stays with `longer`.

  Takes what `longer` gave for train and test and the subset of each comparison.
  """
  train_correct_N, test_correct_N = np.asarray(train_correct_N), np.asarray(test_correct_N)
  train_subset_N, test_subset_N = np.asarray(train_subset_N), np.asarray(test_subset_N)
  flipped = [subset for subset in np.unique(train_subset_N)
             if train_correct_N[train_subset_N == subset].mean() < 0.5]
  return np.where(np.isin(test_subset_N, flipped), 1 - test_correct_N, test_correct_N)


def ngram(train, validation, test, penalties=PENALTIES):
  """A logistic regression on words and pairs of words; each argument is (chosen, rejected) texts.

  Features of an answer: which words and pairs of neighbours it has, among those in 5 training
  answers or more, and log(1 + characters). The model sees chosen minus rejected, so it has no
  intercept. Of `penalties` (C of the usual form: C times the loss plus half the squared weights)
  the one with the best accuracy on validation is kept, the strongest of equals.
  """
  column = _vocabulary([*train[0], *train[1]])
  train_NF, validation_NF, test_NF = (_differences(*texts, column)
                                      for texts in (train, validation, test))
  weight_F, best_F, best = np.zeros(train_NF.shape[1]), None, -1.0
  for penalty in sorted(penalties):
    weight_F = fit(train_NF, penalty, weight_F)
    if (accuracy := _right(validation_NF @ weight_F).mean()) > best:
      best_F, best = weight_F, accuracy
  return _right(test_NF @ best_F)


def fit(x_NF, penalty, start_F):
  """The weights that minimise penalty * sum softplus(-x w) + |w|^2 / 2, searched from start_F."""
  def loss(weight_F):
    margin_N = x_NF @ weight_F
    gradient_F = weight_F - penalty * (x_NF.T @ special.expit(-margin_N))
    return penalty * np.logaddexp(0, -margin_N).sum() + weight_F @ weight_F / 2, gradient_F

  return optimize.minimize(loss, start_F, jac=True, method='L-BFGS-B',
                           options={'maxiter': 1000, 'ftol': 1e-9}).x


def accuracy_interval(correct_N):
  """(accuracy, low, high) with the Wilson 95% interval, which stays inside [0, 1]."""
  rate = float(np.mean(correct_N))
  return rate, *(float(x) for x in wilson(rate, len(correct_N)))


def wilson(rate, count):
  """(low, high): the Wilson 95% interval of a chance from the observed rate among `count` trials.

  Unlike rate +- 2 sd it stays inside [0, 1] and keeps a width where all or none succeeded.
  """
  rate, count = np.asarray(rate, np.float64), np.asarray(count, np.float64)
  shrink = 1 / (1 + _Z95 ** 2 / count)
  middle = (rate + _Z95 ** 2 / (2 * count)) * shrink
  half = _Z95 * np.sqrt(rate * (1 - rate) / count + (_Z95 / (2 * count)) ** 2) * shrink
  return np.clip(middle - half, 0, rate), np.clip(middle + half, rate, 1)    # rounding


def paired_difference(correct_a_N, correct_b_N):
  """(accuracy of a - accuracy of b, standard error) over the same comparisons.

  The error is that of the paired differences: far below that of two separate samples where the two
  are right on the same comparisons.
  """
  difference_N = np.asarray(correct_a_N) - np.asarray(correct_b_N)
  return float(difference_N.mean()), float(difference_N.std(ddof=1) / np.sqrt(len(difference_N)))


def _right(margin_N):
  """1 where the margin is for the chosen answer, 0 where it is against it, 1/2 for a tie."""
  return (1 + np.sign(margin_N)) / 2


def _ngrams(text):
  """The different words and neighbouring pairs, in order: a set's order changes between runs."""
  words = _WORD.findall(text.lower())
  return dict.fromkeys([*words, *pairwise(words)])


def _vocabulary(texts, least=5):
  """{n-gram: column} of those in at least `least` texts; column 0 is left to the length."""
  counts = Counter(gram for text in texts for gram in _ngrams(text))
  return {gram: i for i, gram in enumerate((g for g, n in counts.items() if n >= least), 1)}


def _features(texts, column):
  """Sparse [D, F]: log(1 + characters), then 1 for each known n-gram in the text."""
  columns, ends = [], [0]
  for text in texts:
    columns += [0, *(column[gram] for gram in _ngrams(text) if gram in column)]
    ends.append(len(columns))
  values = np.ones(len(columns))
  values[ends[:-1]] = [np.log1p(len(text)) for text in texts]
  return sparse.csr_array((values, columns, ends), shape=(len(texts), len(column) + 1))


def _differences(chosen, rejected, column):
  return _features(chosen, column) - _features(rejected, column)
