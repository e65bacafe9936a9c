"""Schedules by hand; Adam against a loop written out in numpy."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.core import optim


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
  params = {'matrix': rng.normal(size=(2, 3)), 'bias': rng.normal(size=3)}
  ours = jax.tree.map(jnp.float32, params)
  adam = optim.adam(optim.schedule(4, decay='linear'), clip=clip, b1=0.9, b2=0.95, eps=1e-3,
                    weight_decay=0.1)
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
      step = step + 0.1 * params[k] * (k == 'matrix')          # vectors do not decay
      np.testing.assert_allclose(direction[k], -(1 - t / 4) * step, rtol=2e-5, atol=1e-6)
      params[k] = params[k] - (1 - t / 4) * step
    ours = jax.tree.map(jnp.add, ours, direction)


def test_a_small_gradient_is_not_scaled_up():
  adam = optim.adam(optim.schedule(1), clip=1.0, eps=1.0)
  out, _ = adam.update({'w': jnp.array([0.3])}, adam.init({'w': jnp.zeros(1)}), {'w': jnp.zeros(1)})
  np.testing.assert_allclose(out['w'], -0.3 / 1.3, rtol=1e-6)
