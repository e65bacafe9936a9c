"""Published files on disk: JSON lines, plain or gzip, read strictly and in one pass.

The one place of `data` that opens source files. A record is an object with the named text fields;
whatever is not (broken JSON, wrong encoding, a stream cut off) is an error that names file and
line, or is left out and reported.
"""
import gzip
import hashlib
import json
import os
import zlib
from pathlib import Path

DATA_VARIABLE, CACHE_VARIABLE = 'RLHF_DATA_DIR', 'RLHF_CACHE_DIR'


def data_dir(value=None):
  """The folder of published data: `value`, else $RLHF_DATA_DIR, else None (it can be downloaded).

  A folder that is named and is not there is an error, never a reason to download.
  """
  named = value or os.environ.get(DATA_VARIABLE)
  if not named:
    return None
  folder = Path(named).expanduser()
  if not folder.is_dir():
    raise FileNotFoundError(f'data folder {folder} does not exist: correct {DATA_VARIABLE} or '
                            'data.dir, or unset both to download the published files')
  return folder


def cache_dir(value=None):
  """Where downloads and prepared data live: `value`, $RLHF_CACHE_DIR or ~/.cache/rlhf_jax."""
  return Path(value or os.environ.get(CACHE_VARIABLE) or '~/.cache/rlhf_jax').expanduser()


def read_jsonl(path, fields=(), on_error='raise'):
  """(records, problems): the objects of a .jsonl or .jsonl.gz file, each with text in `fields`.

  on_error: 'raise' stops at the first bad line, 'skip' leaves it out and says so in `problems`, one
  line each. After a damaged gzip stream nothing more can be read: one problem stands for the rest.
  """
  if on_error not in ('raise', 'skip'):
    raise ValueError(f"on_error is 'raise' or 'skip', not {on_error!r}")
  records, problems = [], []
  for _, record in each_record(path, fields):
    if not isinstance(record, ValueError):
      records.append(record)
    elif on_error == 'raise':
      raise record from None
    else:
      problems.append(str(record))
  return records, problems


def each_record(path, fields=()):
  """(line number from 1, object) of each line that is not blank, one at a time; in place of a bad
  one the ValueError that names file and line."""
  for number, line in _lines(path):
    try:
      if isinstance(line, Exception):
        raise ValueError(f'the rest is unreadable ({line})')
      if line:
        yield number, _record(line, fields)
    except ValueError as error:
      yield number, ValueError(f'{path}, line {number}: {error}')


def _record(line, fields):
  """The object in a line of bytes."""
  record = json.loads(line.decode('utf-8'))
  if not isinstance(record, dict):
    raise ValueError('not a JSON object')
  for field in fields:
    if not isinstance(record.get(field), str):
      raise ValueError(f'no text in the field {field!r}')
    record[field].encode('utf-8')      # JSON can spell half a character, which no file can hold
  return record


def _lines(path):
  """(line number, stripped bytes) of each line; where a gzip stream breaks, (number, exception)."""
  path, number = Path(path), 0
  if not path.is_file():
    raise FileNotFoundError(f'{path}: no such file')
  with path.open('rb') as raw:
    packed = raw.read(2) == b'\x1f\x8b'      # by content: downloads do not keep their names
    raw.seek(0)
    try:
      for number, line in enumerate(gzip.open(raw) if packed else raw, 1):
        yield number, line.strip()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
      yield number + 1, error


def digest(paths):
  """sha256 over the contents of files, in the order given; where they lie does not matter."""
  total = hashlib.sha256()
  for path in paths:
    with open(path, 'rb') as file:
      total.update(hashlib.file_digest(file, 'sha256').digest())
  return total.hexdigest()


def texts(folder):
  """The plain texts for language-model pretraining: field `text` of every lm/*.jsonl.gz, in order
  of the file names; an empty list without such files."""
  paths = sorted((Path(folder) / 'lm').glob('*.jsonl.gz'))
  return [record['text'] for path in paths for record in read_jsonl(path, ('text',))[0]]
