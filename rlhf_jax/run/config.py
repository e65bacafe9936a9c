"""From the command line to a checked ConfigDict, and from errors to one line.

`--config=FILE[:variant]` calls `get_config(variant)` of that file; `--config.a.b=value` changes a key
that exists, to a value of its type. Unknown keys, files and variants fail here, before any compile.
`--config.model.name=DIR` is the model of that run directory, with all that its config says of it.
"""
import ast
import contextlib
import difflib
import importlib.util
import json
import math
import os
import pathlib
import re
import sys

import ml_collections
from ml_collections.config_dict import ConfigDict

from rlhf_jax.core import rundir
from rlhf_jax.data import sources
from rlhf_jax.models import sizes
from rlhf_jax.run.hooks import Diverged

ERRORS = (ValueError, FileNotFoundError, FileExistsError, ConnectionError, KeyError, Diverged)
OPTIONAL = {                                # or None
  'optimizer.clip': float, 'harmful_share': float, 'helpful_share': float, 'no_end_score': float,
  'value_clip': float, 'ppo.answer_width': int, 'end_token_id': int, 'unroll': bool}
MEMBERS = {'widths': int, 'pack': int, 'packed': float}   # of tuples that may be empty; of others: text
RANGES = {                                  # of keys with these last names, wherever they stand
  **dict.fromkeys(('batch_size', 'minibatches', 'microbatches', 'passes', 'samples', 'steps', 'epochs',
                   'log_every', 'eval_every', 'checkpoint_every', 'kl_horizon', 'answer_width'),
                  (1, math.inf)),
  **dict.fromkeys(('learning_rate', 'weight_decay', 'warmup_samples', 'halve_samples', 'clip',
                   'value_clip', 'kl_coef', 'kl_target', 'kl_stop', 'max_update_kl',
                   'value_coef', 'entropy_coef', 'pretrain_coef', 'lm_weight', 'harmful_weight',
                   'documents', 'dialogues', 'comparisons', 'validation_comparisons',
                   'test_comparisons'),
                  (0, math.inf)),
  **dict.fromkeys(('discount', 'lam', 'kl_least', 'warmup'), (0, 1))}


def module(path):
  """The Python module of a config file."""
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(f'{path}: no such config file; see the configs/ folder')
  spec = importlib.util.spec_from_file_location(f'config_{path.stem}', path)
  loaded = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(loaded)
  return loaded


def load(name):
  """The config of `FILE[:variant]`."""
  path, _, variant = name.partition(':')
  return module(path).get_config(variant)


def variant(arg, **variants):
  """The entry of `variants` that `arg` names ('' is 'default'); one line for an unknown name."""
  arg = arg or 'default'
  if arg not in variants:
    raise ValueError(f'config variant {arg!r} is unknown: use one of {", ".join(variants)}')
  return variants[arg]


def _convert(key, text, old):
  if isinstance(old, str):
    return text
  try:
    value = ast.literal_eval({'true': 'True', 'false': 'False'}.get(text.lower(), text))
  except (ValueError, SyntaxError):
    value = text
  name = key.rsplit('.', 1)[-1]
  optional = next((kind for end, kind in OPTIONAL.items() if f'.{key}'.endswith(f'.{end}')), None)
  kind, may_be_none = optional or type(old), optional or old is None
  if kind is float and isinstance(value, int) and not isinstance(value, bool):
    value = float(value)
  if kind is tuple:
    member = type(old[0]) if old else MEMBERS.get(name, str)
    value = tuple(float(x) if member is float and type(x) is int else x for x in several(value))
  if not (type(value) is kind or kind is type(None) or (value is None and may_be_none)) or (
      kind is tuple and any(type(x) is not member for x in value)):
    raise ValueError(f'config.{key}={text}: {"an" if kind is int else "a"} {kind.__name__} is wanted '
                     f'here, as in {old!r}')
  return value


