"""Training with files: resume, divergence, several runs in one program; a regression of 3 weights."""
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from ml_collections import ConfigDict

from rlhf_jax.core import masked, mesh, optim, rundir, step
from rlhf_jax.core.random import key_for
from rlhf_jax.core.spec import Spec
from rlhf_jax.run import build, checkpoint
from rlhf_jax.run.hooks import Diverged
from rlhf_jax.run.train import open_runs, train
from tests.files import columns, metrics

SPECS = {'w': Spec((3,), (None,))}
OPTIMIZER = optim.adam(optim.schedule(8, decay='linear'))


@struct.dataclass
class Points:
  x_BT: jax.Array
  y_B: jax.Array
  weight_B: jax.Array

  def normalise(self):
    return self.replace(weight_B=masked.normalise(self.weight_B))


def config(**changes):
  optimizer = {'name': 'adam', 'learning_rate': 0.1, 'decay': 'linear', 'weight_decay': 0.0}
  made = ConfigDict({'seed': 0, 'optimizer': optimizer, 'ppo': {'kl_coef': 0.0}, 'batch_size': 8,
                     'log_every': 1, 'eval_every': 2, 'checkpoint_every': 2})
  for key, value in changes.items():
    made.update_from_flattened_dict({key.replace('__', '.'): value})
  return made


def points(config, i):
  rng = np.random.default_rng([config.seed, i])
  x = rng.normal(size=(8, 3)).astype(np.float32)
  return Points(x, x @ np.float32([1, 2, 3]), np.ones(8, np.float32))


def loss(params, batch, key, frozen):
  error_B = batch.x_BT @ params['w'] - batch.y_B + 0.1 * jax.random.normal(key)
  return (batch.weight_B * error_B ** 2).sum() * frozen['scale'], {}


def go(configs, workdirs, host=points, steps=6):
  """Trains and returns the state; nothing but arguments decides what happens."""
  open_runs(configs, workdirs)
  devices = mesh.make(data=-1)
  start = build.initial_state(configs, devices, SPECS, lambda c, key: {'w': jax.random.normal(
    key_for(key, 'init'), (3,))}, OPTIMIZER, lambda c: {'kl_coef': c.ppo.kl_coef})
  return train(configs, workdirs, *start, step.update(loss, OPTIMIZER), label='toy', steps=steps,
               mesh=devices, host=host, frozen={'scale': jnp.float32(1.0)},
               evaluate=lambda state, frozen: {'w0': state.params['w'][0] * frozen['scale']})


def stop_at(step, error=KeyboardInterrupt):
  """A source that is killed when it is asked for the batch at a position."""
  def host(config, i):
    if i == step:
      raise error
    return points(config, i)
  return host


def files(path):
  with checkpoint.manager(path) as manager:
    last = manager.latest_step()
    return metrics(path), last, manager.restore(last)['meta']


def damage(path):
  """Cuts the end off every file of arrays."""
  for file in path.rglob('d/*'):
    file.write_bytes(file.read_bytes()[:-9])


@pytest.mark.parametrize('killed', [1, 2, 3, 5])
def test_resume_equals_uninterrupted_bit_by_bit(tmp_path, killed):
  a, b = tmp_path / 'a', tmp_path / 'b'
  whole = go([config()], [a])
  with pytest.raises(KeyboardInterrupt):
    go([config()], [b], stop_at(killed))
  resumed = go([config()], [b])
  np.testing.assert_array_equal(resumed.params['w'], whole.params['w'])
  assert files(a) == files(b)
  made = rundir.read_metrics(a, 'eval/w0')
  assert made['step'].tolist() == [0, 2, 4, 6]
  assert np.abs(whole.params['w'] - np.array([1, 2, 3])).max() < 3


def test_a_run_killed_inside_an_evaluation_evaluates_again(tmp_path):
  """Killed at a step that is logged, evaluated and saved, between any two of these."""
  a, b = tmp_path / 'a', tmp_path / 'b'
  go([config()], [a])
  written = rundir.append_metrics
  def torn(path, step, metrics):
    if step == 4 and 'eval/w0' in metrics:
      raise KeyboardInterrupt
    written(path, step, metrics)
  rundir.append_metrics = torn
  try:
    with pytest.raises(KeyboardInterrupt):
      go([config()], [b])
  finally:
    rundir.append_metrics = written
  go([config()], [b])
  assert files(a) == files(b)


def test_a_damaged_newest_checkpoint_costs_steps_and_nothing_else(tmp_path, capsys):
  a, b = tmp_path / 'a', tmp_path / 'b'
  go([config()], [a])
  with pytest.raises(KeyboardInterrupt):
    go([config()], [b], stop_at(5))
  damage(b / 'checkpoints' / '4')
  go([config()], [b])
  assert 'checkpoint 4' in capsys.readouterr().out
  assert files(a) == files(b)
  with checkpoint.manager(b) as manager:
    assert sorted(manager.all_steps()) == [4, 6]
    assert checkpoint.restore(manager, go([config()], [a]), latest=4)[1] == 4      # written anew


