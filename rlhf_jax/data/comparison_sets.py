"""Comparisons that no preference model here is trained on, as transcripts in the published HH format.

  hhh     eval/hhh_alignment.jsonl.gz               Askell et al. 2021: written by the authors
  webgpt  preferences/webgpt/{train,test}.jsonl.gz  Nakano et al. 2021: long answers with references
  llmbar  preferences/llmbar.jsonl.gz               Zeng et al. 2024: does an answer do what was asked
  stackexchange  test.jsonl.gz, Posts.xml and what else `data.pmp` reads: answers with more and fewer
                 votes; test comparisons only, for models whose pretraining used the others

Files lie in the data folder of `sources.data_dir`. Ties, votes missing, empty answers and equal texts
are left out and counted by kind with one example, as in `data.hh`.
"""
import re
from pathlib import Path

import numpy as np

from rlhf_jax.data import dialogue, pmp, sources
from rlhf_jax.data.hh import Pairs

FILES = {'hhh': ('eval/hhh_alignment.jsonl.gz',),
         'webgpt': ('preferences/webgpt/train.jsonl.gz', 'preferences/webgpt/test.jsonl.gz'),
         'llmbar': ('preferences/llmbar.jsonl.gz',)}
_FIELDS = {'hhh': ('category', 'prompt', 'chosen', 'rejected'), 'webgpt': (),
           'llmbar': ('input', 'output_1', 'output_2', 'file')}
_WEBGPT = re.compile(r'## Human:\n(.*?)\n\n## Assistant:\n(.*)', re.DOTALL)


def load(name, folder, on_error='raise', cache=None):
  """`Pairs` of the set `name` (subset: its own division; split: its name), None where none of its
  files are there. A bad line is an error, or is counted with on_error='skip'. cache: as in
  `sources.cache_dir`."""
  if name == 'stackexchange':
    return _stackexchange(folder, on_error, cache)
  if name not in FILES:
    raise ValueError(f'comparison set {name!r} is unknown: use stackexchange, {", ".join(FILES)}')
  paths = [path for path in FILES[name] if (Path(folder) / path).is_file()]
  if not paths:
    return None
  columns, dropped = [], {}
  for path in paths:
    for number, record, problem in sources.records(Path(folder) / path, _FIELDS[name]):
      where, pair, kind = f'{path}, line {number}', None, 'unreadable'
      try:
        if problem is None:
          pair, kind = _pair(name, record)
      except ValueError as error:
        problem = f'{Path(folder) / path}, line {number}: {error}'
      if problem and on_error != 'skip':
        raise ValueError(f"{problem} (on_error='skip' leaves such lines out)")
      if pair:
        columns.append((*pair, name, where))
      else:
        sources.tally(dropped, kind, problem or where)
  *texts, subset, split, where = np.array(columns, object).reshape(-1, 6).T
  return Pairs(*texts, subset.astype(str), split.astype(str), where, dropped)


def _stackexchange(folder, on_error, cache):
  """Questions as the human's turn, answers as the assistant's: the test pairs of `data.pmp`."""
  if not list((Path(folder) / 'pmp' / 'stackexchange').glob('*')):
    return None
  pairs = pmp.load_pairs(folder, cache, on_error, ('stackexchange',))
  test = pairs.split == 'test'
  label, cue = 'Question: ', '\n\nAnswer:'
  prompt = np.array([f'{dialogue.HUMAN_CUE} {text[len(label):-len(cue)]}{dialogue.ASSISTANT_CUE}'
                     for text in pairs.prompt[test]], object)
  return Pairs(prompt, pairs.chosen[test], pairs.rejected[test], pairs.subset[test],
               np.full(test.sum(), 'stackexchange'), pairs.where[test], pairs.dropped)


def _pair(name, record):
  """((prompt, better, worse, subset), None), or (None, the reason to leave it out)."""
  question, answers, votes, subset = {'hhh': _hhh, 'webgpt': _webgpt, 'llmbar': _llmbar}[name](record)
  answers = [answer.strip() for answer in answers]
  if votes is None:
    return None, 'vote_missing'
  if not all(answers):
    return None, 'empty_answer'
  if answers[0] == answers[1]:
    return None, 'identical'
  if votes[0] == votes[1]:
    return None, 'tie'
  better, worse = answers if votes[0] > votes[1] else answers[::-1]
  prompt = f'{dialogue.HUMAN_CUE} {question.strip()}{dialogue.ASSISTANT_CUE}'
  return (prompt, f' {better}', f' {worse}', subset), None


# each: (question, two answers, their votes or None, subset) of a record

def _hhh(record):
  return record['prompt'], (record['chosen'], record['rejected']), (1, 0), record['category']


def _webgpt(record):
  """Two dialogues with two scores; subset: how far the scores are apart."""
  texts, votes = record.get('text'), record.get('score')
  found = [_WEBGPT.fullmatch(text) if isinstance(text, str) else None for text in texts or ()]
  if len(found) != 2 or None in found or found[0][1] != found[1][1]:
    raise ValueError("no two dialogues with one question in the field 'text'")
  known = isinstance(votes, list) and len(votes) == 2 and all(isinstance(v, float) for v in votes)
  subset = f'margin {abs(votes[0] - votes[1]):g}' if known else ''
  return found[0][1], (found[0][2], found[1][2]), votes if known else None, subset


def _llmbar(record):
  """label: the number of the better output. subset: LLMBar's own parts are Natural and Adversarial;
  the other collections were only processed by its authors."""
  collection, part, *_ = [*record['file'].split('__'), '']
  votes = {1: (1, 0), 2: (0, 1)}.get(record.get('label'))
  return (record['input'], (record['output_1'], record['output_2']), votes,
          part if collection == 'LLMBar' else collection)
