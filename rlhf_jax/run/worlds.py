"""Where text, comparisons and prompts come from: the oracle world, the published HH data, or ranked
texts of forums and edits (PMP).

All give the same few functions, so that no experiment asks which one it runs on. Rows are lists or
arrays of token ids; an answer ends with the end token. A further source is a further function here.
"""
import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from rlhf_jax.data import batches, dialogue, hh, oracle, oracle_tokens, pmp, sources
from rlhf_jax.data import pairs as text_pairs
from rlhf_jax.data import tokenizer as tokenizers
from rlhf_jax.data.pairs import Comparisons
from rlhf_jax.feedback import worker
from rlhf_jax.rewards import oracle as oracle_rewards

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


class World(NamedTuple):
  """texts() trains the tokenizer; documents(tokenizer) pretrains; context(tokenizer) is the HHH
  prompt, and it is distilled on dialogues(tokenizer), which open with the human's cue, and on
  generic(tokenizer, n, width), at most n pieces of plain text; prompts(tokenizer, split, n) with
  split 'ppo' or 'eval'; comparisons(tokenizer, sampler, sizes=None) -> {'train', 'validation',
  'test'} and a dictionary of facts, where sizes = {split: count} stands for those of the config;
  reward and refusal: None, or (tokenizer) -> Score of the truth. sampler: None or
  (tokens_NP, valid_NP, seed) -> (answer tokens_NKT, mask_NKT), two answers each. groups: names of
  group_N; harmful: the one of requests that ask for harm, None where there is none."""
  texts: Callable
  documents: Callable
  context: Callable
  dialogues: Callable
  generic: Callable
  prompts: Callable
  comparisons: Callable
  reward: Callable | None
  refusal: Callable | None
  groups: tuple
  harmful: str | None
  prompt_width: int
  answer_width: int


def make(data):
  """The World of `config.data`."""
  known = {'oracle': oracle_world, 'hh': hh_world, 'pmp': pmp_world}
  if data.source not in known:
    raise ValueError(f'config.data.source={data.source!r} is unknown: use {", ".join(known)}')
  if _TELLS[data.source] not in data:
    raise ValueError(f'config.data.source={data.source!r} has settings of its own, and config.data has '
                     'those of another source: take the variant of the config for it, as in '
                     f'--config=FILE:{data.source}')
  key = data.to_json()
  if key not in _made:
    _made[key] = known[data.source](data)
  return _made[key]


_TELLS = {'oracle': 'beta', 'hh': 'prompt_width', 'pmp': 'binarise'}     # a setting of each alone
_made = {}          # worlds are functions of their config; the stages of one process share them


def truths(world, tokenizer):
  """{'true_reward', 'refusal'}: Scores of what the world knows of an answer; {} on real data."""
  known = {'true_reward': world.reward, 'refusal': world.refusal}
  return {name: made(tokenizer) for name, made in known.items() if made}


def is_harmful(world, prompts):
  """bool [N]: the requests that ask for harm; in the published data, those of red-teaming."""
  return prompts.group_N == (world.groups.index(world.harmful) if world.harmful else -1)


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


def written_prompts(world, tokenizer, path):
  """The Prompts of a file with a transcript in `prompt` on each line; those that are too long for the
  world's prompts are left out and counted. Nothing is known of them, so their group is -1."""
  read, _ = sources.read_jsonl(path, ('prompt',))
  rows = encode_dialogues(tokenizer, [record['prompt'] for record in read], closed=False)
  kept = [row for row in rows if len(row) <= world.prompt_width]
  if not kept:
    raise ValueError(f'{path}: not one prompt of at most {world.prompt_width} tokens: write some with '
                     'experiments.generate_prompts')
  print(f'{path}: {len(kept)} prompts, {len(rows) - len(kept)} longer than {world.prompt_width} tokens '
        'left out')
  tokens, valid = batches.pad(kept, world.prompt_width, 'left', tokenizer.pad_id)
  return Prompts(tokens, valid, {}, np.full(len(kept), -1, np.int32))


