"""The teacher's file of context distillation: what a prompted model thinks of every token of a text.

Bai et al. 2022, appendix A.1: the teacher reads the prompt and then a text, once; of each token its
K largest log-probs are kept with their ids, and students of every size learn from the same file.
One array_record file: record 0 is a header in JSON, record i + 1 is sequence i, read by its number,
so a resumed run needs no iterator state; a damaged record is an error. The file is written beside
its place and renamed, so it is whole or not there.

Log-probs are float16, the log of the mass that the K leave over as a K+1st. Each is off by 2^-11 of
itself at most, and read they are made to sum to 1 again: else a sum of 1.0005 would count as a KL of
5e-4. Shapes: B sequences, T tokens, D distilled tokens of one sequence.
"""
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

_FORMAT = 'teacher file 1'


class Header(NamedTuple):
  """tokenizer: its digest; k: ids kept of each token; length: of the longest sequence; teacher: its
  run; source: sha256 of what the file was made from (weights, prompt, texts)."""
  tokenizer: str
  vocab_size: int
  k: int
  length: int
  teacher: str
  source: str


class TeacherFile(NamedTuple):
  """An open file of `size` sequences."""
  path: str
  header: Header
  size: int
  reader: Any


class Rows(NamedTuple):
  """Sequences padded on the right. weight_BT is 1 on the distilled tokens; top_logp_BTK and
  top_id_BTK are 0 elsewhere. generic_B: 1 for plain text, 0 for a dialogue."""
  tokens_BT: np.ndarray
  valid_BT: np.ndarray
  weight_BT: np.ndarray
  top_logp_BTK: np.ndarray
  top_id_BTK: np.ndarray
  generic_B: np.ndarray


def write(path, header, sequences):
  """Writes (tokens_T, distilled_T, generic, top_logp_DK, top_id_DK) one after another; distilled_T
  is 1 on the D tokens that the last two are about. An existing file is replaced at the end."""
  beside = f'{path}.tmp'
  Path(beside).unlink(missing_ok=True)
  writer = ArrayRecordWriter(beside, 'group_size:1')
  writer.write(json.dumps({'format': _FORMAT, **header._asdict()}).encode())
  for tokens_T, distilled_T, generic, top_logp_DK, top_id_DK in sequences:
    sizes = np.array([len(tokens_T), len(top_id_DK)], np.uint32)
    record = np.zeros((), _layout(header, *sizes))
    record['generic'], record['tokens'], record['distilled'] = generic, tokens_T, distilled_T
    record['logp'], record['id'] = with_rest(top_logp_DK), top_id_DK
    writer.write(sizes.tobytes() + record.tobytes())
  writer.close()
  os.replace(beside, path)


def _layout(header, time, count):
  """The fields of a sequence of `time` tokens of which `count` are distilled, behind the two numbers.
  Two bytes hold the ids of the paper's vocabulary of 2^16."""
  id_type = np.uint16 if header.vocab_size <= 2**16 else np.uint32
  return np.dtype([('generic', np.uint8), ('tokens', id_type, (time,)),
                   ('distilled', np.uint8, (time,)), ('logp', np.float16, (count, header.k + 1)),
                   ('id', id_type, (count, header.k))])


def with_rest(top_logp_DK):
  """[D, K+1]: the log of the mass that the K leave over as a last category, -inf where none is."""
  rest_D = np.maximum(1 - np.exp(np.float64(top_logp_DK)).sum(-1, keepdims=True), 0)
  with np.errstate(divide='ignore'):
    return np.concatenate([top_logp_DK, np.log(rest_D)], axis=-1)


def load(path):
  """The TeacherFile at `path`; one that is not whole or of another kind is refused."""
  if not Path(path).is_file():
    raise FileNotFoundError(f'{path}: no teacher file here; name one, or a teacher to make it')
  reader = ArrayRecordReader(str(path), 'readahead_buffer_size:0,max_parallelism:0')
  try:
    found = json.loads(reader.read([0])[0])
    if found.pop('format') != _FORMAT:
      raise ValueError('another format')
    return TeacherFile(str(path), Header(**found), reader.num_records() - 1, reader)
  except (RuntimeError, ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
    raise ValueError(f'{path} is not a whole teacher file ({_line(error)}): make it again') from None


def _line(error):
  return str(error).splitlines()[0][:100]


def check(file, tokenizer, k, length):
  """Refuses a file whose numbers mean other tokens to the student, or that it would not hold."""
  header = file.header
  if header.tokenizer != tokenizer.digest:
    raise ValueError(f'{file.path} was made with another tokenizer than the student has: take a '
                     f'student with that of {header.teacher}, or make the file from its own teacher')
  if header.k != min(k, header.vocab_size):
    raise ValueError(f'{file.path} keeps {header.k} log-probs a token and config.top_k is {k}: '
                     f'set it to {header.k}')
  if header.length > length:
    raise ValueError(f'{file.path} has sequences of {header.length} tokens and config.length is '
                     f'{length}: set it to {header.length}')


def read(file, index_B, width, pad_id):
  """The Rows of the sequences `index_B`, `width` tokens wide."""
  k, shape = file.header.k, (len(index_B), width)
  rows = Rows(np.full(shape, pad_id, np.int32), np.zeros(shape, np.float32),
              np.zeros(shape, np.float32), np.zeros((*shape, k), np.float32),
              np.zeros((*shape, k), np.int32), np.zeros(len(index_B), np.int32))
  try:
    records = file.reader.read([int(i) + 1 for i in index_B])
  except RuntimeError as error:
    raise ValueError(f'{file.path} is damaged ({_line(error)}): make it again') from None
  for b, data in enumerate(records):
    sizes = np.frombuffer(data, np.uint32, 2)
    record = np.frombuffer(data, _layout(file.header, *sizes), 1, sizes.nbytes)[0]
    time, on = sizes[0], np.flatnonzero(record['distilled'])
    rows.tokens_BT[b, :time], rows.valid_BT[b, :time] = record['tokens'], 1
    rows.weight_BT[b, on], rows.generic_B[b] = 1, record['generic']
    logp = record['logp'].astype(np.float32)
    rows.top_logp_BTK[b, on] = (logp - np.log(np.exp(logp).sum(-1, keepdims=True)))[:, :k]
    rows.top_id_BTK[b, on] = record['id']
  return rows
