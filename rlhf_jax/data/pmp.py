"""Ranked texts for preference-model pretraining (PMP): forum answers, comments and edited texts.

Askell et al. 2021, appendix C.1, used by Bai et al. 2022, section 3.1. Files of a source, as published
or prepared -> prepared array_record data in a cache -> `load_pairs`: prompt, better text, worse text.
One pair a question, post or edit, so each text is seen once. Found below the data folder:

  pmp/stackexchange/*/Posts.xml             a site's public dump, or
  pmp/stackexchange/*.jsonl.gz              title, body, accepted, answers [id, score, body]
  pmp/reddit/{submissions,comments}*.jsonl  Pushshift's fields, one or several files of each
  pmp/wikipedia/*.jsonl.gz                  title, section, before, after, comment
  pmp/edits/*.jsonl.gz                      before, after, doc_id

Files called train or test are that split; of all others every hundredth key is for test, the share of
the paper. What cannot be used is counted by kind with its first example, never passed over silently.
"""
import functools
import hashlib
import html
import json
import math
import random
import re
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from rlhf_jax.data import sources

LABELS = ('GOOD:', 'BAD:')       # before a text, where a ranked pair is made into two binary ones
SPLITS, TEST_SHARE = ('train', 'test'), 0.01
_GONE = ('[deleted]', '[removed]')
_BOT = re.compile(r'AutoModerator|.*bot', re.IGNORECASE)
_REVERT = re.compile(r'\b(?:rv|rvv|revert\w*|undid|undo|undoing|rollback|restor\w*)\b', re.IGNORECASE)
_VANDALISM = re.compile(r'\b(?:rvv|vandal\w*)\b', re.IGNORECASE)


class Pair(NamedTuple):
  """chosen and rejected start with a space behind the prompt. place: a number in [0, 1) that all
  pairs of one question, post, page or document share; where: file and line."""
  prompt: str
  chosen: str
  rejected: str
  split: str
  place: float
  where: str


class Dropped(NamedTuple):
  """Something that was read and is no pair: why, and where it stands."""
  kind: str
  where: str


class Pairs(NamedTuple):
  """Pairs as columns [N]; subset: the source. dropped: {'source kind': (count, one example)}."""
  prompt: np.ndarray
  chosen: np.ndarray
  rejected: np.ndarray
  subset: np.ndarray
  split: np.ndarray
  where: np.ndarray
  place: np.ndarray
  dropped: dict


# ------------------------------------------------------------------------------- from file to pairs

def answer_score(votes, accepted):
  """round(log2(1 + upvotes)), or -1 below zero upvotes; 1 more for the accepted answer."""
  return (round(math.log2(1 + votes)) if votes >= 0 else -1) + bool(accepted)


def stackexchange(files):
  """Two answers with different scores to each question: a Pair or a Dropped for each."""
  for path in files:
    for found in (_posts if path.suffix == '.xml' else _prepared)(path):
      if isinstance(found, Dropped):
        yield found
        continue
      number, question = found
      scored = []
      for answer in question['answers']:
        votes, text = answer.get('score'), answer.get('body') or ''
        if not _is_number(votes) or not text.strip():
          yield Dropped('empty' if _is_number(votes) else 'no_score',
                        _where(path, answer.get('line', number)))
        else:
          accepted = answer.get('id') is not None and answer['id'] == question.get('accepted')
          scored.append((answer_score(votes, accepted), text))
      prompt = f'Question: {question["title"].strip()}\n\n{question["body"].strip()}\n\nAnswer:'
      yield _two(path, number, prompt, [(prompt, scored)])


def _prepared(path):
  """(line number, question) or a Dropped for each line of prepared questions."""
  for number, question, problem in sources.records(path, ('title', 'body')):
    if problem:
      yield Dropped('unreadable', problem)
    elif not all(isinstance(a, dict) for a in question.get('answers') or [None]):
      yield Dropped('no_answers', _where(path, number))
    else:
      yield number, question


