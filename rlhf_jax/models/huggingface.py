"""Hugging Face folders: config.json and safetensors to (TransformerConfig, parameters), and back.

Names, axes and order of the weights are the tables of `models.families`, used in both directions, so
that a folder read and written again holds the same bytes. Whatever is missing, unexpected, set twice
or of another shape is refused by its name. Folders are local; nothing is ever downloaded.
"""
import dataclasses
import json
import math
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import safe_open
from safetensors.numpy import save_file

from rlhf_jax.core import spec
from rlhf_jax.models import families, transformer

_DTYPES = {'F32': 'float32', 'F16': 'float16', 'BF16': 'bfloat16'}
_SHARED = 's'                   # the axis of parameters that lie in one weight; see `families`
_SHOWN = 8                      # names in an error


def load(path, param_dtype='float32'):
  """(config, params) of a folder: the parameters of `transformer.decoder(config)` as numpy arrays, in
  `param_dtype`, None for the stored one.

  A reward model (`...ForSequenceClassification` with one label) gives {'body', 'head'}, parameters of
  `heads.scalar(decoder(config))`: the tree says which it is. Its score is read on the last token.
  """
  path, settings = Path(path), settings_of(path)
  try:
    config, family = families.read(settings), families.find(settings)[1]
  except ValueError as error:
    raise ValueError(f'{path}/config.json: {error}') from None
  reward = families.is_reward_model(settings)
  rows, stored = _rows(config, reward), _stored(path, family)
  if config.tie_embeddings and not reward:
    _drop_tied_copy(path, family, rows, stored)
  _check_names(path, {name for row in rows for name in row.names}, set(stored))
  dtype = _dtype(path, stored, param_dtype)
  flat = {}
  for row in rows:
    layers = [_apart(row, _tensor(path, name, row, stored).astype(dtype)) for name in row.names]
    flat |= {p: np.stack(arrays) if row.stacked else arrays[0]
             for p, arrays in zip(row.paths, zip(*layers, strict=True), strict=True)}
  config = dataclasses.replace(config, param_dtype=dtype)
  if not reward:
    return config, unflatten_dict(flat, sep='/')
  head = {'weight': flat.pop('head/weight'), 'bias': np.zeros((), 'float32')}
  return config, {'body': unflatten_dict(flat, sep='/'), 'head': head}


def save(path, config, params, settings=None):
  """Writes config.json and model.safetensors into a new folder. A tree {'body', 'head'} becomes a
  reward model, without the body's output table; its head must have no bias, for which the format has
  no place. settings: further keys of config.json, such as the ids of tokens."""
  path, reward = Path(path), set(params) == {'body', 'head'}
  if path.exists() and (not path.is_dir() or any(path.iterdir())):
    raise FileExistsError(f'{path} is not an empty folder: name another one')
  made = families.write(config)
  family = families.FAMILIES[config.name]
  if reward:
    if np.any(np.asarray(params['head']['bias'])):
      raise ValueError('the head has a bias, for which a Hugging Face reward model has no place: '
                       'set it to 0 (all scores then move by the same amount)')
    made |= {'architectures': [family.reward_model], 'num_labels': 1}
    params = {k: v for k, v in params['body'].items() if k != 'unembed'} | {
      'head': {'weight': params['head']['weight']}}
  rows, flat = _rows(config, reward), flatten_dict(params, sep='/')
  _check_names('the parameters', {p for row in rows for p in row.paths}, set(flat))
  tensors = {}
  for row in rows:
    arrays = [np.asarray(flat[p]) for p in row.paths]
    layers = zip(*arrays, strict=True) if row.stacked else [arrays]
    prefix = '' if row.paths[0] in ('unembed', 'head/weight') else family.prefix
    tensors |= {prefix + name: _together(row, name, parts)
                for name, parts in zip(row.names, layers, strict=True)}
  made['torch_dtype'] = made['dtype'] = np.asarray(params['embed']).dtype.name
  unset = {'bos_token_id': None, 'eos_token_id': None, 'pad_token_id': None}
  path.mkdir(parents=True, exist_ok=True)
  save_file(tensors, path / 'model.safetensors', metadata={'format': 'pt'})
  text = json.dumps(made | unset | (settings or {}), indent=2, sort_keys=True)
  (path / 'config.json').write_text(text + '\n', encoding='utf-8')


def settings_of(path):
  """What the config.json of a folder says."""
  file = Path(path) / 'config.json'
  if not file.is_file():
    raise FileNotFoundError(f'{file} does not exist: name a local Hugging Face folder')
  try:
    return json.loads(file.read_text(encoding='utf-8'))
  except ValueError as error:
    raise ValueError(f'{file} is not JSON ({error}): copy the folder again') from None


def grow(config, params, rows):
  """(config, params) with `rows` rows in the tables of the vocabulary; the new ones are the mean of
  the others, which no text has trained."""
  def grown(table_VD):
    mean_1D = table_VD.astype('float32').mean(axis=0, keepdims=True).astype(table_VD.dtype)
    return np.concatenate([table_VD, np.repeat(mean_1D, rows - len(table_VD), axis=0)])
  if 'body' in params:
    config, body = grow(config, params['body'], rows)
    return config, params | {'body': body}
  tables = {k: grown(params[k]) for k in ('embed', 'unembed') if k in params}
  return dataclasses.replace(config, vocab_size=rows), params | tables


# -------------------------------------------------------------------------------------- rows of a table

