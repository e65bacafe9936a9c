"""Attention in plain JAX, softmax in float32; `models.splash` and `models.gpu` have what TPUs and
NVIDIA GPUs take instead."""
from functools import partial, wraps

import jax
import jax.numpy as jnp

from rlhf_jax.core import align
from rlhf_jax.core import mesh as meshes

_BLOCKS = 4             # of queries in a text
_LEAST = 32             # queries in a block


def grouped(attend, keys_axis):
  """`attend` also for several heads of queries to each head of keys and values, neighbours together.
  keys_axis: that of heads in k and v; in q it is the last but one."""
  @wraps(attend)
  def shared(q, k, v, *seen):
    queries = q.shape[-2] // k.shape[keys_axis]
    if queries == 1:
      return attend(q, k, v, *seen)
    split = q.reshape(*q.shape[:-2], -1, queries, q.shape[-1])
    mixed = jax.vmap(lambda q: attend(q, k, v, *seen), in_axes=-2, out_axes=-2)(split)
    return mixed.reshape(q.shape)
  return shared


def on_mesh(mesh, local):
  """local(q_BTHK, k_BTGK, v_BTGK, *texts_BT) -> BTHK with each device of `mesh` computing its own rows
  and heads; rows or heads that do not divide over it are computed whole by all."""
  def attend(q_BTHK, k_BTGK, v_BTGK, *texts):
    heads = meshes.cut(mesh, k_BTGK.shape, ('rows', 'kv', 'heads', 'kv'))
    text = meshes.cut(mesh, texts[0].shape, ('rows', 'kv'))
    return jax.shard_map(local, mesh=mesh, check_vma=False, out_specs=heads,
                         in_specs=(heads,) * 3 + (text,) * len(texts))(q_BTHK, k_BTGK, v_BTGK, *texts)
  return attend


def filled(x_BT, multiple):
  """x_BT, also of more axes, with columns of 0 up to a multiple: they stand after all that are kept."""
  room = -x_BT.shape[1] % multiple
  return jnp.pad(x_BT, [(0, room if axis == 1 else 0) for axis in range(x_BT.ndim)])


