"""Rows of a preference model: prompt, answer and the token that its score is read on; and halves of
the comparisons."""
import numpy as np
import pytest
from ml_collections import ConfigDict

from rlhf_jax.data import layouts
from rlhf_jax.data.batches import Bucket
from rlhf_jax.data.pairs import Comparisons
from rlhf_jax.run import comparisons

EOC, PAD = 9, 0
DATA = Comparisons([[3], []], [[4, 5], [6]], [[7], [8, 8]], ['', ''], ['', ''], np.array([2, 1]))


@pytest.mark.parametrize('eoc_id, end', [(EOC, [EOC]), (None, [])])
def test_rows_by_hand(eoc_id, end):
  bucket = Bucket(5, np.array([1, 0]), np.array([1.0, 0.0]))
  made = layouts.batch(DATA, bucket, eoc_id, PAD)
  rows = {'chosen': ([6], [3, 4, 5]), 'rejected': ([8, 8], [3, 7])}
  for side, expected in rows.items():
    expected = [row + end for row in expected]
    np.testing.assert_array_equal(getattr(made, f'{side}_BT'),
                                  [row + [PAD] * (5 - len(row)) for row in expected])
    np.testing.assert_array_equal(getattr(made, f'{side}_valid_BT').sum(1), [len(r) for r in expected])
  # the language-model loss: every token of the chosen row but the first, where the pair counts
  np.testing.assert_array_equal(made.lm_weight_BT[0], [0] + [1] * len(end) + [0] * (4 - len(end)))
  assert made.lm_weight_BT[1].sum() == 0
  assert made.weight_B.tolist() == [1, 0] and made.group_B.tolist() == [1, 2]
  assert made.label_B.tolist() == [1, 1] and made.index_B.tolist() == [1, 0]


def made(prompts):
  n = len(prompts)
  return Comparisons(prompts, [[i] for i in range(n)], [[-i] for i in range(n)],
                     [str(i) for i in range(n)], [''] * n, np.arange(n), np.arange(n) * 2.0, None)


def test_halves_are_disjoint_whole_and_share_no_prompt():
  rng = np.random.default_rng(0)
  prompts = [rng.integers(0, 50, rng.integers(1, 4)) for _ in range(400)]        # many are equal
  data = made(prompts)
  a, b = (comparisons.half(data, name) for name in 'ab')
  assert sorted([*a.group_N, *b.group_N]) == list(range(400))
  assert not {tuple(p) for p in a.prompt} & {tuple(p) for p in b.prompt}
  assert 120 < len(a.prompt) < 280
  for part in (a, b):                                                   # rows stay together
    assert [c[0] for c in part.chosen] == part.group_N.tolist()
    np.testing.assert_array_equal(part.reward_chosen_N, 2.0 * part.group_N)
  assert part.reward_rejected_N is None


def test_a_half_depends_on_the_prompt_alone():
  few, many = made([[5, 6], [7]]), made([[1], [7], [2, 2], [5, 6], [9]])
  for name in 'ab':
    there = {tuple(p) for p in comparisons.half(many, name).prompt}
    assert {tuple(p) for p in comparisons.half(few, name).prompt} == there & {(5, 6), (7,)}


def test_a_mixture_has_its_share_of_a_fixed_total():
  data, harmful_N = made([[i] for i in range(20)]), np.arange(20) % 4 == 0
  part = comparisons.mix(data, harmful_N, 0.25, 8)
  assert part.group_N.tolist() == [0, 1, 2, 3, 4, 5, 6, 7]     # the first of each kind, in order
  assert comparisons.mix(data, harmful_N, 1.0, 3).group_N.tolist() == [0, 4, 8]
  assert comparisons.mix(data, harmful_N, 0.0, 3).group_N.tolist() == [1, 2, 3]
  assert comparisons.mix(data, harmful_N, None, 3).group_N.tolist() == [0, 1, 2]
  assert comparisons.mix(data, harmful_N, None, 0).group_N.tolist() == list(range(20))
  with pytest.raises(ValueError, match='6 harmful comparisons are asked for and there are 5'):
    comparisons.mix(data, harmful_N, 0.5, 12)
  with pytest.raises(ValueError, match='21 comparisons are asked for'):
    comparisons.mix(data, harmful_N, None, 21)


@pytest.mark.parametrize('changes, line', [
  ({'harmful_share': 1.5, 'take': 10}, 'use a share from 0 to 1 and how many in all'),
  ({'harmful_share': 0.5}, 'config.harmful_share=0.5 of config.take=0'),
  ({'harmful_weight': -1.0}, 'a weight is 0 or more'), ({'best_of': 0}, 'config.best_of=0'),
  ({'best_of': 4, 'policy': 'runs/policy'}, 'config.judge, the preference model that chooses'),
  ({'eval_pairs': 8}, 'config.eval_pairs=8 does not fill a batch of config.batch_size=16'),
  ({'half': 'c'}, 'use a, b')])
def test_mixtures_that_cannot_be_are_refused(changes, line):
  with pytest.raises(ValueError, match=line):
    comparisons.check(ConfigDict({'half': '', 'harmful_share': None, 'take': 0, 'harmful_weight': 1.0,
                                  'best_of': 1, 'policy': '', 'judge': '', 'eval_pairs': 16,
                                  'batch_size': 16} | changes))


def test_the_weight_of_harmful_comparisons_is_on_their_pair_loss_alone():
  data, harmful_N = made([[i] for i in range(6)]), np.array([True, False] * 3)
  def first(weight):
    config = ConfigDict({'seed': 0, 'batch_size': 6, 'widths': (4,), 'pack': (),
                         'harmful_weight': weight})
    host, per_epoch = comparisons.source(
      comparisons.layout(data, config, EOC, PAD), harmful_N, config)
    assert per_epoch == 1
    return host(config, 0)
  plain, heavy = first(1.0), first(3.0)
  assert plain.weight_B.tolist() == [1.0] * 6 and heavy.weight_B.dtype == np.float32
  assert dict(zip(heavy.index_B.tolist(), heavy.weight_B.tolist(), strict=True)) == {
    0: 3, 1: 1, 2: 3, 3: 1, 4: 3, 5: 1}
  np.testing.assert_array_equal(plain.lm_weight_BT, heavy.lm_weight_BT)


def test_a_specialist_sees_some_kinds_only():
  data = made([[i] for i in range(6)])._replace(group_N=np.array([0, 1, 2, 0, 1, 2]))
  assert [c[0] for c in comparisons.of_kinds(data, ('c', 'a'), ('a', 'b', 'c')).chosen] == [0, 2, 3, 5]
  assert len(comparisons.of_kinds(data, (), ('a', 'b', 'c')).prompt) == 6
  with pytest.raises(ValueError, match='config.kinds names d, and the data have a, b, c'):
    comparisons.check_kinds(('d', 'a'), ('a', 'b', 'c'))
