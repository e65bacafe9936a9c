"""Documents as rows of a language model: packed whole, none seeing another."""
import jax
import numpy as np

from rlhf_jax.core.types import TokenBatch
from rlhf_jax.data import batches


def pack(world, tokenizer, length):
  """All documents of the world as one TokenBatch of host arrays, rows of `length` tokens; `take`
  cuts batches out of it. The first token of a document has no weight: nothing predicts it."""
  tokens_NT, valid_NT, segment_NT = batches.pack(world.documents(tokenizer), length, tokenizer.pad_id)
  first_NT = np.diff(segment_NT, axis=1, prepend=0) != 0
  return TokenBatch(tokens_NT, valid_NT, valid_NT * ~first_NT, segment_NT,
                    np.arange(len(tokens_NT), dtype=np.int32))


def take(rows, index):
  """The rows at `index`."""
  return jax.tree.map(lambda x: x[index], rows)
