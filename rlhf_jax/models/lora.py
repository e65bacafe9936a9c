"""LoRA by merging: weights W + scale * A B, with A and B of a small rank trained and W frozen.

Hu et al. 2021: A starts as normal numbers, B at zero, so that training starts from W itself. The merged
weights are an ordinary tree of parameters: networks, losses and samplers do not know. Nothing of the
kind is in Bai et al. 2022; it makes the state of an optimiser small.
"""
import functools

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from rlhf_jax.core.spec import Spec, normal, zeros


def adapter(spec, rank, targets):
  """The tree of Specs {..., name: {'a': [*stacked, *inputs, rank], 'b': [*stacked, rank, *outputs]}} of
  the matrices of `spec` whose name is one of `targets`; refuses a target that is none."""
  flat = {path: s for path, s in flatten_dict(spec).items() if path[-1] in targets}
  missing = set(targets) - {path[-1] for path in flat}
  if missing or rank < 1:
    raise ValueError(f'no adapter of rank {rank} for {", ".join(sorted(missing or targets))}: use a '
                     'rank of 1 or more and names of matrices inside the layers')
  return unflatten_dict({path: _pair(s, rank) for path, s in flat.items()})


def _pair(spec, rank):
  """A and B of one matrix. All heads are one side of it, as they are one product."""
  stacked = sum(name in ('layers', 'member') for name in spec.axes)
  inputs = stacked + (2 if spec.axes[stacked] == 'heads' else 1)
  axes, shape, lead = spec.axes, spec.shape, slice(0, stacked)
  fan_in = functools.reduce(lambda n, size: n * size, shape[stacked:inputs])
  return {
    'a': Spec((*shape[:inputs], rank), (*axes[:inputs], None), normal(fan_in**-0.5), spec.dtype),
    'b': Spec((*shape[lead], rank, *shape[inputs:]), (*axes[lead], None, *axes[inputs:]), zeros,
              spec.dtype)}


def merge(base, adapter, scale):
  """`base` with scale * A B added to the matrices that `adapter` has pairs for."""
  flat, pairs = flatten_dict(base), flatten_dict(adapter)
  for path in {path[:-1] for path in pairs}:
    weight, a, b = flat[path], pairs[*path, 'a'], pairs[*path, 'b']
    product = functools.partial(jnp.tensordot, axes=1)
    for _ in range(a.ndim + b.ndim - 2 - weight.ndim):             # stacked layers, members
      product = jax.vmap(product)
    flat[path] = (weight + scale * product(a, b)).astype(weight.dtype)
  return unflatten_dict(flat)
