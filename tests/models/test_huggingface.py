"""Checkpoints of other people: the same logits, the same bytes back, nothing passed over in silence.

golden/ holds small checkpoints as transformers writes them (random weights; llama in bfloat16, qwen3 in
two files) with the logits that it computes. They are made anew, where transformers is installed, by
  python -m tests.models.test_huggingface
"""
import dataclasses
import json
import shutil
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from rlhf_jax.core import spec
from rlhf_jax.models import families, heads, huggingface, sizes, transformer

GOLDEN = Path(__file__).parent / 'golden'
LAYOUT = {'vocab_size': 13, 'hidden_size': 8, 'num_hidden_layers': 2, 'intermediate_size': 12,
          'max_position_embeddings': 16, 'bos_token_id': None, 'eos_token_id': 1, 'pad_token_id': None}
MODELS = {
  'gpt2': {'vocab_size': 13, 'n_embd': 8, 'n_layer': 2, 'n_head': 2, 'n_positions': 16, 'n_inner': 12,
           'layer_norm_epsilon': 0.05, 'bos_token_id': None, 'eos_token_id': 1},
  'gpt_neox': LAYOUT | {'num_attention_heads': 2, 'layer_norm_eps': 0.05, 'rope_parameters': {
    'rope_type': 'default', 'rope_theta': 100.0, 'partial_rotary_factor': 0.5}},
  'llama': LAYOUT | {
    'num_attention_heads': 4, 'num_key_value_heads': 2, 'head_dim': 6, 'rms_norm_eps': 0.05,
    'rope_parameters': {
      'rope_type': 'llama3', 'rope_theta': 20.0, 'factor': 8.0, 'low_freq_factor': 1.0,
      'high_freq_factor': 4.0, 'original_max_position_embeddings': 8}},
  'qwen3': LAYOUT | {
    'num_attention_heads': 4, 'num_key_value_heads': 2, 'head_dim': 6, 'rms_norm_eps': 0.05,
    'tie_word_embeddings': True, 'rope_parameters': {'rope_type': 'default', 'rope_theta': 100.0}}}
TEXTS = [3, 1, 4, 1, 5, 9, 2, 6, 5], [12, 0, 7, 7, 8]
each = pytest.mark.parametrize('name', MODELS)


@pytest.fixture(scope='module', autouse=True)
def quick_compile():
  jax.config.update('jax_disable_most_optimizations', True)
  yield
  jax.config.update('jax_disable_most_optimizations', False)


# ------------------------------------------------------------------------------- where transformers is

def made(name, reward=False, seed=0, **changes):
  """A model of transformers with random weights everywhere, norms and biases included."""
  torch, transformers = pytest.importorskip('torch'), pytest.importorskip('transformers')
  config = transformers.AutoConfig.for_model(name, **MODELS[name] | changes)
  config.num_labels = 1 if reward else 2
  kind = 'AutoModelForSequenceClassification' if reward else 'AutoModelForCausalLM'
  model = getattr(transformers, kind).from_config(config, attn_implementation='eager').eval()
  torch.manual_seed(seed)
  with torch.no_grad():
    for parameter in model.parameters():
      parameter.normal_(0, 0.5)
  return model


def computed(model):
  """Its logits of each text alone: [T, V], or [1] of a reward model."""
  import torch
  with torch.no_grad():
    return [model(torch.tensor([text])).logits[0].float().numpy() for text in TEXTS]


def write_golden():
  import torch
  for name, kind, size in (('gpt2', 'float32', '1GB'), ('gpt_neox', 'float32', '1GB'), (
      'llama', 'bfloat16', '1GB'), ('qwen3', 'float32', '4KB'), ('reward', 'float32', '1GB')):
    folder = GOLDEN / name
    shutil.rmtree(folder, ignore_errors=True)
    model = made('gpt_neox', reward=True) if name == 'reward' else made(name)
    model.to(getattr(torch, kind)).save_pretrained(folder, max_shard_size=size)
    (folder / 'generation_config.json').unlink(missing_ok=True)
    again = type(model).from_pretrained(folder, dtype=torch.float32, attn_implementation='eager')
    np.savez(folder / 'expected.npz', *computed(again.eval()))
    for file in folder.iterdir():
      file.chmod(0o644)


# ------------------------------------------------------------------------------------------- the checks

