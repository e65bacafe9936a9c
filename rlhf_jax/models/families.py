"""What the checkpoints of four families call things: keys of config.json, and names of weights.

A row of a table of weights holds a name, how its axes lie there and here, and the parameters that it
fills. Axes: v vocabulary, d width, h heads, g heads of keys and values, k head size, f hidden units of
the MLP, c context, s the parameters that share one weight, in the order of the row; `(h k) d -> d h k`
splits the first axis, heads outermost, and turns the matrix. Tables are used in both directions. `{}`
is the number of the layer. No files here.
"""
import dataclasses
from typing import NamedTuple

from rlhf_jax.models import sizes

# ------------------------------------------------------------------------------------ names of weights

_GPT2 = (
  ('wte.weight', 'v d', 'embed'),
  ('wpe.weight', 'c d', 'positions'),
  ('h.{}.ln_1.weight', 'd', 'layers/attention_norm'),
  ('h.{}.ln_1.bias', 'd', 'layers/attention_norm_bias'),
  ('h.{}.attn.c_attn.weight', 'd (s h k) -> s d h k', 'layers/query', 'layers/key', 'layers/value'),
  ('h.{}.attn.c_attn.bias', '(s h k) -> s h k',
   'layers/query_bias', 'layers/key_bias', 'layers/value_bias'),
  ('h.{}.attn.c_proj.weight', '(h k) d -> h k d', 'layers/output'),
  ('h.{}.attn.c_proj.bias', 'd', 'layers/output_bias'),
  ('h.{}.ln_2.weight', 'd', 'layers/mlp_norm'),
  ('h.{}.ln_2.bias', 'd', 'layers/mlp_norm_bias'),
  ('h.{}.mlp.c_fc.weight', 'd f', 'layers/up'),
  ('h.{}.mlp.c_fc.bias', 'f', 'layers/up_bias'),
  ('h.{}.mlp.c_proj.weight', 'f d', 'layers/down'),
  ('h.{}.mlp.c_proj.bias', 'd', 'layers/down_bias'),
  ('ln_f.weight', 'd', 'norm'),
  ('ln_f.bias', 'd', 'norm_bias'))

_GPT_NEOX = (
  ('embed_in.weight', 'v d', 'embed'),
  ('layers.{}.input_layernorm.weight', 'd', 'layers/attention_norm'),
  ('layers.{}.input_layernorm.bias', 'd', 'layers/attention_norm_bias'),
  ('layers.{}.attention.query_key_value.weight', '(h s k) d -> s d h k',
   'layers/query', 'layers/key', 'layers/value'),
  ('layers.{}.attention.query_key_value.bias', '(h s k) -> s h k',
   'layers/query_bias', 'layers/key_bias', 'layers/value_bias'),
  ('layers.{}.attention.dense.weight', 'd (h k) -> h k d', 'layers/output'),
  ('layers.{}.attention.dense.bias', 'd', 'layers/output_bias'),
  ('layers.{}.post_attention_layernorm.weight', 'd', 'layers/mlp_norm'),
  ('layers.{}.post_attention_layernorm.bias', 'd', 'layers/mlp_norm_bias'),
  ('layers.{}.mlp.dense_h_to_4h.weight', 'f d -> d f', 'layers/up'),
  ('layers.{}.mlp.dense_h_to_4h.bias', 'f', 'layers/up_bias'),
  ('layers.{}.mlp.dense_4h_to_h.weight', 'd f -> f d', 'layers/down'),
  ('layers.{}.mlp.dense_4h_to_h.bias', 'd', 'layers/down_bias'),
  ('final_layer_norm.weight', 'd', 'norm'),
  ('final_layer_norm.bias', 'd', 'norm_bias'))

_LLAMA = (
  ('embed_tokens.weight', 'v d', 'embed'),
  ('layers.{}.input_layernorm.weight', 'd', 'layers/attention_norm'),
  ('layers.{}.self_attn.q_proj.weight', '(h k) d -> d h k', 'layers/query'),
  ('layers.{}.self_attn.q_proj.bias', '(h k) -> h k', 'layers/query_bias'),
  ('layers.{}.self_attn.k_proj.weight', '(g k) d -> d g k', 'layers/key'),
  ('layers.{}.self_attn.k_proj.bias', '(g k) -> g k', 'layers/key_bias'),
  ('layers.{}.self_attn.v_proj.weight', '(g k) d -> d g k', 'layers/value'),
  ('layers.{}.self_attn.v_proj.bias', '(g k) -> g k', 'layers/value_bias'),
  ('layers.{}.self_attn.o_proj.weight', 'd (h k) -> h k d', 'layers/output'),
  ('layers.{}.self_attn.o_proj.bias', 'd', 'layers/output_bias'),
  ('layers.{}.post_attention_layernorm.weight', 'd', 'layers/mlp_norm'),
  ('layers.{}.mlp.gate_proj.weight', 'f d -> d f', 'layers/gate'),
  ('layers.{}.mlp.gate_proj.bias', 'f', 'layers/gate_bias'),
  ('layers.{}.mlp.up_proj.weight', 'f d -> d f', 'layers/up'),
  ('layers.{}.mlp.up_proj.bias', 'f', 'layers/up_bias'),
  ('layers.{}.mlp.down_proj.weight', 'd f -> f d', 'layers/down'),
  ('layers.{}.mlp.down_proj.bias', 'd', 'layers/down_bias'),
  ('norm.weight', 'd', 'norm'))

