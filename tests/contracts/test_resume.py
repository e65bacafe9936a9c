"""PPO with its files: killed and resumed is uninterrupted, a group is its members, bit by bit."""
import functools

import numpy as np
import pytest

from experiments import distill_context, train_pm, train_ppo
from rlhf_jax.core import rundir
from rlhf_jax.data import teacher_file
from rlhf_jax.run import checkpoint, config, train
from tests.files import columns, metrics


def smoke(pipeline, name, **changes):
  """A stage's smoke config that starts from the pipeline's stages."""
  made = config.load(f'configs/{name}.py:smoke')
  inputs = {'train_ppo': {'policy': 'policy', 'preference_model': 'pm'}, 'train_pm': {'init': 'lm'}}
  for key, folder in inputs[name].items():
    config.override(made, key, str(pipeline.path / folder))
  for key, value in changes.items():
    config.override(made, key.replace('__', '.'), value)
  return made


def spied(monkeypatch, killed=None):
  """The tokens of every rollout from now on, by data position; the run is killed at one."""
  seen, fit = {}, train.fit
  def spy(source, state, frozen, i):
    if i == killed:
      raise KeyboardInterrupt
    batch = source(state, frozen, i)
    seen[i] = np.asarray(batch.rollout.tokens_BT)
    return batch
  monkeypatch.setattr(train, 'fit', lambda state, update, source, *rest: fit(
    state, update, functools.partial(spy, source), *rest))
  return seen


def last_digest(path):
  with checkpoint.manager(path) as manager:
    last = manager.latest_step()
    return last, manager.restore(last)['meta']


@pytest.fixture(scope='module')
def whole(pipeline, tmp_path_factory):
  """An uninterrupted PPO run: its folder and the tokens of its rollouts."""
  path = tmp_path_factory.mktemp('ppo') / 'whole'
  with pytest.MonkeyPatch.context() as monkeypatch:
    seen = spied(monkeypatch)
    train_ppo.run(smoke(pipeline, 'train_ppo'), path)
  return path, seen


def test_resume_equals_uninterrupted(pipeline, whole, tmp_path, monkeypatch):
  path, tokens = whole
  made, again = smoke(pipeline, 'train_ppo'), tmp_path / 'again'
  with monkeypatch.context() as patch:
    before = spied(patch, killed=3)
    with pytest.raises(KeyboardInterrupt):
      train_ppo.run(made, again)
  assert sorted(before) == [0, 1, 2]
  after = spied(monkeypatch)
  train_ppo.run(made, again)
  assert sorted(after) == [2, 3]                              # the checkpoint was at position 2
  for i, rollout in (before | after).items():
    np.testing.assert_array_equal(rollout, tokens[i])
  np.testing.assert_array_equal(before[2], after[2])
  assert not np.array_equal(tokens[2], tokens[3])
  assert last_digest(path) == last_digest(again)
  assert last_digest(path)[0] == 4
  assert metrics(path) == metrics(again)
  assert {'time/decode', 'time/score', 'time/train', 'time/host'} < rundir.read_metrics(again).keys()
  a, b = (rundir.read_summary(p) for p in (path, again))
  assert {**a, 'wall_seconds': 0} == {**b, 'wall_seconds': 0}


def test_eight_devices_are_the_one_of_the_pipeline(pipeline, whole):
  """The pipeline ran in a process with one device, this process has eight."""
  one, eight = (rundir.read_metrics(p) for p in (pipeline.path / 'ppo', whole[0]))
  assert one.keys() == eight.keys()
  for name in ('score', 'k3', 'entropy_per_token', 'response_length', 'grad_norm', 'eval/kl'):
    np.testing.assert_allclose(one[name], eight[name], rtol=5e-3, atol=1e-3, err_msg=name)


