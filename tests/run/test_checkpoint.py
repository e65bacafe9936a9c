"""Checkpoints: what comes back, what is noticed, what is passed over."""
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rlhf_jax.core import step
from rlhf_jax.run import checkpoint


def state(seed=0):
  params = {'body': {'w': jax.random.normal(jax.random.key(seed), (300, 7))},
            'head': jnp.arange(3.0) + seed}
  made = step.create(params, optax.scale_by_adam(), jax.random.key(seed), 0.1, kl_coef=0.5)
  return made.replace(step=jnp.int32(seed))


def assert_same(a, b):
  def one(x, y):
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
      x, y = jax.random.key_data(x), jax.random.key_data(y)
    assert x.dtype == y.dtype
    np.testing.assert_array_equal(x, y)
  jax.tree.map(one, a, b)


@pytest.fixture
def saved(tmp_path):
  """A run directory with checkpoints 2 and 4 of states 2 and 4."""
  with checkpoint.manager(tmp_path) as manager:
    for number in (2, 4):
      checkpoint.save(manager, number, state(number))
  return tmp_path


def data_files(path, item):
  """The files of one item that hold arrays and their index; not all of them are read again."""
  files = [f for f in (path / item).rglob('*') if f.parent.name == 'd']
  assert files
  return files


def flip(file):
  content = bytearray(file.read_bytes())
  content[len(content) // 2] ^= 1
  file.write_bytes(content)


def test_a_state_comes_back_whole(saved):
  with checkpoint.manager(saved) as manager:
    found, position = checkpoint.restore(manager, state(9))
  assert position == 4
  assert_same(found, state(4))


def test_up_to_a_step_and_nothing_there(saved, tmp_path):
  with checkpoint.manager(saved) as manager:
    found, position = checkpoint.restore(manager, state(9), latest=3)
    assert position == 2
    assert_same(found, state(2))
    assert checkpoint.restore(manager, state(9), latest=1)[1] == 0
  with checkpoint.manager(tmp_path / 'empty') as manager:
    found, position = checkpoint.restore(manager, state(9))
  assert position == 0
  assert_same(found, state(9))


def test_only_the_newest_two_are_kept(saved):
  with checkpoint.manager(saved) as manager:
    checkpoint.save(manager, 5, state(5))
    assert sorted(manager.all_steps()) == [4, 5]


def cut(file):
  file.write_bytes(file.read_bytes()[:-20])


def empty(file):
  file.write_bytes(b'')


@pytest.mark.parametrize('item', ['params', 'rest'])
@pytest.mark.parametrize('damage', [flip, cut, empty])
def test_a_damaged_newest_one_is_passed_over_and_written_anew(saved, capsys, item, damage):
  for file in data_files(saved / 'checkpoints' / '4', item):
    damage(file)
  with checkpoint.manager(saved) as manager:
    found, position = checkpoint.restore(manager, state(9))
    assert position == 2
    assert_same(found, state(2))
    out = capsys.readouterr().out
    assert out.startswith('checkpoint 4 of ') and out.count('\n') == 1
    checkpoint.save(manager, 4, state(4))
  with checkpoint.manager(saved) as manager:
    found, position = checkpoint.restore(manager, state(9))
  assert position == 4
  assert_same(found, state(4))


def test_a_run_none_of_whose_checkpoints_can_be_read_is_not_begun_anew(saved):
  for number in ('2', '4'):
    for file in data_files(saved / 'checkpoints' / number, 'params'):
      cut(file)
  with checkpoint.manager(saved) as manager:
    with pytest.raises(ValueError, match='^no checkpoint of .* can be read .* start it again$'):
      checkpoint.restore(manager, state(9))


@pytest.mark.parametrize('item, leaf', [('params', "['head']"), ('rest', "['key']")])
def test_bytes_that_are_not_those_written_are_noticed(saved, capsys, item, leaf):
  """Also where Orbax reads without complaint: here the stored sum is changed, not the data."""
  file, = (f for f in (saved / 'checkpoints' / '4' / 'meta').rglob('*') if f.name == 'metadata')
  meta = json.loads(file.read_text())
  meta[item][leaf] += 1
  file.write_text(json.dumps(meta))
  with checkpoint.manager(saved) as manager:
    assert checkpoint.restore(manager, state(9))[1] == 2
  assert f'the bytes of {item}{leaf} are not those that were written' in capsys.readouterr().out


def test_a_step_that_was_not_committed_is_passed_over(saved):
  for file in (saved / 'checkpoints' / '4').rglob('*'):
    if file.name in ('_CHECKPOINT_METADATA', 'commit_success.txt', '_METADATA'):
      file.unlink()
  with checkpoint.manager(saved) as manager:
    assert checkpoint.restore(manager, state(9))[1] == 2


def test_parameters_alone_and_a_part_of_them(saved):
  abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state().params)
  assert_same(checkpoint.load_params(saved, abstract), state(4).params)
  body = checkpoint.load_params(saved, abstract['body'], 'body',
                                jax.sharding.SingleDeviceSharding(jax.devices()[0]))
  assert_same(body, state(4).params['body'])


def test_parameters_of_an_earlier_checkpoint(saved):
  abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state().params)
  assert_same(checkpoint.load_params(saved, abstract, step=2), state(2).params)
  with pytest.raises(FileNotFoundError, match='has no checkpoint 3: it keeps 2, 4'):
    checkpoint.load_params(saved, abstract, step=3)


@pytest.mark.parametrize('damage', [flip, cut])
def test_a_damaged_role_is_never_loaded(saved, damage):
  for file in data_files(saved / 'checkpoints' / '4', 'params'):
    damage(file)
  abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state().params)
  with pytest.raises(ValueError, match='^checkpoint 4 of .* is damaged .* make it again$'):
    checkpoint.load_params(saved, abstract)


def test_what_is_not_there_or_of_another_shape_is_one_line(saved, tmp_path):
  abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state().params)
  with pytest.raises(FileNotFoundError, match='no checkpoints here; run the stage that makes it'):
    checkpoint.load_params(tmp_path / 'nowhere', abstract)
  (tmp_path / 'early' / 'checkpoints').mkdir(parents=True)
  for _ in range(2):                                   # an empty folder, then the start of a run
    with pytest.raises(FileNotFoundError, match='its checkpoint folder holds nothing trained'):
      checkpoint.load_params(tmp_path / 'early', abstract)
    with checkpoint.manager(tmp_path / 'early') as manager:
      checkpoint.save(manager, 0, state(0))
  wide = abstract | {'head': jax.ShapeDtypeStruct((4,), jnp.float32)}
  with pytest.raises(ValueError, match=r'parameter head has shape \(3,\), the configured model '
                     r'wants \(4,\): check config.model'):
    checkpoint.load_params(saved, wide)
  with pytest.raises(ValueError, match='parameter head is unexpected there'):
    checkpoint.load_params(saved, {'body': abstract['body']})
  with pytest.raises(ValueError, match='parameter tail is missing there'):
    checkpoint.load_params(saved, abstract | {'tail': abstract['head']})


def test_the_digest_knows_every_leaf_and_every_bit():
  tree = {'a': jnp.zeros(3), 'b': {'c': jax.random.key(1)}}
  before = checkpoint.digest(tree)
  assert len(before) == 2 and before == checkpoint.digest(tree | {'a': np.zeros(3, np.float32)})
  changed = checkpoint.digest({'a': tree['a'].at[2].set(1e-45), 'b': {'c': jax.random.key(2)}})
  assert all(changed[name] != before[name] for name in before)