def test_what_a_resumed_run_does_not_start_from_is_freed(tmp_path, monkeypatch):
  """Before the other is read, else the memory of a run near the limit would not do for going on."""
  made, devices = config(), mesh.make(data=-1)
  go([made], [tmp_path / 'a'], steps=2)
  state, shardings = build.initial_state([made], devices, SPECS, lambda c, key: {
    'w': jnp.ones(3)}, OPTIMIZER, lambda c: {'kl_coef': 0.0})
  freed, restore = [], checkpoint.restore
  def watched(*args):
    freed.append(all(leaf.is_deleted() for leaf in jax.tree.leaves(state)))
    return restore(*args)
  monkeypatch.setattr(checkpoint, 'restore', watched)
  train([made], [tmp_path / 'a'], state, shardings, step.update(loss, OPTIMIZER), label='toy', steps=2,
        mesh=devices, host=points, frozen={'scale': jnp.float32(1.0)})
  assert freed == [True]


def poisoned(at):
  def host(config, i):
    made = points(config, i)
    return made.replace(y_B=made.y_B * np.nan) if i == at else made
  return host


@pytest.mark.parametrize('log_every', [1, 3])
@pytest.mark.parametrize('at', [3, 4])                 # a step that is saved, and one that is not
def test_a_loss_that_is_nan_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path, at, log_every):
  made = config(log_every=log_every)
  with pytest.raises(Diverged, match=rf'loss is nan at step {at + 1} \(batch {at}\); the last good'):
    go([made], [tmp_path / 'a'], poisoned(at))
  assert files(tmp_path / 'a')[1] == at // 2 * 2
  assert b'null' not in (tmp_path / 'a' / 'metrics.jsonl').read_bytes()
  go([made], [tmp_path / 'b'])
  go([made], [tmp_path / 'a'])                     # the same command, the batch mended
  assert files(tmp_path / 'a') == files(tmp_path / 'b')


def test_a_run_that_breaks_at_once_keeps_its_start(tmp_path):
  with pytest.raises(Diverged, match='at step 1 '):
    go([config()], [tmp_path / 'a'], poisoned(0))
  assert files(tmp_path / 'a')[1] == 0
  go([config()], [tmp_path / 'b'])
  go([config()], [tmp_path / 'a'])
  assert files(tmp_path / 'a') == files(tmp_path / 'b')


def test_an_absurd_learning_rate_stops_the_run(tmp_path):
  with pytest.raises(Diverged, match='is (inf|nan) at step [2-6] '):
    go([config(optimizer__learning_rate=1e30)], [tmp_path / 'a'])


def changed():
  return config(seed=1, optimizer__learning_rate=0.05, ppo__kl_coef=0.3)


def test_a_group_equals_single_runs(tmp_path):
  configs, names = [config(), changed()], ['a', 'b']
  group = go(configs, [tmp_path / f'group-{n}' for n in names])
  for s, (c, name) in enumerate(zip(configs, names, strict=True)):
    single = go([c], [tmp_path / name])
    np.testing.assert_allclose(group.params['w'][s], single.params['w'], rtol=1e-5)
    np.testing.assert_allclose(group.extra['kl_coef'][s], c.ppo.kl_coef)
    ours, theirs = (columns(rundir.read_metrics(tmp_path / n)) for n in (f'group-{name}', name))
    assert ours.keys() == theirs.keys()
    for column in ours:
      np.testing.assert_allclose(ours[column], theirs[column], rtol=1e-4, atol=1e-5)
  assert np.abs(group.params['w'][0] - group.params['w'][1]).max() > 1e-3
  times = [rundir.read_metrics(tmp_path / n, 'time/train', 'time/host') for n in ('group-a', 'group-b')]
  for name in times[0]:                                         # one program, one clock
    np.testing.assert_array_equal(times[0][name], times[1][name])


def test_a_group_goes_on_from_the_newest_step_all_have(tmp_path):
  configs, names = [config(), changed()], ['a', 'b']
  whole, broken = ([tmp_path / f'{kind}-{n}' for n in names] for kind in ('whole', 'broken'))
  go(configs, whole)
  with pytest.raises(KeyboardInterrupt):
    go(configs, broken, stop_at(5))
  damage(broken[1] / 'checkpoints' / '4')
  go(configs, broken)
  for a, b in zip(whole, broken, strict=True):
    assert files(a) == files(b)


def test_what_a_group_may_not_vary_and_what_is_finished(tmp_path):
  with pytest.raises(ValueError, match='runs of one group may differ in seed, .* not in '
                     'config.batch_size'):
    open_runs([config(), config(batch_size=4)], [tmp_path / 'a', tmp_path / 'b'])
  assert not (tmp_path / 'a').exists()
  assert open_runs([config()], [tmp_path / 'a'])
  rundir.mark_done(tmp_path / 'a')
  assert not open_runs([config()], [tmp_path / 'a'])


def test_the_tokenizer_is_saved_with_each_run_that_is_not_done(tmp_path):
  saved = []
  tokenizer = SimpleNamespace(save=saved.append)
  open_runs([config()], [tmp_path / 'a'], tokenizer)
  rundir.mark_done(tmp_path / 'a')
  assert open_runs([config(), changed()], [tmp_path / 'a', tmp_path / 'b'], tokenizer)
  assert saved == [f'{tmp_path}/a/tokenizer.json', f'{tmp_path}/b/tokenizer.json']


def test_evaluations_are_at_the_steps_that_are_named(tmp_path):
  made = config()
  with made.ignore_type():
    made.eval_every = (1, 4, 9)
  go([made], [tmp_path / 'a'])
  assert rundir.read_metrics(tmp_path / 'a', 'eval/w0')['step'].tolist() == [0, 1, 4, 6]
