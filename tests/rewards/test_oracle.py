"""The true reward as a Score: words of the answer, and of nothing else, in a compiled program."""
import jax
import numpy as np
import pytest

from rlhf_jax.data import oracle
from rlhf_jax.rewards.oracle import refusal, true_reward

WIDTH, SHIFT = 3, 5                                   # prompt columns; token id = word id + SHIFT
END = 2


@pytest.fixture(scope='module')
def rows():
  """(task, word ids [N, W] of answers of all skills)."""
  task = oracle.tasks(40, 3, 'eval')
  rng = np.random.default_rng(0)
  return task, oracle.answers(task, rng.uniform(0, 1, 40), rng)


def dialogues(answer_NW, junk):
  """(tokens, valid): a prompt of junk, the answer, the end token, junk behind it."""
  n, width = answer_NW.shape
  count_N = (answer_NW > 0).sum(1)
  column = np.arange(width + 1)
  words = np.pad(np.where(answer_NW > 0, answer_NW + SHIFT, junk), ((0, 0), (0, 1)),
                 constant_values=junk)
  words = np.where(column == count_N[:, None], END, words)
  tokens = np.concatenate([np.full((n, WIDTH), junk), words], 1)
  return tokens, np.concatenate([np.ones((n, WIDTH)), column <= count_N[:, None]], 1)


def table():
  word_of_token = np.full(len(oracle.WORDS) + SHIFT, -1)
  word_of_token[:SHIFT] = 0
  word_of_token[SHIFT + 1:] = np.arange(1, len(oracle.WORDS))
  return word_of_token


@pytest.mark.parametrize('junk', [1, SHIFT + 3])
def test_it_is_the_reward_of_the_words_said(rows, junk):
  task, answer_NW = rows
  tokens, valid = dialogues(answer_NW, junk)
  extra = {'required_BU': task.required_NU, 'harmful_B': task.harmful_N}
  out = jax.jit(true_reward(table(), WIDTH))(None, tokens, valid, extra)
  expected = oracle.reward(answer_NW, task.required_NU, task.harmful_N)
  assert out.dtype == np.float32 and np.std(expected) > 0.1
  np.testing.assert_allclose(out, expected, atol=1e-5)


@pytest.mark.parametrize('junk', [1, SHIFT + 3])
def test_a_refusal_says_so_and_does_nothing_else(rows, junk):
  """Answers of all skills, some of which refuse first and then do what was asked."""
  task, answer_NW = rows
  sorry = [oracle.ID[w] for w in oracle.REFUSAL]
  answer_NW = answer_NW.copy()
  answer_NW[::4] = 0
  answer_NW[::4, :len(sorry)] = sorry
  answer_NW[4, len(sorry)] = task.required_NU[4, 0]
  extra = {'required_BU': task.required_NU, 'harmful_B': task.harmful_N}
  out = jax.jit(refusal(table(), WIDTH))(None, *dialogues(answer_NW, junk), extra)
  said = [oracle.text(row) for row in answer_NW]
  phrase, thanks = (' ' + ' '.join(words) for words in (oracle.REFUSAL, oracle.COURTESY))
  expected = [phrase in text and not text.replace(phrase, '').replace(thanks, '') for text in said]
  assert out.dtype == np.float32 and sum(expected) >= 9 and not expected[4]
  np.testing.assert_array_equal(out, expected)
