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


def decoder(config):
  """The Model of a TransformerConfig."""
  def block(x, layer, position, attend):
    """One layer on x [..., D]; attend(q, k, v) mixes columns."""
    layer = jax.tree.map(lambda w: w.astype(x.dtype), layer)
    y = _rms_norm(x, layer['attention_norm'])
    q, k, v = (jnp.einsum('...d,dhk->...hk', y, layer[name]) for name in ('query', 'key', 'value'))
    mixed = attend(rotate(q, position), rotate(k, position), v)
    x = x + jnp.einsum('...hk,hkd->...d', mixed, layer['output'])
    y = _rms_norm(x, layer['mlp_norm'])
    return x + jax.nn.gelu(y @ layer['up']) @ layer['down']

  def embed(params, tokens, valid):
    """Rows of the table; padding reads row 0, whatever id it holds."""
    ids = jnp.where(valid > 0, tokens, 0)
    return jnp.take(params['embed'], ids, axis=0, mode='clip').astype(config.dtype)

  def position_angles(position):
    return angles(position, config.head_size, config.rope_base)

  def final(params, x):
    return _rms_norm(x, params['norm'].astype(x.dtype))

  def apply(params, tokens_BT, valid_BT, segment_BT=None):
    _check_length(config, tokens_BT.shape[1])
    segment_BT = jnp.zeros(tokens_BT.shape, jnp.int32) if segment_BT is None else segment_BT
    group_BT = jnp.where(valid_BT > 0, segment_BT, _PADDING)
    position = position_angles(positions(valid_BT, segment_BT))
    def one(x_BTD, layer):
      def attend(q, k, v):
        return attention(q, k, v, group_BT)
      return block(x_BTD, layer, position, attend), None
    one = jax.checkpoint(one) if config.remat else one
    x_BTD, _ = jax.lax.scan(one, embed(params, tokens_BT, valid_BT), params['layers'],
                            unroll=config.layers if config.unroll else 1)
    return final(params, x_BTD)

  def prefill(params, tokens_BP, valid_BP, room):
    """Reads the prompt; the cache has `room` more columns."""
    width = tokens_BP.shape[1]
    _check_length(config, width + room)
    group_BP = jnp.where(valid_BP > 0, 0, _PADDING)
    position = position_angles(positions(valid_BP))
    x_BPD, keys, values = embed(params, tokens_BP, valid_BP), [], []
    def attend(q, k, v):
      keys.append(_columns(k, room))
      values.append(_columns(v, room))
      return attention(q, k, v, group_BP)
    for i in range(config.layers):
      x_BPD = block(x_BPD, _layer(params, i), position, attend)
    valid_BT = jnp.pad(valid_BP, ((0, 0), (0, room)))
    count_B = (valid_BP > 0).sum(axis=1, dtype=jnp.int32)
    return final(params, x_BPD), Cache(tuple(keys), tuple(values), valid_BT, count_B,
                                       jnp.int32(width))

  def decode(params, token_B, cache):
    """One more token in every row, in the cache's next column."""
    ones_B1 = jnp.ones((token_B.shape[0], 1), cache.valid_BT.dtype)
    valid_BT = jax.lax.dynamic_update_slice(cache.valid_BT, ones_B1, (0, cache.column))
    position = position_angles(cache.position_B)
    x_BD, keys, values = embed(params, token_B, jnp.ones_like(token_B)), [], []
    def attend(q, k, v):
      i, at = len(keys), (0, 0, cache.column, 0)
      keys.append(jax.lax.dynamic_update_slice(cache.keys[i], k[:, :, None], at))
      values.append(jax.lax.dynamic_update_slice(cache.values[i], v[:, :, None], at))
      return attend_cache(q, keys[i], values[i], valid_BT)
    for i in range(config.layers):
      x_BD = block(x_BD, _layer(params, i), position, attend)
    return final(params, x_BD), Cache(tuple(keys), tuple(values), valid_BT, cache.position_B + 1,
                                      cache.column + 1)

  def unembed(params, hidden_ND):
    table_VD = params['embed'] if config.tie_embeddings else params['unembed']
    return jnp.einsum('nd,vd->nv', hidden_ND, table_VD.astype(hidden_ND.dtype),
                      preferred_element_type=jnp.float32)

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


def _layer(params, i):
  return jax.tree.map(lambda w: w[i], params['layers'])


def _columns(x_BPHK, room):
  """[B, P, H, K] -> [B, H, P + room, K]."""
  return jnp.pad(x_BPHK.swapaxes(1, 2), ((0, 0), (0, 0), (0, room), (0, 0)))


def _check_length(config, length):
  if length > config.context:
    raise ValueError(f'{length} columns do not fit model {config.name}: its context is '
                     f'{config.context}; shorten the text or set context')
