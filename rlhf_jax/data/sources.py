"""Published files on disk, plain or gzip, read strictly and in one pass; what is made of them, cached.

The one place of `data` that opens source files: JSON lines, and dumps in XML. A record is an object
with the named text fields; whatever is not (broken JSON or XML, wrong encoding, a stream cut off) is
an error that names file and line, or is left out and reported.
"""
import gzip
import hashlib
import json
import os
import zlib
from pathlib import Path
from xml.etree import ElementTree

import tensorflow_datasets as tfds

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
  found, problems = [], []
  for _, record, problem in records(path, fields):
    if problem is None:
      found.append(record)
    elif on_error == 'raise':
      raise ValueError(problem)
    else:
      problems.append(problem)
  return found, problems


def records(path, fields=()):
  """(line number, record, None), or (line number, None, problem), of each line of a .jsonl file that
  is not empty; streamed. A record has text in `fields`."""
  for number, line in _lines(path):
    try:
      if isinstance(line, Exception):
        raise ValueError(f'the rest is unreadable ({line})')
      if line:
        yield number, _record(line, fields), None
    except ValueError as error:
      yield number, None, f'{path}, line {number}: {error}'


def xml_rows(path):
  """(line number, attributes, None) of each <row .../> under the root of an XML file, streamed; where
  the file is malformed or cut off, (line number, None, problem), and there it ends."""
  parser, root, number = ElementTree.XMLPullParser(('start',)), None, 0
  try:
    for number, line in _lines(path):
      if isinstance(line, Exception):
        raise ValueError(line)
      parser.feed(line + b'\n')
      for _, element in parser.read_events():
        root = element if root is None else root
        if element is not root and element.tag == 'row':
          yield number, dict(element.attrib), None
          root.clear()                       # else all rows of the dump stay in memory
    parser.close()
  except (ElementTree.ParseError, ValueError) as error:
    yield number, None, f'{path}, line {number}: the rest is unreadable ({error})'


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


def uniform(text):
  """A number in [0, 1) that belongs to a text: the same in every file, order and run."""
  return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], 'big') / 2 ** 64


def tally(dropped, kind, example, count=1):
  """Counts what is left out, in {kind: (count, first example)}."""
  before, first = dropped.get(kind, (0, example))
  dropped[kind] = (before + count, first)


def prepare(make, cache):
  """The TFDS builder make() with its data prepared under `cache`.

  The place is filled elsewhere and then renamed, so it is whole or not there. What keeps it from
  being filled (OSError, tfds.download.DownloadError) is raised.
  """
  builder = make()
  try:
    builder.download_and_prepare(
      download_dir=Path(cache) / 'downloads', file_format='array_record',
      download_config=tfds.download.DownloadConfig(
        try_download_gcs=False, force_checksums_validation=False))
  except OSError:
    if not builder.data_path.exists():      # else another process was first
      raise
  return make()


def texts(folder):
  """The plain texts for language-model pretraining: field `text` of every lm/*.jsonl.gz, in order
  of the file names; an empty list without such files."""
  paths = sorted((Path(folder) / 'lm').glob('*.jsonl.gz'))
  return [record['text'] for path in paths for record in read_jsonl(path, ('text',))[0]]
