"""Bulk scoring: rows and files of dialogues, against the layout that the model is trained with."""
import functools
import gzip
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.core import mesh as meshes
from rlhf_jax.data import tokenizer as tokenizers
from rlhf_jax.data.pairs import Comparisons
from rlhf_jax.models import heads
from rlhf_jax.rewards.preference_model import preference_model
from rlhf_jax.run import build, comparisons, scoring
from tests.contracts import tiny

START = '\n\nHuman: hello\n\nAssistant:'
WIDTHS = (8, 16)


@pytest.fixture(scope='module')
def judge():
  return build.Role(tiny.JUDGE, tiny.parameters(2, judge=True),
                    SimpleNamespace(eoc_id=tiny.EOC, pad_id=tiny.PAD), tiny.JUDGE.spec)


def score_of(judge):
  return preference_model(judge.model, judge.tokenizer.eoc_id)


@pytest.fixture(scope='module')
def letters():
  return tokenizers.train([START], 259 + 20)


def compared(count=21):
  """Comparisons of ids; the last row is as wide as the widest batch."""
  rng = np.random.default_rng(0)
  def row(low, high):
    return rng.integers(3, 20, rng.integers(low, high)).tolist()
  made = [(row(1, 6), row(1, 8), row(1, 8)) for _ in range(count - 1)] + [([3] * 6, [4] * 9, [5])]
  return Comparisons(*map(list, zip(*made, strict=True)), [], [], np.zeros(count, np.int32))


def test_scores_are_those_of_the_layout_in_training(judge):
  """The end-of-context token is added by the Score here, by the batch there."""
  mesh, data, seen = meshes.make(8), compared(), []
  rows = scoring.comparison_rows(data)
  found = scoring.scorer(judge, score_of(judge), WIDTHS, 8, mesh)(rows, seen.append)
  score = jax.jit(functools.partial(heads.last, tiny.JUDGE))
  theirs = comparisons.scores(score, judge.params, data, SimpleNamespace(batch_size=8, widths=WIDTHS),
                              judge.tokenizer.eoc_id, judge.tokenizer.pad_id, mesh)
  assert len(set(np.round(found, 4))) > 20
  np.testing.assert_allclose(found.reshape(2, -1), theirs, atol=1e-5)
  assert sum(seen) == len(rows) == 42 and len(seen) > 5


def test_scores_that_are_no_numbers_are_refused(judge):
  def spoilt(params, tokens_BT, valid_BT):
    return jnp.where(tokens_BT[:, 0] == 5, jnp.inf, 0.0)
  scores = scoring.scorer(judge, spoilt, WIDTHS, 8, meshes.make(8))
  assert scores([[4, 5], [6]], lambda n: None).tolist() == [0, 0]
  with pytest.raises(ValueError, match='^2 of 3 scores are not finite'):
    scores([[5, 6], [6], [5]], lambda n: None)


def test_a_score_does_not_depend_on_its_neighbours(judge):
  score = scoring.scorer(judge, score_of(judge), WIDTHS, 8, meshes.make(8))
  rows = scoring.comparison_rows(compared())
  order = np.random.default_rng(1).permutation(len(rows))
  every = score(rows, lambda n: None)
  np.testing.assert_allclose(score([rows[i] for i in order], lambda n: None), every[order], atol=1e-5)
  with pytest.raises(ValueError, match='has 17 tokens, more than the widest bucket 16'):
    score([[3] * 16], lambda n: None)


def write(path, records, pack=bytes):
  lines = [r if isinstance(r, bytes) else json.dumps(r).encode() for r in records]
  path.write_bytes(pack(b'\n'.join(lines) + b'\n'))
  return path


@pytest.mark.parametrize('pack', [bytes, gzip.compress])
def test_a_file_of_both_kinds_is_read(tmp_path, pack):
  records = [{'text': START + ' yes'}, b'', {'chosen': START + ' a', 'rejected': START + ' bc'},
             {'text': START + ' x\n\nHuman: y\n\nAssistant: z'}]
  file = write(tmp_path / 'in.jsonl', records, pack)
  assert list(scoring.read(file)) == [
    (1, (START, [' yes'])), (3, (START, [' a', ' bc'])),
    (4, (START + ' x\n\nHuman: y\n\nAssistant:', [' z']))]
  assert scoring.check(file, 'raise') == 4
  assert [[n for n, _ in part] for part in scoring.parts(file, 2)] == [[1, 3], [4]]


