"""The step against gradients by hand: accumulation, learning rate, memory, PPO's passes."""
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct

from rlhf_jax.core import masked, step
from rlhf_jax.core.random import key_for

KEY = jax.random.key(3)
SGD = optax.scale(-1.0)


@struct.dataclass
class Points:
  """A batch of one regression; weight_B as it comes, normalised by the step."""
  x_B: jax.Array
  y_B: jax.Array
  weight_B: jax.Array

  def normalise(self):
    return self.replace(weight_B=masked.normalise(self.weight_B))


BATCH = Points(*(np.float32(x) for x in ([1, 2, 3, 4], [1, 0, 2, 2], [1, 0, 2, 1])))


def squared(params, batch, key, frozen):
  del key
  error_B = params['w'] * batch.x_B + frozen['shift'] - batch.y_B
  return (batch.weight_B * error_B ** 2).sum(), {'error': (batch.weight_B * error_B).sum()}


def state(learning_rate=0.1, optimizer=SGD, **extra):
  return step.create({'w': jnp.float32(0.5)}, optimizer, KEY, learning_rate, **extra)


FROZEN = {'shift': jnp.float32(0.0)}


def test_one_update_by_hand():
  # Weights 1/4, 0, 2/4, 1/4; errors at w = 1/2: -1/2, 1, -1/2, 0. Loss (1 + 2) / 16.
  # Slope 2 * sum(weight * error * x) = 2 * (-1/8 - 3/4) = -7/4.
  new, metrics = jax.jit(step.update(squared, SGD))(state(), BATCH, FROZEN)
  np.testing.assert_allclose(metrics['loss'], 3 / 16)
  np.testing.assert_allclose(metrics['error'], -3 / 8)
  np.testing.assert_allclose(metrics['grad_norm'], 7 / 4)
  np.testing.assert_allclose(new.params['w'], 0.5 + 0.1 * 7 / 4)
  assert new.step == 1
  np.testing.assert_array_equal(jax.random.key_data(new.key), jax.random.key_data(KEY))


@pytest.mark.parametrize('parts', [2, 4])
def test_microbatches_change_nothing(parts):
  # The weights of the parts differ: a mean of means would give another number.
  whole, whole_metrics = jax.jit(step.update(squared, SGD))(state(), BATCH, FROZEN)
  new, metrics = jax.jit(step.update(squared, SGD, parts))(state(), BATCH, FROZEN)
  np.testing.assert_allclose(new.params['w'], whole.params['w'], rtol=1e-6)
  assert metrics.keys() == whole_metrics.keys()
  for name in metrics:
    np.testing.assert_allclose(metrics[name], whole_metrics[name], rtol=1e-6, err_msg=name)


def extremes(params, batch, key, frozen):
  """The largest and the smallest x, of weighted rows or not."""
  value, aux = squared(params, batch, key, frozen)
  return value, aux | {'x_max': batch.x_B.max(), 'x_min': batch.x_B.min()}


@pytest.mark.parametrize('parts', [1, 2, 4])
def test_extremes_are_those_of_all_microbatches_and_minibatches(parts):
  update = step.update(extremes, SGD, parts)
  for one in (update, step.passes(step.update(extremes, SGD, 1), 2, parts)):
    _, metrics = jax.jit(one)(state(), BATCH, FROZEN)
    assert metrics['x_max'] == 4 and metrics['x_min'] == 1


def test_a_batch_that_does_not_divide_is_one_line():
  with pytest.raises(ValueError, match='4 rows does not divide into 3 parts: use 3 rows'):
    jax.jit(step.update(squared, SGD, 3))(state(), BATCH, FROZEN)


def test_learning_rate_is_data_and_zero_moves_nothing():
  update = jax.jit(step.update(squared, SGD))
  for rate in (0.0, 0.1, 0.2):
    new, _ = update(state(rate), BATCH, FROZEN)
    np.testing.assert_allclose(new.params['w'] - 0.5, rate * 7 / 4, rtol=1e-6)
  assert update._cache_size() == 1


def test_after_reads_the_old_state_and_writes_extra():
  def after(state, batch, aux):
    return state.extra | {'memory': state.extra['memory'] + aux['error'] + batch.weight_B.sum()}
  new, _ = jax.jit(step.update(squared, SGD, 2, after))(state(memory=1), BATCH, FROZEN)
  np.testing.assert_allclose(new.extra['memory'], 1 - 3 / 8 + 1)      # weights add up to 1 there
  np.testing.assert_allclose(new.extra['learning_rate'], 0.1)


def test_parameters_keep_their_type():
  low = step.create({'w': jnp.bfloat16(0.5)}, SGD, KEY, 0.1)
  new, _ = jax.jit(step.update(squared, SGD))(low, BATCH, FROZEN)
  assert new.params['w'].dtype == jnp.bfloat16


