"""Policy and value read together: each number is that of its own network, shared body or not."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.core import spec
from rlhf_jax.models import actor_critic, heads, logp, sizes, transformer

MODEL = transformer.decoder(sizes.config('micro', width=16, heads=2, vocab_size=12, context=16))
CRITIC = heads.scalar(MODEL, heads.initial_normal(16))
POLICY, VALUE = spec.init(MODEL.spec, jax.random.key(0)), spec.init(CRITIC.spec, jax.random.key(1))
TOKENS = jax.random.randint(jax.random.key(2), (3, 8), 0, 12)
VALID = jnp.array([[0., 0, 1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1, 1, 1], [0, 1, 1, 1, 1, 0, 0, 0]])
OPTIONS = {'temperature': 1.3, 'start': 3}


def params(shared):
  return {'policy': POLICY, 'value': VALUE['head'] if shared else VALUE}


def read(shared):
  return (actor_critic.shared(MODEL, **OPTIONS) if shared
          else actor_critic.separate(MODEL, CRITIC, **OPTIONS))


@pytest.mark.parametrize('shared', [False, True])
def test_log_probs_and_values_of_the_state_before_each_token(shared):
  logp_BT, value_BT = jax.jit(read(shared))(params(shared), TOKENS, VALID)
  alone = jax.jit(lambda params: logp.token_logp(MODEL, params, TOKENS, VALID, **OPTIONS))
  np.testing.assert_allclose(logp_BT, alone(POLICY), atol=1e-6)
  critic = {'body': POLICY, 'head': VALUE['head']} if shared else VALUE
  after_BT = jax.jit(CRITIC.apply)(critic, TOKENS, VALID)
  np.testing.assert_allclose(value_BT[1, 3:], after_BT[1, 2:-1], atol=1e-6)
  np.testing.assert_allclose(value_BT[2, 3:6], after_BT[2, 2:5], atol=1e-6)
  assert not value_BT[:, :3].any() and float(jnp.abs(value_BT[1]).sum()) > 0.1


def test_nothing_stands_before_the_first_token():
  _, value_BT = jax.jit(actor_critic.separate(MODEL, CRITIC))(params(False), TOKENS, VALID)
  first_B = jnp.argmax(VALID, axis=1)
  assert not value_BT[jnp.arange(3), first_B].any()
  assert value_BT[jnp.arange(3), first_B + 1].all()


@pytest.mark.parametrize('shared', [False, True])
def test_a_value_loss_reaches_the_policys_body_only_where_it_is_shared(shared):
  grads = jax.jit(jax.grad(lambda p: read(shared)(p, TOKENS, VALID)[1].sum()))(params(shared))
  moved = float(jnp.abs(grads['policy']['layers']['up']).sum())
  assert (moved > 1e-3) == shared
  assert float(jnp.abs(jax.tree.leaves(grads['value'])[-1]).sum()) > 1e-3
