"""Preference-model pretraining and fine-tuning are two runs of one main: what the second takes over."""
import json

import jax
import numpy as np
import optax
import pytest

from experiments import train_pm
from rlhf_jax.core import rundir, spec, step
from rlhf_jax.data import tokenizer as tokenizers
from rlhf_jax.run import build, checkpoint, config

NAMES = ('ant', 'bee', 'cat', 'dog')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """data/ with ranked texts, lm/ with an untrained language model, pmp/ pretrained on the texts."""
  path = tmp_path_factory.mktemp('stages')
  edits = [{'before': f'bad {i} {NAMES[i % 4]}', 'after': f'good {i}', 'doc_id': i} for i in range(60)]
  for split, rows in (('train', edits), ('test', edits[::4])):
    file = path / 'data' / 'pmp' / 'edits' / f'{split}.jsonl'
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text('\n'.join(map(json.dumps, rows)))
  made = pmp(path)
  rundir.open_run(path / 'lm', {'model': made.model.to_dict()})
  tokenizer = tokenizers.train(['SECTION BODY: good bad'], 300)
  tokenizer.save(path / 'lm' / 'tokenizer.json')
  model = build.model(made, tokenizer.vocab_size)
  params = spec.init(model.spec, jax.random.key(3))
  with checkpoint.manager(path / 'lm') as manager:
    checkpoint.save(manager, 1, step.create(params, optax.identity(), jax.random.key(0), 0.1))
  train_pm.run(made, str(path / 'pmp'))
  return path


def pmp(path, init='lm', **changes):
  made = config.load('configs/train_pm.py:pmp')
  made.model.update({'name': 'micro', 'vocab_size': 300, 'unroll': False})
  settings = {'init': str(path / init), 'data.dir': str(path / 'data'),
              'data.cache_dir': str(path / 'cache'), 'data.validation_share': 0.3,
              'widths': (32, 48), 'batch_size': 16, 'eval_pairs': 16, 'baselines': False,
              'data.binarise': True, 'optimizer.learning_rate': 0.01} | changes
  for key, value in settings.items():
    config.override(made, key, value)
  return made


def scores(path):
  found = np.load(path / 'test_scores.npz')
  return np.stack([found['chosen'], found['rejected']])


def test_a_preference_model_goes_on_with_body_and_head(folder, tmp_path):
  """With a learning rate of 0 it is the model that it started from."""
  train_pm.run(pmp(folder, 'pmp', **{'optimizer.learning_rate': 0.0}), str(tmp_path / 'pm'))
  np.testing.assert_allclose(scores(tmp_path / 'pm'), scores(folder / 'pmp'), rtol=1e-5, atol=1e-6)
  assert scores(folder / 'pmp').std() > 0.01


def test_a_language_model_gets_a_fresh_head_and_switches_matter(folder, tmp_path):
  still = {'optimizer.learning_rate': 0.0, 'lm_weight': 0.0}
  train_pm.run(pmp(folder, head='zero', **still), str(tmp_path / 'zero'))
  assert not scores(tmp_path / 'zero').any()
  assert 'lm_loss' not in (tmp_path / 'zero' / 'metrics.jsonl').read_text()
  assert 'lm_loss' in (folder / 'pmp' / 'metrics.jsonl').read_text()
  train_pm.run(pmp(folder, 'pmp', end_of_context=False, **still), str(tmp_path / 'answer'))
  elsewhere, there = scores(tmp_path / 'answer'), scores(folder / 'pmp')
  assert (np.abs(elsewhere - there) > 1e-3).mean() > 0.9


def test_the_summary_counts_two_pairs_for_each_ranked_one(folder):
  summary = rundir.read_summary(folder / 'pmp')
  assert 2 * 30 < summary['comparisons'] < 2 * 54                # 42 of 60 on average, sd 3.5
  assert summary['subsets']['edits']['count'] == 2 * 15
  assert summary['too_long'] == summary['cut_prompts'] == {'train': 0, 'validation': 0, 'test': 0}