def _posts(path):
  """(line number, question) or a Dropped for each question of a Posts.xml. Answers stand anywhere
  behind their question, so the words of the whole site are in memory."""
  questions, answers = {}, defaultdict(list)
  for number, row, problem in sources.xml_rows(path):
    if problem:
      yield Dropped('unreadable', problem)
    elif row.get('PostTypeId') == '1' and (row.get('Id') is None or row['Id'] in questions):
      yield Dropped('no_id_of_its_own', _where(path, number))
    elif row.get('PostTypeId') == '1':
      questions[row['Id']] = number, {
        'title': row.get('Title', ''), 'body': plain_html(row.get('Body', '')),
        'accepted': row.get('AcceptedAnswerId')}
    elif row.get('PostTypeId') == '2':
      score = row.get('Score', '')
      answers[row.get('ParentId')].append({
        'line': number, 'id': row.get('Id'), 'body': plain_html(row.get('Body', '')),
        'score': int(score) if re.fullmatch(r'-?\d+', score) else None})
  for id, (number, question) in questions.items():
    yield number, question | {'answers': answers.pop(id, [])}
  yield from (Dropped('no_question', _where(path, answer['line']))
              for found in answers.values() for answer in found)


def reddit(files, subreddits=()):
  """Two comment chains under a post that differ in their last comment alone, the one with the higher
  score is better: a Pair or a Dropped for each post and for each comment that cannot be used.

  subreddits: those to take, () for all. The paper takes about fifty and leaves r/AmItheAsshole out.
  """
  posts, said = {}, defaultdict(list)
  for path in (p for p in files if p.name.startswith('submissions')):
    for number, post, problem in sources.records(
        path, ('id', 'subreddit', 'author', 'title', 'selftext')):
      if problem:
        yield Dropped('unreadable', problem)
      elif subreddits and post['subreddit'] not in subreddits:
        yield Dropped('other_subreddit', _where(path, number))
      elif kind := _not_by_a_person(post['author'], post['selftext']):
        yield Dropped(kind, _where(path, number))
      elif f't3_{post["id"]}' in posts:
        yield Dropped('no_id_of_its_own', _where(path, number))
      else:
        posts[f't3_{post["id"]}'] = path, number, post
  for path in (p for p in files if p.name.startswith('comments')):
    for number, comment, problem in sources.records(
        path, ('id', 'parent_id', 'link_id', 'author', 'body')):
      if problem:
        yield Dropped('unreadable', problem)
      elif kind := _unusable(comment, posts):
        yield Dropped(kind, _where(path, number))
      else:
        said[comment['link_id']].append((_where(path, number), comment))
  for id, (path, number, post) in posts.items():
    start = f'SUBMISSION by {post["author"]}: {post["title"]}\n\n{post["selftext"]}'.strip()
    chains, cut_off = _chains(id, start, said.pop(id, []))
    yield from (Dropped('parent_left_out', where) for where in cut_off)
    yield _two(path, number, start, chains)


def _unusable(comment, posts):
  """Why a comment cannot be in a chain, or None."""
  if comment['link_id'] not in posts:
    return 'post_left_out'
  if not comment['body'].strip():
    return 'empty'
  if not _is_number(comment.get('score')):
    return 'no_score'
  return _not_by_a_person(comment['author'], comment['body'])


def _chains(post_id, start, comments):
  """([(the chain so far, [(score, next comment)])] of everything that was answered, where the
  comments stand that hang on something left out)."""
  answers, chains, todo = defaultdict(list), [], [(post_id, start)]
  for where, comment in comments:
    answers[comment['parent_id']].append((where, comment))
  while todo:
    parent, chain = todo.pop()
    here = [comment for _, comment in answers.pop(parent, [])]
    texts = [f'{comment["author"]}: {comment["body"].strip()}' for comment in here]
    chain += '\n\nCOMMENT by'
    chains.append((chain, [(c['score'], text) for c, text in zip(here, texts, strict=True)]))
    todo += [(f't1_{c["id"]}', f'{chain} {text}') for c, text in zip(here, texts, strict=True)]
  return chains, [where for found in answers.values() for where, _ in found]


