"""Sampling answers: all prompts are read, then one token a step in while loops, all in one program.

Answers differ in length, and the cost follows the tokens produced: where rows are more than slots, a
slot whose answer has ended takes the next row; once none waits, the unfinished are carried on alone. A
token's noise is one uniform number, a function of (key, row, column of the answer): neither padding,
other rows nor the slot change it. Temperature comes before top-p; log-probs are those before top-p.
"""
from functools import partial

import jax
import jax.numpy as jnp
from flax import struct

from rlhf_jax.core import align
from rlhf_jax.models import logp

LEAST_ROWS = 2             # of a block; fewer are not worth a loop of their own
SEATED = 16                # slots are seated anew when one in 16 has ended
PART = 128                 # token probabilities summed before the draw among the sums
SHARES = 4, 16             # ended slots are left behind when a 4th is unfinished, and when a 16th is
READ = 2**13               # tokens of prompts read at a time: what lies between layers fits the caches
QUARTERS = 64              # answers of so many columns get them by quarters, and attend to no more


@struct.dataclass
class Sample:
  """Prompt and answer. mask_BT: 1 on generated tokens, the end token included. logp_BT: their
  log-probs at the sampling temperature; both are 0 on the prompt and after the end."""
  tokens_BT: jax.Array
  mask_BT: jax.Array
  logp_BT: jax.Array


@struct.dataclass
class _Slots:
  """What is in work: the row that each slot answers, the column of its next token, whether it has
  ended, and what that token is drawn from."""
  row_B: jax.Array
  column_B: jax.Array
  ended_B: jax.Array
  hidden_BD: jax.Array
  cache: object


