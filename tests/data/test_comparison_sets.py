"""Out-of-distribution comparisons: own small records in the published layouts, read as transcripts."""
import gzip
import json
import os

import pytest

from rlhf_jax.data import comparison_sets, dialogue

HHH = {'category': 'honest', 'prompt': ' who?\n\nAssistant:  me\n\nHuman: sure?', 'chosen': 'no ',
       'rejected': 'yes'}
LLMBAR = {'input': 'count', 'output_1': 'one two', 'output_2': 'cat', 'label': 1,
          'file': 'LLMBar__Adversarial__Neighbor__dataset.json'}


def webgpt(a, b, score, question='why?\n\n', other=None):
  texts = [f'## Human:\n{q}\n\n## Assistant:\n{x}' for q, x in
           ((question, a), (other or question, b))]
  return {'text': texts, 'score': score}


def write(folder, path, records):
  """Lines may be objects or bytes."""
  (folder / path).parent.mkdir(parents=True, exist_ok=True)
  lines = [r if isinstance(r, bytes) else json.dumps(r).encode() for r in records]
  (folder / path).write_bytes(gzip.compress(b'\n'.join(lines), mtime=0))


def rows(pairs):
  return list(zip(pairs.prompt, pairs.chosen, pairs.rejected, pairs.subset, pairs.split, strict=True))


def test_hhh_keeps_its_turns_and_its_order(tmp_path):
  write(tmp_path, 'eval/hhh_alignment.jsonl.gz', [HHH])
  pairs = comparison_sets.load('hhh', tmp_path)
  prompt = '\n\nHuman: who?\n\nAssistant:  me\n\nHuman: sure?\n\nAssistant:'
  assert rows(pairs) == [(prompt, ' no', ' yes', 'honest', 'hhh')] and pairs.dropped == {}
  assert [t.role for t in dialogue.parse(prompt)] == ['human', 'assistant'] * 2


def test_webgpt_takes_the_higher_score_of_either_side_and_both_files(tmp_path):
  write(tmp_path, 'preferences/webgpt/test.jsonl.gz', [webgpt('a', 'b', [0.0, 2.0])])
  write(tmp_path, 'preferences/webgpt/train.jsonl.gz', [webgpt('c\n\nd', ' e', [1.5, 0.5])])
  prompt = '\n\nHuman: why?\n\nAssistant:'
  assert rows(comparison_sets.load('webgpt', tmp_path)) == [
    (prompt, ' c\n\nd', ' e', 'margin 1', 'webgpt'), (prompt, ' b', ' a', 'margin 2', 'webgpt')]


def test_llmbar_takes_the_output_that_the_label_numbers(tmp_path):
  other = {**LLMBAR, 'label': 2, 'file': 'Processed__MT-Bench__dataset.json'}
  write(tmp_path, 'preferences/llmbar.jsonl.gz', [LLMBAR, other])
  prompt = '\n\nHuman: count\n\nAssistant:'
  assert rows(comparison_sets.load('llmbar', tmp_path)) == [
    (prompt, ' one two', ' cat', 'Adversarial', 'llmbar'),
    (prompt, ' cat', ' one two', 'Processed', 'llmbar')]


def test_what_says_nothing_is_counted_by_kind_with_the_first_place(tmp_path):
  path = 'preferences/webgpt/train.jsonl.gz'
  write(tmp_path, path, [
    webgpt('a', 'b', [1.0, 1.0]), webgpt('a', 'b', [1.5, 0.5]), webgpt('a', 'b', [1.0, 1.0]),
    webgpt('a', 'b', None), webgpt('a', ' ', [2.0, 0.0]), webgpt('a', 'a ', [2.0, 0.0]),
    webgpt('a', 'b', [2.0]), webgpt('a', 'b', [2.0, None])])
  pairs = comparison_sets.load('webgpt', tmp_path)
  assert len(pairs.prompt) == 1
  assert pairs.dropped == {
    'tie': (2, f'{path}, line 1'), 'vote_missing': (3, f'{path}, line 4'),
    'empty_answer': (1, f'{path}, line 5'), 'identical': (1, f'{path}, line 6')}
  write(tmp_path, 'preferences/llmbar.jsonl.gz', [{**LLMBAR, 'label': 0}, LLMBAR])
  assert comparison_sets.load('llmbar', tmp_path).dropped == {
    'vote_missing': (1, 'preferences/llmbar.jsonl.gz, line 1')}


@pytest.mark.parametrize('name, path, bad, why', [
  ('hhh', 'eval/hhh_alignment.jsonl.gz', b'{"category": ', 'Expecting value'),
  ('hhh', 'eval/hhh_alignment.jsonl.gz', {**HHH, 'chosen': 3}, "no text in the field 'chosen'"),
  ('webgpt', 'preferences/webgpt/train.jsonl.gz', {'text': ['x', 'y'], 'score': [1.0, 0.0]},
   "no two dialogues with one question in the field 'text'"),
  ('webgpt', 'preferences/webgpt/train.jsonl.gz', webgpt('a', 'b', [2.0, 0.0], other='how?'),
   'no two dialogues with one question'),
])
def test_a_bad_line_is_named_or_counted(tmp_path, name, path, bad, why):
  good = HHH if name == 'hhh' else webgpt('a', 'b', [2.0, 0.0])
  write(tmp_path, path, [good, bad, good, bad])
  with pytest.raises(ValueError, match=f'{path}, line 2: ') as error:
    comparison_sets.load(name, tmp_path)
  assert why in str(error.value) and str(error.value).count('line 2') == 1
  pairs = comparison_sets.load(name, tmp_path, on_error='skip')
  count, example = pairs.dropped['unreadable']
  assert len(pairs.prompt) == count == 2 and why in example and 'line 2: ' in example


def test_sets_that_are_not_there_are_none_and_unknown_ones_refused(tmp_path):
  assert comparison_sets.load('llmbar', tmp_path) is None
  with pytest.raises(ValueError, match='use stackexchange, hhh, webgpt, llmbar'):
    comparison_sets.load('hh', tmp_path)


@pytest.mark.skipif('RLHF_DATA_DIR' not in os.environ, reason='published records are not here')
def test_published_records():
  for name in comparison_sets.FILES:
    pairs = comparison_sets.load(name, os.environ['RLHF_DATA_DIR'])
    if pairs is not None:
      assert len(pairs.prompt) > 100 and 'unreadable' not in pairs.dropped
      for prompt, better, worse in zip(pairs.prompt, pairs.chosen, pairs.rejected, strict=True):
        split = dialogue.split_pair(prompt + better, prompt + worse)
        assert split == (prompt, better, worse) or dialogue.ASSISTANT_CUE in better


def test_stackexchange_questions_are_the_humans_turn(tmp_path):
  def question(title, *answers):
    return {'title': title, 'body': 'It is odd.', 'accepted': None,
            'answers': [{'id': i, 'score': votes, 'body': text} for i, (votes, text) in
                        enumerate(answers)]}
  write(tmp_path, 'pmp/stackexchange/train.jsonl.gz', [question('Trained on', (9, 'x'), (0, 'y'))])
  write(tmp_path, 'pmp/stackexchange/test.jsonl.gz', [question('Answer: o?', (0, 'low'), (9, 'high'))])
  pairs = comparison_sets.load('stackexchange', tmp_path, cache=tmp_path / 'cache')
  assert rows(pairs) == [('\n\nHuman: Answer: o?\n\nIt is odd.\n\nAssistant:', ' high', ' low',
                          'stackexchange', 'stackexchange')]
  assert comparison_sets.load('stackexchange', tmp_path / 'cache') is None
