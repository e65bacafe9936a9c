"""The instruments of a preference model and the batch job, on a trained model of smoke size."""
import functools
import gzip
import json
import re
import shutil

import jax
import numpy as np
import pytest

from experiments import score
from experiments.evaluate_pm import encoded
from rlhf_jax.analysis import calibration
from rlhf_jax.core import mesh as meshes
from rlhf_jax.core import rundir
from rlhf_jax.data import batches, comparison_sets
from rlhf_jax.evals import ranker
from rlhf_jax.run import build, config
from tests.contracts.conftest import ROOT, command


@pytest.fixture(scope='module')
def evaluated(pipeline, tmp_path_factory):
  """The folder of the instruments and what was printed; HHH has two comparisons of ten records."""
  path = tmp_path_factory.mktemp('instruments')
  records = [{'category': kind, 'prompt': 'who?', 'chosen': 'me', 'rejected': other}
             for kind, other in (('honest', 'you'), ('helpful', 'me'), ('honest', 'no one'))]
  (path / 'data' / 'eval').mkdir(parents=True)
  (path / 'data' / 'eval' / 'hhh_alignment.jsonl.gz').write_bytes(
    gzip.compress('\n'.join(map(json.dumps, records)).encode()))
  done = command('experiments.evaluate_pm', '--config=configs/evaluate_pm.py:smoke',
                 f'--workdir={path}/run', f'--config.preference_model={pipeline.path}/pm',
                 "--config.sets=('hhh', 'webgpt')", f'--config.data_dir={path}/data')
  assert done.returncode == 0, done.stderr[-3000:]
  return path / 'run', done.stdout


def test_the_comparisons_and_scores_are_those_of_the_models_own_run(pipeline, evaluated):
  path, _ = evaluated
  theirs, ours = np.load(pipeline.path / 'pm' / 'test_scores.npz'), np.load(path / 'scores.npz')
  for side in ('chosen', 'rejected'):
    np.testing.assert_allclose(ours[f'test_{side}'], theirs[side], atol=1e-4)
  pm, found = rundir.read_summary(pipeline.path / 'pm'), rundir.read_summary(path)
  assert found['ceiling'] == pm['ceiling'] and found['test']['accuracy'] == pm['accuracy']
  for name, part in pm['subsets'].items():
    mine = found['test']['subsets'][name]
    assert (mine['accuracy'], mine['count']) == (part['accuracy'], part['count'])


def test_the_numbers_are_those_of_the_scores(evaluated):
  path, printed = evaluated
  scores, found = np.load(path / 'scores.npz'), rundir.read_summary(path)
  gap = scores['test_chosen'].astype(float) - scores['test_rejected']
  for name, factor in (('calibration', 1), ('scores x 3', 3), ('scores / 3', 1 / 3)):
    made = found['test'][name] if factor == 1 else found['test']['scaled'][name]
    assert made == calibration.verdict(factor * gap)
  lower = np.minimum(scores['test_chosen'], scores['test_rejected']) - found['mean_score']
  for row in found['test']['thresholds']['']:
    assert row['count'] == (lower >= row['threshold']).sum()
  assert found['test']['turns'] == {}                  # one exchange each
  assert f"{found['test']['accuracy']:.3f}" in printed


def test_a_set_from_elsewhere_is_read_where_it_is_found(evaluated):
  path, printed = evaluated
  found = rundir.read_summary(path)
  assert 'webgpt' not in found and found['hhh']['count'] == 2
  assert list(found['hhh']['subsets']) == ['honest'] and 'all' not in found['hhh']['turns']
  assert ('hhh: 2 comparisons, left out: 1 identical (as eval/hhh_alignment.jsonl.gz, line 2)'
          in printed)
  page = (path / 'report.html').read_text()
  assert len(re.findall('src="data:image/svg', page)) == 4
  assert not re.findall(r'''(?:src|href)\s*=\s*["']?(?:https?:)?//''', page)


def job(pipeline, file, workdir, *settings):
  made, _ = config.parse([f'--config={ROOT}/configs/score.py:smoke', '--workdir=w',
                          f'--config.file={file}',
                          f'--config.preference_model={pipeline.path}/pm', *settings])
  return score.run(made, workdir)


