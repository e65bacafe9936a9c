"""Context distillation: a student without the prompt learns the distribution of a teacher with it.

Bai et al. 2022, appendix A.1, and Askell et al. 2021, eq. 2.1. The teacher's K largest log-probs of
every token were stored beforehand (K = 50 in the paper); the loss is the KL over K + 1 categories,
the last one holding all remaining mass. No teacher network and no [B, T, V] array appear here.
"""
import jax
import jax.numpy as jnp

from rlhf_jax.core import masked

# The rounding error of a float32 sum of probabilities. A remaining mass below it is noise: the
# teacher's counts as none, and the student's is held there so that its gradient stays finite.
_LEAST_REST = 1e-6


def top_k_kl(teacher_top_logp_BTK, student_logp_BTK, weight_BT):
  """sum(weight * KL(teacher || student)) over K + 1 categories, in nats.

  Both log-probs are those of the teacher's K ids. Never above the KL over the whole vocabulary, and
  equal to it when K = V. The teacher gets no gradient.
  """
  weight_BT1 = jnp.asarray(weight_BT)[..., None]
  teacher_BTK = jax.lax.stop_gradient(masked.select(teacher_top_logp_BTK, weight_BT1))
  student_BTK = masked.select(student_logp_BTK, weight_BT1)
  prob_BTK = jnp.exp(teacher_BTK)
  listed_BTK = jnp.where(prob_BTK > 0, prob_BTK * (teacher_BTK - student_BTK), 0.0)
  rest_BT = -jnp.expm1(jax.nn.logsumexp(teacher_BTK, axis=-1))
  rest_kl_BT = rest_BT * (_log_rest(teacher_BTK) - _log_rest(student_BTK))
  kl_BT = listed_BTK.sum(-1) + jnp.where(rest_BT > _LEAST_REST, rest_kl_BT, 0.0)
  return (weight_BT * kl_BT).sum()


def _log_rest(logp_BTK):
  """log of the mass that the K categories leave over, never below log(_LEAST_REST)."""
  listed_BT = jnp.minimum(jax.nn.logsumexp(logp_BTK, axis=-1), -_LEAST_REST)
  return jax.nn.log1mexp(-listed_BT)


def make_loss(logp_at):
  """The Loss of a DistillationBatch.

  logp_at: (params, tokens_BT, valid_BT, id_BTK) -> logp_BTK of the given ids as token t, given the
  tokens before it.
  """

  def distillation_loss(params, batch, key, frozen):
    student_BTK = logp_at(params, batch.tokens_BT, batch.valid_BT, batch.top_id_BTK)
    total = top_k_kl(batch.top_logp_BTK, student_BTK, batch.weight_BT)
    return total, {'distillation_kl': total}

  return distillation_loss
