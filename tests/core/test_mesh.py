"""Meshes of 8 devices: sizes, refusals, and where the rows of a batch go."""
import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from rlhf_jax.core import mesh


def test_the_rest_goes_to_the_axis_of_size_minus_one():
  made = mesh.make(data=2, fsdp=-1, tensor=2)
  assert dict(made.shape) == {'data': 2, 'fsdp': 2, 'tensor': 2}
  assert set(made.axis_types) == {AxisType.Auto}
  assert dict(mesh.make(devices=jax.devices()[:1]).shape) == {'data': 1, 'fsdp': 1, 'tensor': 1}


@pytest.mark.parametrize('sizes, fits', [
  ((3, 1, 1), 'data=8, fsdp=1, tensor=1'),        # 3 does not divide 8
  ((1, 6, 2), 'data=2, fsdp=2, tensor=2'),        # gcd(6, 8 / 2) = 2, and 2 are left
  ((1, 8, 8), 'data=1, fsdp=1, tensor=8'),        # nothing is left for fsdp
  ((-1, -1, 2), 'data=4, fsdp=1, tensor=2'),      # only one size can be the rest
  ((-1, 3, 1), 'data=8, fsdp=1, tensor=1'),
  ((0, 1, 1), 'data=8, fsdp=1, tensor=1')])
def test_an_impossible_mesh_is_refused_with_one_that_works(sizes, fits):
  with pytest.raises(ValueError, match=f'does not fit 8 devices: use {fits}'):
    mesh.make(*sizes)


def test_rows_must_divide_over_data_and_fsdp():
  made = mesh.make(2, 2, 2)
  mesh.check_batch(12, made)
  with pytest.raises(ValueError, match='of 14 rows does not divide over data . fsdp = 4: use 16'):
    mesh.check_batch(14, made)
  with pytest.raises(ValueError, match='use 4'):
    mesh.check_batch(1, made)


def test_put_batch_cuts_rows_over_data_and_fsdp():
  made = mesh.make(2, 2, 2)
  batch = {'x': np.arange(24).reshape(8, 3), 'w': np.arange(8.0)}
  placed = mesh.put_batch(batch, made)
  assert placed['x'].sharding == mesh.batch_sharding(made)
  for shard in placed['x'].addressable_shards:
    assert shard.data.shape == (2, 3)                                    # 8 rows / (2 * 2)
    np.testing.assert_array_equal(shard.data, batch['x'][shard.index])
  # The two devices of the axis 'tensor' hold the same rows: 8 devices, 4 different shards.
  assert len({str(shard.index) for shard in placed['w'].addressable_shards}) == 4
  assert mesh.replicated(made).shard_shape((8, 3)) == (8, 3)


def test_put_batch_refuses_what_does_not_fit():
  with pytest.raises(ValueError, match='14 rows does not divide'):
    mesh.put_batch({'x': np.zeros((14, 3))}, mesh.make(2, 2, 2))
  with pytest.raises(ValueError, match=r'\[4, 8\] rows: they must all have the same'):
    mesh.put_batch({'x': np.zeros((8, 3)), 'y': np.zeros(4)}, mesh.make(2, 2, 2))


def test_pin_keeps_rows_on_their_devices_and_the_width_whole():
  made = mesh.make(2, 2, 2)
  cut = jax.NamedSharding(made, jax.P('fsdp', 'tensor'))
  @jax.jit
  def run(x_ND, w_DF):
    pin = mesh.pin(made)
    return pin(x_ND, 'rows', 'embed'), pin(w_DF, 'embed', 'mlp')
  x_ND, w_DF = run(jax.device_put(np.arange(64.0).reshape(8, 8), mesh.replicated(made)),
                        jax.device_put(np.ones((8, 6), np.float32), cut))
  assert x_ND.sharding.shard_shape((8, 8)) == (2, 8)                     # 8 rows / (2 * 2)
  assert w_DF.sharding.shard_shape((8, 6)) == (8, 3)                     # gathered along 'fsdp'
  np.testing.assert_array_equal(x_ND, np.arange(64.0).reshape(8, 8))


def test_pin_leaves_rows_that_do_not_divide_free():
  x_ND = np.arange(24.0).reshape(3, 8)
  np.testing.assert_array_equal(mesh.pin(mesh.make(2, 2, 2))(x_ND, 'rows', 'embed'), x_ND)


def test_pin_does_nothing_on_one_device():
  x = np.ones((4, 4))
  assert mesh.pin(mesh.make(devices=jax.devices()[:1]))(x, 'rows', 'embed') is x


def test_an_abstract_mesh_counts_as_many_chips():
  made = mesh.abstract(4, 16, 8)
  assert made.size == 512 and mesh.batch_shards(made) == 64
  assert mesh.batch_sharding(made).shard_shape((128, 5)) == (2, 5)