_QWEN3 = (
  *_LLAMA,
  ('layers.{}.self_attn.q_norm.weight', 'k', 'layers/query_norm'),
  ('layers.{}.self_attn.k_norm.weight', 'k', 'layers/key_norm'))

SCORE = ('score.weight', 's d -> s d', 'head/weight')          # of a reward model, in every family

# --------------------------------------------------------------------------------- keys of config.json

_GPT2_KEYS = {
  'n_layer': 'layers', 'n_embd': 'width', 'n_head': 'heads', 'vocab_size': 'vocab_size',
  'n_positions': 'context', 'n_inner': 'mlp_width', 'activation_function': 'activation',
  'layer_norm_epsilon': 'norm_eps', 'tie_word_embeddings': 'tie_embeddings'}
_KEYS = {
  'num_hidden_layers': 'layers', 'hidden_size': 'width', 'num_attention_heads': 'heads',
  'vocab_size': 'vocab_size', 'max_position_embeddings': 'context', 'intermediate_size': 'mlp_width',
  'hidden_act': 'activation', 'tie_word_embeddings': 'tie_embeddings',
  'attention_bias': 'attention_bias'}
_GPT_NEOX_KEYS = _KEYS | {'layer_norm_eps': 'norm_eps', 'use_parallel_residual': 'parallel'}
_QWEN3_KEYS = _KEYS | {'rms_norm_eps': 'norm_eps', 'num_key_value_heads': 'kv_heads',
                       'head_dim': 'head_size'}
_ACTIVATIONS = {'gelu_new': 'gelu_tanh', 'gelu_pytorch_tanh': 'gelu_tanh', 'gelu_fast': 'gelu_tanh',
                'gelu': 'gelu', 'silu': 'silu', 'swish': 'silu', 'relu': 'relu'}
_OURS = 'dtype', 'param_dtype', 'remat', 'unroll'           # of no checkpoint
_SAID_OTHERWISE = 'mlp_ratio', 'kv_heads', 'attention_width'
_COMPARED = [field.name for field in dataclasses.fields(sizes.TransformerConfig)
             if field.name not in (*_OURS, *_SAID_OTHERWISE)]
_SIZES = 'layers', 'width', 'heads', 'vocab_size', 'context'
_LLAMA3 = 'factor', 'low_freq_factor', 'high_freq_factor', 'original_max_position_embeddings'


class Family(NamedTuple):
  """prefix: of the names in the tables, absent where the body was saved alone. output: the name of an
  untied output table; renamed: other names for ours. ignored: patterns of stored constants. fixed:
  settings that mean something else here than their only implemented value. required: fields without a
  default."""
  keys: dict
  table: tuple
  prefix: str
  language_model: str
  reward_model: str
  ignored: str
  output: str = 'lm_head.weight'
  renamed: dict = {}
  fixed: dict = {}
  required: tuple = _SIZES


FAMILIES = {
  'gpt2': Family(
    _GPT2_KEYS, _GPT2, 'transformer.', 'GPT2LMHeadModel', 'GPT2ForSequenceClassification',
    r'h\.\d+\.attn\.(masked_)?bias',
    fixed={'scale_attn_weights': True, 'scale_attn_by_inverse_layer_idx': False,
           'add_cross_attention': False}),
  'gpt_neox': Family(
    _GPT_NEOX_KEYS, _GPT_NEOX, 'gpt_neox.', 'GPTNeoXForCausalLM', 'GPTNeoXForSequenceClassification',
    r'layers\.\d+\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)',
    output='embed_out.weight', renamed={'lm_head.weight': 'embed_out.weight'}),
  'llama': Family(
    _QWEN3_KEYS | {'mlp_bias': 'mlp_bias'}, _LLAMA, 'model.', 'LlamaForCausalLM',
    'LlamaForSequenceClassification', r'(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq'),
  'qwen3': Family(
    _QWEN3_KEYS, _QWEN3, 'model.', 'Qwen3ForCausalLM', 'Qwen3ForSequenceClassification',
    r'(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq', fixed={'use_sliding_window': False},
    required=(*_SIZES, 'kv_heads', 'head_size'))}
_FIXED = {'quantization_config': None, 'is_encoder_decoder': False}


def find(settings):
  """(name, Family) of a config.json."""
  name = settings.get('model_type')
  if name not in FAMILIES:
    raise ValueError(f'model_type {name!r} is not implemented: use a model of {", ".join(FAMILIES)}')
  return name, FAMILIES[name]


def is_reward_model(settings):
  """Whether a config.json is that of a body with a scalar head."""
  return any(name.endswith('ForSequenceClassification') for name in settings.get('architectures') or ())