def noisy(params, batch, key, frozen):
  del frozen
  noise = jax.random.uniform(key)
  return params['w'] * noise * batch.weight_B.sum(), {'noise': noise}


def test_noise_is_addressed_by_step_and_part():
  update = jax.jit(step.update(noisy, SGD, 2))
  first, a = update(state(0.0), BATCH, FROZEN)
  _, again = update(state(0.0), BATCH, FROZEN)
  _, later = update(first, BATCH, FROZEN)
  # Two microbatches: their keys are folded from that of the step, and their noise adds up.
  key = key_for(KEY, 'loss', 0)
  expected = sum(float(jax.random.uniform(jax.random.fold_in(key, i))) for i in range(2))
  np.testing.assert_allclose(a['noise'], expected, rtol=1e-6)
  assert a['noise'] == again['noise'] != later['noise']


def test_create_copies_the_parameters():
  shared = {'w': jnp.ones(3)}
  made = step.create(shared, SGD, KEY, 0.1)
  jax.jit(lambda s: jax.tree.map(jnp.copy, s), donate_argnums=0)(made)
  assert made.params['w'].is_deleted()
  np.testing.assert_array_equal(shared['w'], 1)
  assert jax.random.uniform(KEY) < 1                       # not deleted with the state


def test_passes_see_every_row_once_a_pass_in_changing_order():
  rows = Points(np.arange(8, dtype=np.float32), np.zeros(8, np.float32), np.ones(8, np.float32))
  def record(params, batch, key, frozen):
    return params['w'].sum(), {'rows': jnp.zeros(8).at[batch.x_B.astype(int)].set(1.0)}
  one = step.update(record, SGD)
  tape = []
  def spy(inner, batch, frozen):
    jax.debug.callback(lambda x: tape.append(np.asarray(x)), batch.x_B, ordered=True)
    return one(inner, batch, frozen)
  new, metrics = jax.jit(step.passes(spy, 3, 4))(state(), rows, FROZEN)
  jax.effects_barrier()
  assert len(tape) == 12 and new.step == 1
  sweeps = [np.concatenate(tape[4 * n:4 * n + 4]) for n in range(3)]
  for sweep in sweeps:
    assert sorted(sweep) == list(range(8))
  assert len({tuple(s) for s in sweeps}) == 3
  # Each row is in one of the four minibatches of a pass: metrics are means over all parts.
  np.testing.assert_allclose(metrics['rows'], np.full(8, 1 / 4))
  tape.clear()
  jax.jit(step.passes(spy, 3, 4))(new, rows, FROZEN)
  jax.effects_barrier()
  assert not np.array_equal(np.concatenate(tape[:4]), sweeps[0])     # other noise at step 1


def test_passes_are_updates_one_after_another():
  # All rows alike, so that permutations do not matter: 2 * 2 updates with a quarter each.
  rows = Points(*(np.full(4, x, np.float32) for x in (2, 3, 1)))
  plain, w = jax.jit(step.update(squared, SGD)), []
  expected = state()
  for _ in range(4):
    w.append(float(plain(expected, rows, FROZEN)[1]['loss']))
    expected, _ = plain(expected, rows, FROZEN)
  new, metrics = jax.jit(step.passes(step.update(squared, SGD), 2, 2))(state(), rows, FROZEN)
  np.testing.assert_allclose(new.params['w'], expected.params['w'], rtol=1e-6)
  np.testing.assert_allclose(metrics['loss'], np.mean(w), rtol=1e-6)
  assert new.step == 1


def test_passes_give_each_part_its_own_noise_and_remember_once():
  calls = []
  def after(state, batch, metrics):
    calls.append(batch.x_B.shape)
    return state.extra | {'memory': state.extra['memory'] + metrics['noise']}
  update = jax.jit(step.passes(step.update(noisy, SGD), 1, 2, after))
  first, a = update(state(0.0, memory=0), BATCH, FROZEN)
  _, b = update(first, BATCH, FROZEN)
  # Part n of call s is inner step 2 s + n.
  draws = [float(jax.random.uniform(key_for(KEY, 'loss', n))) for n in range(4)]
  np.testing.assert_allclose(a['noise'], np.mean(draws[:2]), rtol=1e-6)
  np.testing.assert_allclose(b['noise'], np.mean(draws[2:]), rtol=1e-6)
  np.testing.assert_allclose(first.extra['memory'], np.mean(draws[:2]), rtol=1e-6)
  assert set(calls) == {(4,)}                                         # the whole batch, not a part


def test_passes_refuse_rows_that_do_not_divide():
  with pytest.raises(ValueError, match='does not divide into 3 parts'):
    jax.jit(step.passes(step.update(squared, SGD), 1, 3))(state(), BATCH, FROZEN)
