"""Optimisers at learning rate 1, and schedules as factors of it.

The learning rate itself is an array in `TrainState.extra`, so that a sweep can vary it inside one
compiled program; an optimiser here returns the step for a learning rate of 1. Adam's epsilon is
added after bias correction, as in optax. Neither paper states an optimiser (Bai et al. 2022 and
Askell et al. 2021 give learning rates relative to pretraining only): Adam with b2 = 0.95 and
clipping at 1 is the common choice for decoder language models.
"""
import jax
import jax.numpy as jnp
import optax


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


def adam(factor, clip=1.0, b1=0.9, b2=0.95, eps=1e-8, weight_decay=0.0):
  """An optax transformation: global-norm clipping (None: off), Adam, decoupled weight decay on
  matrices, and the schedule `factor`; for a learning rate of 1, descent sign included."""
  parts = [] if clip is None else [optax.clip_by_global_norm(clip)]
  parts.append(optax.scale_by_adam(b1=b1, b2=b2, eps=eps))
  if weight_decay:
    parts.append(optax.add_decayed_weights(
      weight_decay, mask=lambda params: jax.tree.map(lambda p: p.ndim > 1, params)))
  return optax.chain(*parts, optax.scale_by_schedule(factor), optax.scale(-1.0))