def several(value):
  """A tuple of what was written as one value, a list, or words with a comma between."""
  if isinstance(value, str):
    value = [part.strip() for part in value.split(',') if part.strip()]
  return tuple(value) if isinstance(value, (list, tuple)) else (value,)


def override(config, key, text):
  """Sets config.key from text; the key must exist and keep its type."""
  flat = dict(flatten(config))
  if key not in flat:
    near = difflib.get_close_matches(key, flat, n=1) or [
      k for k in flat if k.rsplit('.', 1)[-1] == key.rsplit('.', 1)[-1]][:1]
    hint = f'did you mean config.{near[0]}?' if near else f'keys: {", ".join(sorted(flat))}'
    raise ValueError(f'config.{key} is unknown; {hint}')
  value = _convert(key, text, flat[key]) if isinstance(text, str) else text
  parent = config
  *path, last = key.split('.')
  for name in path:
    parent = parent[name]
  parent[last] = value
  if key == 'model.name' and value not in sizes.NAMES and pathlib.Path(value, 'config.json').is_file():
    config.model = ConfigDict(rundir.read_config(value)['model'])


def check_ranges(config):
  """Refuses numbers that no run can be made with."""
  for key, value in flatten(config):
    least, most = RANGES.get(key.rsplit('.', 1)[-1], (-math.inf, math.inf))
    if isinstance(value, (int, float)) and not least <= value <= most:
      raise ValueError(f'config.{key}={value}: use {least} ' + (
        'or more' if most == math.inf else f'to {most}'))


@contextlib.contextmanager
def naming(*given):
  """Errors about a path also say which keys of these configs name it."""
  try:
    yield
  except ERRORS as error:
    text = error.args[0] if error.args and isinstance(error.args[0], str) else ''
    keys = {f'config.{key}': None for config in given for key, value in flatten(config)
            if isinstance(value, str) and any(
              '/' in path and re.search(re.escape(path.partition('@')[0].rstrip('/'))
                                        + r'(?![\w.-])', text) for path in several(value))}
    if keys and 'config.' not in text.replace('config.json', ''):
      error.args = (f'{text} ({", ".join(keys)})', *error.args[1:])
    raise


def flatten(config, prefix=''):
  """(dotted key, value) of every leaf."""
  for key, value in config.items():
    if isinstance(value, (ConfigDict, dict)):
      yield from flatten(value, f'{prefix}{key}.')
    else:
      yield f'{prefix}{key}', value


def arguments(argv, names):
  """(options, overrides): the values of `--name=value` for these names, all of which are wanted, and
  [(key, value)] of `--config.key=value`, the model's name first, since it brings a whole section."""
  options, overrides = {}, []
  for arg in argv:
    key, equals, value = arg.partition('=')
    if not key.startswith('--') or not equals:
      raise ValueError(f'argument {arg!r}: write --name=value, as in --config=configs/train_ppo.py')
    if key.startswith('--config.'):
      overrides.append((key[len('--config.'):], value))
    else:
      options[key[2:]] = value
  unknown, missing = options.keys() - set(names), set(names) - options.keys()
  if unknown or missing:
    raise ValueError('write --config=configs/FILE.py[:variant] '
                     + ' '.join(f'--{name}=...' for name in names if name != 'config')
                     + ' [--config.key=value]'
                     + (f'; unknown: --{min(unknown)}' if unknown else ''))
  return options, sorted(overrides, key=lambda pair: pair[0] != 'model.name')


def parse(argv):
  """(config, options) from the arguments `--config=...`, `--workdir=...`, `--config.key=value`."""
  options, overrides = arguments(argv, ('config', 'workdir'))
  config = load(options['config'])
  for key, value in overrides:
    override(config, key, value)
  return config, options


@contextlib.contextmanager
def told_once():
  """Of several processes the first alone prints."""
  with contextlib.ExitStack() as stack:
    if not rundir.writes():
      nowhere = stack.enter_context(open(os.devnull, 'w'))
      stack.enter_context(contextlib.redirect_stdout(nowhere))
      stack.enter_context(contextlib.redirect_stderr(nowhere))
    yield


