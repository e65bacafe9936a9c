"""The run directory: config.json, starts.jsonl, metrics.jsonl, summary.json, checkpoints/ and DONE.

One folder is one run of one resolved config. Files are replaced whole (written beside, then
renamed), only metrics.jsonl grows; a run killed at any moment leaves a folder that can be resumed.
Of several processes (RLHF_PROCESS, see `run.config.prepare_backend`) the first alone writes.
Numbers that are not finite are written as null, so every file is strict JSON. jax is asked for its
devices when a run is opened, and not needed to read one.
"""
import hashlib
import json
import math
import os
from pathlib import Path

import numpy as np

from rlhf_jax.core import environment


def writes():
  """Whether this process is the one that writes files."""
  return os.environ.get('RLHF_PROCESS', '0') == '0'


def open_run(path, config):
  """'new' (config.json is written now), 'resume' (the same config, not finished) or 'done'. Of one that
  is not done starts.jsonl tells with what it was started, see `made_with`.

  Refuses, and changes nothing, where the folder holds another config or is no run at all. Two
  configs are the same when their JSON is: 1 and 1.0 differ, a tuple and a list do not.
  """
  path, text = Path(path), _config_text(config, indent=2)
  if path.exists() and not path.is_dir():
    raise ValueError(f'{path} is a file: name a folder for the run')
  if not path.exists() or all(file.suffix == '.tmp' for file in path.iterdir()):
    path.mkdir(parents=True, exist_ok=True)
    write_text(path / 'config.json', text + '\n')
    _note_start(path)
    return 'new'
  if not (path / 'config.json').exists():
    raise ValueError(f'{path} is not empty and has no config.json, so it is not a run: '
                     'name another folder')
  for key, there, here in differences(read_config(path), json.loads(text)):
    raise ValueError(f'{path} holds a run of another config: {key} is {there} there and {here} here; '
                     'set it back to resume that run, or name another folder')
  if is_done(path):
    return 'done'
  _note_start(path)
  return 'resume'


def _note_start(path):
  if writes():
    file = path / 'starts.jsonl'
    before = file.read_text(encoding='utf-8') if file.exists() else ''
    write_text(file, before + json.dumps(environment.describe()) + '\n')


def made_with(path):
  """{name: the texts of `environment.describe`, each once} of all starts of the run in `path` and of
  the runs in its folders; {} where none was noted."""
  files = [*Path(path).glob('starts.jsonl'), *sorted(Path(path).glob('*/starts.jsonl'))]
  starts = [record for file in files for _, record in _records(file)]
  return {name: list(dict.fromkeys(start[name] for start in starts if name in start))
          for name in dict.fromkeys(name for start in starts for name in start)}


def config_hash(config):
  """Ten hexadecimal digits that name a resolved config, whatever the order of its keys."""
  return hashlib.sha256(_config_text(config, sort_keys=True).encode()).hexdigest()[:10]


def differences(one, other):
  """[(dotted key, its value in `one`, in `other`)] of the settings that differ between two configs as
  JSON has them, the values as JSON or 'absent'."""
  one, other = _flat(one), _flat(other)
  return [(key, one.get(key, 'absent'), other.get(key, 'absent'))
          for key in sorted(one.keys() | other.keys()) if one.get(key) != other.get(key)]


def read_config(path):
  """The config of the run, as plain dicts, lists, numbers and text."""
  return read_json(Path(path) / 'config.json', 'name the folder of a run')


def append_metrics(path, step, metrics):
  """One more line of metrics.jsonl: {"step": step, name: number, ...}."""
  line = {'step': int(step)}
  for name, value in metrics.items():
    if np.size(value) != 1:
      raise ValueError(f'metric {name!r} has {np.size(value)} values: reduce it to one number')
    line[name] = _plain(float(np.reshape(value, ())))
  if not writes():
    return
  with open(Path(path) / 'metrics.jsonl', 'a', encoding='utf-8') as file:
    file.write(json.dumps(line) + '\n')


