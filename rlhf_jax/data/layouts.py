"""How the rows of a preference model's batches are laid out. NumPy only.

A text is prompt + answer + end-of-context token; with eoc_id None there is no such token, and the score
is read on the last one of the answer. `separate`: a row for each text of a pair, padded on the right.
`packed`: whole pairs in a row, the prompt once.
"""
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from rlhf_jax.core.types import PackedPairs, PreferenceBatch
from rlhf_jax.data import batches


class Layout(NamedTuple):
  """Comparisons as batches. widths: of their rows, in columns; width_N: what each comparison needs;
  rows(bucket) -> how many rows hold it; lay(bucket, rows) -> the batch; weight, index, lm_weight: the
  fields of a batch with the weight and the number of each pair, and the weight of predicted tokens."""
  widths: list
  width_N: np.ndarray
  rows: Callable
  lay: Callable
  weight: str
  index: str
  lm_weight: str


def separate(data, widths, eoc_id, pad_id):
  """The Layout with a row for each text: as many as the bucket has, whatever is asked for."""
  longest_N = np.array([len(p) + max(len(a), len(b)) + 1 for p, a, b in
                        zip(data.prompt, data.chosen, data.rejected, strict=True)])
  return Layout(list(widths), longest_N, lambda bucket: len(bucket.index_B),
                lambda bucket, rows: batch(data, bucket, eoc_id, pad_id),
                'weight_B', 'index_B', 'lm_weight_BT')


def packed(data, widths, eoc_id, pad_id):
  """The Layout with as many pairs in a row as it holds."""
  size_NK = sizes(data, eoc_id)
  width_N = np.maximum(size_NK[:, 0], -(-4 * size_NK[:, 1] // 3))    # of a row with one pair in it
  return Layout(list(widths), width_N,
                lambda bucket: 1 + batches.fit(size_NK[bucket.index_B], room(bucket.width)).max(),
                lambda bucket, rows: pack(data, bucket, rows, eoc_id, pad_id),
                'weight_NP', 'index_NP', 'lm_weight_NM')


def batch(data, bucket, eoc_id, pad_id):
  """The PreferenceBatch of one bucket of `data`."""
  def side(answers):
    end = [] if eoc_id is None else [eoc_id]
    rows = [[*data.prompt[i], *answers[i], *end] for i in bucket.index_B]
    return batches.pad(rows, bucket.width, 'right', pad_id)
  chosen, rejected = side(data.chosen), side(data.rejected)
  weight_B = bucket.weight_B
  first_BT = np.arange(bucket.width) > 0                       # nothing predicts the first token
  return PreferenceBatch(
    *chosen, *rejected, label_B=np.ones(len(weight_B), np.float32), weight_B=weight_B,
    lm_weight_BT=chosen[1] * weight_B[:, None] * first_BT, group_B=data.group_N[bucket.index_B],
    index_B=bucket.index_B.astype(np.int32))


def sizes(data, eoc_id):
  """[N, 3] of each pair in a packed row: columns, tokens that the language-model term predicts, 1."""
  end = eoc_id is not None
  stem, chosen, rejected = (np.array([len(x) for x in side], np.int64)
                            for side in (data.prompt, data.chosen, data.rejected))
  whole = stem + chosen + end
  return np.stack([whole + rejected + end, whole - 1, np.ones_like(stem)], axis=1)


def room(width):
  """What a packed row of `width` columns holds, as `sizes`: two in three of all tokens of published
  pairs are predicted, and the shortest of ten of them have 38 tokens and more."""
  return np.array([width, width * 3 // 4, max(1, width // 32)])


def pack(data, bucket, rows, eoc_id, pad_id):
  """The PackedPairs of one bucket of `data` in so many rows, those left over empty."""
  end = [] if eoc_id is None else [eoc_id]
  _, targets, most = room(bucket.width)
  row_B = batches.fit(sizes(data, eoc_id)[bucket.index_B], room(bucket.width))
  ids, kinds, segments, lm, lm_weight = ([[] for _ in range(rows)] for _ in range(5))
  at, place = np.zeros((rows, 2, most), np.int32), np.full((rows, most), -1)
  for b, (row, i) in enumerate(zip(row_B.tolist(), bucket.index_B.tolist(), strict=True)):
    parts = data.prompt[i], [*data.chosen[i], *end], [*data.rejected[i], *end]
    start, slot = len(ids[row]), segments[row][-1] if segments[row] else 0
    for branch, part in enumerate(parts):
      ids[row] += part
      kinds[row] += [branch] * len(part)
      segments[row] += [slot + 1] * len(part)
    stop = start + len(parts[0]) + len(parts[1])
    lm[row] += range(start, stop - 1)
    lm_weight[row] += [bucket.weight_B[b]] * (stop - 1 - start)
    at[row, :, slot], place[row, slot] = (stop - 1, len(ids[row]) - 1), b
  (tokens_NT, valid_NT), (branch_NT, _), (segment_NT, _) = (
    batches.pad(x, bucket.width, 'right', fill)
    for x, fill in ((ids, pad_id), (kinds, 0), (segments, 0)))
  lm_at_NM, real_NM = batches.pad(lm, targets, 'right', 0)
  lm_weight_NM = np.zeros(real_NM.shape, np.float32)
  lm_weight_NM[real_NM > 0] = [w for row in lm_weight for w in row]
  used_NP = place >= 0
  def slots(x_B):
    return np.where(used_NP, np.asarray(x_B)[place], 0).astype(np.asarray(x_B).dtype)
  return PackedPairs(
    tokens_NT, valid_NT, segment_NT, branch_NT, lm_at_NM, lm_weight_NM, at[:, 0], at[:, 1],
    label_NP=used_NP.astype(np.float32), weight_NP=slots(bucket.weight_B),
    group_NP=slots(data.group_N[bucket.index_B]), index_NP=slots(bucket.index_B.astype(np.int32)))