def test_learning_went_somewhere_and_the_metrics_are_sane(whole):
  made = rundir.read_metrics(whole[0], 'ratio', 'approx_kl', 'truncated', 'empty', 'response_length')
  np.testing.assert_allclose(made['ratio'], 1, atol=0.1)
  assert (made['approx_kl'] > 0).all()
  assert ((made['truncated'] + made['empty']) <= 1).all() and (made['response_length'] >= 1).all()


def assert_group_equals_singles(run_group, configs, singles, folder):
  paths = [folder / f'group-{s}' for s in range(len(configs))]
  run_group(configs, paths)
  for ours, single in zip(paths, singles, strict=True):
    a, b = (columns(rundir.read_metrics(path)) for path in (ours, single))
    assert a.keys() == b.keys()
    for name in a:
      np.testing.assert_allclose(a[name], b[name], rtol=1e-3, atol=1e-4, err_msg=name)
    assert rundir.is_done(ours)


@pytest.mark.slow
def test_a_ppo_group_equals_single_runs(pipeline, whole, tmp_path):
  configs = [smoke(pipeline, 'train_ppo'),
             smoke(pipeline, 'train_ppo', seed=1, ppo__kl_coef=0.3)]
  train_ppo.run(configs[1], tmp_path / 'single')
  assert_group_equals_singles(train_ppo.run_group, configs, [whole[0], tmp_path / 'single'], tmp_path)


@pytest.mark.slow
def test_a_preference_model_group_equals_single_runs(pipeline, tmp_path):
  configs = [smoke(pipeline, 'train_pm', policy=''),
             smoke(pipeline, 'train_pm', policy='', seed=1, optimizer__learning_rate=1e-3)]
  singles = [tmp_path / 'a', tmp_path / 'b']
  for made, path in zip(configs, singles, strict=True):
    train_pm.run(made, path)
  assert_group_equals_singles(train_pm.run_group, configs, singles, tmp_path)


def distilled(pipeline, path, **changes):
  """The smoke distillation of the pipeline's language model."""
  made = config.load('configs/distill_context.py:smoke')
  for key, value in {'teacher': str(pipeline.path / 'lm'), **changes}.items():
    config.override(made, key, value)
  return distill_context.run(made, path)


def test_distillation_resumes_and_learns_the_same_from_a_named_file(pipeline, tmp_path, monkeypatch):
  """Killed after its checkpoint; and again with the file of the first run instead of a teacher."""
  summary = distilled(pipeline, tmp_path / 'whole')
  file = tmp_path / 'whole' / 'teacher.array_record'
  read = teacher_file.read
  def killed(file, index, *rest):
    if read_at.append(index) or len(read_at) == 5:             # the held-out rows, then a batch a step
      raise KeyboardInterrupt
    return read(file, index, *rest)
  read_at = []
  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    patch.setattr(teacher_file, 'read', killed)
    distilled(pipeline, tmp_path / 'again')
  made_at = (tmp_path / 'again' / 'teacher.array_record').stat().st_mtime_ns
  distilled(pipeline, tmp_path / 'again')
  distilled(pipeline, tmp_path / 'named', teacher_file=str(file), init=str(pipeline.path / 'lm'),
            teacher='nowhere')
  assert (tmp_path / 'again' / 'teacher.array_record').stat().st_mtime_ns == made_at
  assert not (tmp_path / 'named' / 'teacher.array_record').exists()
  for other in ('again', 'named'):
    assert last_digest(tmp_path / 'whole') == last_digest(tmp_path / other)
    assert metrics(tmp_path / 'whole') == metrics(tmp_path / other)
  assert last_digest(tmp_path / 'whole')[0] == 4
  assert summary['kl_ratio'] == summary['kl_start'] / summary['kl_end']
  low, high = sorted((summary['kl_dialogue_start'], summary['kl_generic_start']))
  assert 0 < low < summary['kl_start'] < high
  assert 150 < summary['file_bytes_per_token'] < 220     # 101 numbers of two bytes, packed
