"""Baselines for pairwise accuracy: by hand, and against scikit-learn."""
import os

import numpy as np
import pytest

from rlhf_jax.data import hh, sources
from rlhf_jax.evals import baselines


def made_texts(n, seed, slope=3.0):
  """Random sentences; the chosen one of a pair holds more often the word w0, or w1 before w2."""
  rng = np.random.default_rng(seed)
  draw = [[' '.join(f'w{i}' for i in rng.integers(0, 6, rng.integers(1, 9))) for _ in range(n)]
          for _ in range(2)]
  good = [[('w0' in a.split()) + 2 * ('w1 w2' in a) for a in side] for side in draw]
  swap = rng.random(n) < 1 / (1 + np.exp(slope * (np.array(good[0]) - np.array(good[1]))))
  return tuple([draw[s if side == 0 else 1 - s][i] for i, s in enumerate(swap.astype(int))]
               for side in range(2))


def test_longer_by_hand():
  assert baselines.longer(['abc', 'a', 'ab', ''], ['ab', 'ab', 'cd', '']).tolist() == [1, 0, .5, .5]


def test_the_sign_is_learnt_per_subset():
  # train: x has 2 of 3 longer, y has 1 of 3; so on test y is turned round and the tie stays
  correct = baselines.longer_signed([1, 1, 0, 0, 1, 0], ['x', 'x', 'x', 'y', 'y', 'y'],
                                    [1, 0, 1, 0, .5], ['x', 'x', 'y', 'y', 'y'])
  assert correct.tolist() == [1, 0, 0, 1, .5]
  # of z there is nothing to learn a sign from
  assert baselines.longer_signed([0], ['x'], [1, 1, 0], ['x', 'z', 'z']).tolist() == [0, 1, 0]


def test_features_are_those_of_scikit_learn():
  from sklearn.feature_extraction.text import CountVectorizer
  texts = [*made_texts(60, 0)[0], 'W1 w2, w1? n\u00e4h 3', '', 'rare rare w0']
  column = baselines._vocabulary(texts)
  ours = baselines._features(texts, column).toarray()
  vectorizer = CountVectorizer(binary=True, ngram_range=(1, 2), min_df=5,
                               token_pattern=r'(?u)\w+')
  theirs = vectorizer.fit_transform(texts).toarray()
  names = {' '.join(g) if isinstance(g, tuple) else g: i for g, i in column.items()}
  assert names.keys() == vectorizer.vocabulary_.keys() and len(names) > 12
  for name, i in names.items():
    np.testing.assert_array_equal(ours[:, i], theirs[:, vectorizer.vocabulary_[name]])
  np.testing.assert_allclose(ours[:, 0], [np.log(1 + len(t)) for t in texts])
  assert sorted(column.values()) == list(range(1, ours.shape[1]))


@pytest.mark.parametrize('penalty', [0.01, 1.0])
def test_the_fit_is_that_of_scikit_learn(penalty):
  from sklearn.linear_model import LogisticRegression
  x = np.random.default_rng(1).normal(0.3, 1, (80, 6))
  ours = baselines.fit(x, penalty, np.zeros(6))
  # scikit-learn wants both classes: each pair once in either direction, at half the weight
  theirs = LogisticRegression(C=penalty / 2, fit_intercept=False, tol=1e-8)
  theirs.fit(np.concatenate([x, -x]), [1] * 80 + [0] * 80)
  np.testing.assert_allclose(ours, theirs.coef_[0], atol=1e-3 * np.abs(ours).max())


def test_ngram_learns_words_and_pairs_of_words_that_length_does_not_see():
  train, validation, test = (made_texts(n, seed) for n, seed in ((800, 1), (200, 2), (600, 3)))
  correct = baselines.ngram(train, validation, test, penalties=(0.01, 0.1, 1.0))
  assert set(correct) <= {0, .5, 1}
  # the rule that made the labels is right on 0.77 of such pairs (ties count 1/2), sd 0.02
  assert correct.mean() > 0.72 > 0.66 > baselines.longer(*test).mean()
  np.testing.assert_array_equal(baselines.ngram(train, validation, test[::-1], (0.01, 0.1, 1.0)),
                                1 - correct)


def test_ngram_takes_the_penalty_that_is_best_on_validation():
  train, test = made_texts(200, 1), made_texts(200, 2)
  grid = (10.0, 1e-2, 1.0)             # the best is neither the first nor the last to be fitted
  alone = {c: baselines.ngram(train, test, test, penalties=(c,)).mean() for c in grid}
  assert alone[1.0] > max(alone[10.0], alone[1e-2]) + 0.02
  best = baselines.ngram(train, test, test, penalties=grid).mean()
  # fits start where the stronger penalty ended, which may turn a pair or two
  assert abs(best - max(alone.values())) < 0.01


def test_ngram_leaves_equal_answers_undecided():
  train = made_texts(60, 1)
  same = baselines.ngram(train, train, (['w1 w2', 'new'], ['w1 w2', 'odd']), penalties=(0.1,))
  assert same.tolist() == [.5, .5]               # unknown words of the same length


def test_wilson_by_hand():
  # 8 of 10: (8 + 1.9208) / (10 + 3.8415) = 0.71675, +- 1.95996 sqrt(0.016 + 0.0096036) / 1.38415
  rate, low, high = baselines.accuracy_interval([1.] * 8 + [0.] * 2)
  np.testing.assert_allclose([rate, low, high], [0.8, 0.49016, 0.94332], atol=1e-5)
  assert baselines.accuracy_interval([1., .5])[0] == 0.75
  for n in range(1, 60):
    assert baselines.accuracy_interval([0.] * n)[1] >= 0
    assert baselines.accuracy_interval([1.] * n)[2] <= 1


def test_wilson_is_that_of_scipy():
  from scipy.stats import binomtest
  correct = np.arange(137) % 3 == 0
  theirs = binomtest(int(correct.sum()), 137).proportion_ci(method='wilson')
  np.testing.assert_allclose(baselines.accuracy_interval(correct)[1:], theirs, rtol=1e-9)


def test_paired_difference_by_hand():
  # differences 1, 0, 0, -1/2: mean 1/8, sum of squares about it 1.1875, sd sqrt(1.1875 / 3)
  difference, stderr = baselines.paired_difference([1, 1, 0, .5], [0, 1, 0, 1])
  assert difference == 0.125
  assert stderr == pytest.approx((1.1875 / 3) ** .5 / 2)
  assert baselines.paired_difference([1, 0, 1], [1, 0, 1]) == (0, 0)


@pytest.mark.skipif(not os.environ.get(sources.DATA_VARIABLE), reason='no published data here')
def test_length_alone_on_published_records(tmp_path):
  pairs = hh.load_pairs(cache_dir=tmp_path)
  longer = baselines.longer(pairs.chosen, pairs.rejected)
  train, test = pairs.split == 'train', pairs.split == 'test'
  signed = baselines.longer_signed(longer[train], pairs.subset[train], longer[test],
                                   pairs.subset[test])
  assert 0.50 < longer[test].mean() < 0.55
  assert 0.57 < signed.mean() < 0.62
  harmless = pairs.subset[test] == 'harmless-base'
  assert longer[test][harmless].mean() < 0.45 < 0.55 < signed[harmless].mean()