def truncate_metrics(path, step):
  """Drops the lines after `step` and a torn last line; -1 drops all.

  Called on resume with the restored step: what is written again then follows what was kept, and
  the file of an interrupted run equals that of an uninterrupted one.
  """
  file = Path(path) / 'metrics.jsonl'
  if file.exists():
    write_text(file, ''.join(f'{line}\n' for line, record in _records(file)
                             if record['step'] <= step))


def read_metrics(path, *names):
  """Columns of metrics.jsonl as numpy arrays: 'step' and `names`, on the lines that hold them all.

  Without names: every column, all of one length, NaN where a line lacks it (or holds null). A torn
  last line, left by a killed run, is not read.
  """
  file = Path(path) / 'metrics.jsonl'
  if not file.exists():
    raise FileNotFoundError(f'{file} does not exist: start the run, or name the folder of a run')
  records = [record for _, record in _records(file)]
  known = list(dict.fromkeys(name for record in records for name in record))
  for name in names:
    if name not in known:
      raise ValueError(f'{file} has no metric {name!r}: it has {", ".join(known) or "no lines"}')
  kept = [record for record in records if all(name in record for name in names)]
  columns = {'step': np.array([record['step'] for record in kept], np.int64)}
  for name in names or known:
    if name != 'step':
      columns[name] = np.array([record.get(name) for record in kept], np.float64)
  return columns


def write_summary(path, summary):
  """summary.json from nested dicts of numbers and text; arrays become lists."""
  write_text(Path(path) / 'summary.json', json.dumps(_plain(summary), indent=2) + '\n')


def read_summary(path):
  """The summary of a run, as plain dicts, lists, numbers and text."""
  return read_json(Path(path) / 'summary.json', 'the run has not got so far; resume it')


def mark_done(path):
  """The last act of a run, after its summary."""
  write_text(Path(path) / 'DONE', '')


def is_done(path):
  """Whether the run in this folder has finished."""
  return (Path(path) / 'DONE').exists()


def write_text(path, text):
  """`text` as the file `path`, whole or not at all: written beside it, then renamed over it."""
  if not writes():
    return
  path = Path(path)
  beside = path.with_name(path.name + '.tmp')
  beside.write_text(text, encoding='utf-8')
  os.replace(beside, path)


def _config_text(config, **options):
  """The JSON of a config. Non-finite numbers are refused here: as null, infinity and None would
  name the same run."""
  try:
    return json.dumps(config, allow_nan=False, **options)
  except (TypeError, ValueError) as error:
    raise ValueError(f'the config cannot be written as JSON ({error}): '
                     'use finite numbers, text, lists and dicts') from None


def read_json(file, remedy):
  """What a JSON file of a run holds; `remedy` ends the line that says it is not there."""
  if not file.exists():
    raise FileNotFoundError(f'{file} does not exist: {remedy}')
  try:
    return json.loads(file.read_text(encoding='utf-8'))
  except ValueError as error:
    raise ValueError(f'{file} is not JSON ({error}): restore it or remove the folder') from None


def _records(file):
  """(line, object) of each line; the last may be torn, and is left out then."""
  lines = file.read_text(encoding='utf-8').splitlines()
  records = []
  for i, line in enumerate(lines):
    try:
      records.append((line, json.loads(line)))
    except ValueError:
      if i < len(lines) - 1:
        raise ValueError(f'{file} line {i + 1} is not JSON: remove that line') from None
  return records


def _flat(config, prefix=''):
  """Dotted key -> the JSON of its value."""
  flat = {}
  for key, value in config.items():
    if isinstance(value, dict) and value:
      flat.update(_flat(value, f'{prefix}{key}.'))
    else:
      flat[prefix + key] = json.dumps(value, sort_keys=True)
  return flat


def _plain(value):
  """The value in JSON's own types."""
  if isinstance(value, dict):
    return {str(key): _plain(inner) for key, inner in value.items()}
  if isinstance(value, (list, tuple)):
    return [_plain(inner) for inner in value]
  if hasattr(value, 'tolist'):              # an array or an array's scalar, of numpy or jax
    return _plain(value.tolist())
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return value
