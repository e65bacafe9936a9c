"""The parts of a decoder's layer, as a TransformerConfig chooses them.

Each function of a config returns the function that is meant, so that the maths of the layer asks
nothing. `models.transformer` puts them together.
"""
from functools import partial

import jax
import jax.numpy as jnp

from rlhf_jax.models import attention

ACTIVATIONS = {'gelu_tanh': jax.nn.gelu, 'gelu': partial(jax.nn.gelu, approximate=False),
               'silu': jax.nn.silu, 'relu': jax.nn.relu}


def biased(y, weights, name):
  """y plus the bias of part `name`, where the model has one."""
  bias = weights.get(f'{name}_bias')
  if bias is None:
    return y
  return y + bias.astype(y.dtype).reshape((1,) * (y.ndim - bias.ndim) + bias.shape)


def norm(config):
  """norm(x, weights, name): x normalised over its last axis, times the scale `name`, plus its bias, all in
  float32."""
  normalise = {'rms': _rms, 'layer': _layer}[config.norm]

  def normed(x, weights, name):
    scale = weights[name].astype(jnp.float32).reshape((1,) * (x.ndim - 1) + (-1,))
    return biased(normalise(x.astype(jnp.float32), config.norm_eps) * scale, weights, name).astype(x.dtype)
  return normed


def head_norm(config):
  """The same for the queries and keys of each head, or nothing."""
  return norm(config) if config.qk_norm else _same


def positions(config):
  """(place, turns, turn): what positions add to embeddings, place(x_ND, params, position_N), and how
  they turn queries and keys, turn(x, turns(position)), the second once for all layers."""
  if config.positions == 'learned':
    return _add_row, lambda position: None, _same
  return _same, partial(attention.angles, size=config.rope_size, base=config.rope_base,
                        scaling=config.rope_scaling), attention.rotate


def mlp(config):
  """mlp(y_ND, layer) -> ND."""
  return partial(_gated if config.gated_mlp else _plain, ACTIVATIONS[config.activation])


def residual(config):
  """residual(x_ND, attend, mlp): what goes on to the next layer."""
  return _parallel if config.parallel else _sequential


def _rms(x, eps):
  return x * jax.lax.rsqrt((x * x).mean(axis=-1, keepdims=True) + eps)


def _layer(x, eps):
  return _rms(x - x.mean(axis=-1, keepdims=True), eps)


def _same(x, *_):
  return x


def _add_row(x_ND, params, position_N):
  row_ND = jnp.take(params['positions'], position_N, axis=0, mode='clip')
  return x_ND + row_ND.astype(x_ND.dtype)


_rows = partial(attention.einsum, 'nd,df->nf')


def _plain(activation, y_ND, layer):
  hidden_NF = activation(biased(_rows(y_ND, layer['up']), layer, 'up'))
  return biased(_rows(hidden_NF, layer['down']), layer, 'down')


def _gated(activation, y_ND, layer):
  gate_NF = activation(biased(_rows(y_ND, layer['gate']), layer, 'gate'))
  hidden_NF = gate_NF * biased(_rows(y_ND, layer['up']), layer, 'up')
  return biased(_rows(hidden_NF, layer['down']), layer, 'down')


def _sequential(x_ND, attend, mlp):
  x_ND = x_ND + attend(x_ND)
  return x_ND + mlp(x_ND)


def _parallel(x_ND, attend, mlp):
  return x_ND + attend(x_ND) + mlp(x_ND)
