"""Language modelling: the loss of pretraining, and the auxiliary term of preference models."""
from rlhf_jax.core import masked


def loss(logp_BT, weight_BT):
  """-sum(weight * logp) in nats: the mean per token when the weights add up to 1."""
  return -(weight_BT * masked.select(logp_BT, weight_BT)).sum()


def make_loss(token_logp):
  """The Loss of a TokenBatch. token_logp: (params, tokens_BT, valid_BT, segment_BT) -> logp_BT."""

  def lm_loss(params, batch, key, frozen):
    logp_BT = token_logp(params, batch.tokens_BT, batch.valid_BT, batch.segment_BT)
    total = loss(logp_BT, batch.weight_BT)
    return total, {'lm_loss': total}

  return lm_loss
