"""A folder of other people's model goes in as a run directory, and a trained one comes out again."""
import json

import jax
import numpy as np
import pytest

from experiments import export_hf, import_hf, train_pm
from rlhf_jax.core import mesh as meshes
from rlhf_jax.core import rundir, spec
from rlhf_jax.models import heads, huggingface, sizes, transformer
from rlhf_jax.run import build, worlds
from rlhf_jax.run import config as configs
from tests.contracts.conftest import ROOT
from tests.data.test_tokenizer import foreign
from tests.run.test_build import BODY, save

SIZES = {
  'gpt2': {'layers': 1, 'width': 16, 'heads': 2, 'context': 128},
  'qwen3': {'layers': 1, 'width': 16, 'heads': 4, 'kv_heads': 2, 'attention_width': 32, 'context': 128}}


def folder(path, name, spare=0, head=False, **options):
  """A small checkpoint with a tokenizer of its own; returns its parameters."""
  rows = foreign(path.parent / 'tokenizer.json', **options).get_vocab_size() + spare
  config = sizes.config(name, vocab_size=rows, **SIZES[name])
  model = transformer.decoder(config)
  params = spec.init((heads.scalar(model, heads.initial_normal(16)) if head else model).spec,
                     jax.random.key(0))
  huggingface.save(path, config, params, {'eos_token_id': [0, 1]})
  (path.parent / 'tokenizer.json').rename(path / 'tokenizer.json')
  return params


def parsed(file, workdir, **changes):
  arguments = [f'--config={ROOT}/configs/{file}', f'--workdir={workdir}']
  return configs.parse([*arguments, *(f'--config.{k}={v}' for k, v in changes.items())])[0]