def generate(model, params, prompt_BP, prompt_valid_BP, key, *, max_new_tokens, temperature=1.0,
             top_p=1.0, eos_id, pad_id, samples=1, blocks=1, slots=None):
  """`samples` answers to each prompt, rows prompt-major -> Sample of P + max_new_tokens columns.

  Every prompt holds a valid token. Stops when every row has ended. To be jitted by the caller;
  all but params, prompts, key and temperature are static. slots: rows in work at a time, the others
  wait; None, or a Model without a cache: all. blocks: parts of the rows, each with slots of its own, as
  many as devices hold rows (`core.mesh.batch_shards`); 1 where the prompts do not divide.
  """
  prompts, width = prompt_BP.shape
  if width < 1 or max_new_tokens < 1 or samples < 1 or not 0.0 < top_p <= 1.0:
    raise ValueError(f'cannot sample {samples} answers of {max_new_tokens} tokens at top_p {top_p} '
                     f'after prompts of {width} columns: use sizes >= 1 and 0 < top_p <= 1')
  cached, blocks = model.prefill is not None, blocks if prompts % blocks == 0 else 1
  model = model if cached else _rereading(model)
  rows, last = prompts * samples, max_new_tokens - 1
  each = rows // blocks                                                   # rows of a block
  seats = min(each, -(-slots // blocks)) if slots and cached else each
  by_quarters = cached and seats == each and max_new_tokens >= QUARTERS
  room = -(-max_new_tokens // 4) if by_quarters else max_new_tokens
  stops = [f for f in (seats // share for share in SHARES) if f >= LEAST_ROWS] + [0]
  read = read_prompts(model, params, prompt_BP, prompt_valid_BP, blocks)
  jax.eval_shape(partial(model.widen, room=max_new_tokens), read[1])                # whether all fits
  params = model.ready(params)
  noise_RN = jax.vmap(lambda n: noise(jax.random.fold_in(key, n), jnp.arange(rows)), out_axes=1)(
    jnp.arange(max_new_tokens))

  def begin(row_GB, hidden_cache):
    """Slots for these rows of each block, from what was read of their prompts."""
    row_B = (row_GB + each * jnp.arange(blocks)[:, None]).reshape(-1)
    return _Slots(row_B, jnp.zeros_like(row_B), jnp.zeros(row_B.shape, bool), *hidden_cache)

  def step(carry):
    """One token in every slot."""
    out, s = carry
    logit_BV = logp.logits(model, params, s.hidden_BD, temperature)
    token_B = draw(nucleus(logit_BV, top_p), noise_RN[s.row_B, s.column_B])
    logp_B = logp.pick(logit_BV, token_B[:, None])[:, 0] - jax.nn.logsumexp(logit_BV, axis=1)
    at = jnp.where(s.ended_B, rows, s.row_B), s.column_B                    # nowhere once ended
    new = {'tokens': token_B, 'mask': jnp.ones(token_B.shape), 'logp': logp_B}
    out = {name: out[name].at[at].set(x, mode='drop') for name, x in new.items()}
    ended_B = s.ended_B | (token_B == eos_id) | (s.column_B == last)
    return out, _Slots(s.row_B, jnp.minimum(s.column_B + 1, last), ended_B,
                       *model.decode(params, token_B, s.cache))

  out = {'tokens': jnp.full((rows, max_new_tokens), pad_id, jnp.int32),
         'mask': jnp.zeros((rows, max_new_tokens)), 'logp': jnp.zeros((rows, max_new_tokens))}
  first = jax.tree.map(lambda x: _first(x, blocks, samples, seats) if x.ndim else x, read)
  begun = begin(jnp.broadcast_to(jnp.arange(seats), (blocks, seats)), first)
  carry = out, begun.replace(cache=model.widen(begun.cache, room))
  if seats < each:
    carry = _seat_all(step, begin, carry, read, blocks, each, samples)
  for end in range(room, max_new_tokens, room):
    carry = _widened(step, model.widen, carry, blocks, stops[0], end, min(room, max_new_tokens - end))
  for kept in stops:
    carry = _leave_behind(step, carry, blocks, kept)
  prompt_BP = jnp.repeat(prompt_BP.astype(jnp.int32), samples, axis=0)
  before = jnp.zeros(prompt_BP.shape)
  return Sample(*(jnp.concatenate([x, carry[0][name]], axis=1) for x, name in
                  ((prompt_BP, 'tokens'), (before, 'mask'), (before, 'logp'))))


def read_prompts(model, params, prompt_BP, valid_BP, blocks=1):
  """(hidden_BD of the last token of each prompt, the cache of all without room), the same number of
  rows of each block at a time, at most `READ` tokens of it where rows divide so."""
  def some(part):
    return model.prefill(params, *part, 0)
  rows, width = prompt_BP.shape
  each, most = rows // blocks, max(READ // width, 1)
  size = max(n for n in range(1, min(each, most) + 1) if each % n == 0)
  if size == each or 4 * size < most:                           # hardly divisible: then all at once
    return some((prompt_BP, valid_BP))
  made = jax.lax.map(some, tuple(
    x.reshape(blocks, -1, size, width).swapaxes(0, 1).reshape(-1, blocks * size, width)
    for x in (prompt_BP, valid_BP)))
  def join(x):
    parts = x.reshape(-1, blocks, size, *x.shape[2:]).swapaxes(0, 1)
    return parts.reshape(rows, *x.shape[2:])
  return jax.tree.map(lambda x: join(x) if x.ndim > 1 else x[0], made)


def _seat_all(step, begin, carry, read, blocks, each, samples):
  """Until no row waits: ended slots, a few of each block at a time, take the next rows."""
  seats = len(carry[1].row_B) // blocks
  few = -(-seats // SEATED)                                               # seated at a time

  def none_can_be_seated(carry):
    waiting_G, (_, s) = carry
    ended_G = s.ended_B.reshape(blocks, seats).sum(axis=1)
    return ~_in_any_run(((ended_G >= few) & (waiting_G < each)).any())

  def seat(carry):
    waiting_G, (out, s) = jax.lax.while_loop(none_can_be_seated, lambda c: (c[0], step(c[1])), carry)
    ended_GB = s.ended_B.reshape(blocks, seats)
    slot_GF = jnp.argsort(~ended_GB, axis=1)[:, :few]
    row_GF = waiting_G[:, None] + jnp.arange(few)[None]
    free_GF = jnp.take_along_axis(ended_GB, slot_GF, axis=1) & (row_GF < each)
    new = begin(row_GF, _take(read, row_GF // samples))
    return waiting_G + free_GF.sum(axis=1), (out, _put(s, jnp.where(free_GF, slot_GF, seats), new))

  return jax.lax.while_loop(lambda carry: _in_any_run((carry[0] < each).any()), seat,
                            (jnp.full(blocks, seats), carry))[1]


def _widened(step, widen, carry, blocks, kept, full, room):
  """Goes on until the cache holds `full` tokens of answers or `kept` slots are unfinished; then it has
  `room` more columns."""
  def fits(carry):
    return (carry[1].cache.column < full) & _more(carry, blocks, kept)
  out, s = jax.lax.while_loop(fits, step, carry)
  return out, s.replace(cache=widen(s.cache, room))


def _leave_behind(step, carry, blocks, kept):
  """Goes on until at most `kept` slots of a block are unfinished, which are all that is left."""
  out, s = jax.lax.while_loop(partial(_more, blocks=blocks, kept=kept), step, carry)
  # Unfinished rows first, each on its device.
  return out, _take(s, jnp.argsort(s.ended_B.reshape(blocks, -1), axis=1)[:, :kept])


def _more(carry, blocks, kept):
  return _in_any_run((~carry[1].ended_B).reshape(blocks, -1).sum(axis=1).max() > kept)


def _first(x, blocks, samples, seats):
  """`samples` rows of each prompt, the first `seats` rows of each block."""
  part = x.reshape(blocks, -1, *x.shape[1:])[:, :-(-seats // samples)]
  return jnp.repeat(part, samples, axis=1)[:, :seats].reshape(-1, *x.shape[1:])


def _take(tree, at_GF):
  """Rows at_GF of each block of the arrays that lead with rows; scalars are shared by all rows."""
  def take(x):
    parts = x.reshape(at_GF.shape[0], -1, *x.shape[1:])
    return jax.vmap(lambda part, at: part[at])(parts, at_GF).reshape(-1, *x.shape[1:])
  return jax.tree.map(lambda x: take(x) if x.ndim else x, tree)


def _put(tree, at_GF, new):
  """The tree with the rows of `new` at places at_GF of each block, but for those out of range. Where
  they are narrower they are put over the first columns."""
  def put(x, y):
    parts, new = (z.reshape(at_GF.shape[0], -1, *z.shape[1:]) for z in (x, y))
    first = tuple(map(slice, new.shape[2:]))
    made = jax.vmap(lambda part, at, new: part.at[at, *first].set(new, mode='drop'))(parts, at_GF, new)
    return made.reshape(x.shape)
  return jax.tree.map(lambda x, y: put(x, y) if x.ndim else x, tree, new)


@jax.custom_batching.custom_vmap
def _in_any_run(true):
  """Several runs in one program (`vmap`) go on while one of them does. Their loops then have one
  condition and one column, and are not a choice between old and new cache at every step."""
  return true


@_in_any_run.def_vmap
def _(axis_size, batched, true):
  return true.any(axis=0), False


def noise(key, row_B):
  """A uniform number in [0, 1) for each row, by its number alone."""
  key_B = jax.vmap(lambda row: jax.random.fold_in(key, row))(row_B)
  return jax.vmap(jax.random.uniform)(key_B)


def draw(score_BV, uniform_B):
  """Token ids of softmax(score) by inverting its cumulative distribution, first over parts of the
  vocabulary, then inside one. A token of probability 0 is never drawn, however the sums round."""
  prob_BV = jnp.exp(score_BV - score_BV.max(axis=1, keepdims=True))
  prob_BV = jnp.pad(prob_BV, ((0, 0), (0, -prob_BV.shape[1] % PART)))
  prob_BSC = prob_BV.reshape(prob_BV.shape[0], -1, PART)
  part_B, rest_B = _invert(prob_BSC.sum(axis=2), uniform_B)
  inside_B, _ = _invert(jnp.take_along_axis(prob_BSC, part_B[:, None, None], axis=1)[:, 0], rest_B)
  return part_B * PART + inside_B


def _invert(weight_BN, uniform_B):
  """(the first index whose cumulated weight exceeds uniform_B of all, where inside it: in [0, 1))."""
  sum_BN = jnp.where(weight_BN > 0, jnp.cumsum(weight_BN, axis=1), 0.0)
  threshold_B = uniform_B * sum_BN.max(axis=1)
  at_B = jnp.argmax(sum_BN > threshold_B[:, None], axis=1).astype(jnp.int32)
  sum_B, weight_B = (logp.pick(x, at_B[:, None])[:, 0] for x in (sum_BN, weight_BN))
  return at_B, jnp.clip(1 - (sum_B - threshold_B) / weight_B, 0.0, 1 - 2.0**-23)


def nucleus(score_BV, top_p):
  """score_BV, with -inf outside the smallest set of likeliest tokens whose mass reaches top_p."""
  if top_p == 1.0:
    return score_BV
  sorted_BV = jnp.sort(score_BV, axis=-1, descending=True)
  prob_BV = jax.nn.softmax(sorted_BV)
  before_BV = jnp.cumsum(prob_BV, axis=-1) - prob_BV
  least_B1 = jnp.min(jnp.where(before_BV < top_p, sorted_BV, jnp.inf), axis=-1, keepdims=True)
  return jnp.where(score_BV >= least_B1, score_BV, -jnp.inf)


def _rereading(model):
  """A Model without a cache as one whose cache is the text: read again for every token."""
  def prefill(params, tokens_BP, valid_BP, room):
    end_B1 = align.end(valid_BP)[:, None]
    return model.apply(params, tokens_BP, valid_BP, at_BN=end_B1)[:, 0], (tokens_BP, valid_BP)

  def widen(text, room):
    return *(jnp.pad(x, ((0, 0), (0, room))) for x in text), jnp.int32(text[0].shape[1])

  def decode(params, token_B, cache):
    tokens_BT, valid_BT, column = cache
    tokens_BT = tokens_BT.at[:, column].set(token_B)
    valid_BT = valid_BT.at[:, column].set(1)
    at_B1 = jnp.broadcast_to(column, (len(token_B), 1))
    hidden_B1D = model.apply(params, tokens_BT, valid_BT, at_BN=at_B1)
    return hidden_B1D[:, 0], (tokens_BT, valid_BT, column + 1)
  return model._replace(prefill=prefill, decode=decode, widen=widen, ready=lambda params: params)
