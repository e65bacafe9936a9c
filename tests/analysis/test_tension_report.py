"""The report of a sweep over the helpful share: what is read from run directories, and its means."""
import numpy as np
import pytest

from rlhf_jax.analysis import sweeps, tension_report
from rlhf_jax.core import rundir

RUNS = [(0.75, 0, 0.10), (0.25, 1, 0.40), (0.25, 0, 0.20)]           # share, seed, refusals at the end


@pytest.fixture
def folder(tmp_path):
  for share, seed, refused in RUNS:
    path = tmp_path / f'{share}-{seed}'
    rundir.open_run(path, {'seed': seed, 'ppo': {'helpful_share': share, 'batch_size': 16}})
    for step, value in ((0, 0.5), (3, refused)):
      rundir.append_metrics(path, step, {'loss': 1})
      rundir.append_metrics(path, step, {'eval/refusal_benign': value,
                                         'eval/score_helpful': 10 * value})
    rundir.write_summary(path, {'by_kind': {
      'refusal_benign': {'start': 0.5, 'end': refused, 'low': refused - 0.05, 'high': refused + 0.1},
      'score_helpful': {'start': 5, 'end': 10 * refused, 'low': 0, 'high': 9}}})
    rundir.mark_done(path)
  rundir.open_run(tmp_path / 'unfinished', {'seed': 0})
  return tmp_path


def test_ends_and_means_by_share(folder):
  runs = sweeps.read(folder, 'ppo.helpful_share')
  np.testing.assert_allclose(tension_report.ends(runs, 'refusal_benign'), [
    [0.25, 0.25, 0.75], [0.2, 0.4, 0.1], [0.15, 0.35, 0.05], [0.3, 0.5, 0.2]])
  curves = tension_report.mean_curves(runs, 'score_helpful')
  assert list(curves) == [0.25, 0.75]
  np.testing.assert_allclose(curves[0.25], [[0, 48], [5, 3]])
  np.testing.assert_allclose(curves[0.75], [[0, 48], [5, 1]])


def test_the_table_is_of_means_and_spreads(folder):
  low, high = tension_report.table(sweeps.read(folder, 'ppo.helpful_share'))
  assert low['helpful share'] == 0.25 and low['runs'] == 2 and high['runs'] == 1
  assert low['refusal_benign'] == pytest.approx(0.3)
  assert low['refusal_benign, sd'] == pytest.approx(0.1 * np.sqrt(2))
  assert low['score_helpful'] == pytest.approx(3) and 'score_helpful, sd' not in low
  assert high['refusal_benign'] == pytest.approx(0.1) and 'refusal_benign, sd' not in high


def test_the_page_is_written(folder):
  tension_report.write(folder)
  page = (folder / 'report.html').read_text()
  assert page.count('data:image/') == 1 and '0.141' in page and '3 PPO runs' in page
