"""Episodes: sample one answer a prompt, and everything PPO wants to know about it.

Everything PPO trains on is recomputed here, under the sampling parameters, by the same functions the
loss uses, so that the first ratio is 1 (to rounding, where texts are packed); the sampler's own
log-probs are kept beside them.
"""
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from rlhf_jax.core.types import Rollout


class Parts(NamedTuple):
  """What makes an episode. Roles are entries of `params` and `frozen`.

  generate: (params['policy'], prompt_BP, valid_BP, key) -> Sample.
  read:     (params, tokens_BT, valid_BT) -> (logp_BT, value_BT), of policy and value.
  ref_logp: (frozen['reference'], tokens_BT, valid_BT) -> logp_BT.
  score:    (frozen['score'], tokens_BT, valid_BT, extra) -> score_B.
  """
  generate: Callable
  read: Callable
  ref_logp: Callable
  score: Callable


def sampled(parts, params, batch, key):
  """The batch with one answer to each prompt, as 'sample': one row, the prompt's P columns first.

  batch: 'prompt' and 'valid' [B, P].
  """
  return batch | {'sample': parts.generate(params['policy'], batch['prompt'], batch['valid'], key)}


def episodes(parts, params, frozen, batch, kl_coef):
  """The Rollout of a batch of `sampled`, with 'group' and 'index' [B], and what the score wants as
  'extra'. kl_coef: scalar or [B]."""
  (rows, width), valid_BP, sample = batch['prompt'].shape, batch['valid'], batch['sample']
  valid_BT = jnp.concatenate([valid_BP, sample.mask_BT[:, width:]], axis=1)
  tokens_BT, mask_BT = sample.tokens_BT, sample.mask_BT
  logp_BT, value_BT = parts.read(params, tokens_BT, valid_BT)
  ref_logp_BT = parts.ref_logp(frozen['reference'], tokens_BT, valid_BT)
  score_B = parts.score(frozen['score'], tokens_BT, valid_BT, batch.get('extra', {}))
  return Rollout(
    tokens_BT=tokens_BT, valid_BT=valid_BT, mask_BT=mask_BT, logp_BT=logp_BT * mask_BT,
    sampled_logp_BT=sample.logp_BT,
    ref_logp_BT=ref_logp_BT * mask_BT, value_BT=value_BT, score_B=score_B,
    weight_B=jnp.ones(rows, jnp.float32),
    kl_coef_B=jnp.broadcast_to(jnp.asarray(kl_coef, jnp.float32), (rows,)),
    group_B=batch['group'], index_B=batch['index'])
