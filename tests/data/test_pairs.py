"""Pairs of texts as rows of ids: what fits into the context, what is cut, and good and bad pairs."""
from types import SimpleNamespace

import numpy as np
import pytest

from rlhf_jax.data import pairs

END = 1


def letters(texts):
  return [[ord(c) for c in text] for text in texts]


TOKENIZER = SimpleNamespace(encode_batch=letters, end_id=END)


def columns(*rows):
  """Texts of (prompt, chosen, rejected), alternately of the subsets x and y."""
  prompt, chosen, rejected = np.array(rows, object).T
  return SimpleNamespace(prompt=prompt, chosen=chosen, rejected=rejected,
                         subset=np.array(['x', 'y'] * len(rows))[:len(rows)])


def ids(text):
  return letters([text])[0]


def test_prompts_are_cut_from_the_left_and_answers_never():
  texts = columns(('abcdef', 'gh', 'i'), ('abcdef', 'i', 'gh'), ('ab', 'c', 'defg'),
                  ('a', 'bcdef', 'g'), ('abc', 'd', 'ef'))
  made, need_N, cut_N = pairs.tokenise(TOKENIZER, texts, np.arange(4), letters, ('y', 'x'), 6)
  # the longer answer, its end token and the end-of-context token
  assert need_N.tolist() == [4, 4, 6, 7] and cut_N.tolist() == [True, True, True, False]
  assert made.prompt == [ids('ef'), ids('ef'), []]
  assert made.chosen == [[*ids(text), END] for text in ('gh', 'i', 'c')]
  assert made.rejected == [[*ids(text), END] for text in ('i', 'gh', 'defg')]
  assert (made.chosen_text, made.rejected_text) == (['gh', 'i', 'c'], ['i', 'gh', 'defg'])
  assert made.group_N.tolist() == [1, 0, 1] and made.reward_chosen_N is None
  whole, _, cut_N = pairs.tokenise(TOKENIZER, texts, np.array([4]), letters, ('y', 'x'), 7)
  assert whole.prompt == [ids('abc')] and not cut_N.any()            # exactly 7 tokens


def test_a_ranked_pair_becomes_two_of_good_and_bad():
  data = pairs.Comparisons([[1, 2], [3]], [[4], [5, 6]], [[7], [8]], ['A', 'C'], ['B', 'D'],
                           np.array([0, 1]))
  made = pairs.binarised(data, ([10, 11], [20]), ('good:', 'bad:'))
  assert made.prompt == [[]] * 4
  # GOOD:A over BAD:A, BAD:B over GOOD:B, and so on
  assert made.chosen == [[10, 11, 1, 2, 4], [20, 1, 2, 7], [10, 11, 3, 5, 6], [20, 3, 8]]
  assert made.rejected == [[20, 1, 2, 4], [10, 11, 1, 2, 7], [20, 3, 5, 6], [10, 11, 3, 8]]
  assert made.chosen_text == ['good:A', 'bad:B', 'good:C', 'bad:D']
  assert made.rejected_text == ['bad:A', 'good:B', 'bad:C', 'good:D']
  assert made.group_N.tolist() == [0, 0, 1, 1]
  assert data.prompt == [[1, 2], [3]] and data.chosen == [[4], [5, 6]]


@pytest.mark.parametrize('limit, count', [(0, 50), (50, 50), (80, 50), (20, 20)])
def test_a_sample_is_of_distinct_rows_in_order_and_the_same_each_time(limit, count):
  rows = np.arange(100, 150)
  drawn = pairs.sample(rows, limit, 3)
  assert len(drawn) == count and set(drawn) <= set(rows) and (np.diff(drawn) > 0).all()
  np.testing.assert_array_equal(drawn, pairs.sample(rows, limit, 3))
  assert (count == 50) == np.array_equal(drawn, pairs.sample(rows, limit, 4))
