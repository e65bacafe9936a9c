"""Where text, comparisons and prompts come from: the oracle world, or the published HH data.

Both give the same few functions, so that no experiment asks which one it runs on. Rows are lists or
arrays of token ids; an answer ends with the end token. A third source is a third function here.
"""
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from rlhf_jax.data import batches, dialogue, hh, oracle, oracle_tokens, sources
from rlhf_jax.data import tokenizer as tokenizers
from rlhf_jax.feedback import worker

SPLITS = 'train', 'validation', 'test'        # of comparisons


class Prompts(NamedTuple):
  """N prompts padded on the left; extra: per-row arrays for Scores; group_N names a kind."""
  tokens_NP: np.ndarray
  valid_NP: np.ndarray
  extra: dict
  group_N: np.ndarray

  def __getitem__(self, rows):
    return Prompts(self.tokens_NP[rows], self.valid_NP[rows],
                   {k: v[rows] for k, v in self.extra.items()}, self.group_N[rows])


class Comparisons(NamedTuple):
  """N comparisons: prompt ids and the two answers' ids as lists, their texts (for the baselines),
  group_N, and the true rewards where they are known (else None)."""
  prompt: list
  chosen: list
  rejected: list
  chosen_text: list
  rejected_text: list
  group_N: np.ndarray
  reward_chosen_N: np.ndarray | None
  reward_rejected_N: np.ndarray | None

  def __getitem__(self, rows):
    return Comparisons(*(x if x is None else x[rows] if isinstance(x, np.ndarray)
                         else [x[i] for i in rows] for x in tuple(self)))


class World(NamedTuple):
  """texts() trains the tokenizer; documents(tokenizer) pretrains; context(tokenizer) is the HHH
  prompt and dialogues(tokenizer) the text it is distilled on; prompts(tokenizer, split, n) with
  split 'ppo' or 'eval'; comparisons(tokenizer, sampler, sizes=None) -> {'train', 'validation',
  'test'} and a dictionary of facts, where sizes = {split: count} stands for those of the config;
  reward and refusal: None, or (tokenizer) -> Score of the truth. sampler: None or
  (tokens_NP, valid_NP, seed) -> (answer tokens_NKT, mask_NKT), two answers each. groups: names of
  group_N, the last that of harmful requests."""
  texts: Callable
  documents: Callable
  context: Callable
  dialogues: Callable
  prompts: Callable
  comparisons: Callable
  reward: Callable | None
  refusal: Callable | None
  groups: tuple
  prompt_width: int
  answer_width: int


def make(data):
  """The World of `config.data`."""
  known = {'oracle': oracle_world, 'hh': hh_world}
  if data.source not in known:
    raise ValueError(f'config.data.source={data.source!r} is unknown: use {", ".join(known)}')
  key = data.to_json()
  if key not in _made:
    _made[key] = known[data.source](data)
  return _made[key]


_made = {}          # worlds are functions of their config; the stages of one process share them


def truths(world, tokenizer):
  """{'true_reward', 'refusal'}: Scores of what the world knows of an answer; {} on real data."""
  known = {'true_reward': world.reward, 'refusal': world.refusal}
  return {name: made(tokenizer) for name, made in known.items() if made}


def is_harmful(world, prompts):
  """bool [N]: the requests that ask for harm; in the published data, those of red-teaming."""
  return prompts.group_N == len(world.groups) - 1


def training_prompts(world, tokenizer, n, helpful_share):
  """n prompts for PPO, first round(n * helpful_share) helpful ones, then harmful requests; None: as the
  source gives them.

  Bai et al. 2022, section 4.4: a larger share of helpful prompts was the cure of policies that refuse
  everything. The share holds for the whole set, so for each epoch; batches, drawn from a permutation,
  vary around it.
  """
  if helpful_share is None:
    return world.prompts(tokenizer, 'ppo', n)
  if not 0 <= helpful_share <= 1:
    raise ValueError(f'config.ppo.helpful_share={helpful_share} is no share: use 0 to 1, or None')
  wanted = [round(n * helpful_share), n - round(n * helpful_share)]
  asked = n
  while True:
    found = world.prompts(tokenizer, 'ppo', asked)
    harmful_N = is_harmful(world, found).astype(int)
    have = np.bincount(harmful_N, minlength=2)
    if (have >= wanted).all():
      rows = [np.flatnonzero(harmful_N == kind)[:count] for kind, count in enumerate(wanted)]
      return found[np.concatenate(rows)]
    if len(harmful_N) < asked:
      raise ValueError(f'config.ppo.helpful_share={helpful_share} of {n} prompts takes {wanted[0]} '
                       f'helpful and {wanted[1]} harmful ones and there are {have[0]} and {have[1]}: '
                       'lower config.ppo.prompts')
    asked *= 2


