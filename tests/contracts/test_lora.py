"""A preference model trained by adapters, from the command line's config to its scores."""
import jax
import numpy as np
import pytest

from experiments import train_pm
from rlhf_jax.core import mesh as meshes
from rlhf_jax.models import heads
from rlhf_jax.run import build, checkpoint, comparisons, config, worlds


@pytest.mark.slow
def test_a_trained_run_scores_as_it_did_in_training(pipeline, tmp_path):
  made, _ = config.parse([
    '--config=configs/train_pm.py:smoke', '--config.lora.rank=2',
    f'--config.init={pipeline.path}/lm', f'--config.policy={pipeline.path}/policy'])
  train_pm.run(made, tmp_path / 'pm')
  assert checkpoint.stored(tmp_path / 'pm')['body']['layers'].keys() == {
    'query', 'key', 'value', 'output', 'up', 'down'}
  mesh = meshes.make(data=-1)
  (base, _), world = build.body_and_head(made.init, mesh), worlds.make(made.data)
  data, _ = comparisons.load(made, base, world, mesh)
  role, _ = build.judge(tmp_path / 'pm', mesh)
  score = jax.jit(lambda params, tokens, valid: heads.last(
    role.model.apply(params, tokens, valid), valid))
  ids = role.tokenizer.eoc_id, role.tokenizer.pad_id
  there = np.load(tmp_path / 'pm' / 'test_scores.npz')
  for name, scores in zip(('chosen', 'rejected'), comparisons.scores(
      score, role.params, data['test'], made, *ids, mesh), strict=True):
    np.testing.assert_allclose(scores, there[name], atol=1e-5)
