"""One device, eight devices, microbatches: the same update, with statistics of the whole batch."""
import numpy as np
import pytest

from rlhf_jax.core import mesh as meshes
from tests.contracts import tiny

meshes_of_eight = pytest.mark.parametrize('sizes', [
  pytest.param((2, 2, 2), id='data=2 fsdp=2 tensor=2'),
  pytest.param((8, 1, 1), id='data=8', marks=pytest.mark.slow)])


def two_steps(run):
  """State, metrics of both steps and the two batches."""
  state, seen = run.state, []
  for i in range(2):
    batch = run.source(state, run.frozen, i)
    state, metrics = run.update(state, batch, run.frozen)
    seen.append((tiny.host(batch), tiny.host(metrics)))
  return tiny.host(state.params), seen


@pytest.fixture(scope='module')
def one():
  """The same on one device."""
  return {'ppo': two_steps(tiny.ppo_run(minibatches=2)), 'pm': two_steps(tiny.pm_run())}


def assert_same(result, expected):
  (params, seen), (expected_params, expected_seen) = result, expected
  tiny.assert_close(seen, expected_seen, rtol=1e-3, atol=2e-4)
  tiny.assert_close(params, expected_params, atol=5e-5)


@meshes_of_eight
def test_ppo_on_eight_devices(one, sizes):
  run = tiny.ppo_run(meshes.make(*sizes), minibatches=2)
  up = run.state.params['policy']['layers']['up']
  assert len(up.sharding.device_set) == 8
  assert up.addressable_shards[0].data.shape == (2, 16 // sizes[1], 64 // sizes[2])
  moment = run.state.opt_state[1].mu['policy']['layers']['up']
  assert moment.sharding == up.sharding
  params, seen = two_steps(run)
  np.testing.assert_array_equal(seen[0][0].rollout.tokens_BT, one['ppo'][1][0][0].rollout.tokens_BT)
  assert_same((params, seen), one['ppo'])


@meshes_of_eight
def test_preference_model_on_eight_devices(one, sizes):
  assert_same(two_steps(tiny.pm_run(meshes.make(*sizes))), one['pm'])


@meshes_of_eight
def test_one_body_for_policy_and_value_on_eight_devices(sizes):
  assert_same(two_steps(tiny.ppo_run(meshes.make(*sizes), minibatches=2, shared=True)),
              two_steps(tiny.ppo_run(minibatches=2, shared=True)))


def test_microbatches(one):
  assert_same(two_steps(tiny.ppo_run(minibatches=2, microbatches=4)), one['ppo'])
  assert_same(two_steps(tiny.pm_run(microbatches=4)), one['pm'])


def test_advantages_are_whitened_over_all_devices(one):
  _, seen = two_steps(tiny.ppo_run(meshes.make(8), minibatches=2))
  batch = seen[0][0]
  advantage = batch.advantage_BT[batch.weight_BT > 0]
  assert abs(advantage.mean()) < 1e-5 and abs(advantage.std() - 1) < 1e-4
  # Row by row, as each device would see them, they are not.
  row_means = [row[keep > 0].mean() for row, keep in zip(batch.advantage_BT, batch.weight_BT,
                                                         strict=True)]
  assert np.abs(row_means).max() > 0.1