# ------------------------------------------------------------------------------ the oracle world

def oracle_world(data):
  """Made dialogues with a known true reward; see `data.oracle`."""
  def prompts(tokenizer, split, n):
    task = oracle.tasks(n, data.seed + 1, split)
    tokens, valid = oracle_tokens.prompts(oracle_tokens.codec(tokenizer), task.prompt_NW)
    extra = {'required_BU': task.required_NU, 'harmful_B': task.harmful_N}
    return Prompts(tokens, valid, extra, np.where(task.harmful_N, len(oracle.FAMILIES),
                                                  task.family_N).astype(np.int32))

  def dialogues(tokenizer):
    tokens, valid, *_ = oracle_tokens.exchanges(oracle_tokens.codec(tokenizer), data.dialogues,
                                                  data.seed + 2, 'pretrain')
    return [row[keep > 0] for row, keep in zip(tokens, valid, strict=True)]

  def comparisons(tokenizer, sampler, sizes=None):
    table = oracle_tokens.codec(tokenizer)
    made, facts = {}, {}
    for name, size in (sizes or _sizes(data)).items():
      number = SPLITS.index(name)
      # the weakest are dropped, and pairs of equal answers: a tenth of a policy's, a quarter of ours
      asked = int(size / (1 - worker.WEAKEST_SHARE) * (1.25 if sampler else 1.5)) + 8
      task = oracle.tasks(asked, data.seed + 10 + number, 'eval' if name == 'test' else 'compare')
      made[name], facts[name] = _judged(table, task, sampler, data, number, size)
    return made, facts.get('test', {})

  def reward(tokenizer):
    from rlhf_jax.rewards import oracle as rewards
    table = oracle_tokens.codec(tokenizer)
    return rewards.true_reward(table.word_of_token, oracle_tokens.PROMPT_TOKENS)

  def refusal(tokenizer):
    from rlhf_jax.rewards import oracle as rewards
    table = oracle_tokens.codec(tokenizer)
    return rewards.refusal(table.word_of_token, oracle_tokens.PROMPT_TOKENS)

  return World(
    texts=lambda: oracle.training_texts(data.seed),
    documents=lambda tokenizer: oracle_tokens.documents(
      oracle_tokens.codec(tokenizer), data.documents, data.seed),
    context=lambda tokenizer: oracle_tokens.codec(tokenizer).context,
    dialogues=dialogues, prompts=prompts, comparisons=comparisons, reward=reward,
    refusal=refusal, groups=(*oracle.FAMILIES, 'harmful'), prompt_width=oracle_tokens.PROMPT_TOKENS,
    answer_width=oracle_tokens.ANSWER_TOKENS)


