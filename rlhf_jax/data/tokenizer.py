"""Byte-level BPE: any text to ids and back without loss.

Trained on the run's own texts (the paper's 2^16 vocabulary does not fit a small model). Pad, end
and end-of-context are three different ids that no text can produce: a text that spells them out is
encoded letter by letter. Reads and writes one JSON file in the format of the `tokenizers` library.
"""
import hashlib
from dataclasses import dataclass
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from rlhf_jax.core import rundir

PAD, END, END_OF_CONTEXT = SPECIAL = ('<|pad|>', '<|end|>', '<|eoc|>')
_BYTES = 256


@dataclass(frozen=True)
class Tokenizer:
  """A trained vocabulary. Ids 0, 1, 2 are pad, end and end of context, then come the bytes."""
  bpe: tokenizers.Tokenizer
  pad_id: int = SPECIAL.index(PAD)
  end_id: int = SPECIAL.index(END)
  eoc_id: int = SPECIAL.index(END_OF_CONTEXT)

  @property
  def vocab_size(self):
    """The number of ids, which is less than asked for when the texts hold too few pairs."""
    return self.bpe.get_vocab_size()

  @property
  def digest(self):
    """sha256 of the saved file; the same texts give the same one."""
    return hashlib.sha256(self.bpe.to_str(pretty=True).encode()).hexdigest()

  def encode(self, text):
    return self.bpe.encode(text, add_special_tokens=False).ids

  def encode_batch(self, texts):
    return [e.ids for e in self.bpe.encode_batch_fast(texts, add_special_tokens=False)]

  def decode(self, ids, show_special=False):
    return self.bpe.decode(ids, skip_special_tokens=not show_special)

  def decode_batch(self, rows, show_special=False):
    return self.bpe.decode_batch(rows, skip_special_tokens=not show_special)

  def save(self, path):
    rundir.write_text(path, self.bpe.to_str(pretty=True))


def train(texts, vocab_size):
  """A tokenizer of at most `vocab_size` ids from an iterable of texts; deterministic."""
  least = len(SPECIAL) + _BYTES
  if vocab_size < least:
    raise ValueError(f'vocab_size {vocab_size} is too small: {len(SPECIAL)} special ids and '
                     f'{_BYTES} bytes need at least {least}')
  bpe = tokenizers.Tokenizer(models.BPE())
  bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  bpe.decoder = decoders.ByteLevel()
  bpe.train_from_iterator(texts, trainers.BpeTrainer(
    vocab_size=vocab_size, special_tokens=list(SPECIAL), show_progress=False,
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
  return _of(bpe)


def load(path):
  """The tokenizer that `save` wrote; refuses a file whose special ids are others."""
  if not Path(path).is_file():
    raise FileNotFoundError(f'{path}: no tokenizer here; train one and save it')
  try:
    bpe = tokenizers.Tokenizer.from_file(str(path))
  except Exception as error:      # the library raises the bare class
    raise ValueError(f'{path}: not a tokenizer file ({error})') from None
  ids = [bpe.token_to_id(name) for name in SPECIAL]
  if ids != list(range(len(SPECIAL))):
    raise ValueError(f'{path}: {", ".join(SPECIAL)} have the ids {ids} and not 0, 1, 2: '
                     'train a tokenizer with this package')
  return _of(bpe)


def _of(bpe):
  bpe.encode_special_tokens = True      # encode their spelling as text; the file does not keep this
  return Tokenizer(bpe)
