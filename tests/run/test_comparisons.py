"""Rows of a preference model: prompt, answer and the token that its score is read on."""
import numpy as np
import pytest

from rlhf_jax.data.batches import Bucket
from rlhf_jax.data.pairs import Comparisons
from rlhf_jax.run import comparisons

EOC, PAD = 9, 0
DATA = Comparisons([[3], []], [[4, 5], [6]], [[7], [8, 8]], ['', ''], ['', ''], np.array([2, 1]))


@pytest.mark.parametrize('eoc_id, end', [(EOC, [EOC]), (None, [])])
def test_rows_by_hand(eoc_id, end):
  bucket = Bucket(5, np.array([1, 0]), np.array([1.0, 0.0]))
  made = comparisons.batch(DATA, bucket, eoc_id, PAD)
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
