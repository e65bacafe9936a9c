"""The transcript format, by hand and on every published record that is at hand."""
import os

import pytest

from rlhf_jax.data import dialogue, sources
from rlhf_jax.data.dialogue import Turn, parse, render, split_pair, truncate_left

TWO_TURNS = '\n\nHuman: Hi\n\nAssistant: Hello.\n\nWho is it?'


def test_parse_by_hand():
  assert parse(TWO_TURNS) == [Turn('human', 'Hi'), Turn('assistant', 'Hello.\n\nWho is it?')]
  assert [t.text for t in parse('\n\nHuman: a\n\nHuman:  b ')] == ['a', ' b ']
  assert parse('\n\nHuman: a\n\nAssistant:')[1] == Turn('assistant', '', gap='')


@pytest.mark.parametrize('text', [
  '', TWO_TURNS,
  '\n\nHuman: a\n\nAssistant:',                       # a prompt: nothing behind the marker
  '\n\nHuman: a\n\nAssistant: ',                      # an empty answer
  '\n\nHuman:a\n\nAssistant:  two blanks \n\n',
  '\n\nHuman: a\n\nHuman: b\n\nAssistant: c\n\nAssistant: d',
  '\n\nHuman: x\nHuman: one newline is text\n\nHumans: so is this\n\n\nAssistant: three',
  '\n\nHuman: na\u00efve \u201cquotes\u201d \u2028 \U0001f600\r\n\n\nAssistant: \u00a0',
])
def test_render_undoes_parse(text):
  assert render(parse(text)) == text


def test_a_text_that_starts_with_no_role_is_refused():
  with pytest.raises(ValueError, match='starts with.*Preamble'):
    parse('Preamble\n\nHuman: a')


def test_render_of_made_turns():
  assert render([Turn('human', 'a'), Turn('assistant', 'b')]) == '\n\nHuman: a\n\nAssistant: b'


def test_pair_splits_at_the_last_shared_cue():
  start = '\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:'
  assert split_pair(start + ' yes', start + ' yes, no') == (start, ' yes', ' yes, no')
  assert split_pair(start + ' same', start + ' same') == (start, ' same', ' same')
  assert split_pair(start, start + ' x') == (start, '', ' x')


def test_an_answer_may_hold_further_turns():
  start = '\n\nHuman: a\n\nAssistant:'
  long = ' b\n\nHuman: c\n\nAssistant: d'
  assert split_pair(start + long, start + ' e') == (start, long, ' e')
  assert split_pair(start + ' e', start + long) == (start, ' e', long)
  # the fork is not the first cue, nor the last: both sides go on with further turns of their own
  shared = start + ' b\n\nHuman: c\n\nAssistant:'
  assert split_pair(shared + ' d\n\nHuman: e\n\nAssistant: f', shared + ' g') == (
    shared, ' d\n\nHuman: e\n\nAssistant: f', ' g')


@pytest.mark.parametrize('chosen, rejected', [
  ('\n\nHuman: a\n\nAssistant: b', '\n\nHuman: c\n\nAssistant: b'),      # another question
  ('\n\nHuman: a', '\n\nHuman: a'),
])
def test_no_shared_prompt_is_refused_in_one_line(chosen, rejected):
  with pytest.raises(ValueError, match='share no prefix') as error:
    split_pair(chosen, rejected)
  assert '\n' not in str(error.value)


def test_truncation_cuts_the_left_of_the_prompt_only():
  assert truncate_left([1, 2, 3], [4, 5], 5) == [1, 2, 3]
  assert truncate_left([1, 2, 3], [4, 5], 4) == [2, 3]
  assert truncate_left([1, 2, 3], [4, 5], 2) == []
  assert truncate_left([1, 2, 3], [], 9) == [1, 2, 3]
  with pytest.raises(ValueError, match='answer of 2 tokens does not fit into 1'):
    truncate_left([1], [4, 5], 1)


@pytest.mark.skipif(not os.environ.get(sources.DATA_VARIABLE), reason='no published data here')
def test_every_published_record_survives():
  paths = sorted(sources.data_dir().glob('hh-rlhf/*/*.jsonl.gz'))
  assert paths
  for path in paths:
    for record in sources.read_jsonl(path, ('chosen', 'rejected'))[0]:
      for text in record.values():
        turns = parse(text)
        assert render(turns) == text
        assert turns[0].role == 'human'
      prompt, chosen, rejected = split_pair(record['chosen'], record['rejected'])
      assert (prompt + chosen, prompt + rejected) == (record['chosen'], record['rejected'])
      assert prompt.endswith(dialogue.ASSISTANT_CUE)
