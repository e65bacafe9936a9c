"""The TPU's attention kernel, interpreted on CPU, against attention in plain JAX."""
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.core import mesh as meshes
from rlhf_jax.core import spec
from rlhf_jax.models import attention, splash, transformer


@pytest.mark.parametrize('shape, time, branches', [
  ((2, 1, 2), 20, True), ((1, 1, 1), 300, False), ((1, 1, 1), 250, False)])
def test_values_and_gradients(shape, time, branches):
  """Two packed texts and padding, rows and heads cut over the mesh; 300 columns are three blocks,
  250 one of 256."""
  rng = np.random.default_rng(0)
  q, k, v, weight = (jnp.array(rng.normal(size=(2, time, 2, 8)), jnp.float32) for _ in range(4))
  order_BT = jnp.array(np.sort(rng.integers(0, 9, (2, time))), jnp.int32)
  group_BT = jnp.where(order_BT // 3 == 2, jnp.iinfo(jnp.int32).min, order_BT // 3)      # padding
  branch_BT = order_BT % 3 if branches else None
  mesh = meshes.make(*shape, devices=jax.devices()[:np.prod(shape)])

  def outcome(attend):
    def loss(q, k, v):
      out_BTHK = attend(q, k, v, group_BT, branch_BT)
      return (out_BTHK * weight).sum(), out_BTHK
    return jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(q, k, v)
  made, expected = outcome(splash.attention(mesh, interpret=True)), outcome(attention.attention)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), made, expected)


@pytest.mark.slow
def test_a_model_with_shared_heads(tiny, text):
  """Two heads of queries to one of keys; two rows do not divide over three devices and stay whole."""
  config = dataclasses.replace(tiny.config, kv_heads=1)
  mesh = meshes.make(3, devices=jax.devices()[:3])
  plain, kernel = transformer.decoder(config), transformer.decoder(
    config, attend_text=splash.attention(mesh, interpret=True))
  params = jax.vmap(lambda key: spec.init(plain.spec, key))(jax.random.split(jax.random.key(0)))

  def outcome(model):
    def loss(params):
      hidden_BTD = model.apply(params, *(x[:2] for x in text))
      return jnp.sin(hidden_BTD).sum(), hidden_BTD
    return jax.jit(jax.vmap(jax.value_and_grad(loss, has_aux=True)))(params)           # of two runs
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
               outcome(kernel), outcome(plain))
