"""Log-probs of tokens from a Model, in float32, without ever holding an array of [B, T, V].

Index t is about token t, given the valid tokens before it in its segment: hidden states of the columns
`core.align.before` go through the unembedding some rows at a time, forwards and backwards. The
temperature divides the logits in one place, here, for policy, reference and sampler
alike. Results are 0 where nothing valid stands before t or token t is not valid. `start` is static:
tokens before it are not asked for, and 0. `blocks`, of rows that do not leave their devices: tokens
that count come first in each, and chunks without any are left out; None where most of them count.
"""
import jax
import jax.numpy as jnp

from rlhf_jax.core import align

_CHUNK = 2**21          # logits held at once
_LEAST = 8              # but no fewer rows per sequence: a large mesh shares the rows of a chunk


def token_logp(model, params, tokens_BT, valid_BT, temperature=1.0, segment_BT=None, start=0,
               blocks=None):
  """log p(token t | valid tokens before t)."""
  hidden_BSD = hidden_before(model, params, tokens_BT, valid_BT, segment_BT, start)
  return of_hidden(model, params, hidden_BSD, tokens_BT, valid_BT, temperature, segment_BT, blocks)


def hidden_before(model, params, tokens_BT, valid_BT, segment_BT=None, start=0):
  """hidden_BSD of what stands before each token from column `start` on; anything where nothing does."""
  at_BS = align.before(valid_BT)[:, start:]
  return model.apply(params, tokens_BT, valid_BT, segment_BT, at_BN=at_BS)


def of_hidden(model, params, hidden_BSD, tokens_BT, valid_BT, temperature=1.0, segment_BT=None,
              blocks=None):
  """`token_logp` of the last S tokens from what `hidden_before` gives, when another loss needs it."""
  vocab = _vocab(model, params, hidden_BSD)
  return _before(_of_token(model, params, temperature), vocab, [hidden_BSD], [tokens_BT], valid_BT,
                 segment_BT, blocks)


def of_next(model, params, hidden_NMD, id_NM, temperature=1.0):
  """log p of the M ids of each row as the tokens that come after these hidden states -> logp_NM, every
  one of them: for texts laid out so that the caller knows what stands before what."""
  vocab = _vocab(model, params, hidden_NMD)
  return _everywhere(_of_token(model, params, temperature), vocab, [hidden_NMD, id_NM])


def _of_token(model, params, temperature):
  """(hidden_ND, token_N) -> log p of these tokens as the next ones."""
  return lambda hidden_ND, token_N: pick(
    log_probs(model, params, hidden_ND, temperature), token_N[:, None])[:, 0]


def logp_at(model, params, tokens_BT, valid_BT, id_BTK, temperature=1.0, segment_BT=None):
  """log p of each of K ids as token t -> logp_BTK."""
  hidden_BTD = hidden_before(model, params, tokens_BT, valid_BT, segment_BT)
  def one(hidden_ND, id_NK):
    return pick(log_probs(model, params, hidden_ND, temperature), id_NK)
  vocab = _vocab(model, params, hidden_BTD)
  return _before(one, vocab, [hidden_BTD], [id_BTK], valid_BT, segment_BT)


def top_logp(model, params, tokens_BT, valid_BT, k, temperature=1.0, segment_BT=None, start=0):
  """The k largest log-probs of token t and their ids -> (logp_BTK, id_BTK), largest first.

  The teacher of context distillation (Bai et al. 2022, appendix A.1: k = 50).
  """
  hidden_BSD = hidden_before(model, params, tokens_BT, valid_BT, segment_BT, start)
  def one(hidden_ND):
    return jax.lax.top_k(log_probs(model, params, hidden_ND, temperature), k)
  return _before(one, _vocab(model, params, hidden_BSD), [hidden_BSD], [], valid_BT, segment_BT)


def exact_kl(model, params, ref_params, tokens_BT, valid_BT, temperature=1.0, start=0):
  """KL(pi(. | before t) || pi_ref(. | before t)) in nats, over all tokens; never negative.

  Its sum over the answer is the sequence KL of budgets and fits (Bai et al. 2022, section 4.3), of
  far smaller variance than the sampled log-ratio.
  """
  hidden = [hidden_before(model, p, tokens_BT, valid_BT, None, start) for p in (params, ref_params)]
  def one(hidden_ND, ref_hidden_ND):
    logp_NV = log_probs(model, params, hidden_ND, temperature)
    ref_logp_NV = log_probs(model, ref_params, ref_hidden_ND, temperature)
    return jnp.maximum((jnp.exp(logp_NV) * (logp_NV - ref_logp_NV)).sum(axis=-1), 0.0)
  return _before(one, _vocab(model, params, hidden[0]), hidden, [], valid_BT)


