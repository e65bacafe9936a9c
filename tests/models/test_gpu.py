"""What NVIDIA GPUs take instead, against plain JAX. Without one XLA stands in for cuDNN; with one:
JAX_PLATFORMS=cuda python -m pytest tests/models/test_gpu.py"""
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.core import mesh as meshes
from rlhf_jax.models import attention, gpu, parts

IMPLEMENTATION = 'cudnn' if jax.default_backend() == 'gpu' else 'xla'


def packed(time, branches, dtype, queries=1):
  """(q, k, v, weight), (group_BT, branch_BT or None): two packed texts and padding, `queries` heads of
  queries to each of two of keys."""
  rng = np.random.default_rng(0)
  arrays = [jnp.array(rng.normal(size=(2, time, 2 * (1 if i in (1, 2) else queries), 8)), dtype)
            for i in range(4)]
  order_BT = jnp.array(np.sort(rng.integers(0, 9, (2, time))), jnp.int32)
  group_BT = jnp.where(order_BT // 3 == 2, jnp.iinfo(jnp.int32).min, order_BT // 3)      # padding
  return arrays, (group_BT, order_BT % 3 if branches else None)


def outcome(attend, arrays, text):
  """((loss, out_BTHK), gradients of q, k and v), all in float32."""
  q, k, v, weight = arrays
  def loss(q, k, v):
    out_BTHK = attend(q, k, v, *text).astype(jnp.float32)
    return (out_BTHK * weight.astype(jnp.float32)).sum(), out_BTHK
  made = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(q, k, v)
  return jax.tree.map(lambda x: np.asarray(x, np.float32), made)


@pytest.mark.parametrize('shape, time, branches, queries', [
  ((2, 1, 2), 20, True, 1), ((1, 1, 1), 130, False, 3), ((1, 1, 1), 64, True, 1)])
def test_values_and_gradients(shape, time, branches, queries):
  """Within the rounding of bfloat16: 8 bits, sums of at most 130 terms."""
  if np.prod(shape) > jax.device_count():
    pytest.skip(f'{np.prod(shape)} devices wanted')
  arrays, text = packed(time, branches, jnp.bfloat16, queries)
  mesh = meshes.make(*shape, devices=jax.devices()[:np.prod(shape)])
  made = outcome(gpu.attention(mesh, IMPLEMENTATION), arrays, text)
  expected = outcome(attention.attention, [x.astype(jnp.float32) for x in arrays], text)
  for a, b in zip(jax.tree.leaves(made)[1:], jax.tree.leaves(expected)[1:], strict=True):
    assert np.linalg.norm(a - b) < 0.01 * np.linalg.norm(b)
    assert np.abs(a - b).max() < 0.05


def test_float32_is_plain_attention():
  arrays, text = packed(20, True, jnp.float32)
  made = outcome(gpu.attention(meshes.make(devices=jax.devices()[:1]), 'no such thing'), arrays, text)
  jax.tree.map(np.testing.assert_array_equal, made, outcome(attention.attention, arrays, text))


def test_the_kernel_itself_takes_shared_heads_forwards_and_backwards(monkeypatch):
  """Traced, nothing runs: whether there is such a GPU is all that JAX is not asked."""
  from jax._src.cudnn import fused_attention_stablehlo as kernel
  for name in ('check_cudnn_version', 'check_compute_capability', 'is_cuda_compute_capability_equal',
               'check_is_flash_attention'):
    monkeypatch.setattr(kernel, name, lambda *args, **kwargs: name == 'check_cudnn_version' and 91200)
  (q, k, v, _), text = packed(64, True, jnp.bfloat16, queries=3)
  attend = gpu.attention(meshes.make(devices=jax.devices()[:1]), 'cudnn')
  def loss(q, k, v):
    return attend(q, k, v, *text).astype(jnp.float32).sum()
  made = str(jax.make_jaxpr(jax.grad(loss, (0, 1, 2)))(q, k, v))
  assert 'dot_product_attention_fwd' in made and 'dot_product_attention_bwd' in made


@pytest.mark.parametrize('time', [96, 30, 7])
def test_a_past_in_pieces_is_the_past(time):
  """Pieces of 6, 15 and 7 columns; not all columns are valid, and two heads share one of keys."""
  rng = np.random.default_rng(1)
  q, k, v = (jnp.array(rng.normal(size=shape), jnp.float32)
             for shape in ((3, 4, 8), (3, 2, time, 8), (3, 2, time, 8)))
  valid_BT = jnp.array(rng.random((3, time)) < 0.7, jnp.float32).at[:, 0].set(1)
  np.testing.assert_allclose(jax.jit(gpu.attend_cache)(q, k, v, valid_BT),
                             attention.attend_cache(q, k, v, valid_BT), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('dot, dtype, rows, taken', [
  (parts._dot_on_gpu, 'float32', 3, 16), (parts._dot_on_gpu, 'float32', 20, 20),
  (parts._dot_on_cpu, 'bfloat16', 1, 2), (parts._dot_on_cpu, 'bfloat16', 3, 3),
  (parts._dot_on_cpu, 'float32', 1, 1)])
def test_a_product_of_few_rows_is_that_of_more(dot, dtype, rows, taken):
  """Also of several runs at once. A CPU has one row of bfloat16 numbers multiplied as two."""
  rng = np.random.default_rng(2)
  a, b = (jnp.array(rng.normal(size=shape), dtype) for shape in ((2, rows, 5), (2, 5, 4)))
  expected = np.asarray(a, np.float64) @ np.asarray(b, np.float64)
  for across, other in ((0, b), (1, b.swapaxes(1, 2))):
    made = jax.jit(jax.vmap(functools.partial(dot, dtype=jnp.float32, across=across)))
    np.testing.assert_allclose(made(a, other), expected, rtol=1e-5, atol=1e-6)
    assert f'tensor<2x{taken}x4xf32>' in re.search('dot_general.*', made.lower(a, other).as_text())[0]


@pytest.mark.parametrize('platform, written', [('cpu', 'f32'), ('cuda', 'bf16'), ('tpu', 'bf16')])
def test_products_are_written_in_their_own_type_but_on_cpu(platform, written):
  """Gradients of weights everywhere in float32: devices add them up."""
  a, b = (jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in ((32, 5), (5, 4)))
  lowered = jax.jit(lambda a, b: jax.vjp(parts.product, a, b)[1](jnp.ones((32, 4), jnp.bfloat16))[1])
  value = jax.jit(parts.product).trace(a, b).lower(lowering_platforms=(platform,)).as_text()
  grad = lowered.trace(a, b).lower(lowering_platforms=(platform,)).as_text()
  assert re.findall(r'stablehlo.dot_general.*-> tensor<32x4x(\w+)>', value) == [written]
  assert re.findall(r'stablehlo.dot_general.*-> tensor<(?:5x4|4x5)x(\w+)>', grad) == ['f32']
