"""Optimisers at learning rate 1, and schedules as factors of it.

The learning rate itself is an array in `TrainState.extra`, so that a sweep can vary it inside one
compiled program; an optimiser here returns the step for a learning rate of 1. Adam's epsilon is
added after bias correction, as in optax, unless asked otherwise. Neither paper states an optimiser
(Bai et al. 2022 and Askell et al. 2021 give learning rates relative to pretraining only): Adam with
b2 = 0.95 and clipping at 1 is the common choice for decoder language models; Muon is offered beside
it for pretraining.
"""
import jax
import jax.numpy as jnp
import optax
import optax.contrib

from rlhf_jax.core.spec import Spec


def schedule(steps, warmup=0.0, decay='constant', halve_every=None):
  """The factor of the learning rate at each optimiser step, from 0-based `count`.

  warmup: share of `steps` with a linear rise. decay: 'constant', 'linear' (to 0) or 'cosine' (to a
  tenth). halve_every: in optimiser steps (Bai et al. section 4.5 halves every 100,000 samples).
  """
  shapes = {'constant': lambda x: jnp.ones_like(x), 'linear': lambda x: 1.0 - x,
            'cosine': lambda x: 0.1 + 0.45 * (1.0 + jnp.cos(jnp.pi * x))}
  if decay not in shapes:
    raise ValueError(f'schedule {decay!r} is unknown: use one of {", ".join(shapes)}')
  rise = max(1.0, warmup * steps)

  def factor(count):
    count = jnp.asarray(count, jnp.float32)
    part = jnp.clip((count - warmup * steps) / max(1.0, steps * (1.0 - warmup)), 0.0, 1.0)
    value = jnp.minimum(1.0, (count + 1.0) / rise) * shapes[decay](part)
    return value if halve_every is None else value * 0.5 ** jnp.floor(count / halve_every)
  return factor


def adam(factor, clip=1.0, b1=0.9, b2=0.95, eps=1e-8, weight_decay=0.0, early_eps=False, specs=None):
  """An optax transformation: global-norm clipping (None: off), Adam, decoupled weight decay on
  matrices, and the schedule `factor`; for a learning rate of 1, descent sign included. early_eps:
  epsilon is added before bias correction, as TensorFlow and so both OpenAI releases do. specs: the tree
  of Spec of the parameters, by which weight decay tells a matrix from stacked vectors."""
  parts = _clip(clip)
  parts.append((_early_eps_adam if early_eps else optax.scale_by_adam)(b1=b1, b2=b2, eps=eps))
  if weight_decay:
    matrices = _each(lambda spec: len(_sides(spec)) > 1, specs)
    parts.append(optax.add_decayed_weights(weight_decay, mask=matrices))
  return optax.chain(*parts, optax.scale_by_schedule(factor), optax.scale(-1.0))


def muon(specs, factor, clip=1.0, b2=0.99, steps=3):
  """An optax transformation for a learning rate of 1: global-norm clipping, Muon (Jordan et al.
  2024) on the matrices inside the layers, Adam with Nesterov momentum on the rest, and `factor`.

  Muon steps along the nearest orthogonal matrix to the averaged gradient, here after `steps` Newton
  iterations, times sqrt(max(1, columns / rows)). specs: the tree of Spec of the parameters; axes
  name what is stacked ('layers', 'member') and what belongs together (all heads are one matrix).
  """
  return optax.chain(*_clip(clip), optax.contrib.muon(
    learning_rate=1.0, ns_steps=steps, adam_b2=b2,
    muon_weight_dimension_numbers=_each(_matrix, specs)), optax.scale_by_schedule(factor))


def _early_eps_adam(b1, b2, eps):
  """Adam as at the end of section 2 of Kingma and Ba 2015: its first steps are smaller where
  gradients are small, epsilon counting 1 / sqrt(1 - b2^t) times as much as after the correction."""
  moments = optax.scale_by_adam(b1=b1, b2=b2)

  def update(grads, state, params=None):
    _, state = moments.update(grads, state, params)
    scale = jnp.sqrt(1 - b2 ** state.count) / (1 - b1 ** state.count)
    return jax.tree.map(lambda m, v: scale * m / (jnp.sqrt(v) + eps), state.mu, state.nu), state
  return optax.GradientTransformation(moments.init, update)


def _clip(norm):
  return [] if norm is None else [optax.clip_by_global_norm(norm)]


def _each(function, specs):
  return jax.tree.map(function, specs, is_leaf=lambda x: isinstance(x, Spec))


def _sides(spec):
  """The axes of a parameter of one layer, those of heads together: a matrix has two, a vector one."""
  axes = [i for i, name in enumerate(spec.axes) if name not in ('layers', 'member')]
  heads = tuple(i for i in axes if spec.axes[i] in ('heads', 'kv'))
  return sorted([(i,) for i in axes if i not in heads] + [heads] * bool(heads))


def _matrix(spec):
  """The two sides of a matrix inside the layers; None: Adam's."""
  sides = _sides(spec)
  inside = 'layers' in spec.axes and len(sides) == 2
  return optax.contrib.MuonDimensionNumbers(*sides) if inside else None
