"""The parts of a decoder's layer, as a TransformerConfig chooses them.

Each function of a config returns the function that is meant, so that the maths of the layer asks
nothing. `models.transformer` puts them together.
"""
from functools import partial

import jax
import jax.numpy as jnp

from rlhf_jax.models import attention

_GPU_ROWS = 16
ACTIVATIONS = {'gelu_tanh': jax.nn.gelu, 'gelu': partial(jax.nn.gelu, approximate=False),
               'silu': jax.nn.silu, 'relu': jax.nn.relu}


def biased(y, weights, name):
  """y plus the bias of part `name`, where the model has one."""
  bias = weights.get(f'{name}_bias')
  if bias is None:
    return y
  return y + bias.astype(y.dtype).reshape((1,) * (y.ndim - bias.ndim) + bias.shape)


def norm(config):
  """norm(x, weights, name): x normalised over its last axis, times the scale `name`, plus its bias, all
  in float32."""
  normalise = {'rms': _rms, 'layer': _layer}[config.norm]

  def normed(x, weights, name):
    scale = weights[name].astype(jnp.float32).reshape((1,) * (x.ndim - 1) + (-1,))
    y = normalise(x.astype(jnp.float32), config.norm_eps) * scale
    return biased(y, weights, name).astype(x.dtype)
  return normed


def head_norm(config):
  """The same for the queries and keys of each head, or nothing."""
  return norm(config) if config.qk_norm else _same


def positions(config):
  """(place, turns, turn): what positions add to embeddings, place(x_ND, params, position_N), and how
  they turn queries and keys, turn(x, rows of turns(length)) for positions below `length`. That table is
  looked up: other cosines XLA computes anew in each layer, for each head, forwards and backwards."""
  if config.positions == 'learned':
    return _add_row, lambda length: None, _same
  def turns(length):
    return attention.angles(jnp.arange(length), config.rope_size, config.rope_base,
                            config.rope_scaling)
  return _same, turns, attention.rotate


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


@jax.custom_vjp
def product(x_ND, weight_DF):
  """x @ weight of numbers of the weight's type, added up in float32, in the type of x. Written out for
  its backward pass, whose products then take bfloat16 too and not float32 copies of it: twice as fast
  on a CPU that has them."""
  return _forward(x_ND, weight_DF)[0]


def _forward(x_ND, weight_DF):
  rounded_ND = x_ND.astype(weight_DF.dtype)
  return _dot(rounded_ND, weight_DF, x_ND.dtype), (rounded_ND, weight_DF)


def _backward(kept, grad_NF):
  x_ND, weight_DF = kept
  rounded_NF = grad_NF.astype(weight_DF.dtype)
  grad_DF = jax.lax.platform_dependent(x_ND, rounded_NF, cpu=_outer_on_cpu, default=_outer)
  return _dot(rounded_NF, weight_DF, grad_NF.dtype, across=1), grad_DF


product.defvjp(_forward, _backward)


def _dot(a, b, dtype, across=0):
  """a @ b in `dtype`, or a @ b^T where the sum goes across axis 1 of b: XLA's CPU backend would compute
  with float32 copies of bfloat16 if b were turned."""
  return jax.lax.platform_dependent(
    a, b, **{name: partial(dot, dtype=dtype, across=across) for name, dot in
             (('cpu', _dot_on_cpu), ('cuda', _dot_on_gpu), ('default', _narrow))})


def _sum(a, b, across, dtype):
  return jax.lax.dot_general(a, b, (((1,), (across,)), ((), ())), preferred_element_type=dtype)


def _wide(a, b, dtype, across=0):
  return _sum(a, b, across, jnp.float32).astype(dtype)


def _narrow(a, b, dtype, across=0):
  """Accelerators add up in float32 whatever they write, and need not write float32. Only where a sum is
  cut over 'tensor' are its parts rounded before they meet."""
  return _sum(a, b, across, dtype)


def _dot_on_cpu(a, b, dtype, across=0):
  """Of at least 2 rows in bfloat16: of one XLA computes it with float32 copies of the weights."""
  return _filled(_wide, 2 if a.dtype == jnp.bfloat16 else 1, a, b, dtype, across)


def _dot_on_gpu(a, b, dtype, across=0):
  """Of at least 16 rows, one tile of the matrix units: XLA leaves them aside for fewer, and then reads
  weights at half the speed. Rows are those of all devices together."""
  return _filled(_narrow, _GPU_ROWS, a, b, dtype, across)


def _filled(dot, least, a, b, dtype, across):
  """`dot` of `least` rows where there are fewer, so that XLA takes them for a matrix."""
  rows = a.shape[0]
  if rows >= least:
    return dot(a, b, dtype, across)
  a = jax.lax.optimization_barrier(jnp.pad(a, ((0, least - rows), (0, 0))))
  return jax.lax.optimization_barrier(dot(a, b, dtype, across))[:rows]


def _outer(a_ND, b_NF):
  """a^T @ b, a gradient: rows are cut over devices, whose sums meet in float32."""
  return _wide(a_ND.T, b_NF, a_ND.dtype)


def _outer_on_cpu(a_ND, b_NF):
  """The same with the narrower of the two turned first, between two reversals that undo one another:
  XLA's fast products want the rows of the first and the columns of the second, and what is only turned
  it multiplies slowly, bfloat16 in float32 copies."""
  if a_ND.shape[1] > b_NF.shape[1]:
    return _outer_on_cpu(b_NF, a_ND).T
  turned_DN = jnp.flip(jnp.flip(a_ND, 1).T, 0)
  return _wide(turned_DN, b_NF, a_ND.dtype)


def _plain(activation, y_ND, layer):
  hidden_NF = activation(biased(product(y_ND, layer['up']), layer, 'up'))
  return biased(product(hidden_NF, layer['down']), layer, 'down')


def _gated(activation, y_ND, layer):
  gate_NF = activation(biased(product(y_ND, layer['gate']), layer, 'gate'))
  hidden_NF = gate_NF * biased(product(y_ND, layer['up']), layer, 'up')
  return biased(product(hidden_NF, layer['down']), layer, 'down')


def _sequential(x_ND, attend, mlp):
  x_ND = x_ND + attend(x_ND)
  return x_ND + mlp(x_ND)


def _parallel(x_ND, attend, mlp):
  return x_ND + attend(x_ND) + mlp(x_ND)