@partial(grouped, keys_axis=2)
def attention(q_BTHK, k_BTHK, v_BTHK, group_BT, branch_BT=None):
  """Causal attention among the tokens of one group -> BTHK; of those on another branch of it, where
  branches are given, only to the stem, branch 0.

  Padding is a group of its own, so every column attends at least to itself: no empty softmax, no
  NaN, and no way from padding into text. Queries go in blocks, and each block sees the keys up to its
  own end: with 4 of them 5/8 of all products and exponentials are left. Heads go before time: on CPU
  that is up to a third faster, forwards and backwards (64 rows of 46 columns, 3 heads).
  """
  time, texts = group_BT.shape[1], relations(group_BT, branch_BT)
  q_BTHK *= jnp.asarray(q_BTHK.shape[-1] ** -0.5, q_BTHK.dtype)
  q_BHTK, k_BHTK, v_BHTK = (x.swapaxes(1, 2) for x in (q_BTHK, k_BTHK, v_BTHK))
  size = max(-(-time // _BLOCKS), _LEAST)

  def block(start):
    end = min(start + size, time)
    q_BHQK, k_BHSK, v_BHSK = q_BHTK[:, :, start:end], k_BHTK[:, :, :end], v_BHTK[:, :, :end]
    causal_QS = jnp.arange(start, end)[:, None] >= jnp.arange(end)[None]
    allowed_BQS = causal_QS[None] & related([x[:, start:end] for x in texts],
                                            [x[:, :end] for x in texts])
    score_BHQS = jnp.einsum('bhqk,bhsk->bhqs', q_BHQK, k_BHSK, preferred_element_type=jnp.float32)
    weight_BHQS = _softmax(score_BHQS, allowed_BQS[:, None]).astype(q_BHQK.dtype)
    return jnp.einsum('bhqs,bhsk->bhqk', weight_BHQS, v_BHSK)
  return jnp.concatenate([block(start) for start in range(0, time, size)], 2).swapaxes(1, 2)


@partial(grouped, keys_axis=2)
def attend_columns(q_BNHK, k_BTHK, v_BTHK, at_BN, group_BT, branch_BT=None):
  """`attention` of the queries in columns at_BN alone -> BNHK."""
  texts = relations(group_BT, branch_BT)
  q_BNHK *= jnp.asarray(q_BNHK.shape[-1] ** -0.5, q_BNHK.dtype)
  before_BNT = at_BN[:, :, None] >= jnp.arange(group_BT.shape[1])[None, None]
  allowed_BNT = before_BNT & related([align.take_columns(x, at_BN) for x in texts], texts)
  score_BHNT = jnp.einsum('bnhk,bthk->bhnt', q_BNHK, k_BTHK, preferred_element_type=jnp.float32)
  weight_BHNT = _softmax(score_BHNT, allowed_BNT[:, None]).astype(q_BNHK.dtype)
  return jnp.einsum('bhnt,bthk->bnhk', weight_BHNT, v_BTHK)


def relations(group_BT, branch_BT):
  """What `related` compares."""
  return (group_BT,) if branch_BT is None else (group_BT, branch_BT)


def related(queries, keys):
  """Which keys are of the group of each query, and not on another branch of it -> BQS. queries, keys:
  (their groups,) or (their groups, their branches)."""
  (group_BQ, *branch_BQ), (group_BS, *branch_BS) = queries, keys
  same_BQS = group_BQ[:, :, None] == group_BS[:, None]
  for of_query, of_key in zip(branch_BQ, branch_BS, strict=True):
    same_BQS &= (of_key[:, None] == 0) | (of_key[:, None] == of_query[:, :, None])
  return same_BQS


@partial(grouped, keys_axis=1)
def attend_cache(q_BHK, k_BHTK, v_BHTK, valid_BT):
  """Attention of one new token to the valid columns of the cache -> BHK."""
  weight_BHT = cache_weights(q_BHK, k_BHTK, valid_BT)
  return jnp.einsum('bht,bhtk->bhk', weight_BHT, v_BHTK)


def cache_weights(q_BHK, k_BHTK, valid_BT):
  """How much of each column's value the new token takes -> BHT."""
  score_BHT = jnp.einsum('bhk,bhtk->bht', q_BHK, k_BHTK, preferred_element_type=jnp.float32)
  return _softmax(score_BHT / q_BHK.shape[-1] ** 0.5, valid_BT[:, None] > 0).astype(q_BHK.dtype)


def _softmax(score, allowed):
  return jax.nn.softmax(jnp.where(allowed, score, jnp.finfo(jnp.float32).min), axis=-1)


def rotate(x, position):
  """Rotary positions (Su et al. 2021), halves paired as in GPT-NeoX, on the first part of each head,
  twice as wide as `position` from `angles`; the rest stays."""
  cos, sin = (p.astype(x.dtype) for p in position)
  pairs = cos.shape[-1]
  first, second, rest = jnp.split(x, [pairs, 2 * pairs], axis=-1)
  turned = jnp.stack([first * cos - second * sin, second * cos + first * sin], axis=-2)
  turned = turned.reshape(*x.shape[:-1], 2 * pairs)
  return jnp.concatenate([turned, rest], axis=-1) if rest.shape[-1] else turned


def angles(position, size, base, scaling=()):
  """(cos, sin) of shape [..., 1, size / 2] for whole-number positions [...]."""
  frequency = frequencies(size, base, scaling)
  angle = position.astype(jnp.float32)[..., None, None] * frequency.reshape(
    (1,) * (position.ndim + 1) + (-1,))
  return jnp.cos(angle), jnp.sin(angle)


def frequencies(size, base, scaling=()):
  """Radians a position for each of size / 2 pairs.

  scaling: (factor, low, high, context) as in Llama 3.1. Pairs that turn less than `low` times within
  the context of the first training are slowed by `factor`, those that turn more than `high` times are
  not, and between them the share rises evenly.
  """
  frequency = base ** (-jnp.arange(0, size, 2, dtype=jnp.float32) / size)
  if not scaling:
    return frequency
  factor, low, high, context = scaling
  kept = jnp.clip((context * frequency / (2 * jnp.pi) - low) / (high - low), 0, 1)
  return frequency * (kept + (1 - kept) / factor)
