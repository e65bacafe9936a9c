"""From pairs of texts to comparisons in token ids: what fits, what is cut, and good and bad in place of
better and worse. NumPy only; an answer ends with the end token."""
from typing import NamedTuple

import numpy as np

from rlhf_jax.data import dialogue


class Comparisons(NamedTuple):
  """N comparisons: prompt ids and the two answers' ids as lists, their texts (for the baselines),
  group_N, and where they are known (else None) the true rewards and the number of the assistant's
  turn that is compared, from 1."""
  prompt: list
  chosen: list
  rejected: list
  chosen_text: list
  rejected_text: list
  group_N: np.ndarray
  reward_chosen_N: np.ndarray | None = None
  reward_rejected_N: np.ndarray | None = None
  turn_N: np.ndarray | None = None

  def __getitem__(self, rows):
    return Comparisons(*(x if x is None else x[rows] if isinstance(x, np.ndarray)
                         else [x[i] for i in rows] for x in tuple(self)))


def sample(rows, limit, seed):
  """All rows, or `limit` of them; 0 means all."""
  if not limit or limit >= len(rows):
    return rows
  return np.sort(np.random.default_rng([seed, 4]).permutation(rows)[:limit])


def encode_answers(tokenizer, texts):
  """Ids of answers, each closed by the end token."""
  return [[*ids, tokenizer.end_id] for ids in tokenizer.encode_batch(list(texts))]


def tokenise(tokenizer, texts, rows, encode, groups, context):
  """(Comparisons, need_N, cut_N) of the given N rows of columns of texts.

  texts: columns prompt, chosen, rejected and subset, an entry of `groups`. encode(list of prompts)
  -> their ids. need_N: tokens of the longer answer and of the end-of-context token behind it; a row
  that needs more than `context` is left out, since answers are never cut. cut_N: whether the prompt
  was, from the left.
  """
  sides = [encode_answers(tokenizer, column[rows]) for column in (texts.chosen, texts.rejected)]
  longer = [max(pair, key=len) for pair in zip(*sides, strict=True)]
  need_N = np.array([len(answer) + 1 for answer in longer], np.int64)
  fits, cut_N = np.flatnonzero(need_N <= context), np.zeros(len(rows), bool)
  whole = encode(list(texts.prompt[rows]))
  prompt = [dialogue.truncate_left(whole[i], longer[i], context - 1) for i in fits]
  cut_N[fits] = [len(row) < len(whole[i]) for row, i in zip(prompt, fits, strict=True)]
  made = Comparisons(
    prompt, *([side[i] for i in fits] for side in sides),
    *(list(column[rows[fits]]) for column in (texts.chosen, texts.rejected)),
    np.array([groups.index(subset) for subset in texts.subset[rows[fits]]], np.int32),
    turn_N=np.array([text.count(dialogue.ASSISTANT_CUE) for text in texts.prompt[rows[fits]]],
                    np.int32))
  return made, need_N, cut_N


def binarised(data, ids, texts):
  """Two comparisons out of each of A over B: GOOD:A over BAD:A, then BAD:B over GOOD:B.

  Askell et al. 2021, appendix C.1: good and bad transfer better than a ranking, which has to be
  unlearnt. ids, texts: the labels (good, bad); they stand before the prompt, which joins the answer.
  """
  whole = [[[*prompt, *answer] for prompt, answer in zip(data.prompt, side, strict=True)]
           for side in (data.chosen, data.rejected)]
  none = [[] for _ in range(2 * len(data.prompt))]
  return Comparisons(none, *_labelled(*ids, *whole),
                     *_labelled(*texts, data.chosen_text, data.rejected_text),
                     np.repeat(data.group_N, 2))


def _labelled(good, bad, a, b):
  """[chosen, rejected] of the two comparisons of each pair: one of a, one of b."""
  return [[label + row for pair in zip(a, b, strict=True)
           for label, row in zip(labels, pair, strict=True)] for labels in ((good, bad), (bad, good))]