def _judged(table, task, sampler, data, number, size):
  """Comparisons of two answers to each request as a simulated worker sees them, and its noise."""
  rng = np.random.default_rng([data.seed, 20 + number])
  tokens, valid = oracle_tokens.prompts(table, task.prompt_NW)
  if sampler is None:
    skill = rng.uniform(data.least_skill, 1.0, (2, len(tokens)))
    pair = [oracle_tokens.answers(table, oracle.answers(task, q, rng)) for q in skill]
    tokens_NKT, mask_NKT = (np.stack(x, 1) for x in zip(*pair, strict=True))
  else:
    tokens_NKT, mask_NKT = sampler(tokens, valid, data.seed + number)
  said = [oracle_tokens.answer_words(table, tokens_NKT[:, k], mask_NKT[:, k]) for k in (0, 1)]
  reward = [oracle.reward(words, task.required_NU, task.harmful_N) for words in said]
  differ = np.flatnonzero((said[0] != said[1]).any(1))    # two equal answers are nothing to compare
  task, tokens, valid, tokens_NKT, mask_NKT = (x[differ] for x in (task, tokens, valid, tokens_NKT,
                                                                   mask_NKT))
  said, reward = ([x[differ] for x in pair] for pair in (said, reward))
  verdict = worker.judge(*reward, data.beta, rng)
  agreement = worker.agreement(*reward, verdict, data.beta, rng)
  kept = np.flatnonzero(verdict.kept_N)[:size]
  if len(kept) < size:
    print(f'{len(kept)} comparisons instead of {size}: the other pairs were of equal answers')
  first = verdict.prefers_a_N[kept]
  rows = [np.where(first, 0, 1), np.where(first, 1, 0)]                 # chosen, rejected
  ids = [[tokens_NKT[n, k][mask_NKT[n, k] > 0] for n, k in zip(kept, column, strict=True)]
         for column in rows]
  texts = [[oracle.text(said[k][n]) for n, k in zip(kept, column, strict=True)] for column in rows]
  rewards = [np.stack(reward, 1)[kept, column] for column in rows]
  group = np.where(task.harmful_N, len(oracle.FAMILIES), task.family_N)[kept].astype(np.int32)
  prompt = [tokens[n][valid[n] > 0] for n in kept]
  facts = {'agreement': agreement, 'ceiling': worker.ceiling(*rewards),
           'reward_difference_sd': float(np.std(reward[0] - reward[1]))}
  return Comparisons(prompt, *ids, *texts, group, *rewards), facts


# ------------------------------------------------------------------------- the published HH data

HH_CONTEXT = ('\n\nThis is a talk between a person and a careful assistant. It answers what was asked, '
              'clearly and kindly, says so when it does not know, never makes things up, and will '
              'not help anyone to do harm.')


def hh_world(data):
  """Comparisons of Bai et al. 2022 as published, prompts from them, and plain text beside them.

  Validation is `data.validation_share` of train by a hash of the first human turn. The context is
  a short description of the HHH assistant in our words: the paper's prompt has 4,600.
  """
  if data.long_answers not in ('drop', 'error'):
    raise ValueError(f'config.data.long_answers={data.long_answers!r} is unknown: use drop, error')
  pairs = hh.load_pairs(data.dir or None, data.cache_dir or None, on_error=data.on_error)
  if pairs.dropped:
    print('HH records left out: ' + ', '.join(f'{n} {kind} (as {where})'
                                              for kind, (n, where) in pairs.dropped.items()))
  train = pairs.split == 'train'
  validation = train & hh.validation_mask(pairs.prompt, data.validation_share)
  rows = {'train': np.flatnonzero(train & ~validation), 'validation': np.flatnonzero(validation),
          'test': np.flatnonzero(~train)}
  folder = sources.data_dir(data.dir or None)

  def texts():
    i = rows['train']
    return [*_plain(folder), *(pairs.prompt[i] + pairs.chosen[i])]

  def documents(tokenizer):
    i = rows['train']
    talks = encode_dialogues(tokenizer, pairs.prompt[i] + pairs.chosen[i], closed=True)
    plain = [[*ids, tokenizer.end_id] for ids in tokenizer.encode_batch(_plain(folder))]
    return talks + plain

  def dialogues(tokenizer):
    i = rows['train'][:data.dialogues]
    return encode_dialogues(tokenizer, pairs.prompt[i] + pairs.chosen[i], closed=True)

  def prompts(tokenizer, split, n):
    unique = {pairs.prompt[i]: i for i in rows['train' if split == 'ppo' else 'test']}
    order = np.random.default_rng([data.seed, 3]).permutation(len(unique))[:n]
    if len(order) < n:
      print(f'{split}: {len(order)} prompts, fewer than the {n} asked for')
    chosen = [list(unique)[k] for k in order]
    ids = [row[-data.prompt_width:] for row in encode_dialogues(tokenizer, chosen, closed=False)]
    tokens, valid = batches.pad(ids, data.prompt_width, 'left', tokenizer.pad_id)
    group = [hh.SUBSETS.index(pairs.subset[unique[p]]) for p in chosen]
    return Prompts(tokens, valid, {}, np.array(group, np.int32))

  def comparisons(tokenizer, sampler, sizes=None):
    del sampler                                             # the answers are part of the data
    made, dropped = {}, {}
    for name, size in (sizes or _sizes(data)).items():
      made[name], dropped[name] = _published(tokenizer, pairs, _sample(rows[name], size, data.seed),
                                             data.context, data.long_answers)
    if any(dropped.values()):
      print(f'comparisons with an answer longer than {data.context} tokens, left out: '
            + ', '.join(f'{n} of {name}' for name, n in dropped.items()))
    return made, {'too_long': dropped}

  return World(
    texts=texts, documents=documents, context=lambda tokenizer: tokenizer.encode(HH_CONTEXT),
    dialogues=dialogues, prompts=prompts, comparisons=comparisons, reward=None, refusal=None,
    groups=hh.SUBSETS, prompt_width=data.prompt_width, answer_width=data.answer_width)


