"""A decoder-only transformer in plain JAX.

Parameters are born stacked over layers; one `lax.scan` goes through them, written out on CPU.
Positions count valid tokens inside a segment, attention sees valid tokens of the same segment only:
padding of any amount, side and content changes nothing. Choices the papers leave open, and those of
other people's models, are listed in `models.sizes` and made in `models.parts`.
"""
from functools import partial

import jax
import jax.numpy as jnp
from flax import struct

from rlhf_jax.core import align
from rlhf_jax.core.spec import Spec, normal, ones, zeros
from rlhf_jax.core.types import Model
from rlhf_jax.models import parts
from rlhf_jax.models.attention import attend_cache, attend_columns, attention
from rlhf_jax.models.parts import biased, product

put = jax.lax.dynamic_update_slice
_KEPT = {True: None, 'dots': jax.checkpoint_policies.dots_with_no_batch_dims_saveable}
_PADDING = jnp.iinfo(jnp.int32).min        # the attention group of padding


@struct.dataclass
class Cache:
  """Keys and values of each layer, [B, G, T, K] for G heads of them: those of the prompt, and behind it
  a ring of T - P columns for answers. One array a layer: a stacked one that a scan updates costs 5-10
  times as much. column: the next of the ring, the same in every row, counted on as it goes round.
  answered_B: the tokens of each row in it, which are the last ones. Positions are in the keys already,
  so any column serves any token."""
  keys: tuple
  values: tuple
  valid_BP: jax.Array
  answered_B: jax.Array
  column: jax.Array


