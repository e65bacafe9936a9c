"""The central types: what a model, a state and a batch are.

A role (policy, reference, value, preference model) is a tree of parameters; a network is a few
functions (`Model`); nothing owns both. Shapes: B batch, T time, D width, V vocabulary, K candidates.
Two masks, never confused: `valid` is 1 on every real token, `mask` is 1 on tokens that count in a
loss. Index t is about token t everywhere.
"""
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from rlhf_jax.core import masked

PyTree = Any


class Model(NamedTuple):
  """A network as functions of its parameters.

  spec:    tree of `core.spec.Spec`, the one source of shapes, initial values and shardings.
  apply:   (params, tokens_BT, valid_BT, segment_BT=None, branch_BT=None, at_BN=None) -> hidden_BTD, or
           hidden_BND of the columns at_BN alone, those out of range clipped. Positions count the
           valid tokens inside a segment, attention is causal, inside a segment, to valid tokens only.
           A segment may have branches: all see its stem, branch 0, and none another branch; each is
           numbered on from the stem, as if the others were not there.
  unembed: (params, hidden_ND) -> logits_NV, float32; called on chunks, never on all of B*T.
  prefill: (params, tokens_BP, valid_BP, room) -> (hidden_BD of the last valid tokens, cache with room
           more columns).
  decode:  (params, token_B, cache) -> (hidden_BD, cache).
  ready:   params -> the same as `decode` and `unembed` read them quickest, made once before a loop.
  widen:   (cache, room) -> the cache with room more columns.

  A cache is a tree whose arrays lead with rows; scalars are shared by all of them. What `prefill` made
  of a prompt may take the place of a row: it is put over the first columns of that row's arrays.
  """
  spec: PyTree
  apply: Callable
  unembed: Callable
  prefill: Callable | None = None
  decode: Callable | None = None
  ready: Callable | None = None
  widen: Callable | None = None


@struct.dataclass
class TrainState:
  """step: calls of the update so far. key: the root of all noise, never advanced. extra: arrays a
  method may change or a sweep may vary (learning rate, KL coefficient, reward moments)."""
  step: jax.Array
  params: PyTree
  opt_state: PyTree
  key: jax.Array
  extra: PyTree


@struct.dataclass
class TokenBatch:
  """Language modelling. weight_BT weighs the loss of predicting token t; segment_BT separates
  documents packed into one row."""
  tokens_BT: jax.Array
  valid_BT: jax.Array
  weight_BT: jax.Array
  segment_BT: jax.Array
  index_B: jax.Array

  def normalise(self):
    return self.replace(weight_BT=masked.normalise(self.weight_BT))


@struct.dataclass
class DistillationBatch:
  """Text with the teacher's K largest log-probs for each token t (of the distribution over token t
  given the tokens before it, the context included) and their ids."""
  tokens_BT: jax.Array
  valid_BT: jax.Array
  weight_BT: jax.Array
  top_logp_BTK: jax.Array
  top_id_BTK: jax.Array
  index_B: jax.Array

  def normalise(self):
    return self.replace(weight_BT=masked.normalise(self.weight_BT))


@struct.dataclass
class PreferenceBatch:
  """Pairs. label_B: probability that `chosen` is the better one, soft in [0, 1]. weight_B: of the
  pair term. lm_weight_BT: of the language-model term on the chosen sequence, normalised by tokens."""
  chosen_BT: jax.Array
  chosen_valid_BT: jax.Array
  rejected_BT: jax.Array
  rejected_valid_BT: jax.Array
  label_B: jax.Array
  weight_B: jax.Array
  lm_weight_BT: jax.Array
  group_B: jax.Array
  index_B: jax.Array

  def normalise(self):
    return self.replace(weight_B=masked.normalise(self.weight_B),
                        lm_weight_BT=masked.normalise(self.lm_weight_BT))


@struct.dataclass
class PackedPairs:
  """Pairs packed into N rows, up to P in each: a pair is one segment, its prompt the stem, once, and
  the two answers branches 1 (chosen) and 2 (rejected), in this order. Scores are read at the columns
  `chosen_at` and `rejected_at`. The language-model term predicts, from column lm_at, the token in the
  next one. Empty places have weight 0. The rest as in PreferenceBatch."""
  tokens_NT: jax.Array
  valid_NT: jax.Array
  segment_NT: jax.Array
  branch_NT: jax.Array
  lm_at_NM: jax.Array
  lm_weight_NM: jax.Array
  chosen_at_NP: jax.Array
  rejected_at_NP: jax.Array
  label_NP: jax.Array
  weight_NP: jax.Array
  group_NP: jax.Array
  index_NP: jax.Array

  def normalise(self):
    return self.replace(weight_NP=masked.normalise(self.weight_NP),
                        lm_weight_NM=masked.normalise(self.lm_weight_NM))


@struct.dataclass
class Rollout:
  """Sampled episodes, one row an answer. mask_BT is 1 on generated tokens, the end token included.
  logp_BT and ref_logp_BT are recomputed by `models.logp.token_logp` at the sampling temperature;
  sampled_logp_BT is the sampler's own, kept to be compared, never trained on. value_BT is of the state
  before token t, 0 for tokens of prompts."""
  tokens_BT: jax.Array
  valid_BT: jax.Array
  mask_BT: jax.Array
  logp_BT: jax.Array
  sampled_logp_BT: jax.Array
  ref_logp_BT: jax.Array
  value_BT: jax.Array
  score_B: jax.Array
  weight_B: jax.Array
  kl_coef_B: jax.Array
  group_B: jax.Array
  index_B: jax.Array


@struct.dataclass
class Experience:
  """A rollout ready for PPO: what its losses read, row by row, so that it can be cut into
  minibatches. weight_BT is the loss weight of token t (0 outside the answer). text: as many rows
  of documents, for a pretraining loss beside PPO's; None without one."""
  rollout: Rollout
  advantage_BT: jax.Array
  return_BT: jax.Array
  weight_BT: jax.Array
  text: TokenBatch | None = None

  def normalise(self):
    text = None if self.text is None else self.text.normalise()
    return self.replace(weight_BT=masked.normalise(self.weight_BT), text=text)


def batch_size(batch):
  """Rows of a batch: the length of the leading axis of its arrays."""
  return jnp.shape(jax.tree.leaves(batch)[0])[0]
