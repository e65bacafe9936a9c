"""Byte-level BPE: any text to ids and back without loss.

Trained on the run's own texts (the paper's 2^16 vocabulary does not fit a small model). Pad, end
and end-of-context are three different ids that no text can produce: a text that spells them out is
encoded letter by letter. Reads and writes one JSON file in the format of the `tokenizers` library,
and takes over the byte-level BPE of another model, whose end token becomes ours.
"""
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from rlhf_jax.core import rundir

PAD, END, END_OF_CONTEXT = SPECIAL = ('<|pad|>', '<|end|>', '<|eoc|>')
_BYTES = 256
_PROBE = '\n\nHuman: a  b\tc', " d's\n\nAssistant: \u00e9\u4f60", ' e'


@dataclass(frozen=True)
class Tokenizer:
  """A trained vocabulary. Ids 0, 1, 2 are pad, end and end of context, then come the bytes; one taken
  over from another model has them elsewhere."""
  bpe: tokenizers.Tokenizer
  pad_id: int
  end_id: int
  eoc_id: int

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
  """The tokenizer that `save` wrote; refuses a file without the three special tokens."""
  bpe = _parse(path, _text(path))
  ids = [bpe.token_to_id(name) for name in SPECIAL]
  if None in ids:
    raise ValueError(f'{path}: {", ".join(SPECIAL)} have the ids {ids} and need one each: train a '
                     'tokenizer with this package, or import the model')
  return _of(bpe)


def adopt(path, end_id, rows=0, multiple_of=1):
  """The tokenizer of another model, for this package.

  Its token `end_id` is called END from now on. PAD and END_OF_CONTEXT are new tokens behind its own, so
  that no two are one. Then come tokens that no text produces, up to `rows`, the rows of the model's
  table, and to a `multiple_of`: every row has its id. Refuses a tokenizer with which pieces of text,
  encoded apart and joined, do not give the text again.
  """
  file = json.loads(_parse(path, _text(path)).to_str())
  kind, vocab = file['model']['type'], file['model']['vocab']
  if kind != 'BPE':
    raise ValueError(f'{path}: a tokenizer of type {kind} is not implemented: only byte-level BPE is')
  names = {i: n for n, i in vocab.items()} | {t['id']: t['content'] for t in file['added_tokens']}
  if end_id not in names or END in names.values() and names[end_id] != END:
    raise ValueError(f'{path}: the end token cannot be id {end_id}, which is {names.get(end_id)!r}, '
                     f'{END} being {"another" if END in names.values() else "free"}: name another one')
  file['model']['vocab'] = {END if i == end_id else name: i for name, i in vocab.items()}
  for token in file['added_tokens']:
    if token['id'] == end_id:
      token |= {'content': END, 'special': True}
  bpe = _parse(path, json.dumps(file))
  bpe.no_padding()
  bpe.no_truncation()
  bpe.add_special_tokens(list(SPECIAL))
  size = -(-max(rows, bpe.get_vocab_size()) // multiple_of) * multiple_of
  bpe.add_special_tokens([f'<|unused {i}|>' for i in range(bpe.get_vocab_size(), size)])
  if sorted(bpe.get_vocab().values()) != list(range(size)):
    raise ValueError(f'{path}: the ids are not 0 to {size - 1}, each once: a tokenizer with gaps is '
                     'not implemented')
  made = _of(bpe)
  if made.decode(sum(made.encode_batch(_PROBE), [])) != ''.join(_PROBE):
    raise ValueError(f'{path}: pieces of text encoded apart do not join to the text again: only '
                     'byte-level BPE without added blanks is implemented')
  return made


def _text(path):
  if not Path(path).is_file():
    raise FileNotFoundError(f'{path} does not exist: name the folder of a run that trained a model')
  return Path(path).read_text(encoding='utf-8')


def _parse(path, text):
  try:
    return tokenizers.Tokenizer.from_str(text)
  except Exception as error:      # the library raises the bare class
    raise ValueError(f'{path}: not a tokenizer file ({error})') from None


def _of(bpe):
  bpe.encode_special_tokens = True      # encode their spelling as text; the file does not keep this
  return Tokenizer(bpe, *(bpe.token_to_id(name) for name in SPECIAL))