def batch():
  """The two texts in one batch, padded on the left and on both sides, with ids that mean nothing."""
  tokens_BT, valid_BT = np.full((2, 12), 99, np.int32), np.zeros((2, 12), np.float32)
  for row, (text, at) in enumerate(zip(TEXTS, (3, 2), strict=True)):
    tokens_BT[row, at:at + len(text)], valid_BT[row, at:at + len(text)] = text, 1
  return tokens_BT, valid_BT


def logits(config, params, tokens_BT, valid_BT, segment_BT=None):
  """Logits of the valid tokens, row after row."""
  model = transformer.decoder(config)
  hidden_BTD = jax.jit(model.apply)(params, tokens_BT, valid_BT, segment_BT)
  return np.asarray(model.unembed(params, hidden_BTD[valid_BT > 0]))


def expected(name):
  return list(np.load(GOLDEN / name / 'expected.npz').values())


def assert_same(a, b):
  """The same bytes, types and shapes."""
  def plain(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype, x.tobytes()), tree)
  assert plain(a) == plain(b)


def tensors(folder):
  """All weights of a folder."""
  return {k: v for file in Path(folder).glob('*.safetensors') for k, v in load_file(file).items()}


@each
def test_logits_are_those_of_transformers_padded_and_packed(name):
  config, params = huggingface.load(GOLDEN / name)
  tokens_BT, valid_BT = batch()
  tokens_BT, valid_BT = (np.pad(x, ((0, 1), (0, 2))) for x in (tokens_BT, valid_BT))
  tokens_BT[2], valid_BT[2], segment_BT = sum(TEXTS, []), 1, np.zeros((3, 14), np.int32)
  segment_BT[2, len(TEXTS[0]):] = 1                                           # both texts in one row
  np.testing.assert_allclose(logits(config, params, tokens_BT, valid_BT, segment_BT),
                             np.concatenate(expected(name) * 2), atol=1e-4)
  specs = spec.abstract(transformer.decoder(config).spec)
  assert jax.tree.map(lambda x: (x.shape, x.dtype), specs) == jax.tree.map(
    lambda x: (x.shape, x.dtype), params)


@each
def test_the_cache_holds_few_heads_and_gives_what_reading_again_gives(name):
  config, params = huggingface.load(GOLDEN / name)
  model = transformer.decoder(dataclasses.replace(config, unroll=False))
  tokens_BT, valid_BT = batch()

  @jax.jit
  def both(params):
    hidden_BD, cache = model.prefill(params, tokens_BT, valid_BT, 2)
    first_BD, cache = model.decode(params, np.array([4, 9]), cache)
    second_BD, cache = model.decode(params, np.array([2, 0]), cache)
    whole_BT = np.concatenate([tokens_BT, [[4, 2], [9, 0]]], axis=1), np.pad(
      valid_BT, ((0, 0), (0, 2)), constant_values=1)
    return hidden_BD, first_BD, second_BD, model.apply(params, *whole_BT), cache
  hidden_BD, first_BD, second_BD, whole_BTD, cache = both(params)
  end_B = 11 - np.argmax(valid_BT[:, ::-1] > 0, axis=1)
  np.testing.assert_allclose(hidden_BD, whole_BTD[np.arange(2), end_B], atol=1e-5)
  np.testing.assert_allclose(first_BD, whole_BTD[:, 12], atol=1e-5)
  np.testing.assert_allclose(second_BD, whole_BTD[:, 13], atol=1e-5)
  assert cache.keys[0].shape == (2, 2, 14, config.head_size)


@each
def test_a_round_trip_keeps_every_bit(name, tmp_path):
  config, params = huggingface.load(GOLDEN / name, param_dtype=None)
  ours = jax.tree.map(np.ascontiguousarray, params)            # in memory as jax holds them
  huggingface.save(tmp_path / 'out', config, ours, {'eos_token_id': 1})
  before, after = tensors(GOLDEN / name), tensors(tmp_path / 'out')
  assert {k: v.dtype for k, v in before.items()} == {k: v.dtype for k, v in after.items()}
  assert_same(before, after)
  again = huggingface.load(tmp_path / 'out', param_dtype=None)
  assert again[0] == config
  assert_same(again[1], params)
  assert huggingface.settings_of(tmp_path / 'out')['eos_token_id'] == 1


