"""The report of a sweep over seeds, from folders written by hand."""
import numpy as np
import pytest

from rlhf_jax.analysis import seeds_report, sweeps
from rlhf_jax.core import rundir

KL = np.linspace(0, 4, 21)


@pytest.fixture
def folder(tmp_path):
  for seed in (1, 0):
    path = tmp_path / f'run-{seed}'
    rundir.open_run(path, {'seed': seed, 'ppo': {'batch_size': 16}})
    for step, kl in enumerate(KL):
      rundir.append_metrics(path, step, {
        'eval/kl': kl, 'eval/score': (1 + seed) * (kl ** 0.5 + 2 * (kl > 1)),  # half of it by a jump
        'eval/true_reward': seed + kl * (3 - kl)})
    rundir.write_summary(path, {'gain': 3.0, 'gain_stderr': 0.5})
    rundir.mark_done(path)
  return tmp_path


def test_a_row_a_seed(folder):
  first, second = rows = seeds_report.rows(sweeps.read(folder, 'seed'))
  assert (first['seed'], first['start'], second['start']) == (0, 0, 1)
  assert first['end'] == pytest.approx(-4) and first['peak'] == pytest.approx(2.24)   # at 1.4 nats
  assert first['gain / error'] == 6 and first['KL'] == 4
  assert first['r2'] == pytest.approx(1) and first['r2_kl'] < 0.99 and first['exponent'] == 0.5
  over = seeds_report.over_seeds(rows)
  assert set(over) == {'start', 'end', 'peak', 'gain / error', 'KL', 'r2', 'r2_kl', 'exponent'}
  assert over['end'].mean == pytest.approx(-3.5) and over['end'].low < -4


def test_the_page_and_the_summary(folder, capsys):
  seeds_report.write(folder)
  assert 'gain / error' in capsys.readouterr().out
  assert rundir.read_summary(folder)['over_seeds']['peak'][0] == pytest.approx(2.74)
  assert (folder / 'report.html').read_text().count('<img') == 1
