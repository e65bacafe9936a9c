"""One update: `update(state, batch, frozen) -> (state, metrics)`, made from a loss.

Pure functions; jit, shardings and donation are applied outside, once. A batch is a dataclass whose
`normalise()` makes its weights add up to 1 over the global (mini)batch; losses are weighted sums, so
accumulation over microbatches or shards is exact.
"""
import jax
import jax.numpy as jnp
import optax

from rlhf_jax.core.random import key_for
from rlhf_jax.core.types import TrainState, batch_size


def create(params, optimizer, key, learning_rate, **extra):
  """The state before the first update. `params` and `key` are copied: a role that starts from
  another's parameters must not share buffers with it, or donation would delete both."""
  params, key = jax.tree.map(jnp.copy, (params, key))
  extra = {'learning_rate': jnp.float32(learning_rate),
           **{name: jnp.float32(value) for name, value in extra.items()}}
  return TrainState(jnp.int32(0), params, optimizer.init(params), key, extra)


def check_parts(rows, parts):
  """Refuses a batch that does not divide into minibatches or microbatches."""
  if rows % parts:
    raise ValueError(f'a batch of {rows} rows does not divide into {parts} parts: '
                     f'use {max(rows - rows % parts, parts)} rows or another number of parts')


def _split(batch, parts):
  """Rows cut into `parts` of equal size, on a new leading axis."""
  rows = batch_size(batch)
  check_parts(rows, parts)
  return jax.tree.map(lambda x: x.reshape(parts, rows // parts, *x.shape[1:]), batch)


def gradient_of(loss):
  """(params, batch, key, frozen) -> ((value, aux), gradients)."""
  return jax.value_and_grad(loss, has_aux=True)


def update(loss, optimizer, microbatches=1, after=None):
  """An update from `loss(params, batch, key, frozen) -> (scalar, aux)`.

  aux: a dictionary of weighted sums, added up over microbatches and reported (see `_whole` for the
  names that are no sums). after(state, batch, aux) -> extra writes back what a method remembers.
  """
  return by_gradient(gradient_of(loss), optimizer, microbatches, after)


def by_gradient(gradient, optimizer, microbatches=1, after=None):
  """`update` from what `gradient_of` its loss gives, or from whatever gives the same."""
  def step(state, batch, frozen):
    batch, key = batch.normalise(), key_for(state.key, 'loss', state.step)
    if microbatches == 1:
      out = gradient(state.params, batch, key, frozen)
    else:
      parts = _split(batch, microbatches)
      def accumulate(total, part):
        (value, aux), grads = gradient(state.params, part[0], jax.random.fold_in(key, part[1]), frozen)
        return jax.tree.map(jnp.add, total, (value, grads)), aux
      (value, _), grads = jax.eval_shape(gradient, state.params, jax.tree.map(lambda x: x[0], parts),
                                         key, frozen)
      zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (value, grads))
      (value, grads), aux = jax.lax.scan(accumulate, zeros, (parts, jnp.arange(microbatches)))
      out = (value, _whole(aux, jnp.sum)), grads
    (value, aux), grads = out
    direction, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = jax.tree.map(lambda p, d: (p + state.extra['learning_rate'] * d).astype(p.dtype),
                          state.params, direction)
    metrics = {'loss': value, **aux, 'grad_norm': optax.tree.norm(grads)}
    extra = state.extra if after is None else after(state, batch, aux)
    return TrainState(state.step + 1, params, opt_state, state.key, extra), metrics
  return step


def _whole(parts, combine):
  """Metrics of several parts, stacked, as those of the whole: `combine` over the leading axis, but
  the largest of names that end in `_max` and the smallest of those in `_min`."""
  extremes = {'_max': jnp.max, '_min': jnp.min}
  return {name: extremes.get(name[-4:], combine)(x, axis=0) for name, x in parts.items()}


def passes(update, passes, minibatches, after=None):
  """PPO's update from a plain one: `passes` sweeps over the batch, each in `minibatches` parts under
  a fresh permutation, in one scan. Metrics are means over all parts (see `_whole`); `state.step`
  counts calls of the whole. after(state, batch, metrics) -> extra runs once, at the end."""
  parts = passes * minibatches

  def step(state, batch, frozen):
    rows, start = batch_size(batch), state.step
    keys = [key_for(state.key, 'permutation', start, n) for n in range(passes)]
    order = jnp.concatenate([jax.random.permutation(key, rows) for key in keys])
    index = _split(order, parts)
    def one(inner, index):
      return update(inner, jax.tree.map(lambda x: x[index], batch), frozen)
    inner, metrics = jax.lax.scan(one, state.replace(step=start * parts), index)
    metrics = _whole(metrics, jnp.mean)
    extra = inner.extra if after is None else after(inner, batch, metrics)
    return inner.replace(step=start + 1, extra=extra), metrics
  return step
