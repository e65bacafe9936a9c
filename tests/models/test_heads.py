"""Scalar heads."""
import jax
import numpy as np

from rlhf_jax.core import spec
from rlhf_jax.core.types import Model
from rlhf_jax.models import heads


def test_value_is_the_head_on_the_hidden_state_of_the_same_token(tiny, text):
  model = heads.scalar(tiny.model, heads.initial_normal(16))
  params = {'body': tiny.params, 'head': spec.init(model.spec['head'], jax.random.key(1))}
  params['head']['bias'] = np.float32(0.3)
  hidden_BTD = np.asarray(tiny.apply(tiny.params, *text), np.float64)
  value_BT = jax.jit(model.apply)(params, *text)
  np.testing.assert_allclose(value_BT, hidden_BTD @ np.asarray(params['head']['weight']) + 0.3,
                             atol=1e-5)
  assert value_BT.dtype == np.float32


def test_initial_heads(tiny):
  zero = heads.scalar(tiny.model)
  assert heads.width(tiny.model) == 16
  assert spec.count(zero.spec) == spec.count(tiny.model.spec) + 16 + 1
  assert not np.any(spec.init(zero.spec['head'], jax.random.key(0))['weight'])
  drawn = heads.initial_normal(3)(jax.random.key(0), (10000,), 'float32')
  assert abs(float(drawn.std()) - 0.5) < 0.02                 # 1 / sqrt(3 + 1), error 0.5 / 141


def test_last_is_the_value_at_the_last_valid_token():
  value_BT = np.array([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]])
  valid_BT = np.array([[1, 1, 0], [0, 1, 1], [1, 0, 0]])
  model = Model(None, lambda params, tokens_BT, valid_BT, at_BN: np.take_along_axis(
    params * tokens_BT, np.asarray(at_BN), axis=1), None)
  np.testing.assert_array_equal(heads.last(model, 2, value_BT, valid_BT), [4, 12, 14])
