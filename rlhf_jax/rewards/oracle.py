"""What the oracle world knows of an answer, as Scores inside compiled programs: its true reward, and
whether it is a refusal.

Both are of dialogues whose answer starts at column `prompt_width` and have no parameters; extra:
'required_BU' and 'harmful_B', the task of each row. word_of_token: the table of
`data.oracle_tokens.Codec`.
"""
import jax.numpy as jnp

from rlhf_jax.data import oracle, oracle_tokens


def true_reward(word_of_token, prompt_width):
  """The Score of `data.oracle.reward`."""
  def score(params, tokens_BT, valid_BT, extra):
    del params
    words_BT = _words(word_of_token, prompt_width, tokens_BT, valid_BT)
    return oracle.reward(words_BT, extra['required_BU'], extra['harmful_B'],
                         xp=jnp).astype(jnp.float32)
  return score


def refusal(word_of_token, prompt_width):
  """The Score that is 1 where the answer refuses and does nothing of what was asked, else 0."""
  def score(params, tokens_BT, valid_BT, extra):
    del params
    words_BT = _words(word_of_token, prompt_width, tokens_BT, valid_BT)
    return oracle.components(words_BT, extra['required_BU'], xp=jnp)['refused'].astype(jnp.float32)
  return score


def _words(word_of_token, prompt_width, tokens_BT, valid_BT):
  """The words of the answers, 0 where there is none."""
  return oracle_tokens.answer_words(word_of_token, tokens_BT[:, prompt_width:],
                                    valid_BT[:, prompt_width:], xp=jnp)
