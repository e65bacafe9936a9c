"""Hooks: what is written when, what stops a run, and how several runs are told apart."""
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.core import rundir
from rlhf_jax.run import hooks


def drive(hook, losses, first=1):
  for step, loss in enumerate(losses, first):
    hook(step, None, {'loss': jnp.float32(loss), 'grad_norm': jnp.float32(1.0)})


def test_the_writer_writes_every_so_many_steps_and_the_last(tmp_path):
  drive(hooks.writer(tmp_path, 2, 5), [0.1, 0.2, 0.3, 0.4, 0.5])
  made = rundir.read_metrics(tmp_path, 'loss')
  np.testing.assert_array_equal(made['step'], [2, 4, 5])
  np.testing.assert_allclose(made['loss'], [0.2, 0.4, 0.5], rtol=1e-6)


def test_a_line_is_there_before_a_checkpoint_of_its_step(tmp_path):
  hook = hooks.writer(tmp_path, 2, 5, stops={2})
  drive(hook, [0.1, 0.2])
  assert rundir.read_metrics(tmp_path)['step'].tolist() == [2]


@pytest.mark.parametrize('bad', [math.nan, math.inf])
def test_what_is_not_finite_stops_the_run_one_step_later_at_most(tmp_path, bad):
  hook = hooks.writer(tmp_path, 10, 100)
  drive(hook, [0.1, bad])
  with pytest.raises(hooks.Diverged, match=r'loss is (nan|inf) at step 2 \(batch 1\); the last good '
                     'checkpoint is kept: look at that batch'):
    drive(hook, [0.1], first=3)
  assert not (tmp_path / 'metrics.jsonl').exists()


def test_a_gradient_that_is_not_finite_stops_it_too(tmp_path):
  with pytest.raises(hooks.Diverged, match='grad_norm is inf at step 7'):
    hooks.check_finite(7, {'loss': 1.0, 'grad_norm': jnp.inf, 'other': jnp.nan}, tmp_path)
  hooks.check_finite(7, {'loss': 1.0, 'other': jnp.nan}, tmp_path)


def test_what_is_watched_is_checked_before_anything_is_written(tmp_path):
  seen = []
  def watch(step, metrics):
    seen.append((step, float(metrics['loss'])))
    if step == 3:
      raise hooks.Diverged('broken')
  hook = hooks.writer(tmp_path, 1, 5, watch=watch)
  drive(hook, [0.5, 0.25])
  drive(hook, [math.nan], first=3)                            # which is under way
  with pytest.raises(hooks.Diverged, match='^broken$'):       # said by the watch, which comes first
    drive(hook, [0.1], first=4)
  assert seen[:2] == [(1, 0.5), (2, 0.25)]
  assert rundir.read_metrics(tmp_path)['step'].tolist() == [1, 2]


def test_at_calls_at_its_steps_alone():
  called = []
  hook = hooks.at(iter([2, 4]), lambda step, state, metrics: called.append((step, state, metrics)))
  for step in range(1, 6):
    hook(step, 's', 'm')
  assert called == [(2, 's', 'm'), (4, 's', 'm')]


def test_members_get_the_metrics_of_their_own_run():
  seen = {0: [], 1: []}
  def reader(run):
    return lambda step, state, metrics: seen[run].append((step, state, float(metrics['loss'])))
  hook = hooks.members([reader(0), reader(1)])
  for step in (1, 2):
    hook(step, 'all', {'loss': jnp.array([step, 2.0 * step])})
  assert seen == {0: [(1, 'all', 1.0), (2, 'all', 2.0)], 1: [(1, 'all', 2.0), (2, 'all', 4.0)]}


def test_members_wait_for_a_step_only_when_it_is_read(monkeypatch):
  """The writer of each run reads a step when the next is under way; one fetch serves all runs."""
  fetched = []
  monkeypatch.setattr(jax, 'device_get', lambda metrics: fetched.append(metrics['step']) or metrics)
  read = {0: [], 1: []}
  def late(run):
    waiting = []
    def hook(step, state, metrics):
      waiting.append(metrics['loss'])
      read[run] += [float(loss) for loss in waiting[:-1]]
      del waiting[:-1]
    return hook
  hook = hooks.members([late(0), late(1)])
  for step in (1, 2, 3):
    hook(step, None, {'step': step, 'loss': [10.0 * step, 20.0 * step]})
  assert fetched == [1, 2] and read == {0: [10, 20], 1: [20, 40]}


class OnDevice:
  """Two runs' values of a metric: to be fetched as they are, since a program launched to read them
  would wait behind the update under way."""

  def __array__(self, *args, **options):
    return np.array([0.25, 0.75])

  def mean(self, *args, **options):
    raise AssertionError('a program was launched')


def test_progress_counts_from_where_a_run_went_on(capsys):
  with hooks.progress('ppo', 2, 4, show=('score', 'absent')) as hook:
    for step in (3, 4):
      hook(step, None, {'score': OnDevice()})
  shown = capsys.readouterr().err
  assert '4/4' in shown and 'score 0.500' in shown and 'absent' not in shown


def test_an_error_stands_on_a_line_below_the_bar(capsys):
  with pytest.raises(hooks.Diverged), hooks.progress('ppo', 0, 4) as hook:
    hook(1, None, {'loss': OnDevice()})
    raise hooks.Diverged
  assert '1/4' in (shown := capsys.readouterr().err) and shown.endswith('\n')
