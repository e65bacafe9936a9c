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


def test_turns_by_hand_the_last_holds_what_follows():
  correct, turn = np.array([1, 0, 1, 1, 0.5, 0]), np.array([1, 1, 2, 3, 4, 3])
  rows = preference.by_turn(correct, turn, last=3)
  assert [(row['turn'], row['accuracy'], row['count']) for row in rows] == [
    (1, 0.5, 2), (2, 1, 1), (3, 0.5, 3)]
  assert rows[0]['interval'] == pytest.approx(list(baselines.accuracy_interval([1, 0])[1:]))


def test_thresholds_keep_comparisons_in_which_both_scores_are_high_enough():
  """The lower scores minus the mean 1 are 0, 1, ..., 100, so the levels are 2, 46 and 90; above 50
  the model is wrong, and its other score does not matter."""
  lower = np.arange(101) + 1.0
  other = lower + 0.5 + 50 * (np.arange(101) % 2)
  wrong = lower > 51
  chosen, rejected = np.where(wrong, lower, other), np.where(wrong, other, lower)
  rows = preference.by_threshold(chosen, rejected, 1.0, levels=3)
  assert [row['threshold'] for row in rows] == pytest.approx([2, 46, 90])
  assert [row['count'] for row in rows] == [99, 55, 11]
  assert [row['accuracy'] for row in rows] == pytest.approx([49 / 99, 5 / 55, 0])


def test_length_control_by_hand():
  """Log ratios in sizes: 2, 2, 2 | 4, 4, 8 and one pair of equal length. First stratum: longer chosen
  twice, right once; shorter once, right: (1/2 + 1) / 2. Second: 1 of 1 and 0 of 2: 1/2. Equal: 1/2.
  In all (3 * 0.75 + 3 * 0.5 + 1 * 0.5) / 7."""
  chosen, rejected = np.array([2, 4, 1, 4, 1, 1, 3]), np.array([1, 2, 2, 1, 4, 8, 3])
  correct = np.array([1, 0, 1, 1, 0, 0, 0.5])
  found = preference.length_controlled(correct, chosen, rejected, bins=2)
  assert found['accuracy'] == pytest.approx(4.25 / 7) and found['covered'] == 1
  # only the half with one right and one wrong varies: variance 1/4 over 2, halved twice
  assert found['stderr'] == pytest.approx(3 / 7 * np.sqrt(0.25 / 2 / 4))
  assert (found['accuracy_longer'], found['accuracy_shorter']) == pytest.approx((2 / 3, 1 / 3))
  assert found['longer_chosen'] == pytest.approx(3 / 7)


def test_what_follows_from_length_is_worth_nothing_and_the_rest_is_kept():
  rng = np.random.default_rng(0)
  chosen, rejected = rng.integers(1, 400, (2, 6000))
  chosen = np.where(rng.random(6000) < 0.3, chosen * 3, chosen)          # the longer one wins mostly
  gap = np.log(chosen / rejected)
  longer = preference.correct(gap, 0)
  assert longer.mean() > 0.58
  assert preference.length_controlled(longer, chosen, rejected)['accuracy'] == 0.5
  # neither is the longer one only where the ratio is large, whichever side that favours
  large = preference.correct(np.where(np.abs(gap) > 0.7, gap, -gap), 0)
  found = preference.length_controlled(large, chosen, rejected)
  assert found['accuracy'] == pytest.approx(0.5, abs=0.01)
  fair = (rng.random(6000) < 0.7).astype(float)
  found = preference.length_controlled(fair, chosen, rejected)
  assert abs(found['accuracy'] - 0.7) < 3 * found['stderr'] < 0.03


def test_a_stratum_without_both_halves_is_not_counted():
  found = preference.length_controlled([1, 0, 1, 1], [2, 1, 9, 8], [1, 2, 1, 1], bins=2)
  assert found['covered'] == 0.5 and found['accuracy'] == 0.5
  assert preference.length_controlled([1, 1], [2, 3], [1, 1], bins=1) is None


def test_summary_is_put_together_from_the_test_comparisons(data):
  rng = np.random.default_rng(3)
  chosen, rejected = rng.integers(0, 3, (2, 40)).astype(np.float32)
  harmful_N = np.arange(40) % 5 == 0
  result = preference.summary((chosen, rejected), data, GROUPS, harmful_N)
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
  for side, here in (('helpful', ~harmful_N), ('harmful', harmful_N)):
    assert result['sides'][side] == preference.rate(right[here])
  for g, name in enumerate(GROUPS):
    here, part = test.group_N == g, result['subsets'][name]
    assert part['count'] == 20 and part['accuracy'] == pytest.approx(right[here].mean())
    assert part['interval'] == pytest.approx(list(baselines.accuracy_interval(right[here])[1:]))
    assert part['baselines'] == pytest.approx({k: v[here].mean() for k, v in theirs.items()})


def test_a_group_without_test_comparisons_is_left_out_and_baselines_can_be(data):
  test = SimpleNamespace(chosen_text=['a'], rejected_text=['b'], group_N=np.array([1]))
  result = preference.summary(([1.], [0.]), {**data, 'test': test}, GROUPS, np.array([True]),
                              with_baselines=False)
  assert list(result['sides']) == ['harmful'] and list(result['subsets']) == ['blue']
  assert result['baselines'] == result['advantage'] == {}
  assert result['accuracy'] == 1
