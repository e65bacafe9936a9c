"""The device mesh and where arrays live on it.

Axes: 'data' (rows of the batch), 'fsdp' (rows of the batch, and parameters cut along their width),
'tensor' (heads, hidden units and the vocabulary). jax.jit with these shardings is what once was
called pjit. Every impossible setting is refused here, before anything compiles.
"""
import math

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

AXES = ('data', 'fsdp', 'tensor')
TRAIN_RULES = {'embed': 'fsdp', 'heads': 'tensor', 'mlp': 'tensor', 'vocab': 'tensor', 'kv': None,
               'layers': None, 'member': None, 'context': None}


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
  return jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


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


def put_batch(batch, mesh):
  """Host arrays -> global arrays, rows over 'data' and 'fsdp'.

  With several processes each passes its own share of the rows, shares of one size in the order of
  the process index.
  """
  sharding, processes = batch_sharding(mesh), jax.process_count()
  rows = {x.shape[0] for x in jax.tree.leaves(batch)}
  if len(rows) != 1:
    raise ValueError(f'the arrays of a batch have {sorted(rows)} rows: they must all have the same')
  check_batch(rows.pop() * processes, mesh)
  if processes == 1:
    return jax.device_put(batch, sharding)
  return jax.tree.map(lambda x: jax.make_array_from_process_local_data(
    sharding, x, global_shape=(x.shape[0] * processes, *x.shape[1:])), batch)


def _text(sizes):
  return ', '.join(f'{name}={size}' for name, size in zip(AXES, sizes, strict=True))