def test_a_reward_model_is_a_body_and_a_head(tmp_path):
  config, params = huggingface.load(GOLDEN / 'reward')
  assert config.tie_embeddings and 'unembed' not in params['body']
  tokens_BT, valid_BT = batch()
  score_B = heads.last(heads.scalar(transformer.decoder(config)), params, tokens_BT, valid_BT)
  np.testing.assert_allclose(score_B, np.concatenate(expected('reward')), atol=1e-4)
  huggingface.save(tmp_path / 'out', config, params)
  assert_same(tensors(GOLDEN / 'reward'), tensors(tmp_path / 'out'))
  kind, = huggingface.settings_of(tmp_path / 'out')['architectures']
  assert kind == 'GPTNeoXForSequenceClassification'
  assert huggingface.load(tmp_path / 'out')[0] == config
  # A body with an output table, as a preference model here has: the table stays at home.
  body = params['body'] | {'unembed': params['body']['embed']}
  untied = dataclasses.replace(config, tie_embeddings=False)
  huggingface.save(tmp_path / 'untied', untied, params | {'body': body})
  assert_same(tensors(GOLDEN / 'reward'), tensors(tmp_path / 'untied'))
  biased = params | {'head': params['head'] | {'bias': np.float32(0.1)}}
  with pytest.raises(ValueError, match='head has a bias.*set it to 0'):
    huggingface.save(tmp_path / 'biased', config, biased)
  assert not (tmp_path / 'biased').exists()


def test_types_are_those_asked_for():
  config, params = huggingface.load(GOLDEN / 'llama', param_dtype=None)
  assert config.param_dtype == 'bfloat16' and params['norm'].dtype == 'bfloat16'
  config, same = huggingface.load(GOLDEN / 'llama')
  assert config.param_dtype == 'float32'
  jax.tree.map(lambda a, b: np.testing.assert_array_equal(a.astype('float32'), b), params, same)


def changed(folder, tmp_path, settings=None, weights=None, remove=()):
  """A copy of a golden folder with other settings (None removes one) and weights."""
  copy = tmp_path / 'copy'
  shutil.rmtree(copy, ignore_errors=True)
  copy.mkdir()
  held = {k: v for k, v in (tensors(GOLDEN / folder) | (weights or {})).items() if k not in remove}
  save_file(held, copy / 'model.safetensors')
  said = huggingface.settings_of(GOLDEN / folder) | (settings or {})
  (copy / 'config.json').write_text(json.dumps({k: v for k, v in said.items() if v is not None}))
  return copy


def test_weights_that_are_missing_unexpected_or_set_twice(tmp_path):
  change = partial(changed, 'gpt2', tmp_path)
  table = tensors(GOLDEN / 'gpt2')['transformer.wte.weight']
  for options, says in (
      ({'remove': ('transformer.h.1.ln_2.bias',)}, r'weights lack h\.1\.ln_2\.bias$'),
      ({'weights': {'transformer.h.2.ln_1.bias': np.zeros(8)}}, r'the unexpected h\.2\.ln_1\.bias$'),
      ({'weights': {'score.weight': np.zeros((1, 8))}}, 'the unexpected score.weight'),
      ({'weights': {'wte.weight': table}}, 'sets wte.weight twice, by transformer.wte.weight and'),
      ({'weights': {'lm_head.weight': table + 1}}, 'tied table twice, by wte.weight and by another'),
      ({'weights': {'transformer.wpe.weight': np.zeros((9, 8), np.float32)}},
       r'wpe.weight has shape \(9, 8\) and config.json asks for \(16, 8\)'),
      ({'weights': {'transformer.wpe.weight': np.zeros((16, 8), np.int8)}}, 'type I8: only F32, F16')):
    with pytest.raises(ValueError, match=says):
      huggingface.load(change(**options))
  mixed = change(weights={'transformer.ln_f.bias': np.zeros(8, np.float16)})
  with pytest.raises(ValueError, match='types F16, F32: name a param_dtype'):
    huggingface.load(mixed, param_dtype=None)


def test_constants_and_copies_that_old_checkpoints_hold_are_passed_over(tmp_path):
  for name, constants in (
      ('gpt2', ('transformer.h.0.attn.bias', 'transformer.h.1.attn.masked_bias')),
      ('gpt_neox', ('gpt_neox.layers.1.attention.bias', 'gpt_neox.layers.0.attention.masked_bias',
                    'gpt_neox.layers.0.attention.rotary_emb.inv_freq')),
      ('llama', ('model.layers.1.self_attn.rotary_emb.inv_freq',)),
      ('qwen3', ('model.layers.1.self_attn.rotary_emb.inv_freq',))):
    held = tensors(GOLDEN / name)
    tied = {'gpt2': 'transformer.wte.weight', 'qwen3': 'model.embed_tokens.weight'}.get(name)
    copies = {'lm_head.weight': held[tied]} if tied else {}
    folder = changed(name, tmp_path, weights={c: np.ones((1, 2)) for c in constants} | copies)
    assert_same(huggingface.load(folder)[1], huggingface.load(GOLDEN / name)[1])
  # A body saved alone has names without a prefix; the newer name of GPT-NeoX's output table.
  bare = {k.removeprefix('gpt_neox.').replace('embed_out', 'lm_head'): v for k, v in tensors(
    GOLDEN / 'gpt_neox').items()}
  folder = changed('gpt_neox', tmp_path, weights=bare, remove=tensors(GOLDEN / 'gpt_neox'))
  assert_same(huggingface.load(folder)[1], huggingface.load(GOLDEN / 'gpt_neox')[1])


