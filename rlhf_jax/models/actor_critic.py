"""A policy and its values, read together: two networks, or one body with two heads.

Parameters are {'policy', 'value'} either way, so a policy is saved, loaded and evaluated alike. Both
readers are (params, tokens_BT, valid_BT) -> (logp_BT of each token, value_BT of the state before it).
temperature, start and blocks as in `models.logp.token_logp`.
"""
from rlhf_jax.models import heads, logp


def separate(policy, critic, **options):
  """Two networks; params['value'] are those of `critic`, a `heads.scalar` model."""
  def read(params, tokens_BT, valid_BT):
    logp_BT = logp.token_logp(policy, params['policy'], tokens_BT, valid_BT, **options)
    value_BT = critic.apply(params['value'], tokens_BT, valid_BT)
    return logp_BT, heads.before(value_BT, valid_BT)
  return read


def shared(policy, **options):
  """One body, read once; params['value'] are those of a scalar head on the policy's hidden states."""
  def read(params, tokens_BT, valid_BT):
    hidden_BTD = policy.apply(params['policy'], tokens_BT, valid_BT)
    logp_BT = logp.of_hidden(policy, params['policy'], hidden_BTD, tokens_BT, valid_BT, **options)
    return logp_BT, heads.before(heads.read(params['value'], hidden_BTD), valid_BT)
  return read