def together(a, b):
  """Two sets of Prompts as one, without what is known of their rows."""
  return Prompts(*(np.concatenate([getattr(a, name), getattr(b, name)]) if name != 'extra' else {}
                   for name in Prompts._fields))


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

  def generic(tokenizer, n, width):
    made = oracle_tokens.sentences(oracle_tokens.codec(tokenizer), n, data.seed + 3)
    return [row[:width] for row in made]

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
    table = oracle_tokens.codec(tokenizer)
    return oracle_rewards.true_reward(table.word_of_token, oracle_tokens.PROMPT_TOKENS)

  def refusal(tokenizer):
    table = oracle_tokens.codec(tokenizer)
    return oracle_rewards.refusal(table.word_of_token, oracle_tokens.PROMPT_TOKENS)

  return World(
    texts=lambda: oracle.training_texts(data.seed),
    documents=lambda tokenizer: oracle_tokens.documents(
      oracle_tokens.codec(tokenizer), data.documents, data.seed),
    context=lambda tokenizer: oracle_tokens.codec(tokenizer).context,
    dialogues=dialogues, generic=generic, prompts=prompts, comparisons=comparisons, reward=reward,
    refusal=refusal, groups=(*oracle.FAMILIES, 'harmful'), harmful='harmful',
    prompt_width=oracle_tokens.PROMPT_TOKENS,
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
  said = [oracle_tokens.answer_words(table.word_of_token, tokens_NKT[:, k], mask_NKT[:, k])
          for k in (0, 1)]
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
  _check(data)
  pairs = hh.load_pairs(data.dir or None, data.cache_dir or None, on_error=data.on_error)
  rows = _rows(pairs, hh.validation_mask(pairs.prompt, data.validation_share))
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

  def generic(tokenizer, n, width):
    rows = tokenizer.encode_batch(_plain(folder)) if n else []
    pieces = [row[at:at + width] for row in rows for at in range(0, len(row), width)]
    return [pieces[i] for i in np.random.default_rng([data.seed, 6]).permutation(len(pieces))[:n]]

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
    encode = functools.partial(encode_dialogues, tokenizer, closed=False)
    return _published(tokenizer, pairs, rows, sizes or _sizes(data), data, encode, hh.SUBSETS)

  return World(
    texts=texts, documents=documents, context=lambda tokenizer: tokenizer.encode(HH_CONTEXT),
    dialogues=dialogues, generic=generic, prompts=prompts, comparisons=comparisons, reward=None,
    refusal=None, groups=hh.SUBSETS, harmful='harmless-base',
    prompt_width=data.prompt_width, answer_width=data.answer_width)


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


# ---------------------------------------------------------------- ranked texts, to start from (PMP)

def pmp_world(data):
  """Ranked texts of `data.pmp` for preference-model pretraining; also text for a language model.

  Validation is `data.validation_share` of train by question, post, page or document. With
  data.binarise each pair becomes the two of `data.pairs.binarised`. There are no prompts to answer.
  """
  _check(data)
  pairs = pmp.load_pairs(data.dir or None, data.cache_dir or None, data.on_error, data.subsets,
                         data.subreddits)
  rows = _rows(pairs, pairs.place < data.validation_share)
  folder, groups = sources.data_dir(data.dir or None), tuple(pmp.READERS)

  def texts():
    return [*_plain(folder), *(pairs.prompt + pairs.chosen)[rows['train']]]

  def comparisons(tokenizer, sampler, sizes=None):
    del sampler
    sizes = sizes or _sizes(data)
    if not data.binarise:
      return _published(tokenizer, pairs, rows, sizes, data, tokenizer.encode_batch, groups)
    labels = [tokenizer.encode(label) for label in pmp.LABELS]
    made, facts = _published(tokenizer, pairs, rows, sizes, data, tokenizer.encode_batch, groups,
                             room=max(map(len, labels)))
    return {name: text_pairs.binarised(v, labels, pmp.LABELS) for name, v in made.items()}, facts

  def no_dialogues(*_):
    raise ValueError("config.data.source='pmp' holds ranked texts, nothing to answer: it is for "
                     'pretrain_lm and train_pm; use hh or oracle')

  return World(
    texts=texts, documents=lambda tokenizer: [[*ids, tokenizer.end_id]
                                              for ids in tokenizer.encode_batch(texts())],
    context=no_dialogues, dialogues=no_dialogues, generic=no_dialogues, prompts=no_dialogues,
    comparisons=comparisons, reward=None, refusal=None, groups=groups, harmful=None,
    prompt_width=0, answer_width=0)


# ----------------------------------------------------------------------- what published data share

def _sizes(data):
  """How many comparisons of each split the config asks for."""
  counts = data.comparisons, data.validation_comparisons, data.test_comparisons
  return dict(zip(SPLITS, counts, strict=True))


def _check(data):
  if data.long_answers not in ('drop', 'error'):
    raise ValueError(f'config.data.long_answers={data.long_answers!r} is unknown: use drop, error')


def _plain(folder):
  return [] if folder is None else sources.texts(folder)


def _rows(pairs, held_out):
  """The rows of each split, those of train that are `held_out` as validation; says what was left out
  when the pairs were read."""
  if pairs.dropped:
    print('records left out: ' + ', '.join(f'{n} {kind} (as {where})'
                                           for kind, (n, where) in pairs.dropped.items()))
  train = pairs.split == 'train'
  return {'train': np.flatnonzero(train & ~held_out), 'validation': np.flatnonzero(train & held_out),
          'test': np.flatnonzero(~train)}


def _published(tokenizer, pairs, rows, sizes, data, encode, groups, room=0):
  """({split: Comparisons}, facts): as many of each as sizes = {split: count} says, 0 for all, in
  data.context tokens less `room`; says what was left out or cut."""
  made, lost, cut = {}, {}, {}
  for name, size in sizes.items():
    i = text_pairs.sample(rows[name], size, data.seed)
    made[name], need_N, cut_N = text_pairs.tokenise(tokenizer, pairs, i, encode, groups,
                                                    data.context - room)
    lost[name], cut[name] = i[need_N > data.context - room], i[cut_N]
    if data.long_answers == 'error' and len(lost[name]):
      raise ValueError(f'an answer of {need_N.max() - 1} tokens does not fit into config.data.context='
                       f'{data.context} with the end-of-context token: use {need_N.max() + room} or '
                       "more, or config.data.long_answers='drop'")
    if not made[name].prompt:
      raise ValueError(f'not one comparison for {name} in {data.context} tokens: more files, another '
                       'config.data.validation_share or a longer context are needed')
  for what, where in (('whose answers do not fit, left out', lost), ('with a prompt cut', cut)):
    if first := next((pairs.where[i[0]] for i in where.values() if len(i)), None):
      print(f'comparisons in {data.context} tokens {what}: '
            + ', '.join(f'{len(i)} of {name}' for name, i in where.items()) + f' (as {first})')
  return made, {'left_out': pairs.dropped,
                'too_long': {name: len(i) for name, i in lost.items()},
                'cut_prompts': {name: len(i) for name, i in cut.items()}}


def tokenizer(world, path, vocab_size):
  """The tokenizer saved at `path`, trained on the world's texts when it is not there yet."""
  if path.exists():
    return tokenizers.load(path)
  made = tokenizers.train(world.texts(), vocab_size)
  made.save(path)
  return made
