"""Preference modelling: a scalar score that is higher for the better of two dialogues.

Askell et al. 2021, eq. 3.1, used by Bai et al. 2022, section 3: log(1 + exp(r_bad - r_good)) over
pairs, plus the language-model loss on the whole chosen sequence with weight 1. Labels are soft.
Both sequences of every pair go through the network in one forward pass.
"""
import jax
import jax.numpy as jnp

from rlhf_jax.algorithms import language_model
from rlhf_jax.core import align, masked


def loss(chosen_score_B, rejected_score_B, label_B=1, weight_B=None):
  """sum(weight * cross-entropy) of label against sigmoid(chosen - rejected); ln 2 at equal scores.

  label_B: probability that `chosen` is the better one. weight_B: 1/B each by default.
  """
  gap_B = jnp.asarray(chosen_score_B, jnp.float32) - jnp.asarray(rejected_score_B, jnp.float32)
  if weight_B is None:
    weight_B = jnp.full_like(gap_B, 1 / gap_B.size)
  gap_B = masked.select(gap_B, weight_B)
  cost_B = label_B * jax.nn.softplus(-gap_B) + (1 - label_B) * jax.nn.softplus(gap_B)
  return (weight_B * cost_B).sum()


def statistics(chosen_score_B, rejected_score_B, label_B, weight_B):
  """Weighted accuracy (an equal score is half right) and margin, both against the soft label."""
  gap_B = masked.select(chosen_score_B, weight_B) - masked.select(rejected_score_B, weight_B)
  sign_B = jnp.sign(gap_B)
  correct_B = (1 + sign_B * (2 * label_B - 1)) / 2
  return {'accuracy': (weight_B * correct_B).sum(),
          'margin': (weight_B * (2 * label_B - 1) * gap_B).sum()}


def make_loss(hidden, score, token_logp, lm_weight):
  """The Loss of a PreferenceBatch: the pair loss + lm_weight * the language-model loss on `chosen`.

  hidden: (params, tokens_NT, valid_NT, at=None) -> hidden_NTD, or hidden_NKD of the columns at_NK, the
  one pass of the body.
  score: (params, hidden_NKD) -> score_NK.
  token_logp: (params, hidden_BTD, tokens_BT, valid_BT) -> logp_BT; not called when lm_weight is 0.
  """

  def preference_loss(params, batch, key, frozen):
    tokens_NT = _interleave(batch.chosen_BT, batch.rejected_BT)
    valid_NT = _interleave(batch.chosen_valid_BT, batch.rejected_valid_BT)
    end_N1 = align.end(valid_NT)[:, None]                       # of the end-of-context token
    if lm_weight:
      hidden_NTD = hidden(params, tokens_NT, valid_NT)
      hidden_N1D = align.take_columns(hidden_NTD, end_N1)
    else:
      hidden_N1D = hidden(params, tokens_NT, valid_NT, at=end_N1)
    score_N = score(params, hidden_N1D)[:, 0]
    def lm():
      logp_BT = token_logp(params, hidden_NTD[::2], batch.chosen_BT, batch.chosen_valid_BT)
      return language_model.loss(logp_BT, batch.lm_weight_BT)
    return _total((score_N[::2], score_N[1::2], batch.label_B, batch.weight_B), lm, lm_weight)

  return preference_loss


def make_packed_loss(hidden, score, token_logp, lm_weight):
  """The same Loss of PackedPairs.

  hidden: (params, tokens_NT, valid_NT, segment_NT, branch_NT, at) -> hidden_NKD of the columns at_NK.
  score: as of `make_loss`.
  token_logp: (params, hidden_NMD, id_NM) -> log p of these ids as the tokens that come next.
  """

  def packed_loss(params, batch, key, frozen):
    places = batch.chosen_at_NP, batch.rejected_at_NP, *((batch.lm_at_NM,) if lm_weight else ())
    hidden_NKD = hidden(params, batch.tokens_NT, batch.valid_NT, batch.segment_NT, batch.branch_NT,
                        at=jnp.concatenate(places, axis=1))
    pairs = batch.chosen_at_NP.shape[1]
    chosen_NP, rejected_NP = jnp.split(score(params, hidden_NKD[:, :2 * pairs]), 2, axis=1)
    def lm():
      next_NM = align.take_columns(batch.tokens_NT, batch.lm_at_NM + 1)
      logp_NM = token_logp(params, hidden_NKD[:, 2 * pairs:], next_NM)
      return language_model.loss(logp_NM, batch.lm_weight_NM)
    return _total((chosen_NP, rejected_NP, batch.label_NP, batch.weight_NP), lm, lm_weight)

  return packed_loss


def _total(pair, lm, lm_weight):
  """(pair loss + lm_weight * lm(), what is reported)."""
  total = loss(*pair)
  aux = {'preference_loss': total, **statistics(*pair)}
  if lm_weight:
    aux['lm_loss'] = lm()
    total = total + lm_weight * aux['lm_loss']
  return total, aux


def _interleave(chosen_BT, rejected_BT):
  """Rows chosen, rejected, chosen, ...: both of a pair stay on the device that holds the pair."""
  return jnp.stack([chosen_BT, rejected_BT], axis=1).reshape(-1, chosen_BT.shape[1])