class _Row(NamedTuple):
  """One weight, or one of each layer. shape: of the weight as stored; split: the same with every axis
  apart; order: of those axes here; shared: several parameters lie along the first of them."""
  names: list
  paths: tuple
  stacked: bool
  shape: tuple
  split: list
  order: list
  shared: bool


def _rows(config, reward):
  """The rows that a model has, by its specs: those of other options of its family are left out."""
  family = families.FAMILIES[config.name]
  have = set(flatten_dict(spec.abstract(transformer.decoder(config).spec), sep='/'))
  have = have - {'unembed'} | {'head/weight'} if reward else have
  table = *family.table, (family.output, 'v d', 'unembed'), families.SCORE
  rows = [_row(config, *row) for row in table if set(row[2:]) <= have]
  lost = have - {path for row in rows for path in row.paths}
  if lost:
    raise ValueError(f'the family {config.name} has no place for the parameters {_some(lost)}')
  return rows


def _row(config, name, pattern, *paths):
  size = {'v': config.vocab_size, 'd': config.width, 'h': config.heads, 'k': config.head_size,
          'g': config.heads // config.queries_per_key, 'f': config.mlp_width, 'c': config.context,
          _SHARED: len(paths)}
  there, _, here = pattern.partition(' -> ')
  groups = [group.strip('()').split() for group in re.findall(r'\([^)]*\)|\S+', there)]
  axes = [axis for group in groups for axis in group]
  here = here.split() or axes
  return _Row([name.format(i) for i in range(config.layers)] if '{}' in name else [name], paths,
              '{}' in name, tuple(math.prod(size[axis] for axis in group) for group in groups),
              [size[axis] for axis in axes], [axes.index(axis) for axis in here], here[0] == _SHARED)


def _apart(row, tensor):
  """The parameters that lie in one weight."""
  made = tensor.reshape(row.split).transpose(row.order)
  return list(made) if row.shared else [made]


def _together(row, name, parts):
  """The weight in which these parameters lie, in memory as it is written."""
  made = np.stack(parts) if row.shared else parts[0]
  wanted = tuple(row.split[i] for i in row.order)
  if made.shape != wanted:
    raise ValueError(f'the parameters {", ".join(row.paths)} of {name} have shape {made.shape} and not '
                     f'{wanted}: they belong to another config')
  return np.ascontiguousarray(made.transpose(np.argsort(row.order)).reshape(row.shape))


# ---------------------------------------------------------------------------------------------- weights

def _stored(path, family):
  """{name in our tables: (open file, its name there)} of all weights of a folder."""
  found = {}
  for file in _files(path):
    try:
      weights = safe_open(file, 'np')
    except Exception as error:                # the library raises a class of its own
      raise ValueError(f'{file}: not a readable safetensors file ({error})') from None
    for there in weights.keys():
      name = there.removeprefix(family.prefix)
      name = family.renamed.get(name, name)
      if name in found:
        raise ValueError(f'{path} sets {name} twice, by {found[name][1]} and by {there} in '
                         f'{file.name}: remove one')
      if not re.fullmatch(family.ignored, name):
        found[name] = weights, there
  return found


def _files(path):
  whole, index = path / 'model.safetensors', path / 'model.safetensors.index.json'
  if whole.is_file():
    return [whole]
  if not index.is_file():
    raise FileNotFoundError(f'{path} has no model.safetensors and no {index.name}: save the model as '
                            'safetensors first')
  files = sorted({path / name for name in json.loads(index.read_text())['weight_map'].values()})
  for file in files:
    if not file.is_file():
      raise FileNotFoundError(f'{file} does not exist and {index.name} names it: copy it too')
  return files


def _tensor(path, name, row, stored):
  weights, there = stored[name]
  tensor = weights.get_tensor(there)
  if tensor.shape != row.shape:
    raise ValueError(f'{path}: {there} has shape {tensor.shape} and config.json asks for {row.shape}')
  return tensor


def _drop_tied_copy(path, family, rows, stored):
  """A tied output table that is stored all the same must be the embeddings."""
  table = next(row for row in rows if row.paths == ('embed',))
  copy = stored.get(family.output)
  if copy and table.names[0] in stored:
    tied = _tensor(path, table.names[0], table, stored)
    if not np.array_equal(copy[0].get_tensor(copy[1]), tied):
      raise ValueError(f'{path} sets the tied table twice, by {table.names[0]} and by another '
                       f'{family.output}: set tie_word_embeddings to false or remove one')
    del stored[family.output]


def _dtype(path, stored, wanted):
  """The type of the parameters; None is the one that all weights are stored in."""
  kinds = {weights.get_slice(there).get_dtype() for weights, there in stored.values()}
  if not kinds <= set(_DTYPES):
    raise ValueError(f'{path} holds weights of type {", ".join(sorted(kinds - set(_DTYPES)))}: only '
                     f'{", ".join(_DTYPES)} are implemented')
  if wanted is None and len(kinds) > 1:
    raise ValueError(f'{path} holds weights of types {", ".join(sorted(kinds))}: name a param_dtype')
  return wanted or _DTYPES[kinds.pop()]


def _check_names(where, wanted, have):
  for kind, names in (('lack', wanted - have), ('hold the unexpected', have - wanted)):
    if names:
      raise ValueError(f'{where}: the weights {kind} {_some(names)}')


def _some(names):
  names = sorted(names)
  return ', '.join(names[:_SHOWN]) + (f' and {len(names) - _SHOWN} more' if names[_SHOWN:] else '')
