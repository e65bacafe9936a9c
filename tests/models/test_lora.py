"""Low-rank adapters: merged by hand, nothing at the start, trained alone, the same on eight devices."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.core import mesh as meshes
from rlhf_jax.core import optim, spec, step
from rlhf_jax.models import lora, sizes, transformer
from rlhf_jax.run import build
from tests.contracts import tiny

ALL = 'query', 'key', 'value', 'output', 'up', 'down'
SPEC = tiny.MODEL.spec                                # 2 layers, D = 16, 2 heads of 8, F = 64


def drawn(specs, seed=0):
  """Parameters none of which is zero."""
  keys = iter(jax.random.split(jax.random.key(seed), len(jax.tree.leaves(specs))))
  return jax.tree.map(lambda x: jax.random.normal(next(keys), x.shape), spec.abstract(specs))


def test_a_matrix_by_hand():
  base = {'w': jnp.array([[1.0, 2], [3, 4]]), 'other': jnp.ones(3)}
  pairs = {'w': {'a': jnp.array([[1.0], [2]]), 'b': jnp.array([[3.0, 5]])}}
  merged = lora.merge(base, pairs, 0.5)                # A B = [[3, 5], [6, 10]]
  np.testing.assert_array_equal(merged['w'], [[2.5, 4.5], [6, 9]])
  np.testing.assert_array_equal(merged['other'], base['other'])


def test_every_layer_has_its_own_and_heads_are_one_side():
  pairs, base = drawn(lora.adapter(SPEC, 3, ALL)), drawn(SPEC, 1)
  shapes = jax.tree.map(lambda x: x.shape, pairs['layers'])
  assert shapes['query'] == {'a': (2, 16, 3), 'b': (2, 3, 2, 8)}
  assert shapes['output'] == {'a': (2, 2, 8, 3), 'b': (2, 3, 16)}
  assert shapes['down'] == {'a': (2, 64, 3), 'b': (2, 3, 16)}
  merged = lora.merge(base, pairs, 2.0)['layers']
  for name, formula in (('query', 'ldr,lrhk->ldhk'), ('output', 'lhkr,lrd->lhkd'),
                        ('up', 'ldr,lrf->ldf')):
    added = np.einsum(formula, pairs['layers'][name]['a'], pairs['layers'][name]['b'])
    np.testing.assert_allclose(merged[name], base['layers'][name] + 2 * added, rtol=1e-5, atol=1e-5)


def test_training_starts_from_the_base_itself():
  base = tiny.parameters(0)
  pairs = spec.init(lora.adapter(SPEC, 4, ALL), jax.random.key(1))
  jax.tree.map(np.testing.assert_array_equal, lora.merge(base, pairs, 1.0), base)
  a = pairs['layers']['down']['a']
  assert abs(a.std() - 64**-0.5) < 0.02                # 1 / sqrt(fan in), of 512 numbers


def test_weights_keep_their_type():
  base = {'w': jnp.ones((2, 2), jnp.bfloat16)}
  pairs = {'w': {'a': jnp.ones((2, 1)), 'b': jnp.ones((1, 2))}}
  assert lora.merge(base, pairs, 1.0)['w'].dtype == jnp.bfloat16


@pytest.mark.parametrize('rank, targets, name', [(2, ('query', 'gate'), 'gate'), (0, ('up',), 'up')])
def test_what_has_no_adapter_is_refused(rank, targets, name):
  with pytest.raises(ValueError, match=f'no adapter of rank {rank} for {name}: use a rank'):
    lora.adapter(SPEC, rank, targets)


def trained(mesh, rank=2):
  """(params at the start, state after two updates, metrics) of a preference model with adapters."""
  whole_loss = build.preference_loss(tiny.MODEL, lm_weight=1.0)
  def loss(params, batch, key, frozen):
    body = lora.merge(frozen['base'], params['body'], 1.0)
    return whole_loss({'body': body, 'head': params['head']}, batch, key, frozen)
  specs = {'body': lora.adapter(SPEC, rank, ALL), 'head': tiny.JUDGE.spec['head']}
  start = jax.device_get({'body': spec.init(specs['body'], jax.random.key(3)),
                          'head': tiny.parameters(1, True)['head']})
  optimizer = optim.adam(optim.schedule(100))
  state = step.create(start, optimizer, jax.random.key(5), 1e-2)
  shardings = build.state_shardings(state, specs, mesh, False)
  update = build.compiled_update(step.update(loss, optimizer), shardings, False)
  state, seen = jax.device_put(state, shardings), []
  frozen = {'base': build.place(tiny.parameters(0), SPEC, mesh)}
  for i in range(2):
    state, metrics = update(state, meshes.put_batch(tiny.pairs(i), mesh), frozen)
    seen.append(tiny.host(metrics))
  return start, state, seen, frozen


@pytest.fixture(scope='module')
def one():
  return trained(tiny.one_device())


def test_only_adapters_and_heads_are_trained(one):
  start, state, _, frozen = one
  jax.tree.map(np.testing.assert_array_equal, tiny.host(frozen['base']), tiny.parameters(0))
  moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), tiny.host(state.params), start)
  assert min(jax.tree.leaves(moved['body'])) > 1e-3 and moved['head']['weight'] > 1e-3
  count = sum(x.size for x in jax.tree.leaves(state.params))
  # rank 2: q, k, v and output 2 layers * 2 * (16 + 16), up and down 2 * 2 * (16 + 64); head 16 + 1
  assert count == 4 * 128 + 2 * 320 + 17
  moments = [x for x in jax.tree.leaves(state.opt_state) if x.ndim]
  assert sum(x.size for x in moments) == 2 * (count - 1)                     # but for the bias


def test_the_first_gradient_reaches_b_and_not_a():
  loss = build.preference_loss(tiny.MODEL, lm_weight=1.0)
  base, head = tiny.parameters(0), tiny.parameters(1, True)['head']
  pairs = spec.init(lora.adapter(SPEC, 2, ('up',)), jax.random.key(3))
  def of_pairs(pairs):
    params = {'body': lora.merge(base, pairs, 1.0), 'head': head}
    return loss(params, tiny.pairs(0).normalise(), None, {})[0]
  up = jax.jit(jax.grad(of_pairs))(pairs)['layers']['up']
  assert not up['a'].any() and np.abs(up['b']).max() > 1e-4                  # d/dA = g B^T and B = 0


def test_eight_devices_train_what_one_does(one):
  mesh = meshes.make(2, 2, 2)
  _, state, seen, _ = trained(mesh)
  tiny.assert_close(seen, one[2], rtol=1e-3, atol=2e-4)
  tiny.assert_close(state.params, one[1].params, atol=5e-5)
  up = state.params['body']['layers']['up']
  shards = {name: up[name].sharding.shard_shape(up[name].shape) for name in 'ab'}
  assert shards == {'a': (2, 8, 2), 'b': (2, 2, 32)}                         # D / fsdp, F / tensor


def test_an_adapter_of_a_rung_of_the_ladder():
  specs = lora.adapter(transformer.decoder(sizes.config('52B')).spec, 8, ALL)
  # 64 layers: four of 8192 + 8192 and two of 8192 + 32768 columns, rank 8
  assert spec.count(specs) == 64 * 8 * (4 * 2 * 8192 + 2 * 5 * 8192)
