"""A decoder-only transformer in plain JAX.

Parameters are born stacked over layers; one `lax.scan` goes through them, written out on CPU.
Positions count valid tokens inside a segment, attention sees valid tokens of the same segment only:
padding of any amount, side and content changes nothing. Choices the papers leave open are listed in
`models.sizes`.
"""
import jax
import jax.numpy as jnp
from flax import struct

from rlhf_jax.core.spec import Spec, normal, ones
from rlhf_jax.core.types import Model
from rlhf_jax.models.attention import angles, attend_cache, attention, rotate

put = jax.lax.dynamic_update_slice
_PADDING = jnp.iinfo(jnp.int32).min        # the attention group of padding


@struct.dataclass
class Cache:
  """Keys and values of each layer, [B, H, T, K]. One array a layer: a stacked one that a scan
  updates costs 5-10 times as much. column: the next one to fill, the same in every row."""
  keys: tuple
  values: tuple
  valid_BT: jax.Array
  position_B: jax.Array
  column: jax.Array


def decoder(config, pin=lambda x, *axes: x):
  """The Model of a TransformerConfig. pin: as of `core.mesh.pin`, where arrays are kept on a mesh."""
  def block(x_ND, layer, attend):
    """One layer on the rows of all tokens (flat: XLA's products of rank 3 cost 1.5 times as much
    on CPU); attend(q_NHK, k_NHK, v_NHK) -> NHK mixes columns."""
    layer = jax.tree.map(lambda w: w.astype(x_ND.dtype), layer)
    y_ND = _rms_norm(x_ND, layer['attention_norm'])
    q, k, v = (jnp.einsum('nd,dhk->nhk', y_ND, layer[name]) for name in ('query', 'key', 'value'))
    x_ND = x_ND + jnp.einsum('nhk,hkd->nd', attend(q, k, v), layer['output'])
    y_ND = _rms_norm(x_ND, layer['mlp_norm'])
    return pin(x_ND + jax.nn.gelu(y_ND @ layer['up']) @ layer['down'], 'rows', 'embed')

  def embed(params, tokens_BT, valid_BT):
    """x_ND of all tokens; padding reads row 0 of the table, whatever id it holds."""
    ids_N = jnp.where(valid_BT > 0, tokens_BT, 0).reshape(-1)
    table_VD = pin(params['embed'], 'vocab', 'embed')
    return pin(jnp.take(table_VD, ids_N, axis=0, mode='clip').astype(config.dtype), 'rows', 'embed')

  def read(params, tokens_BT, valid_BT, segment_BT, keep):
    """(hidden_BTD, keys and values [L, B, T, H, K] if `keep`) of a whole text."""
    batch, time = tokens_BT.shape
    group_BT = jnp.where(valid_BT > 0, segment_BT, _PADDING)
    position = angles(positions(valid_BT, segment_BT), config.head_size, config.rope_base)

    def one(x_ND, layer):
      kept = []
      def attend(*qkv):
        q, k, v = (x.reshape(batch, time, *x.shape[1:]) for x in qkv)
        q, k = rotate(q, position), rotate(k, position)
        kept.extend((k, v))
        return attention(q, k, v, group_BT).reshape(qkv[0].shape)
      x_ND = block(x_ND, layer, attend)
      return x_ND, kept if keep else None

    one = jax.checkpoint(one) if config.remat else one
    x_ND, kept = jax.lax.scan(one, embed(params, tokens_BT, valid_BT), params['layers'],
                              unroll=config.layers if config.unroll else 1)
    return final(params, x_ND).reshape(batch, time, -1), kept

  def final(params, x_ND):
    return _rms_norm(x_ND, params['norm'].astype(x_ND.dtype))

  def apply(params, tokens_BT, valid_BT, segment_BT=None):
    _check_length(config, tokens_BT.shape[1])
    segment_BT = jnp.zeros(tokens_BT.shape, jnp.int32) if segment_BT is None else segment_BT
    return read(params, tokens_BT, valid_BT, segment_BT, keep=False)[0]

  def prefill(params, tokens_BP, valid_BP, room):
    """Reads the prompt; the cache has `room` more columns."""
    width = tokens_BP.shape[1]
    _check_length(config, width + room)
    hidden_BPD, kept = read(params, tokens_BP, valid_BP, jnp.zeros_like(tokens_BP), keep=True)
    def columns(x_LBPHK):
      x_LBHTK = jnp.pad(x_LBPHK.swapaxes(2, 3), ((0, 0),) * 3 + ((0, room), (0, 0)))
      return tuple(x_LBHTK[i] for i in range(config.layers))
    keys, values = (columns(x) for x in kept)
    count_B = (valid_BP > 0).sum(axis=1, dtype=jnp.int32)
    return hidden_BPD, Cache(keys, values, jnp.pad(valid_BP, ((0, 0), (0, room))), count_B,
                             jnp.int32(width))

  def decode(params, token_B, cache):
    """One more token in every row, in the cache's next column."""
    at, keys, values = cache.column, list(cache.keys), list(cache.values)
    valid_BT = put(cache.valid_BT, jnp.ones(token_B.shape, cache.valid_BT.dtype)[:, None], (0, at))
    position = angles(cache.position_B, config.head_size, config.rope_base)
    x_BD = embed(params, token_B, jnp.ones_like(token_B))
    for i in range(config.layers):
      def attend(q, k, v):
        keys[i] = put(keys[i], rotate(k, position)[:, :, None], (0, 0, at, 0))
        values[i] = put(values[i], v[:, :, None], (0, 0, at, 0))
        return attend_cache(rotate(q, position), keys[i], values[i], valid_BT)
      x_BD = block(x_BD, jax.tree.map(lambda w: w[i], params['layers']), attend)
    return final(params, x_BD), Cache(tuple(keys), tuple(values), valid_BT, cache.position_B + 1,
                                      at + 1)

  def unembed(params, hidden_ND):
    table_VD = params['embed'] if config.tie_embeddings else params['unembed']
    table_VD = pin(table_VD.astype(hidden_ND.dtype), 'vocab', 'embed')
    return pin(jnp.einsum('nd,vd->nv', hidden_ND, table_VD, preferred_element_type=jnp.float32),
               'rows', 'vocab')

  return Model(_spec(config), apply, unembed, prefill, decode)