def wikipedia(files):
  """Sections whose vandalism was reverted, by the comment of the edit: the restored text is better."""
  for path in files:
    fields = ('title', 'section', 'before', 'after', 'comment')
    for number, edit, problem in sources.records(path, fields):
      if problem:
        yield Dropped('unreadable', problem)
      elif not (_REVERT.search(edit['comment']) and _VANDALISM.search(edit['comment'])):
        yield Dropped('no_vandalism_reverted', _where(path, number))
      else:
        prompt = (f'PAGE TITLE: {edit["title"]}\n\nSECTION TITLE: {edit["section"]}\n\n'
                  'SECTION BODY:')
        yield _pair(path, number, prompt, plain_wikitext(edit['after']),
                    plain_wikitext(edit['before']), edit['title'])


def edits(files):
  """Sentences before and after a human edit, in place of the reverted vandalism of the paper: that an
  edit makes a text better is an approximation. Nothing is known of the page. Spaces are made one:
  where records are cut out of a page, two of them can betray the side that was edited."""
  for path in files:
    for number, edit, problem in sources.records(path, ('before', 'after')):
      if problem:
        yield Dropped('unreadable', problem)
      else:
        after, before = (' '.join(edit[side].split()) for side in ('after', 'before'))
        yield _pair(path, number, 'SECTION BODY:', after, before,
                    str(edit.get('doc_id') or before))


READERS = {'stackexchange': stackexchange, 'reddit': reddit, 'wikipedia': wikipedia, 'edits': edits}


def _two(path, number, key, groups):
  """A Pair of two texts with different scores out of one of the groups [(prompt, [(score, text)])],
  drawn by a generator of the key's own; a Dropped when there are none."""
  rng = random.Random(key)
  ranked = [group for group in groups if len({score for score, _ in group[1]}) > 1]
  if not ranked:
    kind = 'tie' if any(len(texts) > 1 for _, texts in groups) else 'fewer_than_two_answers'
    return Dropped(kind, _where(path, number))
  prompt, texts = rng.choice(ranked)
  first, *others = rng.sample(texts, len(texts))
  second = next(other for other in others if other[0] != first[0])
  (_, better), (_, worse) = sorted((first, second), reverse=True)
  return _pair(path, number, prompt, better, worse, key)


def _pair(path, number, prompt, better, worse, key):
  """The Pair, or why it does not say which text is better."""
  better, worse = better.strip(), worse.strip()
  if not better or not worse:
    return Dropped('empty', _where(path, number))
  if better.split() == worse.split():
    return Dropped('identical', _where(path, number))
  name, place = path.name.partition('.')[0], sources.uniform(key)
  split = name if name in SPLITS else SPLITS[place >= 1 - TEST_SHARE]
  return Pair(prompt, f' {better}', f' {worse}', split, place, _where(path, number))


def _where(path, number):
  return f'{path.parent.name}/{path.name}, line {number}'


def _is_number(score):
  return isinstance(score, int) and not isinstance(score, bool)


def _not_by_a_person(author, text):
  """'deleted', 'bot' or None."""
  if author in _GONE or text.strip() in _GONE:
    return 'deleted'
  return 'bot' if _BOT.fullmatch(author) else None


def plain_html(text):
  """The words of a post: no tags, entities as characters, at most one empty line between parts."""
  text = html.unescape(re.sub(r'<[^>]*>', '', re.sub(r'<br */?>', '\n', text)))
  return re.sub(r'\n{3,}', '\n\n', text).strip()


def plain_wikitext(text):
  """A section without references, citations, tables, files and comments; links as their words."""
  text = re.sub(r'<!--.*?-->|<ref[^>]*/>|<ref.*?</ref>', '', text, flags=re.DOTALL)
  while (shorter := re.sub(r'\{\{[^{}]*\}\}|\{\|[^{}]*\|\}', '', text)) != text:
    text = shorter                                                       # from the innermost out
  text = re.sub(r'\[\[(?:File|Image|Category):(?:[^\[\]]|\[\[[^\[\]]*\]\])*\]\]', '', text)
  text = re.sub(r'\[\[(?:[^\[\]|]*\|)?([^\[\]|]*)\]\]', r'\1', text)
  text = re.sub(r'\[\w+://[^\s\]]*\s*([^\]]*)\]', r'\1', text)
  text = re.sub(r"'{2,}|<[^>]*>", '', text)
  return re.sub(r'\n{3,}', '\n\n', text).strip()


# --------------------------------------------------------------------------- from pairs to columns