@pytest.mark.parametrize('bad, why', [
  (b'{"text": ', 'Expecting value'),
  ({'text': 3}, "no text in the field 'text'"),
  ({'chosen': START + ' x'}, "no text in the field 'rejected'"),
  ({'title': 'x'}, "no text in the field 'chosen'; dialogues are in 'text'"),
  ({'text': 'hello'}, 'a transcript starts with'),
  ({'text': ''}, "'text' does not end in a turn of the assistant"),
  ({'text': START + ' x\n\nHuman: y'}, "'text' does not end in a turn of the assistant"),
  ({'chosen': START + ' x', 'rejected': START}, None),
  ({'chosen': START + ' x', 'rejected': '\n\nHuman: no\n\nAssistant: x'}, 'share no prefix'),
  (rb'{"text": "\n\nHuman: a\n\nAssistant: \ud83d"}', 'surrogates not allowed'),
])
def test_a_bad_line_is_named_before_anything_is_scored_or_left_to_the_output(tmp_path, bad, why):
  file = write(tmp_path / 'in.jsonl', [{'text': START + ' yes'}, bad])
  if why is None:                                  # an empty answer is an answer
    assert scoring.check(file, 'raise') == 3
    return
  with pytest.raises(ValueError, match='in.jsonl, line 2: ') as error:
    scoring.check(file, 'raise')
  assert why in str(error.value) and "config.on_error='skip'" in str(error.value)
  assert '\n' not in str(error.value) and str(error.value).count('line 2') == 1
  assert scoring.check(file, 'skip') == 1
  (_, good), (number, problem) = scoring.read(file)
  assert good == (START, [' yes']) and number == 2 and why in str(problem)


def test_a_file_without_dialogues_a_missing_one_and_an_unknown_setting_are_refused(tmp_path):
  file = write(tmp_path / 'in.jsonl', [{'text': 'x'}])
  for call, words in ((lambda: scoring.check(file, 'skip'), 'not one dialogue to score'),
                      (lambda: scoring.check(file, 'warn'), 'use raise, skip'),
                      (lambda: scoring.check('', 'skip'), 'config.file is empty')):
    with pytest.raises(ValueError, match=words):
      call()
  with pytest.raises(FileNotFoundError, match='nowhere.jsonl: no such file'):
    scoring.check(tmp_path / 'nowhere.jsonl', 'skip')


def test_rows_are_those_of_training_and_only_prompts_are_cut(letters):
  part = [(1, (START, [' ab', ' c'])), (2, ValueError('f, line 2: broken')), (5, (START, [' d']))]
  whole = letters.encode(START)
  answer = {text: [*letters.encode(text), letters.end_id] for text in (' ab', ' c', ' d')}
  room = len(whole) + len(answer[' ab']) + 1
  for cut in (0, 3):
    (one, first), (two, problem), (five, last) = scoring.encode(part, 'f', letters, room - cut, 'skip')
    assert (one, two, five) == (1, 2, 5) and problem is part[1][1]
    # both sides of a pair are read behind the same prompt
    assert first == [whole[cut:] + answer[' ab'], whole[cut:] + answer[' c']]
    shorter = len(answer[' ab']) - len(answer[' d'])
    assert last == [whole[max(cut - shorter, 0):] + answer[' d']]


def test_an_answer_that_does_not_fit_is_a_problem_of_its_line(letters):
  part = [(4, (START, [' abcdefgh', ' c'])), (5, (START, [' c']))]
  size = len(letters.encode(' abcdefgh')) + 1
  (_, problem), (_, rows) = scoring.encode(part, 'f', letters, size, 'skip')
  assert str(problem) == (f'f, line 4: an answer of {size} tokens; this preference model reads '
                          f'{size - 1}')
  assert len(rows) == 1
  with pytest.raises(ValueError, match='f, line 4: .* skip|f, line 4: .*skip'):
    scoring.encode(part, 'f', letters, size, 'raise')
  assert len(scoring.encode(part, 'f', letters, size + 1, 'raise')[0][1]) == 2


def test_lines_hold_the_scores_of_their_own_rows():
  encoded = [(1, [[7], [5]]), (2, ValueError('why')), (4, [[3]])]
  out = scoring.lines(encoded, lambda rows, seen: np.float32([row[0] / 10 for row in rows]), None)
  assert out == (b'{"line": 1, "chosen": 0.7, "rejected": 0.5}\n{"line": 2, "problem": "why"}\n'
                 b'{"line": 4, "score": 0.3}\n')


def test_counts_of_a_file_of_scores(tmp_path):
  file = write(tmp_path / 'scores.jsonl', [
    {'line': 1, 'chosen': 3.0, 'rejected': 1.0}, {'line': 2, 'problem': 'x'},
    {'line': 3, 'chosen': 0.0, 'rejected': 1.0}, {'line': 4, 'score': 5.0}])
  assert scoring.summary(file) == {'lines': 4, 'answers': 5, 'problems': 1, 'mean': 2.0,
                                   'sd': pytest.approx(np.sqrt(3.2)), 'accuracy': 0.5}


@pytest.mark.parametrize('kept, parts, left', [
  (b'', 0, b''), (b'a\n', 0, b''), (b'a\nbc\n', 1, b'a\nbc\n'), (b'a\nbc\nd', 1, b'a\nbc\n'),
  (b'a\nbc\nd\ne', 1, b'a\nbc\n'), (b'a\nb', 0, b''), (b'a\nb\nc\nd\n', 2, b'a\nb\nc\nd\n')])
def test_what_stands_behind_the_last_whole_part_is_cut_off(tmp_path, kept, parts, left):
  path = tmp_path / 'scores.jsonl'
  path.write_bytes(kept)
  assert scoring.whole_parts(path, 2) == parts and path.read_bytes() == left