def _sizes(data):
  """How many comparisons of each split the config asks for."""
  counts = data.comparisons, data.validation_comparisons, data.test_comparisons
  return dict(zip(SPLITS, counts, strict=True))


def _plain(folder):
  return [] if folder is None else sources.texts(folder)


def _sample(rows, limit, seed):
  """All rows, or `limit` of them; 0 means all."""
  if not limit or limit >= len(rows):
    return rows
  return np.sort(np.random.default_rng([seed, 4]).permutation(rows)[:limit])


def encode_dialogues(tokenizer, texts, closed):
  """Ids of transcripts, each assistant turn closed by the end token: what is sampled in RL is then
  what was seen in training. closed False: the transcripts end in an open assistant cue."""
  turns = [dialogue.parse(text) for text in texts]
  pieces = tokenizer.encode_batch([dialogue.render([t]) for ts in turns for t in ts])
  rows, at = [], 0
  for ts in turns:
    row = []
    for n, turn in enumerate(ts):
      row += pieces[at]
      at += 1
      if turn.role == 'assistant' and (closed or n + 1 < len(ts)):
        row.append(tokenizer.end_id)
    rows.append(row)
  return rows


def _published(tokenizer, pairs, rows, context, long_answers):
  """(Comparisons, how many were left out) of the given records. Prompts are cut from the left,
  answers never: one that does not fit is an error, or its pair is left out (long_answers 'drop')."""
  prompt = encode_dialogues(tokenizer, pairs.prompt[rows], closed=False)
  sides = [[[*ids, tokenizer.end_id] for ids in tokenizer.encode_batch(list(texts[rows]))]
           for texts in (pairs.chosen, pairs.rejected)]
  length_N = np.array([max(len(a), len(b)) + 1 for a, b in zip(*sides, strict=True)])
  if long_answers == 'error' and length_N.max(initial=0) > context:
    raise ValueError(f'an answer of {length_N.max() - 1} tokens does not fit into config.data.context='
                     f'{context} with the end-of-context token: use {length_N.max()} or more, or '
                     "config.data.long_answers='drop'")
  fits = np.flatnonzero(length_N <= context)
  cut = [dialogue.truncate_left(prompt[i], max(sides[0][i], sides[1][i], key=len), context - 1)
         for i in fits]
  answers = [[side[i] for i in fits] for side in sides]
  rows = rows[fits]
  group = np.array([hh.SUBSETS.index(s) for s in pairs.subset[rows]], np.int32)
  return Comparisons(cut, *answers, list(pairs.chosen[rows]), list(pairs.rejected[rows]), group,
                     None, None), len(length_N) - len(fits)


def tokenizer(world, path, vocab_size):
  """The tokenizer saved at `path`, trained on the world's texts when it is not there yet."""
  if path.exists():
    return tokenizers.load(path)
  made = tokenizers.train(world.texts(), vocab_size)
  made.save(path)
  return made