def read(settings):
  """The TransformerConfig that a config.json describes, by its old keys or its new ones.

  Whatever cannot be said again by `write` is not implemented and refused, by name. A reward model has
  no output table, so its embeddings count as tied.
  """
  config = _read(settings)
  write(config)
  return config


def write(config):
  """The settings of config.json for a TransformerConfig whose name is that of a family; refuses what
  that family cannot say."""
  if config.name not in FAMILIES:
    raise ValueError(f'model {config.name} is of no Hugging Face family: only models of '
                     f'{", ".join(FAMILIES)} can be written')
  family = FAMILIES[config.name]
  said = {field: getattr(config, field) for field in family.keys.values()}
  said |= {'kv_heads': config.heads // config.queries_per_key,
           'activation': next(k for k, v in _ACTIVATIONS.items() if v == config.activation)}
  settings = {'model_type': config.name, 'architectures': [family.language_model],
              **{key: said[field] for key, field in family.keys.items()}, **_write_rope(config)}
  again = _read(settings)
  for name in (*_COMPARED, 'head_size', 'queries_per_key', 'mlp_width'):
    here, there = getattr(config, name), getattr(again, name)
    if here != there:
      raise ValueError(f'{name} {here!r} is not implemented in the family {config.name}, which has '
                       f'{there!r}')
  return settings


def _read(settings):
  name, family = find(settings)
  layer_types = {'layer_types': sorted({*(settings.get('layer_types') or ['full_attention'])})}
  fixed = family.fixed | _FIXED | {'layer_types': ['full_attention']}
  for key, value in fixed.items():
    if (settings | layer_types).get(key, value) != value:
      raise ValueError(f'{key} {settings[key]!r} is not implemented: only {value!r} is')
  said = {field: settings[key] for key, field in family.keys.items() if settings.get(key) is not None}
  missing = [key for key, field in family.keys.items() if field in set(family.required) - set(said)]
  if missing:
    raise ValueError(f'the settings lack {", ".join(missing)}: take the config.json that belongs to '
                     'the weights')
  if said.get('activation', 'relu') not in _ACTIVATIONS:
    raise ValueError(f'activation {said["activation"]!r} is not implemented: use one of '
                     f'{", ".join(_ACTIVATIONS)}')
  return sizes.config(name, **_fields(said, settings), **_read_rope(settings, name))


def _fields(said, settings):
  """Fields of a TransformerConfig from what the settings say under other names."""
  width, heads = said['width'], said['heads']
  mlp, head, kv = (said.pop(key, None) for key in ('mlp_width', 'head_size', 'kv_heads'))
  said['mlp_ratio'] = (mlp or 4 * width) / width
  said['attention_width'] = head * heads if head and head * heads != width else None
  said['kv_heads'] = kv if kv != heads else None
  if 'activation' in said:
    said['activation'] = _ACTIVATIONS[said['activation']]
  if is_reward_model(settings):
    said['tie_embeddings'] = True
  return said


# ------------------------------------------------------------------------------------- rotary positions

def _read_rope(settings, name):
  """rope_base, rope_share and rope_scaling, from the dictionary `rope_parameters` of transformers 5 or
  the keys before it."""
  if name == 'gpt2':
    return {}
  places = [settings.get('rope_parameters') or {}, settings.get('rope_scaling') or {}, settings]
  def said(*keys):
    found = [(key, place[key]) for place in places for key in keys if place.get(key) is not None]
    if len({value for _, value in found}) > 1:
      raise ValueError('the settings contradict one another: '
                       + ', '.join(f'{key} {value!r}' for key, value in found))
    return found[0][1] if found else None
  kind = said('rope_type', 'type') or 'default'
  if kind not in ('default', 'llama3'):
    raise ValueError(f'rope_type {kind!r} is not implemented: use default or llama3')
  scaling = tuple(said(key) for key in _LLAMA3) if kind == 'llama3' else ()
  if None in scaling:
    raise ValueError(f'rope_type llama3 lacks one of {", ".join(_LLAMA3)}')
  base, share = said('rope_theta', 'rotary_emb_base'), said('partial_rotary_factor', 'rotary_pct')
  given = {'rope_base': base, 'rope_share': share, 'rope_scaling': scaling}
  return {field: value for field, value in given.items() if value is not None}


def _write_rope(config):
  """The same said in both ways, so that any version of transformers reads it."""
  if config.positions != 'rotary':
    return {}
  scaling = {'rope_type': 'llama3', **dict(zip(_LLAMA3, config.rope_scaling, strict=True))
             } if config.rope_scaling else None
  new = (scaling or {'rope_type': 'default'}) | {'rope_theta': config.rope_base}
  if config.name == 'gpt_neox':
    new['partial_rotary_factor'] = config.rope_share
    old = {'rotary_emb_base': config.rope_base, 'rotary_pct': config.rope_share}
  else:
    old = {'rope_theta': config.rope_base}
  return {**old, 'rope_scaling': scaling, 'rope_parameters': new}
