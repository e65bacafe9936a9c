"""The whole pipeline, end to end, as a user runs it; smoke sizes, so numbers are checked by
identities and not by what was learnt."""
import json
import math
import re
import shutil
import time

import numpy as np
import pytest

from rlhf_jax.core import rundir
from tests.contracts.conftest import command
from tests.files import metrics

LAW = ('slope', 'intercept', 'r2', 'r2_kl', 'exponent', 'exponent_low', 'exponent_high')


def numbers(tree, path=''):
  """(path, value) of every leaf."""
  for key, value in tree.items():
    if isinstance(value, dict):
      yield from numbers(value, f'{path}{key}.')
    else:
      yield path + key, value


def test_the_summary_holds_the_named_numbers_and_they_are_finite(pipeline):
  summary = rundir.read_summary(pipeline.path)
  assert {'accuracy', 'ceiling', 'agreement', 'baselines', 'subsets'} <= summary['pm'].keys()
  assert {'longer', 'longer_signed', 'ngram'} <= summary['pm']['baselines'].keys()
  assert {'true_reward_start', 'true_reward_end', 'true_reward_peak', 'gain', 'gain_stderr',
          'pm_score_start', 'pm_score_end', 'kl_end'} <= summary['ppo'].keys()
  assert summary['sqrt_kl'].keys() >= set(LAW)
  assert list(summary['best_of_n']) == ['1', '4', '16', '64']
  assert summary['wall_seconds'].keys() >= {'lm', 'policy', 'pm', 'ppo', 'total'}
  for name, value in numbers(summary):
    if not name.startswith(('sqrt_kl', 'versions')):       # two evaluations are too few for a law
      for one in np.ravel(value):
        assert math.isfinite(one), name


def test_the_summary_agrees_with_the_stages(pipeline):
  summary = rundir.read_summary(pipeline.path)
  pm, ppo, best = summary['pm'], summary['ppo'], summary['best_of_n']
  assert 0 <= pm['accuracy'] <= 1 and 0.5 <= pm['ceiling'] <= 1 and 0.5 <= pm['agreement'] <= 1
  low, high = pm['accuracy_interval']
  assert low <= pm['accuracy'] <= high
  assert pm['baselines']['longer_signed'] >= 0.5 >= 1 - pm['baselines']['longer_signed']
  scores = np.load(pipeline.path / 'pm' / 'test_scores.npz')
  gap = scores['chosen'] - scores['rejected']
  np.testing.assert_allclose(pm['accuracy'], np.mean((1 + np.sign(gap)) / 2))
  parts = pm['subsets'].values()
  np.testing.assert_allclose(sum(p['accuracy'] * p['count'] for p in parts) / len(gap), pm['accuracy'])

  curve = rundir.read_metrics(pipeline.path / 'ppo', 'eval/kl', 'eval/score', 'eval/true_reward')
  assert curve['step'][0] == 0 and curve['eval/kl'][0] == 0 and (curve['eval/kl'][1:] > 0).all()
  for name, column in (('pm_score', 'eval/score'), ('true_reward', 'eval/true_reward')):
    np.testing.assert_allclose(ppo[f'{name}_start'], curve[column][0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ppo[f'{name}_end'], curve[column][-1], rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(ppo['gain'], ppo['true_reward_end'] - ppo['true_reward_start'], atol=1e-5)
  np.testing.assert_allclose(ppo['kl_end'], curve['eval/kl'][-1], rtol=1e-4)
  np.testing.assert_allclose(ppo['true_reward_peak'], curve['eval/true_reward'].max(), rtol=1e-6)

  of_n = [best[n]['pm_score'] for n in ('1', '4', '16', '64')]
  assert of_n == sorted(of_n) and of_n[0] < of_n[-1]
  assert best['1']['stderr'] > 0


def test_the_first_ppo_iteration_has_no_kl(pipeline):
  made = rundir.read_metrics(pipeline.path / 'ppo', 'k1', 'k3', 'logp_gap', 'truncated')
  assert made['step'].tolist() == [1, 2, 3, 4]
  assert made['k1'][0] == 0 and made['k3'][0] == 0 and (made['k3'][1:] > 0).all()
  assert made['logp_gap'].max() < 2e-4
  assert ((0 <= made['truncated']) & (made['truncated'] <= 1)).all()


def test_the_samples_are_dialogues(pipeline):
  rows = json.loads((pipeline.path / 'ppo' / 'samples.json').read_text())
  assert len(rows) == 2
  for row in rows:
    assert 'Human:' in row['prompt'] and 'Assistant:' in row['prompt']
    assert len(row['score']) == len(row['reward']) == 2 and row['before'] != row['after']


def test_the_report_stands_alone(pipeline):
  html = (pipeline.path / 'report.html').read_text()
  assert len(re.findall(r'<svg|src="data:image/', html)) >= 3
  assert not re.findall(r'''(?:src|href)\s*=\s*["']?(?:https?:)?//''', html)
  assert f"{rundir.read_summary(pipeline.path)['pm']['accuracy']:.3f}"[1:5] in html


def test_a_finished_run_is_shown_and_another_config_is_refused(pipeline):
  before = {f: f.stat().st_mtime_ns for f in pipeline.path.rglob('*') if f.is_file()}
  start = time.monotonic()
  again = command(*pipeline.arguments, f'--workdir={pipeline.path}')
  assert again.returncode == 0 and time.monotonic() - start < 60
  assert json.loads(again.stdout[:again.stdout.rindex('}') + 1]) == rundir.read_summary(pipeline.path)
  assert '--workdir=' in again.stdout and 'finished' in again.stdout
  other = command(*pipeline.arguments, f'--workdir={pipeline.path}', '--config.seed=1')
  assert other.returncode == 2
  assert other.stderr.strip().count('\n') == 0
  assert 'holds a run of another config: seed is 0 there and 1 here' in other.stderr
  assert {f: f.stat().st_mtime_ns for f in pipeline.path.rglob('*') if f.is_file()} == before


@pytest.mark.slow
def test_an_interrupted_pipeline_goes_on_where_it_was(pipeline, tmp_path):
  """PPO has only its first checkpoint, the stages before it are finished: the same files again."""
  kept, ppo = tmp_path / 'kept', pipeline.path / 'ppo'
  shutil.copytree(pipeline.path, kept)
  for file in (pipeline.path / 'DONE', pipeline.path / 'report.html', ppo / 'DONE'):
    file.unlink()
  shutil.rmtree(ppo / 'checkpoints' / '4')
  done = command(*pipeline.arguments, f'--workdir={pipeline.path}')
  assert done.returncode == 0, done.stderr[-2000:]
  assert metrics(ppo) == metrics(kept / 'ppo')
  for name in ('ppo/samples.json', 'pm/metrics.jsonl', 'pm/summary.json'):
    assert (pipeline.path / name).read_bytes() == (kept / name).read_bytes(), name
  again, before = (rundir.read_summary(path) for path in (pipeline.path, kept))
  assert again | {'wall_seconds': 0} == before | {'wall_seconds': 0}