def positions(valid_BT, segment_BT=None):
  """The number of valid tokens before t, inside the segment of t (segments are runs of columns)."""
  valid_BT = (valid_BT > 0).astype(jnp.int32)
  before_BT = jnp.cumsum(valid_BT, axis=1) - valid_BT
  if segment_BT is None:
    return before_BT
  same_BT = jnp.pad(segment_BT[:, 1:] == segment_BT[:, :-1], ((0, 0), (1, 0)))
  return before_BT - jax.lax.cummax(jnp.where(same_BT, 0, before_BT), axis=1)


def _spec(config):
  """Matrices start at 1/sqrt(fan in); those that write into the residual stream 1/sqrt(2 layers)
  of that (Radford et al. 2019), so that its size does not grow with depth."""
  L, D, H, K, V = config.layers, config.width, config.heads, config.head_size, config.vocab_size
  F, dtype = config.mlp_ratio * D, config.param_dtype
  write = (2 * L) ** -0.5
  def matrix(shape, axes, stddev):
    return Spec(shape, axes, normal(stddev), dtype)
  def scale(*shape):
    return Spec(shape, ('layers', 'embed')[-len(shape):], ones, dtype)
  tree = {
    'embed': matrix((V, D), ('vocab', 'embed'), D**-0.5),
    'layers': {
      'attention_norm': scale(L, D),
      **{name: matrix((L, D, H, K), ('layers', 'embed', 'heads', 'kv'), D**-0.5)
         for name in ('query', 'key', 'value')},
      'output': matrix((L, H, K, D), ('layers', 'heads', 'kv', 'embed'), write * D**-0.5),
      'mlp_norm': scale(L, D),
      'up': matrix((L, D, F), ('layers', 'embed', 'mlp'), D**-0.5),
      'down': matrix((L, F, D), ('layers', 'mlp', 'embed'), write * F**-0.5)},
    'norm': scale(D)}
  if not config.tie_embeddings:
    tree['unembed'] = matrix((V, D), ('vocab', 'embed'), D**-0.5)
  return tree


def _rms_norm(x, scale):
  x32 = x.astype(jnp.float32)
  root = jax.lax.rsqrt((x32 * x32).mean(axis=-1, keepdims=True) + 1e-6)
  return (x32 * root).astype(x.dtype) * scale.reshape((1,) * (x.ndim - 1) + (-1,))


def _check_length(config, length):
  if length > config.context:
    raise ValueError(f'{length} columns do not fit model {config.name}: its context is '
                     f'{config.context}; shorten the text or set context')