def decoder(config, pin=lambda x, *axes: x, attend_text=attention, attend_past=attend_cache):
  """The Model of a TransformerConfig. pin: as of `core.mesh.pin`, where arrays are kept on a mesh;
  attend_text, attend_past: `attention` of whole texts and `attend_cache` of one token, or what a
  backend has in their place; they take several heads of queries to one of keys."""
  norm, head_norm, mlp = parts.norm(config), parts.head_norm(config), parts.mlp(config)
  (place, turns, turn), residual = parts.positions(config), parts.residual(config)
  last_apart = config.unroll and attend_text is attention          # other kernels take whole texts

  def block(x_ND, layer, attend, some=lambda x_ND: x_ND):
    """One layer on the rows of all tokens (flat: XLA's products of rank 3 cost 1.5 times as much
    on CPU); attend(q_NHK, k_NGK, v_NGK) -> NHK mixes columns. some: the rows that go on from it; of the
    others only keys and values are computed."""
    layer = jax.tree.map(lambda w: w.astype(config.dtype), layer)
    def mix(_):
      y_ND = norm(x_ND, layer, 'attention_norm')
      q, k, v = (biased(heads(y_ND, layer[name]), layer, name)
                 for y_ND, name in ((some(y_ND), 'query'), (y_ND, 'key'), (y_ND, 'value')))
      q, k = head_norm(q, layer, 'query_norm'), head_norm(k, layer, 'key_norm')
      mixed_ND = product(attend(q, k, v).reshape(len(q), -1),
                         layer['output'].reshape(-1, x_ND.shape[1]))
      return biased(mixed_ND, layer, 'output')
    made_ND = residual(some(x_ND), mix, lambda x_ND: mlp(norm(x_ND, layer, 'mlp_norm'), layer))
    return pin(made_ND, 'rows', 'embed')

  def embed(params, tokens_BT, valid_BT, position_BT):
    """x_ND of all tokens; padding reads row 0 of the table, whatever id it holds."""
    ids_N = jnp.where(valid_BT > 0, tokens_BT, 0).reshape(-1)
    table_VD = pin(params['embed'], 'vocab', 'embed')
    x_ND = _rounded(jnp.take(table_VD, ids_N, axis=0, mode='clip'), config.dtype).astype(config.between)
    return pin(place(x_ND, params, position_BT.reshape(-1)), 'rows', 'embed')

  def read(params, tokens_BT, valid_BT, segment_BT, branch_BT=None, at_BN=None, keep=False):
    """(hidden_BTD of a whole text or hidden_BND of these columns; if `keep`, keys and values
    [B, T, G, K] of each layer)."""
    batch, time = tokens_BT.shape
    at_BN = None if at_BN is None else jnp.clip(at_BN, 0, time - 1)
    apart = at_BN is not None and at_BN.shape[1] < time and last_apart
    group_BT = jnp.where(valid_BT > 0, segment_BT, _PADDING)
    position_BT = positions(valid_BT, segment_BT, branch_BT)
    angle = _rows(turns(time), position_BT)

    def one(x_ND, layer, at_BN=None):
      kept = []
      def attend(*qkv):
        q, k, v = (x.reshape(batch, -1, *x.shape[1:]) for x in qkv)
        k = turn(k, angle)
        kept.extend((k, v))
        if at_BN is None:
          mixed = attend_text(turn(q, angle), k, v, group_BT, branch_BT)
        else:
          q = turn(q, jax.tree.map(lambda x: align.take_columns(x, at_BN), angle))
          mixed = attend_columns(q, k, v, at_BN, group_BT, branch_BT)
        return mixed.reshape(qkv[0].shape)
      def some(x_ND):
        if at_BN is None:
          return x_ND
        return align.take_columns(x_ND.reshape(batch, time, -1), at_BN).reshape(-1, x_ND.shape[1])
      x_ND = block(x_ND, layer, attend, some)
      return x_ND, kept if keep else None

    if config.remat:
      one = jax.checkpoint(one, policy=_KEPT[config.remat])
    x_ND = embed(params, tokens_BT, valid_BT, position_BT)
    layers, last = _but_last(params['layers'], config.layers) if apart else (params['layers'], None)
    x_ND, kept = jax.lax.scan(one, x_ND, layers, unroll=config.unroll)
    kept = [jax.tree.map(lambda x, i=i: x[i], kept) for i in range(config.layers - apart)]
    if apart:
      x_ND, kept_last = one(x_ND, last, at_BN)
      return norm(x_ND, params, 'norm').reshape(*at_BN.shape, -1), [*kept, kept_last]
    made_BTD = norm(x_ND, params, 'norm').reshape(batch, time, -1)
    return made_BTD if at_BN is None else align.take_columns(made_BTD, at_BN), kept

  def apply(params, tokens_BT, valid_BT, segment_BT=None, branch_BT=None, at_BN=None):
    check_length(config, tokens_BT.shape[1])
    segment_BT = jnp.zeros(tokens_BT.shape, jnp.int32) if segment_BT is None else segment_BT
    return read(params, tokens_BT, valid_BT, segment_BT, branch_BT, at_BN)[0]

  def prefill(params, tokens_BP, valid_BP, room):
    """Reads the prompt; the cache has `room` more columns."""
    hidden_B1D, kept = read(params, tokens_BP, valid_BP, jnp.zeros_like(tokens_BP),
                            at_BN=align.end(valid_BP)[:, None], keep=True)
    keys, values = (tuple(x_BPGK.swapaxes(1, 2) for x_BPGK in each) for each in zip(*kept, strict=True))
    cache = Cache(keys, values, valid_BP, jnp.zeros(len(valid_BP), jnp.int32), jnp.int32(0))
    return hidden_B1D[:, 0], widen(cache, room)

  def widen(cache, room):
    """Not once the ring has gone round."""
    check_length(config, cache.keys[0].shape[2] + room)
    wide = jax.jit(lambda x_BGTK: jnp.pad(x_BGTK, ((0, 0), (0, 0), (0, room), (0, 0))))
    return cache.replace(keys=tuple(map(wide, cache.keys)), values=tuple(map(wide, cache.values)))

  @jax.jit
  def decode_layer(x_BD, layer, keys_BGTK, values_BGTK, valid_BT, angle, at):
    """One layer on one more token of every row -> (x_BD, keys and values with it in column `at`)."""
    kept = []
    def attend(q, k, v):
      kept.extend(put(past, new[:, :, None], (0, 0, at, 0))
                  for past, new in ((keys_BGTK, turn(k, angle)), (values_BGTK, v)))
      return attend_past(turn(q, angle), *kept, valid_BT)
    return block(x_BD, layer, attend), *kept

  def decode(params, token_B, cache):
    """One more token in every row, in the cache's next column. A layer is jitted: Python goes through
    one of them, however many there are and however many loops decode."""
    width = cache.valid_BP.shape[1]
    room = cache.keys[0].shape[2] - width
    age_N = (cache.column - jnp.arange(room)) % room                   # 0: the column of this token
    answer_BN = age_N[None] <= cache.answered_B[:, None]
    # Made once, not anew in every layer.
    valid_BT = jax.lax.optimization_barrier(jnp.concatenate([cache.valid_BP > 0, answer_BN], axis=1))
    position_B = (cache.valid_BP > 0).sum(axis=1, dtype=jnp.int32) + cache.answered_B
    angle = _rows(params['turns'] if 'turns' in params else turns(config.context), position_B)
    x_BD, kept = embed(params, token_B, jnp.ones_like(token_B), position_B), []
    for layer, *past in zip(_apart(params['layers'], config), cache.keys, cache.values, strict=True):
      x_BD, *new = decode_layer(x_BD, layer, *past, valid_BT, angle, width + cache.column % room)
      kept.append(new)
    keys, values = zip(*kept, strict=True)
    return norm(x_BD, params, 'norm'), Cache(keys, values, cache.valid_BP, cache.answered_B + 1,
                                             cache.column + 1)

  def ready(params):
    """Cast, and a tree a layer: a slice of stacked weights inside a loop is a copy at every step. With
    the table of positions, which a loop would compute at every step too."""
    params = params | jax.tree.map(lambda w: w.astype(config.dtype), {
      name: params[name] for name in ('embed', 'unembed', 'layers') if name in params})
    return params | {'layers': _apart(params['layers'], config), 'turns': turns(config.context)}

  def unembed(params, hidden_ND):
    table_VD = params['embed'] if config.tie_embeddings else params['unembed']
    table_VD = pin(table_VD.astype(config.dtype), 'vocab', 'embed')
    return pin(jnp.einsum('nd,vd->nv', hidden_ND.astype(config.dtype), table_VD,
                          preferred_element_type=jnp.float32),
               'rows', 'vocab')

  return Model(_spec(config), apply, unembed, prefill, decode, ready, widen)