def logits(model, params, hidden_ND, temperature):
  """logits / temperature, float32 -> [N, V]."""
  return model.unembed(params, hidden_ND).astype(jnp.float32) / temperature


def log_probs(model, params, hidden_ND, temperature):
  """log-softmax(logits / temperature), float32 -> [N, V]."""
  return jax.nn.log_softmax(logits(model, params, hidden_ND, temperature))


def pick(logp_NV, id_NK):
  """logp_NV at the K ids of each row."""
  return jnp.take_along_axis(logp_NV, id_NK, axis=1, mode='clip')


def _vocab(model, params, hidden_BTD):
  return jax.eval_shape(model.unembed, params, hidden_BTD[0]).shape[-1]


def _before(function, vocab, hidden, ids, valid_BT, segment_BT=None, blocks=None):
  """function(hidden before t, ..., ids at t, ...) on rows, for the columns that have hidden states."""
  start = valid_BT.shape[1] - hidden[0].shape[1]
  counts_BT = align.has_previous(valid_BT, segment_BT) & (valid_BT > 0)
  out = _everywhere(function, vocab, hidden + [x[:, start:] for x in ids],
                    counts_BT[:, start:], blocks)
  return jax.tree.map(lambda x: align.placed(x, counts_BT), out)


def _everywhere(function, vocab, arrays, counts_BT=None, blocks=None):
  """function(*arrays) of all places of arrays [B, T, ...], a chunk of logits at a time; with `blocks`
  only of chunks in which one counts."""
  batch, time = arrays[0].shape[:2]
  most = max(_CHUNK // vocab, _LEAST * batch)
  flat = [x.reshape(batch * time, *x.shape[2:]) for x in arrays]
  out = _by_rows(function, most, flat) if blocks is None else _by_counted_rows(
    function, most, flat, counts_BT.reshape(blocks, -1))
  return jax.tree.map(lambda x: x.reshape(batch, time, *x.shape[1:]), out)


def _by_rows(function, most, arrays):
  """function(*arrays) on at most `most` rows at a time; nothing of size V is kept for the backward
  pass. Each part takes every n-th row, so that rows sharded over devices stay where they are."""
  rows = arrays[0].shape[0]
  parts = 1
  while parts * most < rows:
    parts *= 2
  size = -(-rows // parts)
  def cut(x):
    x = jnp.pad(x, ((0, size * parts - rows),) + ((0, 0),) * (x.ndim - 1))
    return x.reshape(size, parts, *x.shape[1:]).swapaxes(0, 1)
  def join(x):
    return x.swapaxes(0, 1).reshape(size * parts, *x.shape[2:])[:rows]
  function = jax.checkpoint(function)
  out = jax.lax.map(lambda part: function(*part), [cut(x) for x in arrays])
  return jax.tree.map(join, out)


def _by_counted_rows(function, most, arrays, counts_GN):
  """The same, blocks of N rows each, those that count first; 0 for parts in which none does."""
  blocks, rows = counts_GN.shape
  parts = -(-blocks * rows // most)
  size = -(-rows // parts)
  order_GN = jnp.argsort(~counts_GN, axis=1)
  def cut(x):
    x = align.take_columns(x.reshape(blocks, rows, *x.shape[1:]), order_GN)
    x = jnp.pad(x, ((0, 0), (0, size * parts - rows)) + ((0, 0),) * (x.ndim - 2))
    x = x.reshape(blocks, parts, size, *x.shape[2:]).swapaxes(0, 1)
    return x.reshape(parts, blocks * size, *x.shape[3:])
  def join(x):
    x = x.reshape(parts, blocks, size, *x.shape[2:]).swapaxes(0, 1)
    x = x.reshape(blocks, parts * size, *x.shape[3:])
    return align.take_columns(x, jnp.argsort(order_GN, axis=1)).reshape(-1, *x.shape[2:])
  @jax.checkpoint              # around the choice: inside it each part would keep the unembedding
  def one(part):
    counts, *part = part
    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(function, *part))
    return jax.lax.cond(counts.any(), lambda: function(*part), lambda: nothing)
  out = jax.lax.map(one, [cut(counts_GN.reshape(-1)), *map(cut, arrays)])
  return jax.tree.map(join, out)
