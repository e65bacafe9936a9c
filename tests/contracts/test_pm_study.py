"""A study of preference models, end to end at smoke sizes."""
import numpy as np
import pytest

from rlhf_jax.core import rundir
from tests.contracts.conftest import command


@pytest.mark.slow
def test_a_study_runs_reads_its_folders_and_takes_another_studys_models(tmp_path):
  arguments = 'experiments.pm_study', '--config=configs/pm_study.py:smoke'
  done = command(*arguments, f'--workdir={tmp_path}/a')
  assert done.returncode == 0, done.stderr[-3000:]
  summary = rundir.read_summary(tmp_path / 'a')
  assert [row['harmful_share'] for row in summary['cells']] == [0.0, 0.5]
  done = command(*arguments, f'--workdir={tmp_path}/b', f'--config.base={tmp_path}/a')
  assert done.returncode == 0, done.stderr[-3000:]
  assert sorted(p.name for p in (tmp_path / 'b').iterdir() if p.is_dir()) == [
    f'pm-micro-share-{share}-{seed}' for share in (0.0, 0.5) for seed in (0, 1)]
  a, b = (np.load(tmp_path / name / 'pm-micro-share-0.5-1' / 'test_scores.npz') for name in 'ab')
  np.testing.assert_array_equal(a['chosen'], b['chosen'])