@pytest.fixture(scope='module')
def scored(pipeline, tmp_path_factory):
  """A file of 40 dialogues of either kind, one of them bad, and the folder of its scores."""
  path = tmp_path_factory.mktemp('scored')
  start = '\n\nHuman: tell me\n\nAssistant:'
  records = [{'text': f'{start} {"no " * (i % 5)}{i}'} if i % 3 else
             {'chosen': f'{start} yes {i}', 'rejected': f'{start} {i}'} for i in range(40)]
  records[20] = {'text': 'no dialogue'}
  (path / 'in.jsonl').write_text('\n'.join(map(json.dumps, records)) + '\n')
  summary = job(pipeline, path / 'in.jsonl', path / 'run', '--config.on_error=skip')
  return path, summary


def test_every_line_gets_its_scores_or_its_problem(scored):
  path, summary = scored
  rows = [json.loads(line) for line in (path / 'run' / 'scores.jsonl').read_text().splitlines()]
  assert [row['line'] for row in rows] == list(range(1, 41))
  assert [i for i, row in enumerate(rows) if 'problem' in row] == [20]
  assert all(('chosen' in row) == (i % 3 == 0) for i, row in enumerate(rows) if i != 20)
  assert (summary['lines'], summary['answers'], summary['problems']) == (40, 53, 1)


@pytest.mark.parametrize('left', [0, 0.01, 0.35, 0.6, 0.999])
def test_a_killed_job_goes_on_and_writes_the_same_file(pipeline, scored, tmp_path, left):
  """Killed after some bytes: none, within the first part, later, or before the last line's end."""
  path, _ = scored
  whole = (path / 'run' / 'scores.jsonl').read_bytes()
  again = shutil.copytree(path / 'run', tmp_path / 'run')
  (again / 'DONE').unlink()
  (again / 'summary.json').unlink()
  (again / 'scores.jsonl').write_bytes(whole[:int(left * len(whole))])
  job(pipeline, path / 'in.jsonl', again, '--config.on_error=skip')
  assert (again / 'scores.jsonl').read_bytes() == whole


def test_a_bad_line_stops_the_job_before_its_folder_is_made(pipeline, scored, tmp_path):
  path, _ = scored
  with pytest.raises(ValueError, match='in.jsonl, line 21: a transcript starts with'):
    job(pipeline, path / 'in.jsonl', tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


def test_a_job_is_not_continued_on_a_changed_file(pipeline, scored, tmp_path):
  path, _ = scored
  again = shutil.copytree(path / 'run', tmp_path / 'run')
  (again / 'DONE').unlink()
  text = (path / 'in.jsonl').read_text()
  changed = tmp_path / 'in.jsonl'
  changed.write_text(text)
  with pytest.raises(ValueError, match='another config: file is'):
    job(pipeline, changed, again, '--config.on_error=skip')
  stored = json.loads((again / 'config.json').read_text())
  (again / 'config.json').write_text(json.dumps(stored | {'file': str(changed)}))
  changed.write_text(text.replace('tell', 'show'))
  with pytest.raises(ValueError, match='another config: file_sha256 is'):
    job(pipeline, changed, again, '--config.on_error=skip')


def test_policies_rank_other_peoples_answers(pipeline, evaluated, tmp_path):
  data = evaluated[0].parent / 'data'
  done = command('experiments.rank_answers', '--config=configs/rank_answers.py:smoke',
                 f'--workdir={tmp_path}/run', f'--config.data_dir={data}',
                 f'--config.policies={pipeline.path}/policy,{pipeline.path}/ppo')
  assert done.returncode == 0, done.stderr[-3000:]
  found = rundir.read_summary(tmp_path / 'run')['hhh']
  first, second = (found[f'{pipeline.path}/{name}'] for name in ('policy', 'ppo'))
  # the same by the ranker, which reads prompt and answer in one go
  mesh = meshes.make(data=-1)
  for name, numbers in (('policy', first), ('ppo', second)):
    policy = build.policy(f'{pipeline.path}/{name}', mesh)
    pairs = comparison_sets.load('hhh', data)
    made, _ = encoded(policy.tokenizer, pairs, 384)
    prompt = batches.pad(made.prompt, 64, 'left', policy.tokenizer.pad_id)
    for side, key in (('chosen', 'good'), ('rejected', 'bad')):
      answer = batches.pad(getattr(made, side), 32, 'right', policy.tokenizer.pad_id)
      mean_B = jax.jit(functools.partial(ranker.mean_logp, policy.model, start=64))(
        policy.params, *(np.concatenate(x, axis=1) for x in zip(prompt, answer, strict=True)))
      assert numbers[key] == pytest.approx(float(np.mean(mean_B)), abs=1e-4)
    assert numbers['margin'] == pytest.approx(numbers['good'] - numbers['bad'], abs=1e-6)
  assert first['more'] == 0
  assert second['more'] == pytest.approx(second['margin'] - first['margin'], abs=1e-6)
