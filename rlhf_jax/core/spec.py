"""Parameters as data: one tree of Specs gives initial values, shapes, counts and shardings.

Weights are never built twice. The key of a leaf is addressed by its path, so that adding a leaf
leaves the initial values of the others as they were.
"""
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from rlhf_jax.core.random import key_for


def normal(stddev):
  """An initialiser: independent normal numbers with mean 0, the same ones jitted or not: nothing is
  rounded together."""
  return lambda key, shape, dtype: (stddev * jax.lax.optimization_barrier(
    jax.random.normal(key, shape))).astype(dtype)


def zeros(key, shape, dtype):
  return jnp.zeros(shape, dtype)


def ones(key, shape, dtype):
  return jnp.ones(shape, dtype)


class Spec(NamedTuple):
  """One parameter before it exists. axes: a logical name or None for each dimension ('vocab',
  'embed', 'heads', 'kv', 'mlp', 'context', 'layers', 'member'); rules turn them into mesh axes."""
  shape: tuple
  axes: tuple
  init: Callable = zeros
  dtype: str = 'float32'


def init(spec_tree, key):
  """Parameters drawn from the specs; can be jitted with `shardings` as its out_shardings."""
  return _map(lambda path, s: s.init(key_for(key, path), s.shape, jnp.dtype(s.dtype)), spec_tree)


def abstract(spec_tree):
  """The tree of ShapeDtypeStructs: parameters without memory, for lowering and restoring."""
  return _map(lambda path, s: jax.ShapeDtypeStruct(s.shape, jnp.dtype(s.dtype)), spec_tree)


def count(spec_tree):
  """Number of parameters."""
  sizes = jax.tree.map(lambda x: x.size, abstract(spec_tree))
  return sum(jax.tree.leaves(sizes))


def shardings(spec_tree, mesh, rules):
  """The tree of NamedShardings. rules: logical name -> mesh axis, or None for replicated."""
  def one(path, s):
    axes = [None if name is None else _rule(rules, name, path) for name in s.axes]
    for i, (size, axis) in enumerate(zip(s.shape, axes, strict=True)):
      if axis is not None and size % mesh.shape[axis]:
        raise ValueError(f"parameter {path}: dimension {i} ('{s.axes[i]}') of size {size} does not "
                         f"divide over mesh axis '{axis}' of size {mesh.shape[axis]}: "
                         f"use a divisor of {size} for '{axis}'")
    return NamedSharding(mesh, PartitionSpec(*axes))
  return _map(one, spec_tree)


def _rule(rules, name, path):
  if name not in rules:
    raise ValueError(f"parameter {path}: the sharding rules lack axis '{name}': "
                     f'add it to {", ".join(rules)}')
  return rules[name]


def _map(function, spec_tree):
  """function(path, spec) for each leaf; path is like 'layers/up'."""
  return jax.tree_util.tree_map_with_path(
    lambda path, s: function(jax.tree_util.keystr(path, simple=True, separator='/'), s),
    spec_tree, is_leaf=lambda x: isinstance(x, Spec))
