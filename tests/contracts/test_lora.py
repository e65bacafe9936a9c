"""Preference models and policies trained by adapters, from the command line's config to their files."""
import functools

import jax
import numpy as np
import pytest

from experiments import train_pm, train_ppo
from rlhf_jax.core import mesh as meshes
from rlhf_jax.core import rundir, spec
from rlhf_jax.models import heads, lora
from rlhf_jax.run import build, checkpoint, comparisons, config, worlds


@pytest.mark.slow
def test_a_trained_run_scores_as_it_did_in_training(pipeline, tmp_path):
  made, _ = config.parse([
    '--workdir=w',
    '--config=configs/train_pm.py:smoke', '--config.lora.rank=2',
    f'--config.init={pipeline.path}/lm', f'--config.policy={pipeline.path}/policy'])
  train_pm.run(made, tmp_path / 'pm')
  assert checkpoint.stored(tmp_path / 'pm')['body']['layers'].keys() == {
    'query', 'key', 'value', 'output', 'up', 'down'}
  mesh = meshes.make(data=-1)
  (base, _), world = build.body_and_head(made.init, mesh), worlds.make(made.data)
  data, _ = comparisons.load(made, base.tokenizer, world,
                            comparisons.sampler(made, base, world, mesh))
  role, _ = build.judge(tmp_path / 'pm', mesh)
  score = jax.jit(functools.partial(heads.last, role.model))
  ids = role.tokenizer.eoc_id, role.tokenizer.pad_id
  there = np.load(tmp_path / 'pm' / 'test_scores.npz')
  for name, scores in zip(('chosen', 'rejected'), comparisons.scores(
      score, role.params, data['test'], made, *ids, mesh), strict=True):
    np.testing.assert_allclose(scores, there[name], atol=1e-5)


@pytest.mark.slow
def test_a_trained_policy_is_read_as_the_base_and_its_adapters(pipeline, tmp_path):
  made, _ = config.parse([
    '--workdir=w',
    '--config=configs/train_ppo.py:smoke', '--config.lora.rank=2', '--config.lora.scale=0.5',
    f'--config.policy={pipeline.path}/policy', f'--config.preference_model={pipeline.path}/pm'])
  train_ppo.run(made, tmp_path / 'ppo')
  mesh = meshes.make(data=-1)
  there, base = checkpoint.stored(tmp_path / 'ppo'), build.role(made.policy, mesh)
  adapters = {'query', 'key', 'value', 'output', 'up', 'down'}
  assert there['policy']['layers'].keys() == there['value']['body']['layers'].keys() == adapters
  pairs = lora.adapter(base.spec, 2, made.lora.targets)
  saved = checkpoint.load_params(tmp_path / 'ppo', spec.abstract(pairs), 'policy')
  params = build.policy(str(tmp_path / 'ppo'), mesh).params
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6),
               params, lora.merge(base.params, saved, 0.5))
  assert not np.array_equal(params['layers']['query'], base.params['layers']['query'])
  first = rundir.read_metrics(tmp_path / 'ppo', 'k1', 'k3')
  assert first['k1'][0] == first['k3'][0] == 0 and first['k3'][-1] > 0