def _rounded(x, dtype):
  """x as a number of `dtype`, whatever its own type: XLA leaves out a conversion there and back."""
  if x.dtype == dtype:
    return x
  kind = jnp.finfo(dtype)
  return jax.lax.reduce_precision(x, kind.nexp, kind.nmant)


def _but_last(layers, count):
  """(all layers but the last, stacked, the last), whose gradients are joined by one copy."""
  weights, tree = jax.tree.flatten(layers)
  first, last = zip(*(jax.lax.split(w, (count - 1, 1)) for w in weights), strict=True)
  return tree.unflatten(first), tree.unflatten(w[0] for w in last)


def heads(y_ND, weight_DHK):
  """y times a matrix with the axis of heads apart -> NHK."""
  return product(y_ND, weight_DHK.reshape(y_ND.shape[1], -1)).reshape(-1, *weight_DHK.shape[1:])


def positions(valid_BT, segment_BT=None, branch_BT=None):
  """The number of valid tokens before t that t sees: those of its segment (segments are runs of
  columns), of its own branch and the stem alone where a segment has branches (runs of it)."""
  valid_BT = jax.lax.optimization_barrier((valid_BT > 0).astype(jnp.int32))
  same_BT = jnp.ones(valid_BT.shape, bool) if segment_BT is None else _runs(segment_BT)
  if branch_BT is None:
    return _since(valid_BT, same_BT)
  stem_BT = _since(valid_BT * (branch_BT == 0), same_BT)
  return stem_BT + jnp.where(branch_BT == 0, 0, _since(valid_BT, same_BT & _runs(branch_BT)))


