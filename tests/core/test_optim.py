"""Schedules by hand; Adam against a loop written out in numpy."""
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rlhf_jax.core import optim, spec
from rlhf_jax.core.spec import Spec


def values(counts, **options):
  return [float(optim.schedule(10, **options)(jnp.int32(c))) for c in counts]


def test_warmup_then_decay_by_hand():
  # Two steps of rise (1/2, 1), then the rest of the run is 8 steps long.
  assert values([0, 1, 2, 9, 50], warmup=0.2) == [0.5, 1, 1, 1, 1]
  np.testing.assert_allclose(values([0, 1, 2, 6, 10, 50], warmup=0.2, decay='linear'),
                             [0.5, 1, 1, 0.5, 0, 0])
  np.testing.assert_allclose(values([0, 1, 2, 6, 10, 50], warmup=0.2, decay='cosine'),
                             [0.5, 1, 1, 0.55, 0.1, 0.1], rtol=1e-6)


def test_without_warmup_the_first_step_is_whole():
  np.testing.assert_allclose(values([0, 1, 5], decay='linear'), [1, 0.9, 0.5])


def test_halving():
  assert values([0, 3, 4, 7, 8], halve_every=4) == [1, 1, 0.5, 0.5, 0.25]


def test_unknown_decay_is_one_line():
  with pytest.raises(ValueError, match="schedule 'step' is unknown: use one of constant, linear"):
    optim.schedule(10, decay='step')


@pytest.mark.parametrize('clip', [None, 1.0])
def test_adam_equals_a_loop(clip):
  rng = np.random.default_rng(0)
  specs = {'matrix': Spec((2, 3), ('vocab', 'embed')), 'bias': Spec((3,), ('embed',)),
           'scales': Spec((2, 3), ('layers', 'embed')),
           'up': Spec((2, 3, 2), ('layers', 'embed', 'mlp')),
           'query_bias': Spec((2, 2, 4), ('layers', 'heads', 'kv'))}
  params = {name: rng.normal(size=s.shape) for name, s in specs.items()}
  ours = jax.tree.map(jnp.float32, params)
  adam = optim.adam(optim.schedule(4, decay='linear'), clip=clip, b1=0.9, b2=0.95, eps=1e-3,
                    weight_decay=0.1, specs=specs)
  state, update = adam.init(ours), jax.jit(adam.update)
  m, v = ({k: np.zeros_like(x) for k, x in params.items()} for _ in range(2))
  for t in range(4):
    grads = {k: rng.normal(size=x.shape) * 3 for k, x in params.items()}
    direction, state = update(jax.tree.map(jnp.float32, grads), state, ours)
    norm = np.sqrt(sum((g ** 2).sum() for g in grads.values()))
    assert norm > 1
    for k, g in grads.items():
      g = g if clip is None else g / norm
      m[k], v[k] = 0.9 * m[k] + 0.1 * g, 0.95 * v[k] + 0.05 * g ** 2
      step = m[k] / (1 - 0.9 ** (t + 1)) / (np.sqrt(v[k] / (1 - 0.95 ** (t + 1))) + 1e-3)
      step = step + 0.1 * params[k] * (k in ('matrix', 'up'))         # vectors do not decay
      np.testing.assert_allclose(direction[k], -(1 - t / 4) * step, rtol=2e-5, atol=1e-6)
      params[k] = params[k] - (1 - t / 4) * step
    ours = jax.tree.map(jnp.add, ours, direction)


