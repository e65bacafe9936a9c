"""Accuracy of scores on comparisons, by hand, with the baselines of the same data beside it."""
from types import SimpleNamespace

import numpy as np
import pytest

from rlhf_jax.evals import baselines, preference

GROUPS = ('red', 'blue')


def made(n, seed, longer_wins_in_blue=True):
  """Comparisons whose chosen answer says `yes`; it is longer in red, and in blue if asked for."""
  rng = np.random.default_rng(seed)
  group = np.arange(n) % 2
  chosen, rejected = [], []
  for g in group:
    word = f'w{rng.integers(3)}'
    right, wrong = f'yes {word}', f'no {word}'
    if g == 0 or longer_wins_in_blue:
      right += ' aaaaa'
    else:
      wrong += ' aaaaa'
    if rng.random() < 0.1:
      right, wrong = wrong, right
    chosen.append(right)
    rejected.append(wrong)
  return SimpleNamespace(chosen_text=chosen, rejected_text=rejected, group_N=group)


@pytest.fixture(scope='module')
def data():
  return {'train': made(120, 0, False), 'validation': made(40, 1, False), 'test': made(40, 2)}


def test_correct_by_hand():
  assert preference.correct([2, 1, 1, -3], [1, 2, 1, -4]).tolist() == [1, 0, 0.5, 1]
  # a difference that float32 would lose is still seen
  assert preference.correct([1e8 + 1], [1e8]).tolist() == [1]


def test_excess_by_hand():
  assert preference.excess(0.5, 0.8) == 0
  assert preference.excess(0.8, 0.8) == 1
  assert preference.excess(0.65, 0.8) == pytest.approx(0.5)
  assert preference.excess(0.4, 0.9) == pytest.approx(-0.25)


def test_summary_is_put_together_from_the_test_comparisons(data):
  rng = np.random.default_rng(3)
  chosen, rejected = rng.integers(0, 3, (2, 40)).astype(np.float32)
  result = preference.summary((chosen, rejected), data, GROUPS)
  right = np.where(chosen > rejected, 1, np.where(chosen < rejected, 0, 0.5))
  assert result['accuracy'] == pytest.approx(right.mean())
  assert result['accuracy_interval'] == pytest.approx(list(baselines.accuracy_interval(right)[1:]))
  test, blue = data['test'], data['test'].group_N == 1
  longer = baselines.longer(test.chosen_text, test.rejected_text)
  signed = np.where(blue, 1 - longer, longer)            # on train the shorter answer wins in blue
  ngram = baselines.ngram(*((d.chosen_text, d.rejected_text) for d in data.values()))
  theirs = {'longer': longer, 'longer_signed': signed, 'ngram': ngram}
  assert result['baselines'] == pytest.approx({k: v.mean() for k, v in theirs.items()})
  # what the three know is different: the word, the length in red, the length on test
  assert ngram.mean() > 0.75 and signed.mean() < 0.6 < longer.mean()
  for name, correct in theirs.items():
    gap = right - correct
    assert result['advantage'][name]['difference'] == pytest.approx(gap.mean())
    assert result['advantage'][name]['stderr'] == pytest.approx(gap.std(ddof=1) / np.sqrt(40))
  for g, name in enumerate(GROUPS):
    here, part = test.group_N == g, result['subsets'][name]
    assert part['count'] == 20 and part['accuracy'] == pytest.approx(right[here].mean())
    assert part['interval'] == pytest.approx(list(baselines.accuracy_interval(right[here])[1:]))
    assert part['baselines'] == pytest.approx({k: v[here].mean() for k, v in theirs.items()})


def test_a_group_without_test_comparisons_is_left_out_and_baselines_can_be(data):
  test = SimpleNamespace(chosen_text=['a'], rejected_text=['b'], group_N=np.array([1]))
  result = preference.summary(([1.], [0.]), {**data, 'test': test}, GROUPS, with_baselines=False)
  assert list(result['subsets']) == ['blue'] and result['baselines'] == result['advantage'] == {}
  assert result['accuracy'] == 1
