"""Scores of dialogues by a preference model."""
import jax.numpy as jnp

from rlhf_jax.models import heads


def preference_model(model, eoc_id):
  """A Score: the scalar head of `model`, read on an end-of-context token behind the dialogue.

  The token goes into the first free column behind the last valid one (a column is added), so an
  answer that was cut off is scored like any other (Bai et al. appendix A.2: the score is read on the
  end-of-context token). eoc_id None: read on the last valid token, for a model that learnt it there.
  `model` is a `models.heads.scalar` model.
  """
  def score(params, tokens_BT, valid_BT, extra=None):
    del extra
    if eoc_id is not None:
      tokens_BT, valid_BT = with_end_of_context(tokens_BT, valid_BT, eoc_id)
    return heads.last(model, params, tokens_BT, valid_BT)
  return score


def with_end_of_context(tokens_BT, valid_BT, eoc_id):
  """(tokens, valid), one column wider, with eoc_id behind the last valid token of each row."""
  tokens_BT, valid_BT = (jnp.pad(x, ((0, 0), (0, 1))) for x in (tokens_BT, valid_BT))
  width = tokens_BT.shape[1]
  column_T = jnp.arange(width)
  end_B = jnp.max(jnp.where(valid_BT > 0, column_T[None] + 1, 0), axis=1)
  here_BT = column_T[None] == end_B[:, None]
  return jnp.where(here_BT, eoc_id, tokens_BT), jnp.where(here_BT, 1.0, valid_BT)