@pytest.mark.parametrize('early', [False, True])
def test_where_epsilon_is_added(early):
  """A gradient of 1e-3 with epsilon as large: TensorFlow's first step is 1 / (1 + 1/sqrt(1 - b2))."""
  adam = optim.adam(optim.schedule(9), clip=None, b2=0.99, eps=1e-3, early_eps=early)
  state, m, v = adam.init({'w': jnp.zeros(1)}), 0.0, 0.0
  for t, grad in enumerate([1e-3, -2e-3, 1e-3], 1):
    step, state = adam.update({'w': jnp.full(1, grad)}, state)
    m, v = 0.9 * m + 0.1 * grad, 0.99 * v + 0.01 * grad ** 2
    late = m / (1 - 0.9 ** t) / (np.sqrt(v / (1 - 0.99 ** t)) + 1e-3)
    tensorflow = np.sqrt(1 - 0.99 ** t) / (1 - 0.9 ** t) * m / (np.sqrt(v) + 1e-3)
    np.testing.assert_allclose(step['w'], -(tensorflow if early else late), rtol=1e-4)
    if t == 1:
      np.testing.assert_allclose(-step['w'], 1 / 11 if early else 1 / 2, rtol=1e-4)


def newton(matrix, steps):
  """The quintic iteration of Jordan et al. 2024 towards the nearest orthogonal matrix."""
  wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
  wide = wide / np.linalg.norm(wide)
  for _ in range(steps):
    square = wide @ wide.T
    wide = 3.4445 * wide + (-4.775 * square + 2.0315 * square @ square) @ wide
  return wide.T if matrix.shape[0] > matrix.shape[1] else wide


def test_muon_equals_a_loop_and_leaves_the_rest_to_adam():
  specs = {'embed': Spec((5, 6), ('vocab', 'embed')), 'norm': Spec((6,), ('embed',)), 'layers': {
    'up': Spec((2, 6, 8), ('layers', 'embed', 'mlp')), 'scale': Spec((2, 6), ('layers', 'embed')),
    'query': Spec((2, 6, 2, 4), ('layers', 'embed', 'heads', 'kv')),
    'query_bias': Spec((2, 2, 4), ('layers', 'heads', 'kv')),
    'output': Spec((2, 2, 4, 6), ('layers', 'heads', 'kv', 'embed'))}}
  muon = optim.muon(specs, optim.schedule(3, decay='linear'), clip=1.0, steps=3)
  adam = optax.chain(optax.clip_by_global_norm(1.0), optax.nadam(lambda t: 1 - t / 3, b2=0.99))
  rng = np.random.default_rng(0)
  params = spec.init(specs, jax.random.key(0))
  state, other, update = muon.init(params), adam.init(params), jax.jit(muon.update)
  sides = {'up': (6, 8), 'query': (6, 8), 'output': (8, 6)}
  m = {name: np.zeros((2, *sides[name])) for name in sides}
  for t in range(2):
    grads = jax.tree.map(lambda p: jnp.float32(rng.normal(size=p.shape)), params)
    step, state = update(grads, state, params)
    by_adam, other = adam.update(grads, other, params)
    for name in ('embed', 'norm'):
      np.testing.assert_allclose(step[name], by_adam[name], rtol=1e-5)
    for name in ('scale', 'query_bias'):
      np.testing.assert_allclose(step['layers'][name], by_adam['layers'][name], rtol=1e-5)
    norm = np.sqrt(sum((np.asarray(g) ** 2).sum() for g in jax.tree.leaves(grads)))
    for name, shape in sides.items():
      g = np.asarray(grads['layers'][name], np.float64).reshape(2, *shape) / norm
      m[name] = 0.95 * m[name] + 0.05 * g
      ahead = (0.95 * m[name] / (1 - 0.95 ** (t + 2)) + 0.05 * g / (1 - 0.95 ** (t + 1)))
      want = np.stack([newton(x, 3) for x in ahead]) * max(1, shape[1] / shape[0]) ** 0.5
      np.testing.assert_allclose(step['layers'][name].reshape(2, *shape), -(1 - t / 3) * want,
                                 rtol=2e-4, atol=1e-5)


def test_a_small_gradient_is_not_scaled_up():
  adam = optim.adam(optim.schedule(1), clip=1.0, eps=1.0)
  out, _ = adam.update({'w': jnp.array([0.3])}, adam.init({'w': jnp.zeros(1)}), {'w': jnp.zeros(1)})
  np.testing.assert_allclose(out['w'], -0.3 / 1.3, rtol=1e-6)
