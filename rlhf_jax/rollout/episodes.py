"""Episodes: sample one answer a prompt, and everything PPO wants to know about it.

Everything PPO trains on is recomputed here, under the sampling parameters, by the same functions the
loss uses, so that the first ratio is 1; the sampler's own log-probs are kept beside them.
"""
import jax.numpy as jnp

from rlhf_jax.core.types import Rollout


def episodes(params, frozen, prompt_BP, prompt_valid_BP, key, kl_coef, *, generate, token_logp, value,
             score, extra=None, index_B=None, group_B=None):
  """A Rollout of one answer a prompt: one row, the prompt's P columns first.

  params: {'policy', 'value'}; frozen: {'reference', 'score'}. generate(params, prompt, valid, key)
  -> Sample; token_logp(params, tokens, valid) and value(params, tokens, valid) -> [B, T];
  score(params, tokens, valid, extra) -> [B]. kl_coef: scalar or [B].
  """
  rows, width = prompt_BP.shape
  sample = generate(params['policy'], prompt_BP, prompt_valid_BP, key)
  valid_BT = jnp.concatenate([prompt_valid_BP, sample.mask_BT[:, width:]], axis=1)
  tokens_BT, mask_BT = sample.tokens_BT, sample.mask_BT
  return Rollout(
    tokens_BT=tokens_BT, valid_BT=valid_BT, mask_BT=mask_BT,
    logp_BT=token_logp(params['policy'], tokens_BT, valid_BT) * mask_BT,
    sampled_logp_BT=sample.logp_BT,
    ref_logp_BT=token_logp(frozen['reference'], tokens_BT, valid_BT) * mask_BT,
    value_BT=value(params['value'], tokens_BT, valid_BT),
    score_B=score(frozen['score'], tokens_BT, valid_BT, extra or {}),
    weight_B=jnp.ones(rows, jnp.float32),
    kl_coef_B=jnp.broadcast_to(jnp.asarray(kl_coef, jnp.float32), (rows,)),
    group_B=jnp.zeros(rows, jnp.int32) if group_B is None else group_B,
    index_B=jnp.arange(rows, dtype=jnp.int32) if index_B is None else index_B)
