"""Optimisers from configs: schedules counted in samples, settings that are refused."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import presets
from rlhf_jax.run import build


def rates(optimizer, steps, samples, at):
  """The factor of the learning rate at optimiser steps `at`: Adam's step for a constant gradient."""
  made = build.optimizer(ConfigDict({'optimizer': optimizer, 'batch_size': 4}), steps, None, samples)
  state, update, out = made.init({'w': jnp.zeros(1)}), jax.jit(made.update), []
  for _ in range(max(at) + 1):
    step, state = update({'w': jnp.ones(1)}, state)
    out.append(-float(step['w'][0]))
  return [out[i] for i in at]


def table(**changes):
  made = presets.optimizer(1.0, warmup=0.0, decay='constant')
  made.update(changes)
  return made


def test_warm_up_and_halving_are_counted_in_samples():
  # 40 steps of 10,000 samples each: the rise to 50,000 takes 5 steps, a halving comes every 10.
  got = rates(table(warmup_samples=50_000, halve_samples=100_000), 40, 400_000,
              [0, 1, 4, 5, 9, 10, 19, 20, 39])
  np.testing.assert_allclose(got, [.2, .4, 1, 1, 1, .5, .5, .25, .125], rtol=1e-3)
  # The same run with 4 optimiser steps a batch.
  got = rates(table(warmup_samples=50_000, halve_samples=100_000), 160, 400_000, [0, 19, 39, 40])
  np.testing.assert_allclose(got, [.05, 1, 1, .5], rtol=1e-3)


def test_without_a_number_of_samples_a_step_is_a_batch():
  got = rates(table(halve_samples=12), 10, None, [0, 2, 3, 6])               # 4 rows a step
  np.testing.assert_allclose(got, [1, 1, .5, .25], rtol=1e-3)


def test_zero_samples_leave_the_shares():
  np.testing.assert_allclose(rates(table(warmup=0.5), 8, 800, [0, 3, 7]), [.25, 1, 1], rtol=1e-3)


@pytest.mark.parametrize('key, value', [('weight_decay', 0.1), ('early_eps', True)])
def test_what_is_for_adam_only(key, value):
  made = table(name='muon', **{key: value})
  with pytest.raises(ValueError, match=f'config.optimizer.{key}={value} is for adam only: set it to '):
    build.check_optimizer(ConfigDict({'optimizer': made}))
