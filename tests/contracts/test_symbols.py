"""The experiment on symbols, end to end on its smoke sizes: what must be equal whatever is learnt."""
import shutil

import numpy as np
import pytest

from experiments import symbols
from rlhf_jax.core import rundir
from rlhf_jax.data.symbols import ORDERS
from rlhf_jax.run import config


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  """The folder of a finished run and its summary."""
  path = tmp_path_factory.mktemp('symbols') / 'run'
  return path, symbols.run(config.load('configs/symbols.py:smoke'), path)


def accuracy(path, *run):
  return rundir.read_metrics('/'.join(map(str, (path, *run))), 'eval/accuracy')['eval/accuracy']


@pytest.mark.slow
def test_fine_tuning_starts_from_what_was_pretrained_on_the_same_order(finished):
  path, _ = finished
  for seed in (0, 1):
    fresh = accuracy(path, 'finetune', f'none-{seed}')[0]
    ends = []
    for order in ORDERS[:-1]:
      before, after = (accuracy(path, stage, f'{order}-{seed}') for stage in ('pretrain', 'finetune'))
      np.testing.assert_allclose(after[0], before[-1], atol=1e-6)
      np.testing.assert_allclose(before[0], fresh, atol=1e-6)             # all orders, one network
      ends.append(before[-1])
    assert len(set(ends)) == 5
  assert accuracy(path, 'finetune', 'none-0')[0] != accuracy(path, 'finetune', 'none-1')[0]


@pytest.mark.slow
def test_the_summary_is_of_the_runs(finished):
  path, summary = finished
  assert summary['pairs'] == [0, 8, 16, 32]
  values = {order: np.stack([accuracy(path, 'finetune', f'{order}-{seed}') for seed in (0, 1)])
            for order in ORDERS}
  for order in ORDERS:
    np.testing.assert_allclose(summary[order]['mean'], values[order].mean(0)[[0, 1, 2, 4]])
  gap = (values['T1'] - values['T4'])[:, [0, 1, 2, 4]]
  np.testing.assert_allclose(summary['T1 - T4']['mean'], gap.mean(0), atol=1e-9)
  half = 12.7062 * np.abs(gap[0] - gap[1]) / 2              # Student's t, one degree of freedom
  np.testing.assert_allclose(summary['T1 - T4']['high'], gap.mean(0) + half, rtol=1e-4, atol=1e-9)


@pytest.mark.slow
def test_a_run_that_stopped_between_its_stages_goes_on(finished, tmp_path):
  path, summary = finished
  shutil.copytree(path, tmp_path / 'run')
  shutil.rmtree(tmp_path / 'run' / 'finetune')
  (tmp_path / 'run' / 'DONE').unlink()
  again = symbols.run(config.load('configs/symbols.py:smoke'), tmp_path / 'run')
  for order in ORDERS:
    np.testing.assert_allclose(again[order]['mean'], summary[order]['mean'])


def test_too_many_pairs_leave_no_folder(tmp_path):
  made = config.load('configs/symbols.py:smoke')
  made.test_pairs = 300_000
  with pytest.raises(ValueError, match='more than the 228150 pairs'):
    symbols.run(made, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()