def same(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize('name, spare, rows', [('gpt2', 0, 2), ('qwen3', 5, 0)])
def test_in_and_out_again(name, spare, rows, tmp_path):
  params = folder(tmp_path / 'in', name, spare)
  run = str(tmp_path / 'run')
  config = parsed('import_hf.py:smoke', run, folder=tmp_path / 'in')
  summary = import_hf.run(config, run)
  assert summary['new_rows'] == rows and summary['end_id'] == 0
  assert rundir.is_done(run) and import_hf.run(config, run) == summary           # the second run reads
  mesh = meshes.make(data=-1)
  role = build.policy(run, mesh)
  size = params['embed'].shape[0]
  assert role.tokenizer.vocab_size == size + rows == role.params['embed'].shape[0]
  same({**role.params, 'embed': role.params['embed'][:size]} | (
    {'unembed': role.params['unembed'][:size]} if 'unembed' in params else {}), params)
  # Another stage takes its model by the name of the run.
  stage = parsed('train_pm.py:smoke', 'x', **{'model.remat': 'True', 'model.name': run})
  assert stage.model.name == name and stage.model.layers == 1 and stage.model.remat
  build.check_same_model(parsed('train_pm.py:smoke', 'x', **{'model.name': run}), run)
  with pytest.raises(ValueError, match=f'model of its own sizes: use --config.model.name={run}'):
    build.check_same_model(parsed('train_pm.py:smoke', 'x'), run)
  made = jax.jit(build.sampler(role, 6, mesh))(role.params, np.full((8, 3), 9), np.ones((8, 3)),
                                               jax.random.key(0))
  assert made.tokens_BT.shape == (8, 9)
  # Out again: what went in, and the new rows.
  written = export_hf.run(parsed('export_hf.py', 'x', run=run), str(tmp_path / 'out'))
  out = tmp_path / 'out' / 'huggingface'
  assert not written['reward_model'] and huggingface.settings_of(out)['eos_token_id'] == 0
  assert json.loads((out / 'tokenizer_config.json').read_text())['eos_token'] == '<|end|>'
  config, again = huggingface.load(out)
  assert config.vocab_size == size + rows
  same(again, jax.device_get(role.params))
  # And in once more: nothing is left to add.
  summary = import_hf.run(parsed('import_hf.py:smoke', 'x', folder=out), str(tmp_path / 'again'))
  assert summary['new_rows'] == 0 and summary['eoc_id'] == role.tokenizer.eoc_id


def test_a_reward_model_becomes_a_preference_model_that_reads_the_last_token(tmp_path):
  params = folder(tmp_path / 'in', 'qwen3', spare=5, head=True)
  run = str(tmp_path / 'run')
  import_hf.run(parsed('import_hf.py:smoke', run, folder=tmp_path / 'in'), run)
  made, score = build.judge(run, meshes.make(data=-1))
  np.testing.assert_array_equal(made.params['head']['weight'], params['head']['weight'])
  tokens_BT, valid_BT = np.arange(8)[None] + 30, np.array([[0, 1, 1, 1, 1, 1, 0, 0]], np.float32)
  value_BT = jax.jit(made.model.apply)(made.params, tokens_BT, valid_BT)
  score_B = jax.jit(score)(made.params, tokens_BT, valid_BT, {})
  np.testing.assert_allclose(score_B, value_BT[:, 5], atol=1e-5)
  summary = export_hf.run(parsed('export_hf.py', 'x', run=run), str(tmp_path / 'out'))
  assert summary['reward_model'] and summary['score_on'] == 'the last token'
  same(huggingface.load(tmp_path / 'out' / 'huggingface')[1], jax.device_get(made.params))


def test_what_cannot_be_imported_or_exported_leaves_nothing(tmp_path):
  save(tmp_path / 'own', BODY)
  folder(tmp_path / 'in', 'gpt2')
  for says, change in (('config.json does not exist', {'folder': tmp_path / 'gone'}),
                       ('the end token cannot be id 9999', {'end_token_id': 9999})):
    config = parsed('import_hf.py', 'x', **{'folder': tmp_path / 'in'} | change)
    with pytest.raises((ValueError, FileNotFoundError), match=says):
      import_hf.run(config, str(tmp_path / 'run'))
  text = (tmp_path / 'in' / 'config.json').read_text()
  (tmp_path / 'in' / 'config.json').write_text(text.replace('eos_token_id', 'eos'))
  with pytest.raises(ValueError, match='config.json has no eos_token_id: set config.end_token_id'):
    import_hf.run(parsed('import_hf.py', 'x', folder=tmp_path / 'in'), str(tmp_path / 'run'))
  with pytest.raises(ValueError, match='model micro is of no Hugging Face family'):
    export_hf.run(parsed('export_hf.py', 'x', run=tmp_path / 'own'), str(tmp_path / 'run'))
  assert not (tmp_path / 'run').exists()


@pytest.mark.slow
def test_a_preference_model_starts_from_an_import_and_goes_back(tmp_path):
  data = parsed('train_pm.py:smoke', 'x').data
  folder(tmp_path / 'in', 'qwen3', spare=5, texts=worlds.make(data).texts(), size=512)
  run, pm = str(tmp_path / 'run'), str(tmp_path / 'pm')
  import_hf.run(parsed('import_hf.py:smoke', run, folder=tmp_path / 'in'), run)
  config = parsed('train_pm.py:smoke', pm, **{'model.name': run, 'init': run, 'policy': ''})
  assert np.isfinite(train_pm.run(config, pm)['accuracy'])
  summary = export_hf.run(parsed('export_hf.py', 'x', run=pm), str(tmp_path / 'out'))
  assert summary['reward_model'] and summary['score_on'] == '<|eoc|>'
  size, params = huggingface.load(tmp_path / 'out' / 'huggingface')
  trained = jax.device_get(build.role(pm, meshes.make(data=-1), heads.scalar).params)
  same(params['head']['weight'], trained['head']['weight'])
  same(params['body'], {k: v for k, v in trained['body'].items() if k != 'unembed'})
  assert size.tie_embeddings and rundir.read_config(pm)['model']['name'] == 'qwen3'
