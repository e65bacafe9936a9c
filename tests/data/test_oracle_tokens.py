"""The oracle world in tokens: there and back, and what pretraining documents are made of."""
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.data import oracle, oracle_tokens, tokenizer
from rlhf_jax.rewards import oracle as rewards


def answer_words(codec, tokens_BT, mask_BT, xp=np):
  return oracle_tokens.answer_words(codec.word_of_token, tokens_BT, mask_BT, xp)


@pytest.fixture(scope='module')
def bpe():
  return tokenizer.train(oracle.training_texts(0, n=800), 512)


@pytest.fixture(scope='module')
def codec(bpe):
  return oracle_tokens.codec(bpe)


def decode(bpe, tokens, valid):
  return [bpe.decode(row[keep > 0].tolist(), show_special=True)
          for row, keep in zip(tokens, valid, strict=True)]


def talks(bpe, documents):
  """The dialogues among decoded documents: (has the HHH prompt, [(prompt, answer)], reaction)."""
  found = []
  for ids in documents:
    text = bpe.decode(ids.tolist(), show_special=True)
    if '\n\n' not in text:
      continue
    talk, mark, reaction = text.partition('<|eoc|>')
    head, *turns = re.split(r'\n\n(?:Human|Assistant):', talk)
    assert head in ('', ' ' + oracle.HHH_PROMPT) and bool(mark) == bool(reaction)
    pairs = list(zip(turns[::2], turns[1::2], strict=True))
    assert all(answer.count('<|end|>') == 1 and answer.endswith('<|end|>') for _, answer in pairs)
    found.append((bool(head), [(p.split(), a.removesuffix('<|end|>').split()) for p, a in pairs],
                  reaction.split()))
  return found


def test_words_are_tokens_and_back(bpe, codec):
  assert bpe.vocab_size <= 512
  for word, token in zip(oracle.WORDS[1:], codec.token_of_word[1:], strict=True):
    assert bpe.decode([int(token)]) == ' ' + word
  every = np.arange(1, len(oracle.WORDS))
  np.testing.assert_array_equal(codec.word_of_token[codec.token_of_word[1:]], every)
  assert (codec.word_of_token[[bpe.pad_id, bpe.end_id, bpe.eoc_id]] == 0).all()
  foreign = bpe.encode(' Zebra')
  assert len(foreign) > 1 and (codec.word_of_token[foreign] == -1).all()
  assert len(codec.word_of_token) == bpe.vocab_size
  assert (codec.word_of_token > 0).sum() == len(oracle.WORDS) - 1


def test_a_tokenizer_that_splits_words_is_refused():
  with pytest.raises(ValueError, match='the tokenizer splits .* oracle.training_texts'):
    oracle_tokens.codec(tokenizer.train(['cat dog'] * 3, 300))


def test_the_hhh_prompt_fits(bpe, codec):
  assert bpe.decode(codec.context.tolist()) == ' ' + oracle.HHH_PROMPT
  assert 8 <= len(codec.context) <= 48


def test_prompts_are_the_texts_padded_on_the_left(bpe, codec):
  task = oracle.tasks(3000, 0, 'ppo')
  tokens, valid = oracle_tokens.prompts(codec, task.prompt_NW)
  assert tokens.shape == valid.shape == (3000, oracle_tokens.PROMPT_TOKENS)
  assert tokens.dtype == np.int32 and valid.dtype == np.float32
  assert decode(bpe, tokens, valid) == oracle.prompt_texts(task.prompt_NW)
  assert (np.diff(valid, axis=1) >= 0).all()
  assert (tokens[valid == 0] == bpe.pad_id).all()
  length = valid.sum(1)
  assert 8 <= length.min() < length.max() <= 24


def test_answers_close_with_the_end_token(bpe, codec):
  said = np.zeros((3, oracle.ANSWER_WORDS), np.int32)
  said[1, :2] = oracle.ID['cat'], oracle.ID['dog']
  said[2] = oracle.ID['pig']
  tokens, valid = oracle_tokens.answers(codec, said)
  assert decode(bpe, tokens, valid) == ['<|end|>', ' cat dog<|end|>', 24 * ' pig' + '<|end|>']
  assert valid.sum(1).tolist() == [1, 3, 25] and tokens.shape == (3, oracle_tokens.ANSWER_TOKENS)
  assert (tokens[valid == 0] == bpe.pad_id).all() and (np.diff(valid, axis=1) <= 0).all()