class Pmp(tfds.core.GeneratorBasedBuilder):
  """One source a config: its pairs in the order read, all splits in one; what was dropped is in the
  metadata. files: of the source; subreddits: as in `reddit`."""
  VERSION = tfds.core.Version('1.0.0')
  BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=source) for source in READERS]
  code_path = Path(__file__)      # else TFDS looks for it with a package that it does not install

  def __init__(self, *, files, subreddits=(), **options):
    self.files, self.subreddits = files, subreddits
    super().__init__(**options)

  def _info(self):
    texts = {field: tfds.features.Text() for field in Pair._fields if field != 'place'}
    return tfds.core.DatasetInfo(
      builder=self, disable_shuffling=True, metadata=tfds.core.MetadataDict(),
      features=tfds.features.FeaturesDict(texts | {'place': np.float64}))

  def _split_generators(self, dl_manager):
    return {'pairs': self._generate_examples()}

  def _generate_examples(self):
    name, made, dropped = self.builder_config.name, 0, {}
    options = {'subreddits': self.subreddits} if name == 'reddit' else {}
    for found in READERS[name](self.files, **options):
      if isinstance(found, Dropped):
        sources.tally(dropped, *found)
      else:
        yield made, found._asdict()
        made += 1
    self.info.metadata['dropped'] = dropped
    if not made:
      raise ValueError(f'{self.files[0].parent}: not one usable pair'
                       + ''.join(f'; {n} {kind} (as {where})' for kind, (n, where) in dropped.items()))


def load_pairs(data_dir=None, cache_dir=None, on_error='raise', subsets=(), subreddits=()):
  """All pairs of the sources named, () for those that are there, and a count of the rest.

  Malformed lines and dumps are an error, or are counted with on_error='skip'. The folders default as
  in `sources.data_dir` and `sources.cache_dir`; nothing is downloaded.
  """
  folder, cache = sources.data_dir(data_dir), sources.cache_dir(cache_dir)
  if folder is None:
    raise FileNotFoundError('ranked texts are not downloaded: name a folder that holds pmp/ in '
                            f'{sources.DATA_VARIABLE} or data.dir')
  if unknown := set(subsets) - set(READERS):
    raise ValueError(f'no source {sorted(unknown)}: use {", ".join(READERS)}')
  subsets = subsets or [name for name in READERS if _files(folder, name)]
  if not subsets:
    raise FileNotFoundError(f'{folder}/pmp holds none of {", ".join(READERS)}')
  columns, dropped = [], {}
  for name in subsets:
    builder = prepare(name, folder, cache, subreddits)
    for kind, (count, example) in builder.info.metadata['dropped'].items():
      if kind == 'unreadable' and on_error != 'skip':
        raise ValueError(f"{example} (on_error='skip' leaves such lines out)")
      sources.tally(dropped, f'{name} {kind}', example, count)
    columns += [(*(record[field].decode() for field in ('prompt', 'chosen', 'rejected')), name,
                 record['split'].decode(), record['where'].decode(), record['place'])
                for record in builder.as_data_source('pairs')]
  *texts, subset, split, where, place = np.array(columns, object).T
  return Pairs(*texts, subset.astype(str), split.astype(str), where, place.astype(float), dropped)


def prepare(name, folder, cache, subreddits=()):
  """The builder of a source with its data prepared under `cache`, in a place that is named by the
  digest of files and settings, so changed ones are prepared anew."""
  files = _files(folder, name)
  if not files:
    raise FileNotFoundError(f'{folder}/pmp/{name} holds no files of this source: put them there, or '
                            'name the sources that you have')
  names = [str(path.relative_to(folder)) for path in files]              # they tell the split
  settings = [sources.digest(files), names, sorted(subreddits) if name == 'reddit' else []]
  key = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]
  return sources.prepare(functools.partial(
    Pmp, config=name, data_dir=Path(cache) / key, files=files, subreddits=tuple(subreddits)), cache)


def _files(folder, name):
  """Files of a source, in order of their names."""
  found = (path for path in (Path(folder) / 'pmp' / name).rglob('*') if path.is_file())
  return sorted(p for p in found if '.jsonl' in p.name or p.name == 'Posts.xml')