def _runs(x_BT):
  """Whether t has the same x as t - 1."""
  return jnp.pad(x_BT[:, 1:] == x_BT[:, :-1], ((0, 0), (1, 0)))


def _since(count_BT, same_BT):
  """The sum of `count` before t in the run of t."""
  before_BT = jnp.cumsum(count_BT, axis=1) - count_BT
  return before_BT - jax.lax.cummax(jnp.where(same_BT, 0, before_BT), axis=1)


def _rows(table, at):
  return jax.tree.map(lambda x: jnp.take(x, at, axis=0, mode='clip'), table)


def _apart(layers, config):
  """A tree of weights for each layer, from stacked ones or from such trees."""
  if isinstance(layers, tuple):
    return layers
  return tuple(jax.tree.map(lambda w, i=i: w[i], layers) for i in range(config.layers))


def _spec(config):
  """Matrices start at 1/sqrt(fan in); those that write into the residual stream 1/sqrt(2 layers)
  of that (Radford et al. 2019), so that its size does not grow with depth. Biases start at 0."""
  L, D, H, K, V = config.layers, config.width, config.heads, config.head_size, config.vocab_size
  G, F = H // config.queries_per_key, config.mlp_width
  write = (2 * L) ** -0.5
  width, hidden = {'embed': D}, {'mlp': F}
  queries, keys = {'heads': H, 'kv': K}, {'heads': G, 'kv': K}

  def leaf(init, **sides):
    return Spec(tuple(sides.values()), tuple(sides), init, config.param_dtype)

  def when(wanted, tree):
    return tree if wanted else {}

  def norm(name, **sides):
    bias = when(config.norm == 'layer', {f'{name}_bias': leaf(zeros, **sides)})
    return {name: leaf(ones, **sides), **bias}

  def part(name, biased, stddev, inputs, outputs):
    bias = when(biased, {f'{name}_bias': leaf(zeros, layers=L, **outputs)})
    return {name: leaf(normal(stddev), layers=L, **inputs, **outputs), **bias}

  attend, mlp = partial(part, biased=config.attention_bias), partial(part, biased=config.mlp_bias)
  return {
    'embed': leaf(normal(D**-0.5), vocab=V, embed=D),
    **when(config.positions == 'learned',
           {'positions': leaf(normal(D**-0.5), context=config.context, embed=D)}),
    'layers': {
      **norm('attention_norm', layers=L, **width),
      **attend('query', stddev=D**-0.5, inputs=width, outputs=queries),
      **attend('key', stddev=D**-0.5, inputs=width, outputs=keys),
      **attend('value', stddev=D**-0.5, inputs=width, outputs=keys),
      **when(config.qk_norm, norm('query_norm', layers=L, kv=K) | norm('key_norm', layers=L, kv=K)),
      **attend('output', stddev=write * (H * K)**-0.5, inputs=queries, outputs=width),
      **norm('mlp_norm', layers=L, **width),
      **when(config.gated_mlp, mlp('gate', stddev=D**-0.5, inputs=width, outputs=hidden)),
      **mlp('up', stddev=D**-0.5, inputs=width, outputs=hidden),
      **mlp('down', stddev=write * F**-0.5, inputs=hidden, outputs=width)},
    **norm('norm', **width),
    **when(not config.tie_embeddings, {'unembed': leaf(normal(D**-0.5), vocab=V, embed=D)})}


def check_length(config, length):
  """Refuses a text of more columns than the model's context."""
  if length > config.context:
    raise ValueError(f'{length} columns do not fit model {config.name}: its context is '
                     f'{config.context}; shorten the text or set context')
