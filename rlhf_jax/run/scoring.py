"""Preference-model scores in bulk: dialogues to rows of ids, rows to batches of a few shapes.

Any number of rows goes through one compiled program a width; a file goes through in parts, so that
a killed job loses one part and no more.
"""
import itertools
import json

import jax
import numpy as np

from rlhf_jax.core import mesh as meshes
from rlhf_jax.data import batches, dialogue, pairs, sources
from rlhf_jax.evals.preference import correct
from rlhf_jax.run import worlds


def scorer(judge, score, widths, batch_size, mesh):
  """scores(rows, seen) -> score_N by a preference model, the Role and the Score of `build.judge`.

  rows: N lists of ids, a dialogue with its last answer each, without the end-of-context token.
  widths: columns with that token. seen(n) is called when n more rows are scored.
  """
  score = jax.jit(score)

  def send(rows, bucket):
    made = batches.pad([rows[i] for i in bucket.index_B], bucket.width - 1, 'right',
                       judge.tokenizer.pad_id)
    return bucket, score(judge.params, *meshes.put_batch(made, mesh))

  def scores(rows, seen):
    out_N, sent = np.zeros(len(rows), np.float32), None
    plan = batches.buckets([len(row) + 1 for row in rows], batch_size, list(widths), 0)
    for bucket in [*plan, None]:              # one batch is laid out while another is computed
      following = None if bucket is None else send(rows, bucket)
      if sent:
        out_N[sent[0].index_B] = sent[1]
        seen(int(sent[0].weight_B.sum()))
      sent = following
    return finite(out_N)
  return scores


def finite(scores):
  """The same scores; refuses those that are no finite numbers, of which the largest is no best one."""
  bad = np.size(scores) - np.isfinite(scores).sum()
  if bad:
    raise ValueError(f'{bad} of {np.size(scores)} scores are not finite numbers: the preference model '
                     'that gives them is broken; train it again or name another one')
  return scores


def comparison_rows(data):
  """The rows of all chosen, then of all rejected answers of `pairs.Comparisons`."""
  return [[*prompt, *answer] for answers in (data.chosen, data.rejected)
          for prompt, answer in zip(data.prompt, answers, strict=True)]


def read(file):
  """(line number, (prompt, answers) or the ValueError that says what is wrong) of each line of a
  .jsonl or .jsonl.gz file: a transcript `text`, or two of one conversation, `chosen`, `rejected`."""
  for number, record, problem in sources.records(file):
    try:
      yield number, ValueError(problem) if problem else _dialogue(record)
    except ValueError as error:
      yield number, ValueError(f'{file}, line {number}: {error}')


def _dialogue(record):
  """(prompt, answers): the last answer of `text`, or those of `chosen` and `rejected`."""
  names = ('text',) if 'text' in record else ('chosen', 'rejected')
  texts = [record.get(name) for name in names]
  for name, text in zip(names, texts, strict=True):
    if not isinstance(text, str):
      raise ValueError(f"no text in the field {name!r}; dialogues are in 'text', or in 'chosen' and "
                       "'rejected'")
    text.encode('utf-8')            # JSON can spell half a character, which no tokenizer takes
    turns = dialogue.parse(text)
    if not turns or turns[-1].role != 'assistant':
      raise ValueError(f'{name!r} does not end in a turn of the assistant, so there is nothing to '
                       'score')
  prompt, *answers = dialogue.split_pair(texts[0], texts[-1])
  return prompt, answers[:len(texts)]


def check(file, on_error):
  """The number of answers in `file`. A bad line is an error, or with on_error='skip' left to the
  output; so is a file without any dialogue."""
  if on_error not in ('raise', 'skip'):
    raise ValueError(f'config.on_error={on_error!r} is unknown: use raise, skip')
  if not file:
    raise ValueError('config.file is empty: name a .jsonl or .jsonl.gz file of dialogues')
  found = sum(len(item[1]) for _, item in _unless_bad(read(file), on_error))
  if not found:
    raise ValueError(f'{file}: not one dialogue to score')
  return found


def _unless_bad(items, on_error):
  """The good ones; an error at the first other one, unless such are to be skipped."""
  for number, item in items:
    if not isinstance(item, ValueError):
      yield number, item
    elif on_error == 'raise':
      raise ValueError(f"{item} (config.on_error='skip' names such lines in the output instead)")


def parts(file, size):
  """The items of `read`, `size` at a time."""
  items = read(file)
  while part := list(itertools.islice(items, size)):
    yield part


def encode(part, file, tokenizer, context, on_error):
  """[(line number, rows or ValueError)]: one row of ids an answer, the prompt cut from the left so
  that the longest answer and the end-of-context token fit into `context`. One that does not is bad."""
  good = [item for _, item in part if not isinstance(item, ValueError)]
  prompts = iter(worlds.encode_dialogues(tokenizer, [prompt for prompt, _ in good], closed=False))
  answers = iter(pairs.encode_answers(tokenizer, [text for _, texts in good for text in texts]))
  encoded = []
  for number, item in part:
    if not isinstance(item, ValueError):
      prompt, mine = next(prompts), list(itertools.islice(answers, len(item[1])))
      try:
        prompt = dialogue.truncate_left(prompt, max(mine, key=len), context - 1)
        item = [[*prompt, *answer] for answer in mine]
      except ValueError:
        item = ValueError(f'{file}, line {number}: an answer of {max(map(len, mine))} tokens; this '
                          f'preference model reads {context - 1}')
    encoded.append((number, item))
  for _ in _unless_bad(encoded, on_error):
    pass
  return encoded


def lines(encoded, scores, seen):
  """The output as bytes, one line of JSON an item: `line`, and `score`, or `chosen` and `rejected`,
  or the `problem` why there is none. Scores have the digits of float32."""
  rows = [row for _, item in encoded if not isinstance(item, ValueError) for row in item]
  values = iter(scores(rows, seen))
  out = []
  for number, item in encoded:
    if isinstance(item, ValueError):
      found = {'problem': str(item)}
    else:
      names = ('score',) if len(item) == 1 else ('chosen', 'rejected')
      found = {name: float(str(next(values))) for name in names}
    out.append(json.dumps({'line': number} | found) + '\n')
  return ''.join(out).encode()


def whole_parts(path, size):
  """How many whole parts of `size` lines a file of scores holds; what a killed job wrote behind them
  is cut off, so that what follows is what an uninterrupted job would have written."""
  whole = end = at = 0
  with open(path, 'ab+') as file:
    file.seek(0)
    for number, line in enumerate(file, 1):
      at += len(line)
      if number % size == 0 and line.endswith(b'\n'):
        whole, end = number // size, at
    file.truncate(end)
  return whole


def summary(path):
  """Counts of a file of scores, mean and standard deviation, and how often chosen beats rejected."""
  with open(path, 'rb') as file:
    found = [json.loads(line) for line in file]
  values = np.array([row[k] for row in found for k in ('score', 'chosen', 'rejected') if k in row])
  gap = np.array([row['chosen'] - row['rejected'] for row in found if 'chosen' in row])
  return {'lines': len(found), 'answers': len(values),
          'problems': sum('problem' in row for row in found),
          'mean': float(values.mean()), 'sd': float(values.std())} | (
            {'accuracy': float(correct(gap, 0).mean())} if len(gap) else {})