def main(run, argv=None):
  """Runs run(config, workdir) from the command line; `--help` prints what there is to set."""
  def command(argv):
    if '--help' in argv:
      print(sys.modules[run.__module__].__doc__)
      for name in (arg.partition('=')[2] for arg in argv if arg.startswith('--config=')):
        print('\n'.join(f'  --config.{key}={value}' for key, value in flatten(load(name))))
      return
    config, options = parse(argv)
    workdir = options['workdir']
    here = sys.modules[run.__module__].__spec__.name
    if here != config.main:
      raise ValueError(f'{options["config"]} is a config of {config.main}, not of {here}')
    check_ranges(config)
    prepare_backend()
    with told_once(), naming(config):
      finished = rundir.is_done(workdir)
      run(config, workdir)
      if finished:
        print(json.dumps(rundir.read_summary(workdir), indent=1))
        print(f'{workdir} is finished: for another run name another --workdir=')
  reported(command, sys.argv[1:] if argv is None else argv)


def reported(command, argv):
  """command(argv); an error that the user can mend prints one line and exits with 2.

  RLHF_TRACEBACK=1 shows where it came from.
  """
  try:
    command(argv)
  except ERRORS as error:
    if os.environ.get('RLHF_TRACEBACK'):
      raise
    print('error:', error.args[0] if error.args else repr(error), file=sys.stderr)
    sys.exit(2)
  except KeyboardInterrupt:
    print('\ninterrupted: the same command again goes on from what is there', file=sys.stderr)
    sys.exit(130)


def prepare_backend():
  """Turns the persistent compilation cache on (RLHF_CACHE_DIR, default ~/.cache/rlhf_jax), and joins
  the other processes of a run.

  RLHF_COORDINATOR=host:port RLHF_PROCESSES=count RLHF_PROCESS=index: one command per process, the
  address being that of process 0. RLHF_DISTRIBUTED=1: jax finds them out itself, on TPU pods, under
  Slurm and the like. All see one file system; process 0 writes and prints.
  """
  import jax
  join(os.environ)
  jax.config.update('jax_compilation_cache_dir', str(sources.cache_dir() / 'xla'))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)


def join(environment):
  """Starts `jax.distributed` as the environment says, see `prepare_backend`; nothing for one process.

  RLHF_PROCESS says from then on which process this is.
  """
  import jax
  names = 'RLHF_COORDINATOR', 'RLHF_PROCESSES', 'RLHF_PROCESS'
  given = [name for name in names if environment.get(name)]
  if environment.get('RLHF_DISTRIBUTED') == '1':
    jax.distributed.initialize()
    environment['RLHF_PROCESS'] = str(jax.process_index())
  elif given:
    missing = [name for name in names if name not in given]
    if missing:
      raise ValueError(f'{given[0]} is set and {missing[0]} is not: several processes take '
                       f'{", ".join(names)}, one process takes none')
    address, count, index = (environment[name] for name in names)
    if not (count.isdigit() and index.isdigit() and int(index) < int(count)):
      raise ValueError(f'RLHF_PROCESS={index} of RLHF_PROCESSES={count}: number the processes from 0')
    jax.config.update('jax_cpu_collectives_implementation', 'gloo')
    jax.distributed.initialize(address, int(count), int(index))


def stage(config, name, **changes):
  """The config of one stage of a pipeline: its section, what all stages share, and `changes`."""
  made = config[name].copy_and_resolve_references()
  for key in ('seed', 'model', 'data', 'mesh'):
    made[key] = config[key].copy_and_resolve_references() if key != 'seed' else config[key]
  for key, value in changes.items():
    made[key] = value
  return made


def section(config, which, /, **changes):
  """A copy of one section of a config with `changes`."""
  made = config[which].copy_and_resolve_references()
  made.update(changes)
  return made


def to_dict(config):
  """A plain, JSON-ready dictionary of a config."""
  return ml_collections.ConfigDict(config).to_dict()