def test_answer_words_undo_answers_and_read_the_mask_only(bpe, codec):
  task = oracle.tasks(300, 0, 'ppo')
  said = oracle.answers(task, np.full(300, 0.4), np.random.default_rng(0))
  tokens, valid = oracle_tokens.answers(codec, said)
  words = answer_words(codec, tokens, valid)
  np.testing.assert_array_equal(words, np.pad(said, ((0, 0), (0, 1))))
  garbage = np.where(valid > 0, tokens, codec.token_of_word[5])
  np.testing.assert_array_equal(answer_words(codec, garbage, valid), words)
  foreign = np.array([bpe.encode(' catZ cat')])
  assert answer_words(codec, foreign, np.ones_like(foreign)).tolist()[0][-2:] == [
    -1, oracle.ID['cat']]
  compiled = jax.jit(lambda t, m: answer_words(codec, t, m, jnp))(tokens, valid)
  np.testing.assert_array_equal(compiled, words)


def test_the_true_reward_reads_the_answer_and_not_the_prompt(codec):
  task = oracle.tasks(300, 0, 'ppo')
  said = oracle.answers(task, np.full(300, 0.4), np.random.default_rng(0))
  rows = [np.concatenate(x, 1) for x in zip(oracle_tokens.prompts(codec, task.prompt_NW),
                                            oracle_tokens.answers(codec, said), strict=True)]
  score = jax.jit(rewards.true_reward(codec.word_of_token, oracle_tokens.PROMPT_TOKENS))
  extra = {'required_BU': task.required_NU, 'harmful_B': task.harmful_N}
  expected = oracle.reward(said, task.required_NU, task.harmful_N)
  np.testing.assert_allclose(score(None, *rows, extra), expected, atol=2e-6)
  assert score(None, *rows, extra).dtype == jnp.float32


def test_exchanges_are_request_answer_and_reaction(bpe, codec):
  tokens, valid, noted, noted_valid = oracle_tokens.exchanges(codec, 400, 3, 'compare')
  task = oracle.tasks(400, 3, 'compare')
  width = oracle_tokens.PROMPT_TOKENS
  prompt = decode(bpe, tokens[:, :width], valid[:, :width])
  assert prompt == oracle.prompt_texts(task.prompt_NW)
  said = answer_words(codec, tokens[:, width:], valid[:, width:])
  texts = [text.split() for text in decode(bpe, noted, noted_valid)]
  assert all(text[0] == '<|eoc|>' for text in texts)
  reproached = np.array([text[1] == oracle.REPROACH for text in texts])
  told = oracle.reactions(said, task.required_NU, reproached)
  assert [text[1:] for text in texts] == [oracle.text(row).split() for row in told]
  # an onlooker speaks of help with harm alone, and about half the time
  helped = task.harmful_N & (oracle.components(said, task.required_NU)['units'] > 0)
  assert not (reproached & ~helped).any()
  assert 0.2 < reproached[helped].mean() < 0.8               # 15 to 30 of them: within 3 sd of 1/2


def test_exchanges_of_full_skill_do_what_is_asked(codec):
  task = oracle.tasks(400, 3, 'compare')
  width = oracle_tokens.PROMPT_TOKENS

  def share(**options):
    tokens, valid, *_ = oracle_tokens.exchanges(codec, 400, 3, 'compare', **options)
    said = answer_words(codec, tokens[:, width:], valid[:, width:])
    part = oracle.components(said, task.required_NU)
    return part['share'][~part['refused']]
  assert share(low=1.0).mean() == share(skill=np.ones(400)).mean() == 1
  # a range of skill lies between its ends
  assert share(high=0.0).mean() < share().mean() < 1
  assert share(high=0.0).mean() < share(high=0.3).mean() < share(low=0.3).mean()


