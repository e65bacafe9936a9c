"""A policy and its values, read together: two networks, or one body with two heads.

Parameters are {'policy', 'value'} either way, so a policy is saved, loaded and evaluated alike. Both
readers are (params, tokens_BT, valid_BT) -> (logp_BT of each token, value_BT of the state before it),
0 where nothing stands before it and before column `start`. temperature, start and blocks as in
`models.logp.token_logp`.
"""
from rlhf_jax.core import align
from rlhf_jax.models import heads, logp


def separate(policy, critic, start=0, **options):
  """Two networks; params['value'] are those of `critic`, a `heads.scalar` model."""
  def read(params, tokens_BT, valid_BT):
    logp_BT = logp.token_logp(policy, params['policy'], tokens_BT, valid_BT, start=start, **options)
    value_BS = logp.hidden_before(critic, params['value'], tokens_BT, valid_BT, start=start)
    return logp_BT, align.placed(value_BS, align.has_previous(valid_BT))
  return read


def shared(policy, start=0, **options):
  """One body, read once; params['value'] are those of a scalar head on the policy's hidden states."""
  def read(params, tokens_BT, valid_BT):
    hidden_BSD = logp.hidden_before(policy, params['policy'], tokens_BT, valid_BT, start=start)
    logp_BT = logp.of_hidden(policy, params['policy'], hidden_BSD, tokens_BT, valid_BT, **options)
    value_BS = heads.read(params['value'], hidden_BSD)
    return logp_BT, align.placed(value_BS, align.has_previous(valid_BT))
  return read
