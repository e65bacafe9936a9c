"""What is kept of the prompts that a model writes."""
import pytest

from rlhf_jax.data import generated


def test_queries_go_into_the_context_and_out_of_the_text():
  text = generated.few_shot(['How are you?', 'Sort b a'])
  assert text == '\n\nHuman: How are you?\n\nHuman: Sort b a\n\nHuman:'
  assert generated.few_shot([]) == '\n\nHuman:'
  assert generated.closed(' What is it?\n\nAssistant: No.\n\nHuman: x') == 'What is it?'
  assert generated.closed(' One\n\ntwo\n\nHuman: x') == 'One\n\ntwo'
  assert generated.closed(' It breaks off\n\nHum') is None
  assert generated.prompt('Hi') == '\n\nHuman: Hi\n\nAssistant:'


@pytest.mark.parametrize('prompt, said', [
  ('\n\nHuman: a b \n\nAssistant: c\n\nHuman: d\n\nAssistant:', 'a b'),
  (' cut\n\nAssistant: c\n\nHuman: d\n\nAssistant:', 'd'),
  ('no cue at all', ''), ('\n\nAssistant: x', '')])
def test_the_first_whole_human_turn_is_the_query(prompt, said):
  assert generated.query(prompt) == said


def test_each_text_is_kept_or_refused_for_one_reason():
  seen, held_out = {'known one'}, {'secret'}
  said = ' New', ' new ', ' Known  One', ' SECRET', ' ', ' Other'
  texts = [*(text + '\n\nAssistant:' for text in said), ' open']
  kept, refused = generated.sieve(texts, seen, held_out)
  assert kept == ['New', 'Other']
  assert refused == {'unfinished': 1, 'empty': 1, 'held_out': 1, 'repeated': 2}
  assert seen == {'known one', 'new', 'other'}
  assert generated.sieve(texts[:1], seen, held_out)[0] == []           # in later batches too


def test_overlap_by_hand():
  # 'a b c d' and 'b c d e' of the first query; only the first is there. The second counts whole.
  assert generated.overlap(['a b c d e', 'x y'], ['A b  c d', 'x y']) == pytest.approx((0.5 + 1) / 2)
  assert generated.overlap(['a b c d e'], []) == 0 and generated.overlap([], ['a']) is None