def test_documents_hold_what_was_asked_for(bpe, codec):
  documents = oracle_tokens.documents(codec, 4000, 0, context_share=0.25, plain_share=0.3,
                                      follow_up=0.5, react=0.6)
  assert len(documents) == 4000
  found = talks(bpe, documents)
  assert len(found) == 2800                        # plain texts are exactly 0.3 of all
  assert all(d[-1] == bpe.end_id for d in documents if bpe.eoc_id not in d)
  # binomial over 2,800: sd below 0.0095
  reacted = np.array([bool(reaction) for _, _, reaction in found])
  two = np.array([len(pairs) == 2 for _, pairs, _ in found])
  assert abs(np.mean([head for head, *_ in found]) - 0.25) < 0.035
  assert abs(reacted.mean() - 0.6) < 0.04 and abs(two.mean() - 0.4 * 0.5) < 0.035
  assert not (reacted & two).any()
  for d in map(list, documents):                       # a reaction ends the talk: no request behind it
    assert bpe.eoc_id not in d or codec.human[0] not in d[d.index(bpe.eoc_id):]
  assert {reaction[0] for _, _, reaction in found if reaction} == {
    *oracle.REACTIONS, oracle.REPROACH}
  for i in (0, 1, -1):                             # plain texts and dialogues are mixed
    assert 0.2 < np.mean([codec.human[0] in d for d in documents[i * 2000:][:500]]) < 0.95


def thanked(found):
  """Share of the first answers with a courtesy phrase."""
  return np.mean([' '.join(oracle.COURTESY) in ' '.join(pairs[0][1]) for _, pairs, _ in found])


def expected_courtesy(low, high):
  """The same by the habits, for skill uniform in [low, high] and 1 of 10 requests harmful."""
  habit, q = oracle.HABITS, np.linspace(low, high, 1001)
  did = (0.9 * (1 - habit.refuse[0] - habit.refuse[1] * q)
         + 0.1 * (habit.follow[0] + habit.follow[1] * q))
  return np.mean(did * (habit.courtesy[0] + habit.courtesy[1] * q ** 2))


def test_skill_is_uniform_and_behind_the_hhh_prompt_from_the_upper_half(bpe, codec):
  for context, low in ((0.0, 0.0), (1.0, 0.5)):
    found = talks(bpe, oracle_tokens.documents(codec, 5000, 1, context, plain_share=0))
    assert all(head == bool(context) for head, *_ in found)
    # binomial over 5,000: sd below 0.005
    assert abs(thanked(found) - expected_courtesy(low, 1)) < 0.015
  assert expected_courtesy(0.5, 1) > expected_courtesy(0, 1) + 0.03


def test_the_assistant_of_a_dialogue_keeps_its_skill(bpe, codec):
  found = talks(bpe, oracle_tokens.documents(codec, 4000, 2, 0, plain_share=0, follow_up=1,
                                             react=0))
  def right(prompt, answer):
    """Whether a copied or listed request is met to the word, courtesy aside."""
    answer = answer[:-3] if answer[-3:] == oracle.COURTESY else answer
    return answer == (prompt[2:] if prompt[0] == 'copy' else sorted(prompt[2:]))
  pairs = [[right(p, a) for p, a in pair] for _, pair, _ in found
           if all(p[0] in ('copy', 'sort') for p, _ in pair)]
  first, second = np.array(pairs).T
  # about 640 dialogues: the standard error of a correlation of 0 is 0.04
  assert len(pairs) > 500 and np.corrcoef(first, second)[0, 1] > 0.12


def test_documents_are_of_the_pretraining_split(bpe, codec):
  found = talks(bpe, oracle_tokens.documents(codec, 3000, 0))
  shown = {tuple(p) for _, pairs, _ in found for p, _ in pairs}
  for split in ('compare', 'ppo', 'eval'):
    held = oracle.tasks(6000, 0, split).prompt_NW
    assert not shown & {tuple(oracle.text(row).split()) for row in held}


def test_documents_depend_on_the_seed_alone(codec):
  first, again, other = (oracle_tokens.documents(codec, 60, seed) for seed in (4, 4, 5))
  assert [d.tobytes() for d in first] == [d.tobytes() for d in again]
  assert sum(a.tobytes() == b.tobytes() for a, b in zip(first, other, strict=True)) < 5
