"""The device mesh and where arrays live on it.

Axes: 'data' (rows of the batch), 'fsdp' (rows of the batch, and parameters cut along their width),
'tensor' (heads, hidden units and the vocabulary). jax.jit with these shardings is what once was
called pjit. Every impossible setting is refused here, before anything compiles.
TRAIN_RULES say where parameters rest, COMPUTE_RULES how arrays are cut while they are computed with.
"""
import math

import jax
import numpy as np
from jax.experimental import mesh_utils, multihost_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

AXES = ('data', 'fsdp', 'tensor')
TRAIN_RULES = {'embed': 'fsdp', 'heads': 'tensor', 'mlp': 'tensor', 'vocab': 'tensor', 'kv': None,
               'layers': None, 'member': None, 'context': None}
# The width is whole while computing: each layer's weights are gathered, rows stay on their devices.
COMPUTE_RULES = TRAIN_RULES | {'embed': None, 'rows': ('data', 'fsdp')}


def make(data=1, fsdp=1, tensor=1, devices=None):
  """A Mesh over all `devices` (default: every device). At most one size may be -1: the rest."""
  devices = jax.devices() if devices is None else list(devices)
  asked = data, fsdp, tensor
  known = math.prod(size for size in asked if size != -1)
  sizes = tuple(len(devices) // known if size == -1 else size for size in asked if known > 0)
  if asked.count(-1) > 1 or known < 1 or math.prod(sizes) != len(devices):
    tensor_fits = math.gcd(max(tensor, 1), len(devices))
    fsdp_fits = math.gcd(max(fsdp, 1), len(devices) // tensor_fits)
    fits = len(devices) // (tensor_fits * fsdp_fits), fsdp_fits, tensor_fits
    raise ValueError(f'mesh {_text(asked)} does not fit {len(devices)} devices: '
                     f'use {_text(fits)}, or -1 for one of them')
  # Auto is written out: the default differs between JAX versions.
  kinds = (AxisType.Auto,) * 3
  try:
    return jax.make_mesh(sizes, AXES, axis_types=kinds, devices=devices)
  except NotImplementedError:            # axes of a TPU pod must be cut: 16 x 8 x 4 of 8 x 8 x 8 chips
    laid = mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
    return Mesh(laid, AXES, axis_types=kinds)


def abstract(data, fsdp, tensor):
  """A Mesh of as many chips, none of which is here: for lowering and for counting bytes."""
  return AbstractMesh((data, fsdp, tensor), AXES, axis_types=(AxisType.Auto,) * 3)


def batch_shards(mesh):
  """How many devices or groups of devices hold rows of their own."""
  return mesh.shape['data'] * mesh.shape['fsdp']


def check_batch(batch_size, mesh):
  """Refuses a batch whose rows do not divide over the axes 'data' and 'fsdp'."""
  parts = batch_shards(mesh)
  if batch_size % parts:
    nearest = max(parts, round(batch_size / parts) * parts)
    raise ValueError(f'a batch of {batch_size} rows does not divide over data * fsdp = {parts}: '
                     f'use {nearest}')


def batch_sharding(mesh):
  """Rows over 'data' and 'fsdp', everything else whole."""
  return NamedSharding(mesh, PartitionSpec(('data', 'fsdp')))


def replicated(mesh):
  """Every device holds the whole array."""
  return NamedSharding(mesh, PartitionSpec())


def pin(mesh):
  """pin(x, *axes) -> x, kept cut by COMPUTE_RULES where it is computed; axes: a logical name for each
  dimension, one that does not divide stays free.

  Without it XLA is free to cut hidden states along their width, as the weights of 'fsdp' are, and
  then every chip computes with the rows of all others (4 times the memory at fsdp = 8).
  """
  if mesh.size == 1:
    return lambda x, *axes: x
  return lambda x, *axes: jax.lax.with_sharding_constraint(x, NamedSharding(
    mesh, cut(mesh, x.shape, axes, PartitionSpec.UNCONSTRAINED)))


def cut(mesh, shape, axes, otherwise=None):
  """The PartitionSpec, by COMPUTE_RULES, of an array with these logical axes; `otherwise` is where a
  dimension goes that does not divide, None for whole."""
  def place(size, name):
    axes = COMPUTE_RULES[name]
    parts = math.prod(mesh.shape[axis] for axis in ((axes,) if isinstance(axes, str) else axes or ()))
    return axes if size % parts == 0 else otherwise
  return PartitionSpec(*map(place, shape, axes))


def put_batch(batch, mesh):
  """Host arrays -> global arrays, rows over 'data' and 'fsdp'.

  With several processes each passes the whole batch and keeps what its devices hold: a batch is a
  function of its position, and one that spans 'tensor' needs no bookkeeping of whose rows are whose.
  """
  rows = {x.shape[0] for x in jax.tree.leaves(batch)}
  if len(rows) != 1:
    raise ValueError(f'the arrays of a batch have {sorted(rows)} rows: they must all have the same')
  check_batch(rows.pop(), mesh)
  return put(batch, batch_sharding(mesh))


def put(tree, shardings):
  """Arrays that every process holds whole, or that lie on the mesh -> global arrays on `shardings`, one
  for all leaves or a tree of them."""
  if isinstance(shardings, NamedSharding):
    shardings = jax.tree.map(lambda _: shardings, tree)
  return jax.device_put(tree, shardings) if jax.process_count() == 1 else jax.tree.map(
    _put_one, tree, shardings)


def _put_one(x, sharding):
  """jax.device_put, which refuses what one process holds where others have a part."""
  if isinstance(x, jax.Array) and not x.is_fully_addressable:
    return jax.device_put(x, sharding)
  if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
    return jax.random.wrap_key_data(_put_one(jax.random.key_data(x), sharding),
                                    impl=jax.random.key_impl(x))
  x = np.asarray(x)
  return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])


def fetch(tree):
  """Global arrays -> host arrays, whole in every process."""
  if jax.process_count() == 1:
    return jax.device_get(tree)
  return multihost_utils.process_allgather(tree, tiled=True)


def _text(sizes):
  return ', '.join(f'{name}={size}' for name, size in zip(AXES, sizes, strict=True))
