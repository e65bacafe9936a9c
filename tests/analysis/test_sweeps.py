"""What is read of the folder of a sweep."""
import numpy as np
import pytest

from rlhf_jax.analysis import sweeps
from rlhf_jax.core import rundir


def write(path, coef, seed, samples=64):
  rundir.open_run(path, {'seed': seed, 'ppo': {'kl_coef': coef, 'samples': samples}})
  for step in (0, 3):
    rundir.append_metrics(path, step, {'loss': 7})
    rundir.append_metrics(path, step, {'eval/kl': step * coef, 'eval/score': -step})
  rundir.write_summary(path, {'gain': coef})
  rundir.mark_done(path)


def test_finished_runs_by_value_and_seed(tmp_path):
  points = [(0.3, 0), (0.1, 1), (0.1, 0)]
  for number, point in enumerate(points):
    write(tmp_path / str(number), *point)
  rundir.open_run(tmp_path / 'unfinished', {'seed': 5})
  (tmp_path / 'report.html').write_text('a file of the sweep itself')
  runs = sweeps.read(tmp_path, 'ppo.kl_coef')
  assert [(run.value, run.seed, run.summary) for run in runs] == [
    (value, seed, {'gain': value}) for value, seed in sorted(points)]
  assert set(runs[-1].curve) == {'step', 'kl', 'score'}
  np.testing.assert_allclose([runs[-1].curve[k] for k in ('step', 'kl', 'score')],
                             [[0, 3], [0, 0.9], [0, -3]])
  assert sweeps.said(tmp_path, runs) == '3 PPO runs, 1 more not finished'
  assert {value: len(mine) for value, mine in sweeps.by_value(runs).items()} == {0.1: 2, 0.3: 1}


def test_nothing_and_two_sweeps_are_refused(tmp_path):
  with pytest.raises(FileNotFoundError, match='holds no finished run: run the sweep first'):
    sweeps.read(tmp_path, 'seed')
  write(tmp_path / 'a', 0.1, 0)
  write(tmp_path / 'b', 0.2, 0, samples=32)
  with pytest.raises(ValueError, match=r'a and .*b are of two sweeps: config.ppo.samples is 64 and 32'):
    sweeps.read(tmp_path, 'ppo.kl_coef')