def test_several_files_and_what_is_wrong_with_them(tmp_path):
  folder = tmp_path / 'copy'
  shutil.copytree(GOLDEN / 'qwen3', folder)
  first, second = sorted(folder.glob('*.safetensors'))
  held = load_file(first)
  save_file(load_file(second) | dict([held.popitem()]), second)
  with pytest.raises(ValueError, match='twice, by (.*) and by .* in model-00002-of-00002'):
    huggingface.load(folder)
  second.unlink()
  with pytest.raises(FileNotFoundError, match='model-00002-of-00002.safetensors does not exist and'):
    huggingface.load(folder)
  first.write_bytes(b'nothing')
  second.write_bytes(b'nothing')
  with pytest.raises(ValueError, match='model-00001.*not a readable safetensors file'):
    huggingface.load(folder)
  shutil.rmtree(folder)
  with pytest.raises(FileNotFoundError, match='config.json does not exist: name a local'):
    huggingface.load(folder)
  folder.mkdir()
  shutil.copy(GOLDEN / 'qwen3' / 'config.json', folder)
  with pytest.raises(FileNotFoundError, match='has no model.safetensors and no model.safetensors.ind'):
    huggingface.load(folder)


OLD = {'gpt_neox': {'rotary_emb_base': 100, 'rotary_pct': 0.5},
       'llama': {'rope_theta': 20.0, 'rope_scaling': {
         k: v for k, v in MODELS['llama']['rope_parameters'].items() if k != 'rope_theta'}},
       'qwen3': {'rope_theta': 100.0, 'rope_scaling': None}}


@pytest.mark.parametrize('name', OLD)
def test_old_keys_of_rotary_positions_mean_the_same_as_new_ones(name, tmp_path):
  config = huggingface.load(GOLDEN / name)[0]
  assert huggingface.load(changed(name, tmp_path, {'rope_parameters': None, **OLD[name]}))[0] == config
  assert huggingface.load(changed(name, tmp_path, OLD[name]))[0] == config
  with pytest.raises(ValueError, match='config.json: the settings contradict one another: rope_theta'):
    huggingface.load(changed(name, tmp_path, {'rope_theta': 7.0}))


@pytest.mark.parametrize('name, settings, says', [
  ('gpt_neox', {'rope_parameters': None, 'rotary_pct': 0.75}, 'rotary dimension of 3: rotary posit'),
  ('gpt_neox', {'rope_parameters': None, 'rotary_pct': 0.1}, 'rotary dimension of 0: rotary posit'),
  ('llama', {'rope_parameters': {'rope_type': 'yarn', 'factor': 2.0}}, "rope_type 'yarn' is not impl"),
  ('llama', {'rope_parameters': {'rope_type': 'llama3', 'factor': 2.0}}, 'llama3 lacks one of factor'),
  ('qwen3', {'partial_rotary_factor': 0.5, 'head_dim': 8}, 'rope_share 0.5 is not implemented in'),
  ('qwen3', {'use_sliding_window': True}, 'use_sliding_window True is not implemented: only False is'),
  ('qwen3', {'layer_types': ['full_attention', 'sliding_attention']}, 'layer_types .* is not impl'),
  ('qwen3', {'num_key_value_heads': None}, 'the settings lack num_key_value_heads'),
  ('gpt2', {'scale_attn_by_inverse_layer_idx': True}, 'scale_attn_by_inverse_layer_idx True is not'),
  ('gpt2', {'activation_function': 'tanh'}, "activation 'tanh' is not implemented"),
  ('gpt2', {'n_layer': None}, 'the settings lack n_layer'),
  ('llama', {'quantization_config': {'bits': 4}}, 'quantization_config .* is not implemented'),
  ('llama', {'model_type': 'mamba'}, "model_type 'mamba' is not implemented: use a model of gpt2"),
])
def test_settings_that_are_not_implemented_are_refused_by_name(name, settings, says, tmp_path):
  with pytest.raises(ValueError, match=says):
    huggingface.load(changed(name, tmp_path, settings))


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path):
  out = tmp_path / 'out'
  with pytest.raises(ValueError, match='model micro is of no Hugging Face family: only models of gpt2'):
    huggingface.save(out, sizes.config('micro'), {})
  config, params = huggingface.load(GOLDEN / 'qwen3')
  for change, says in (({'norm': 'layer'}, "norm 'layer' is not implemented in the family qwen3"),
                       ({'parallel': True}, 'parallel True is not implemented'),
                       ({'tie_embeddings': False}, 'the parameters: the weights lack unembed'),
                       ({'width': 16, 'attention_width': 24}, r'have shape \(13, 8\) and not')):
    with pytest.raises(ValueError, match=says):
      huggingface.save(out, dataclasses.replace(config, **change), params)
  assert not out.exists()
  out.mkdir()
  (out / 'notes').write_text('mine')
  with pytest.raises(FileExistsError, match='is not an empty folder: name another one'):
    huggingface.save(out, config, params)


