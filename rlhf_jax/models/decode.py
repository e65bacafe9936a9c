"""Sampling answers: one prefill, then one token a step in a while loop, all in one program.

Answers differ in length: once few rows are unfinished, they alone are carried on, so that the cost
follows the tokens produced. A token's noise is one uniform number, a function of (key, row, column of
the answer): neither padding nor other rows change it. Temperature comes before top-p; log-probs are
those before top-p.
"""
import jax
import jax.numpy as jnp
from flax import struct

from rlhf_jax.core import align
from rlhf_jax.models.logp import log_probs, pick

LEAST_ROWS = 8             # of a block; fewer are not worth a loop of their own


@struct.dataclass
class Sample:
  """Prompt and answer. mask_BT: 1 on generated tokens, the end token included. logp_BT: their
  log-probs at the sampling temperature; both are 0 on the prompt and after the end."""
  tokens_BT: jax.Array
  mask_BT: jax.Array
  logp_BT: jax.Array


def generate(model, params, prompt_BP, prompt_valid_BP, key, *, max_new_tokens, temperature=1.0,
             top_p=1.0, eos_id, pad_id, samples=1, blocks=1, shares=(4, 16)):
  """`samples` answers to each prompt, rows prompt-major -> Sample of P + max_new_tokens columns.

  Every prompt holds a valid token. Stops when every row has ended. To be jitted by the caller;
  all but params, prompts, key and temperature are static. shares: ended rows are left behind when a
  4th of all is unfinished, and again at a 16th. blocks: parts of the rows that are compacted each in
  its place, as many as devices hold rows (`core.mesh.batch_shards`).
  """
  width = prompt_BP.shape[1]
  if width < 1 or max_new_tokens < 1 or samples < 1 or not 0.0 < top_p <= 1.0:
    raise ValueError(f'cannot sample {samples} answers of {max_new_tokens} tokens at top_p {top_p} '
                     f'after prompts of {width} columns: use sizes >= 1 and 0 < top_p <= 1')
  start, step = _cached(model) if model.prefill is not None else _uncached(model)
  hidden_BD, cache = start(params, prompt_BP, prompt_valid_BP, max_new_tokens)
  # Arrays of a cache lead with the batch; its scalars are shared by all rows.
  hidden_BD, cache, prompt_BP = jax.tree.map(
    lambda x: jnp.repeat(x, samples, axis=0) if x.ndim else x, (hidden_BD, cache, prompt_BP))
  rows = prompt_BP.shape[0]

  def sample(carry):
    n, out, (row_B, ended_B, hidden_BD, cache) = carry
    logp_BV = log_probs(model, params, hidden_BD, temperature)
    token_B = draw(nucleus(logp_BV, top_p), noise(jax.random.fold_in(key, n), row_B))
    lived_B = 1.0 - ended_B
    new = {'tokens': jnp.where(ended_B, pad_id, token_B), 'mask': lived_B,
           'logp': pick(logp_BV, token_B[:, None])[:, 0] * lived_B}
    out = {name: out[name].at[n, row_B].set(x, unique_indices=True) for name, x in new.items()}
    return n + 1, out, (row_B, ended_B | (token_B == eos_id), *step(params, token_B, cache))

  shape = max_new_tokens, rows
  out = {'tokens': jnp.full(shape, pad_id, jnp.int32), 'mask': jnp.zeros(shape),
         'logp': jnp.zeros(shape)}
  carry = jnp.int32(0), out, (jnp.arange(rows), jnp.zeros(rows, bool), hidden_BD, cache)
  blocks = blocks if rows % blocks == 0 else 1
  fewer = [rows // blocks // share for share in shares]
  for few in [f for f in fewer if f >= LEAST_ROWS] + [0]:
    def more(carry, few=few):
      n, _, (_, ended_B, *_) = carry
      return (n < max_new_tokens) & (_unfinished(ended_B, blocks) > few)
    n, out, state = jax.lax.while_loop(more, sample, carry)
    carry = n, out, _keep(state, few, blocks)
  before = jnp.zeros(prompt_BP.shape)
  return Sample(*(jnp.concatenate([x, out[name].T], axis=1) for x, name in
                  ((prompt_BP.astype(jnp.int32), 'tokens'), (before, 'mask'), (before, 'logp'))))


def _unfinished(ended_B, blocks):
  """The largest number of unfinished rows in a block."""
  return (~ended_B).reshape(blocks, -1).sum(axis=1).max()


def _keep(state, few, blocks):
  """The state of `few` rows of each block, unfinished ones first; rows stay on their device."""
  ended_B = state[1]
  first_GF = jnp.argsort(ended_B.reshape(blocks, -1), axis=1)[:, :few]
  def take(x):
    parts = x.reshape(blocks, -1, *x.shape[1:])
    return jax.vmap(lambda part, rows: part[rows])(parts, first_GF).reshape(-1, *x.shape[1:])
  return jax.tree.map(lambda x: take(x) if x.ndim else x, state)


def noise(key, row_B):
  """A uniform number in [0, 1) for each row, by its number alone."""
  key_B = jax.vmap(lambda row: jax.random.fold_in(key, row))(row_B)
  return jax.vmap(jax.random.uniform)(key_B)


def draw(logp_BV, uniform_B):
  """Token ids by inverting the cumulative distribution: a sixth of the cost of noise for each of V
  tokens. A token of probability 0 is never drawn, however the sums round."""
  prob_BV = jnp.exp(logp_BV)
  sum_BV = jnp.where(prob_BV > 0, jnp.cumsum(prob_BV, axis=-1), 0.0)
  threshold_B = uniform_B * sum_BV.max(axis=-1)
  return jnp.argmax(sum_BV > threshold_B[:, None], axis=-1).astype(jnp.int32)


def nucleus(logp_BV, top_p):
  """logp_BV, with -inf outside the smallest set of likeliest tokens whose mass reaches top_p."""
  if top_p == 1.0:
    return logp_BV
  sorted_BV = jnp.sort(logp_BV, axis=-1, descending=True)
  before_BV = jnp.cumsum(jnp.exp(sorted_BV), axis=-1) - jnp.exp(sorted_BV)
  least_B1 = jnp.min(jnp.where(before_BV < top_p, sorted_BV, jnp.inf), axis=-1, keepdims=True)
  return jnp.where(logp_BV >= least_B1, logp_BV, -jnp.inf)


def _cached(model):
  """(start, step) over the model's own cache."""
  def start(params, prompt_BP, prompt_valid_BP, room):
    hidden_BPD, cache = model.prefill(params, prompt_BP, prompt_valid_BP, room)
    return align.last(hidden_BPD, prompt_valid_BP), cache
  return start, model.decode


def _uncached(model):
  """(start, step) for a Model without a cache: the whole text again for every token."""
  def start(params, prompt_BP, prompt_valid_BP, room):
    tokens_BT, valid_BT = (jnp.pad(x, ((0, 0), (0, room))) for x in (prompt_BP, prompt_valid_BP))
    hidden_BTD = model.apply(params, tokens_BT, valid_BT)
    return align.last(hidden_BTD, valid_BT), (tokens_BT, valid_BT, jnp.int32(prompt_BP.shape[1]))

  def step(params, token_B, cache):
    tokens_BT, valid_BT, column = cache
    tokens_BT = tokens_BT.at[:, column].set(token_B)
    valid_BT = valid_BT.at[:, column].set(1)
    hidden_BTD = model.apply(params, tokens_BT, valid_BT)
    return hidden_BTD[:, column], (tokens_BT, valid_BT, column + 1)
  return start, step
