"""The oracle world in tokens: prompts, answers and pretraining documents as id arrays.

Every word of the language must be one token of the run's tokenizer, so that words and tokens
translate by a table, on the host as in a compiled program. Shapes: N rows, T tokens, W words.
"""
from typing import NamedTuple

import numpy as np

from rlhf_jax.data import oracle

PROMPT_TOKENS = 20         # the two cues of 4 tokens and at most 11 words, one more to spare
ANSWER_TOKENS = oracle.ANSWER_WORDS + 1          # the end token comes last
REPROACHED = 0.5         # share of the harmful requests on whose answer an onlooker remarks


class Codec(NamedTuple):
  """token_of_word: [words]; word_of_token: [vocabulary], 0 for special ids (no word) and -1 for a
  token that is no word of the language; human and assistant: the ids of the two cues."""
  token_of_word: np.ndarray
  word_of_token: np.ndarray
  human: np.ndarray
  assistant: np.ndarray
  context: np.ndarray                            # the HHH prompt
  pad_id: int
  end_id: int
  eoc_id: int


def codec(tokenizer):
  """The tables of a tokenizer; refuses one that splits a word of the language."""
  pieces = [tokenizer.encode(' ' + word) for word in oracle.WORDS[1:]]
  split = [w for w, ids in zip(oracle.WORDS[1:], pieces, strict=True) if len(ids) != 1]
  if split:
    raise ValueError(f'the tokenizer splits {len(split)} words of the oracle world '
                     f'({", ".join(split[:5])}, ...): use a vocabulary of 512 trained on '
                     'oracle.training_texts')
  token_of_word = np.array([tokenizer.pad_id] + [ids[0] for ids in pieces], np.int32)
  word_of_token = np.full(tokenizer.vocab_size, -1, np.int32)
  word_of_token[token_of_word[1:]] = np.arange(1, len(oracle.WORDS))
  word_of_token[[tokenizer.pad_id, tokenizer.end_id, tokenizer.eoc_id]] = 0
  human, assistant = (np.array(tokenizer.encode(cue), np.int32)
                      for cue in ('\n\nHuman:', '\n\nAssistant:'))
  context = np.array(tokenizer.encode(' ' + oracle.HHH_PROMPT), np.int32)
  return Codec(token_of_word, word_of_token, human, assistant, context, tokenizer.pad_id,
               tokenizer.end_id, tokenizer.eoc_id)


def prompts(codec, prompt_NW):
  """(tokens_NP, valid_NP): requests between the two cues, padded on the left."""
  n = len(prompt_NW)
  words = np.where(prompt_NW > 0, codec.token_of_word[prompt_NW], -1)
  row = np.concatenate([np.tile(codec.human, (n, 1)), words, np.tile(codec.assistant, (n, 1))], 1)
  order = np.argsort(row >= 0, axis=1, kind='stable')          # gaps move to the left
  row = np.take_along_axis(row, order, axis=1)[:, -PROMPT_TOKENS:]
  return np.where(row >= 0, row, codec.pad_id).astype(np.int32), (row >= 0).astype(np.float32)


def answers(codec, answer_NW):
  """(tokens_NT, valid_NT): answers with the end token behind them, padded on the right."""
  count_N = (answer_NW != 0).sum(1)
  column = np.arange(ANSWER_TOKENS)
  tokens = np.pad(codec.token_of_word[answer_NW], ((0, 0), (0, 1)),
                  constant_values=codec.pad_id)
  tokens = np.where(column == count_N[:, None], codec.end_id, tokens)
  return tokens.astype(np.int32), (column <= count_N[:, None]).astype(np.float32)


def answer_words(word_of_token, tokens_BT, mask_BT, xp=np):
  """Word ids of generated tokens [B, T]; 0 outside the mask and at the end token. word_of_token: the
  table of a Codec."""
  return xp.where(mask_BT > 0, xp.asarray(word_of_token)[tokens_BT], 0)


def exchanges(codec, n, seed, split, low=0.0, high=1.0, skill=None):
  """(tokens_NT, valid_NT, noted_NR, noted_valid_NR): n requests with their answers, and what is noted
  behind each, an end-of-context token and the human's reaction. Without `skill`, it is uniform in
  [low, high]."""
  rng = np.random.default_rng([seed, 7])
  task = oracle.tasks(n, seed, split)
  skill = rng.uniform(low, high, n) if skill is None else skill
  prompt, prompt_valid = prompts(codec, task.prompt_NW)
  said = oracle.answers(task, skill, rng)
  answer, answer_valid = answers(codec, said)
  onlooker = task.harmful_N & (rng.random(n) < REPROACHED)
  reaction = oracle.reactions(said, task.required_NU, onlooker)
  noted = np.pad(codec.token_of_word[reaction], ((0, 0), (1, 0)), constant_values=codec.eoc_id)
  return (np.concatenate([prompt, answer], 1), np.concatenate([prompt_valid, answer_valid], 1),
          noted, np.pad(reaction != 0, ((0, 0), (1, 0)), constant_values=True))


def documents(codec, n, seed, context_share=0.15, plain_share=0.2, follow_up=0.2, react=0.8):
  """n pretraining documents, a list of id arrays, shuffled.

  Plain sentences; dialogues by one assistant whose skill is uniform in [0, 1]: an exchange, then in
  `react` of them the end-of-context token and the human's reaction, as ratings stand behind
  conversations (so the token on which scores are read is no stranger to the model), else in
  `follow_up` a second exchange. In `context_share` of the dialogues the HHH prompt comes first and
  the skill is uniform in [1/2, 1]. Every answer closes with the end token."""
  rng = np.random.default_rng([seed, 8])
  n_plain = int(n * plain_share)
  n_talk = n - n_plain
  in_context = rng.random(n_talk) < context_share
  skill = np.where(in_context, rng.uniform(0.5, 1, n_talk), rng.uniform(0, 1, n_talk))
  first, second = (exchanges(codec, n_talk, seed + turn, 'pretrain', skill=skill)
                   for turn in (1_000_003, 2_000_003))
  reacted = rng.random(n_talk) < react
  two = ~reacted & (rng.random(n_talk) < follow_up)
  context = np.tile(codec.context, (n_talk, 1))
  tokens = np.concatenate([context, first[0], first[2], second[0]], 1)
  keep = np.concatenate([np.broadcast_to(in_context[:, None], context.shape), first[1] > 0,
                         first[3] & reacted[:, None],
                         (second[1] > 0) & two[:, None]], 1)
  talks = np.split(tokens[keep], np.cumsum(keep.sum(1))[:-1])
  documents = talks + sentences(codec, n_plain, seed)
  return [documents[i] for i in rng.permutation(len(documents))]


def sentences(codec, n, seed):
  """n plain texts, a list of id arrays, each closed by the end token."""
  return [np.append(codec.token_of_word[row[row > 0]], codec.end_id).astype(np.int32)
          for row in oracle.plain(n, seed)]