def test_tables_grow_by_their_mean():
  config, params = huggingface.load(GOLDEN / 'gpt_neox')
  larger, grown = huggingface.grow(config, params, 15)
  assert larger == dataclasses.replace(config, vocab_size=15)
  for name in ('embed', 'unembed'):
    np.testing.assert_array_equal(grown[name][:13], params[name])
    np.testing.assert_allclose(grown[name][13:], [params[name].mean(axis=0)] * 2, rtol=1e-6)
  assert grown['layers'] is params['layers']


def test_a_family_has_its_choices_by_name():
  with pytest.raises(ValueError, match='size llama is a family: give layers, width, heads, vocab_size'):
    sizes.config('llama')
  config = sizes.config('llama', layers=1, width=8, heads=2, vocab_size=5, context=4, mlp_ratio=1.5)
  assert families.write(config)['intermediate_size'] == 12 and config.gated_mlp and config.norm == 'rms'


@pytest.mark.parametrize('name, changes', [
  ('gpt2', {}), ('gpt_neox', {}), ('llama', {}), ('qwen3', {}), ('gpt2', {'n_inner': None}),
  ('gpt_neox', {'use_parallel_residual': False, 'tie_word_embeddings': True}),
  ('gpt_neox', {'attention_bias': False, 'hidden_act': 'gelu_new'}),
  ('llama', {'attention_bias': True, 'mlp_bias': True, 'num_key_value_heads': 4, 'head_dim': 2}),
  ('qwen3', {'attention_bias': True, 'num_key_value_heads': 1, 'tie_word_embeddings': False})])
def test_fresh_checkpoints_of_transformers(name, changes, tmp_path):
  model = made(name, seed=7, **changes)
  model.save_pretrained(tmp_path / 'in')
  config, params = huggingface.load(tmp_path / 'in')
  np.testing.assert_allclose(logits(config, params, *batch()), np.concatenate(computed(model)),
                             atol=1e-4)
  if name in OLD:
    (tmp_path / 'in' / 'config.json').write_text(json.dumps({
      k: v for k, v in model.config.to_dict().items() if k not in ('rope_parameters', 'dtype')
    } | {'architectures': [type(model).__name__], **OLD[name]}))
    assert huggingface.load(tmp_path / 'in')[0] == config
  read_back(model, config, params, tmp_path / 'out')


@each
def test_fresh_reward_models_of_transformers(name, tmp_path):
  model = made(name, reward=True, seed=8)
  model.save_pretrained(tmp_path / 'in')
  config, params = huggingface.load(tmp_path / 'in')
  tokens_BT, valid_BT = batch()
  score_B = heads.last(heads.scalar(transformer.decoder(config)), params, tokens_BT, valid_BT)
  np.testing.assert_allclose(score_B, np.concatenate(computed(model)), atol=1e-4)
  read_back(model, config, params, tmp_path / 'out')


def read_back(model, config, params, folder):
  """transformers reads what is written: nothing missing, nothing unexpected, the same logits."""
  huggingface.save(folder, config, params)
  again, report = type(model).from_pretrained(folder, output_loading_info=True,
                                              attn_implementation='eager')
  assert not any(report.values()), report
  for a, b in zip(computed(again.eval()), computed(model), strict=True):
    np.testing.assert_array_equal(a, b)


if __name__ == '__main__':
  write_golden()
  sys.exit()
