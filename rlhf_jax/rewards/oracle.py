"""The oracle world's true reward as a Score, inside compiled programs."""
import jax.numpy as jnp

from rlhf_jax.data import oracle


def true_reward(word_of_token, prompt_width):
  """A Score of dialogues whose answer starts at column `prompt_width`; no parameters.

  extra: 'required_BU' and 'harmful_B', the task of each row. word_of_token: the table of
  `data.oracle_tokens.Codec`.
  """
  def score(params, tokens_BT, valid_BT, extra):
    del params
    said_BT = valid_BT[:, prompt_width:] > 0
    words_BT = jnp.asarray(word_of_token)[tokens_BT[:, prompt_width:]]
    return oracle.reward(jnp.where(said_BT, words_BT, 0), extra['required_BU'],
                         extra['harmful_B'], xp=jnp).astype(jnp.float32)
  return score
