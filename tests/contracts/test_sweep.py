"""A sweep runs what can be run, says what a guard stopped, and goes on where it was."""
from types import SimpleNamespace

import pytest
from ml_collections import ConfigDict

from experiments import sweep
from rlhf_jax.core import rundir
from rlhf_jax.run import config as configs
from tests.contracts.conftest import ROOT


def test_a_guard_stops_one_point_and_the_others_run(tmp_path, monkeypatch, capsys):
  rates = 1e30, 1e-3
  module, told = configs.module(ROOT / 'configs' / 'pretrain_lm.py'), []
  module.sweep_rates = lambda: [{'variant': 'smoke', 'optimizer.learning_rate': r} for r in rates]
  module.report_rates = told.append
  monkeypatch.setattr(configs, 'module', lambda path: module)
  monkeypatch.setattr(configs, 'prepare_backend', lambda: None)       # a setting of the whole process
  arguments = ['--config=configs/pretrain_lm.py', '--sweep=rates', f'--workdir={tmp_path}']
  with pytest.raises(configs.Diverged, match='^1 of 2 points were stopped by a guard'):
    sweep.main([*arguments, '--config.steps=2'])
  shown = capsys.readouterr()
  folders = {rundir.read_config(p)['optimizer']['learning_rate']: p for p in tmp_path.iterdir()}
  assert [rundir.is_done(folders[rate]) for rate in rates] == [False, True]
  assert f'stopped: {folders[1e30]}: grad_norm is nan' in shown.out
  row, = (line for line in shown.out.splitlines() if f' {folders[1e30].name} ' in line)
  assert 'grad_norm is nan at step 2 (batch 1)' in row
  losses = [rundir.read_summary(folders[rate])['loss'] for rate in rates[1:]]
  assert all(f'{loss:.3f}' in shown.out for loss in losses) and told == [str(tmp_path)]
  before = {p: p.stat().st_mtime_ns for rate in rates[1:] for p in folders[rate].rglob('*')}
  with pytest.raises(configs.Diverged, match='^1 of 2 points'):
    sweep.main([*arguments, '--config.steps=2'])
  assert all(p.stat().st_mtime_ns == then for p, then in before.items())     # not run again


def test_of_a_group_that_one_point_breaks_the_others_go_on_one_by_one(capsys):
  called = []
  def run_group(rates, folders):
    called.append(folders)
    for c, folder in zip(rates, folders, strict=True):
      if c.rate > 1:
        raise configs.Diverged(f'{folder}: loss is nan at step 3 (batch 2); look at that batch')
    return [c.to_dict() for c in rates]
  made, stopped = sweep.attempt(SimpleNamespace(run_group=run_group), [
    ConfigDict({'rate': rate}) for rate in (0.1, 2.0, 0.3)], ['a', 'b', 'c'])
  assert made == {'a': {'rate': 0.1}, 'c': {'rate': 0.3}}
  assert stopped == {'b': 'loss is nan at step 3 (batch 2)'}
  assert called == [['a', 'b', 'c'], ['a'], ['b'], ['c']]
  assert 'the 3 runs of its group go on one by one' in capsys.readouterr().out
