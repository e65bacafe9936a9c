"""Checkpoints with Orbax: parameters, optimiser state, data position, random key, and a digest.

Parameters are an item of their own, so that a later stage can read a role without its optimiser.
Orbax does not notice a flipped byte in array data nor a half-written step, so every leaf's CRC is
stored and checked, and restoring takes the newest step that verifies. The digest is computed where
all shards are addressable, that is in single-process runs.
"""
import contextlib
import logging
import math
import pathlib
import zlib

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax.traverse_util import flatten_dict

logging.getLogger('absl').setLevel(logging.ERROR)      # Orbax tells every step of every save
KEEP = 2


def _folder(workdir):
  return pathlib.Path(workdir).absolute() / 'checkpoints'


def manager(workdir):
  handlers = {'params': ocp.StandardCheckpointHandler(), 'rest': ocp.StandardCheckpointHandler(),
              'meta': ocp.JsonCheckpointHandler()}
  return ocp.CheckpointManager(_folder(workdir), item_handlers=handlers,
                               options=ocp.CheckpointManagerOptions(
                                 max_to_keep=KEEP, create=True, enable_async_checkpointing=False))


def _raw(leaf):
  return jax.random.key_data(leaf) if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf


def digest(tree):
  """CRC-32 of every leaf's bytes, by path; None when other processes hold a part of the tree."""
  if jax.process_count() > 1:
    return None
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {jax.tree_util.keystr(path): zlib.crc32(np.asarray(_raw(leaf)).tobytes())
          for path, leaf in leaves}


def _items(state):
  return {'params': state.params, 'rest': {
    'step': state.step, 'opt_state': state.opt_state, 'key': state.key, 'extra': state.extra}}


def save(mngr, step, state):
  """Writes `state` as data position `step`: a restored run continues with batch `step`. A damaged
  checkpoint of that step, passed over when the run was restored, is written anew."""
  items = _items(state)
  if step in mngr.all_steps():
    mngr.delete(step)
  mngr.save(step, force=True, args=ocp.args.Composite(
    **{name: ocp.args.StandardSave(item) for name, item in items.items()},
    meta=ocp.args.JsonSave({name: digest(item) for name, item in items.items()})))


def _restore(mngr, step, abstract):
  found = mngr.restore(step, args=ocp.args.Composite(
    **{name: ocp.args.StandardRestore(item) for name, item in abstract.items()},
    meta=ocp.args.JsonRestore()))
  for name in abstract:
    want, have = found.meta[name], digest(found[name])
    if want is not None and have is not None and want != have:
      wrong = next(k for k in have if want.get(k) != have[k])
      raise ValueError(f'the bytes of {name}{wrong} are not those that were written')
  return found


def _line(error):
  """The first line of an error, which may have hundreds."""
  return f'{type(error).__name__}: {error}'.splitlines()[0][:200]


def abstract(state):
  """The state as shapes, types and shardings, which `restore` takes too."""
  return jax.tree.map(ocp.tree.to_shape_dtype_struct, state)


def trained(mngr):
  """Whether there is a checkpoint behind that of the start."""
  return any(step > 0 for step in mngr.all_steps())


def restore(mngr, state, latest=math.inf):
  """(state, step) of the newest checkpoint up to `latest` that verifies; (state, 0) when there is
  none. Where there are trained ones and not one of them can be read, that is an error: a run is not
  begun anew, and its metrics dropped, because of it."""
  shapes = _items(abstract(state))
  steps, last = sorted((s for s in mngr.all_steps() if s <= latest), reverse=True), None
  for step in steps:
    try:
      found = _restore(mngr, step, shapes)
    except Exception as error:
      print(f'checkpoint {step} of {mngr.directory} is damaged and passed over: {_line(error)}')
      last = last or error
      continue
    return state.replace(params=found.params, **found.rest), step
  if steps and steps[0]:
    raise ValueError(f'no checkpoint of {mngr.directory} can be read ({_line(last)}): restore one, or '
                     'remove that run and start it again') from last
  return state, 0


def stored(workdir):
  """The tree of what the newest checkpoint of a run holds as parameters, as shapes."""
  with _newest(workdir) as (mngr, step):
    return _stored(mngr, step)


def load_params(workdir, abstract, part=None, elsewhere=None, step=None):
  """The parameters of a finished or running run's checkpoint `step`, or its newest, shaped and placed
  as `abstract`; with `part`, that entry of them, the others being read to sharding `elsewhere` and let
  go. A missing checkpoint or other shapes are refused in one line."""
  with _newest(workdir) as (mngr, newest):
    step = newest if step is None else step
    if step not in mngr.all_steps():
      raise FileNotFoundError(f'{workdir} has no checkpoint {step}: it keeps '
                              + ', '.join(map(str, sorted(mngr.all_steps()))))
    there = _stored(mngr, step)
    check_shapes(workdir, there if part is None else there[part], abstract)
    if part is not None:
      others = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=elsewhere), there)
      abstract = others | {part: abstract}
    with _damage_is_an_error(mngr, step):
      params = _restore(mngr, step, {'params': abstract}).params
  return params if part is None else params[part]


@contextlib.contextmanager
def _newest(workdir):
  """(manager, step) of a run's newest checkpoint; that of its start is not one."""
  if not _folder(workdir).is_dir():
    raise FileNotFoundError(f'{workdir}: no checkpoints here; run the stage that makes it first, or '
                            'name another run directory')
  with manager(workdir) as mngr:
    step = mngr.latest_step()
    if not step:
      raise FileNotFoundError(f'{workdir}: its checkpoint folder holds nothing trained; run that stage '
                              'first')
    yield mngr, step


def _stored(mngr, step):
  with _damage_is_an_error(mngr, step):
    return mngr.item_metadata(step)['params'].tree


@contextlib.contextmanager
def _damage_is_an_error(mngr, step):
  """A role is never read from an older checkpoint than it should be."""
  try:
    yield
  except Exception as error:                            # Orbax raises many kinds for damaged files
    raise ValueError(f'checkpoint {step} of {mngr.directory} is damaged ({_line(error)}): restore '
                     'it, or remove that run and make it again') from error


def check_shapes(workdir, stored, abstract):
  """Refuses parameters of other shapes, naming the first that differs."""
  have, want = (flatten_dict(tree, sep='/') for tree in (stored, abstract))
  for path in sorted(set(have) | set(want)):
    if path not in have or path not in want:
      raise ValueError(f'{workdir}: parameter {path} is {"missing" if path in want else "unexpected"}'
                       ' there; the configured model is another one: check config.model')
    if tuple(have[path].shape) != tuple(want[path].shape):
      raise ValueError(f'{workdir}: parameter {path} has shape {tuple(have[path].shape)}, the '
                       f'configured model wants {tuple(want[path].shape)}: check config.model and '
                       'the vocabulary size')
