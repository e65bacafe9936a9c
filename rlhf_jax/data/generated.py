"""Prompts written by a language model: what to show it, what to keep of what it writes.

Bai et al. 2022, section 4.1: about ten existing human queries in the context of a large model, which
writes more; 369,000 of them stood beside 137,000 human ones. How they filtered is not said; here a
query is kept when it is closed, not empty, new, and not one that is held out. No token ids here.
"""
import re

from rlhf_jax.data import dialogue

_CUES = re.compile('|'.join(map(re.escape, (dialogue.HUMAN_CUE, dialogue.ASSISTANT_CUE))))


def query(prompt):
  """What the human says first in a prompt, without the space around it; of a prompt that was cut from
  the left, the first turn that is whole."""
  whole = prompt[max(prompt.find(dialogue.HUMAN_CUE), 0):]
  return dialogue.parse(whole)[0].text.strip() if whole.startswith(dialogue.HUMAN_CUE) else ''


def few_shot(queries):
  """Text for a language model to go on from: the queries, then the cue of one more."""
  return ''.join(f'{dialogue.HUMAN_CUE} {q}' for q in queries) + dialogue.HUMAN_CUE


def prompt(query):
  """The transcript in which the assistant is to answer this query."""
  return f'{dialogue.HUMAN_CUE} {query}{dialogue.ASSISTANT_CUE}'


def closed(text):
  """The query at the start of what a model wrote behind `few_shot`, up to the next cue; None where the
  text breaks off before one."""
  end = _CUES.search(text)
  return text[:end.start()].strip() if end else None


def sieve(texts, seen, held_out):
  """(queries to keep, {reason: count of the others}) of what a model wrote.

  seen: normalised queries that are there already, to which the kept ones are added; held_out: those
  of evaluation, which must never be trained on.
  """
  kept, refused = [], dict.fromkeys(('unfinished', 'empty', 'held_out', 'repeated'), 0)
  for text in texts:
    found = closed(text)
    key = None if found is None else normalised(found)
    reason = ('unfinished' if found is None else 'empty' if not key else
              'held_out' if key in held_out else 'repeated' if key in seen else None)
    if reason:
      refused[reason] += 1
    else:
      seen.add(key)
      kept.append(found)
  return kept, refused


def normalised(query):
  """A query without case and with single spaces: what counts as the same."""
  return ' '.join(query.lower().split())


def overlap(queries, others, n=4):
  """The mean share of a query's word n-grams that also stand in `others`; queries shorter than n words
  count whole. None without queries."""
  def grams(text):
    words = normalised(text).split()
    return {tuple(words[i:i + n]) for i in range(max(len(words) - n + 1, 1))}
  there = set().union(*map(grams, others)) if others else set()
  shares = [len(mine & there) / len(mine) for mine in map(grams, queries)]
  return sum(shares) / len(shares) if shares else None
