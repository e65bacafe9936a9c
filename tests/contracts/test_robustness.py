"""The robustness study, end to end at smoke sizes."""
import numpy as np
import pytest

from rlhf_jax.core import rundir
from tests.contracts.conftest import command


@pytest.fixture(scope='module')
def study(tmp_path_factory):
  path = tmp_path_factory.mktemp('robustness') / 'run'
  done = command('experiments.robustness', '--config=configs/robustness.py:smoke', f'--workdir={path}')
  assert done.returncode == 0, done.stderr[-3000:]
  return path


def test_every_stage_is_a_run_and_the_halves_train_different_models(study):
  assert sorted(p.name for p in study.iterdir() if p.is_dir()) == [
    'lm-micro', *(f'pm-micro-256-{half}-{seed}' for half in 'ab' for seed in (0, 1)), 'policy-micro',
    *(f'ppo-micro-micro-256-{half}-{seed}' for half in 'ab' for seed in (0, 1))]
  a, b = (rundir.read_summary(study / f'pm-micro-256-{half}-0') for half in 'ab')
  assert a['comparisons'] + b['comparisons'] == 256 and a['ceiling'] == b['ceiling']
  scores = [np.load(study / f'pm-micro-256-{half}-0' / 'test_scores.npz')['chosen'] for half in 'ab']
  assert not np.array_equal(*scores)


def test_a_policy_is_scored_by_the_model_of_the_other_half_along_the_way(study):
  for half, other in ('ab', 'ba'):
    folder, name = study / f'ppo-micro-micro-256-{half}-1', f'eval/score_pm-micro-256-{other}-1'
    assert rundir.read_config(folder)['preference_model'].endswith(f'pm-micro-256-{half}-1')
    curve = rundir.read_metrics(folder, 'eval/score', name)
    assert len(curve['step']) >= 2 and not np.allclose(curve['eval/score'], curve[name])
    with pytest.raises(ValueError, match='has no metric'):           # each seed has its own test model
      rundir.read_metrics(study / f'ppo-micro-micro-256-{half}-0', name)


def test_the_summary_has_a_row_a_cell(study):
  (row,) = rundir.read_summary(study)['cells']
  assert (row['policy'], row['judge'], row['comparisons'], row['seeds']) == ('micro', 'micro', 256, 2)
  assert row['KL, end'] > 0 and (study / 'report.html').exists()
