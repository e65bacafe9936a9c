"""Worlds as experiments see them: sizes, splits, labels and rows of token ids."""
import functools
import gzip
import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from configs import presets
from rlhf_jax.core import mesh as meshes
from rlhf_jax.data import dialogue, hh, oracle, oracle_tokens, pairs, tokenizer
from rlhf_jax.run import comparisons, worlds
from tests.data.test_oracle import solve

END = '<|end|>'


def tuples(rows):
  return {tuple(int(i) for i in row) for row in rows}


def test_an_unknown_source_is_refused():
  data = presets.oracle_data()
  data.source = 'nowhere'
  with pytest.raises(ValueError, match="config.data.source='nowhere' is unknown: use oracle, hh, pmp"):
    worlds.make(data)


# ------------------------------------------------------------------------------ the oracle world

SIZES = {'train': 900, 'validation': 110, 'test': 600}


def oracle_data(**changes):
  data = presets.oracle_data()
  data.update({'documents': 200, 'dialogues': 50, 'comparisons': SIZES['train'],
               'validation_comparisons': SIZES['validation'], 'test_comparisons': SIZES['test']})
  data.update(changes)
  return data


@pytest.fixture(scope='module')
def made_world():
  return worlds.make(oracle_data())


@pytest.fixture(scope='module')
def bpe(made_world):
  return tokenizer.train(made_world.texts(), 512)


@pytest.fixture(scope='module')
def compared(made_world, bpe):
  return made_world.comparisons(bpe, None)


def prompt_rows(rows):
  return tuples(row[keep > 0] for row, keep in zip(rows.tokens_NP, rows.valid_NP, strict=True))


def test_every_word_is_one_token(bpe):
  assert all(len(bpe.encode(' ' + word)) == 1 for word in oracle.WORDS[1:])


def test_comparisons_have_the_sizes_asked_for(compared):
  made, facts = compared
  assert {k: len(v.prompt) for k, v in made.items()} == SIZES
  for data in made.values():
    *columns, turn = data
    assert {len(column) for column in columns} == {len(data.prompt)} and turn is None
  assert 0.55 < facts['agreement'] < facts['ceiling'] < 1


def test_comparisons_say_the_same_in_text_tokens_and_rewards(made_world, bpe, compared):
  test = compared[0]['test']
  found = [solve(text.split()[1:-1]) for text in bpe.decode_batch(test.prompt)]
  required = np.zeros((len(found), oracle.UNITS), np.int32)
  for row, (_, units, _) in zip(required, found, strict=True):
    row[:len(units)] = [oracle.ID[w] for w in units]
  harmful = np.array([h for *_, h in found])
  for ids, texts, reward in ((test.chosen, test.chosen_text, test.reward_chosen_N),
                             (test.rejected, test.rejected_text, test.reward_rejected_N)):
    assert bpe.decode_batch(ids, show_special=True) == [text + END for text in texts]
    said = np.zeros((len(ids), oracle.ANSWER_WORDS), np.int32)
    for row, text in zip(said, texts, strict=True):
      words = [oracle.ID[w] for w in text.split()]
      row[:len(words)] = words
    np.testing.assert_allclose(oracle.reward(said, required, harmful), reward)
  assert [made_world.groups[g] for g in test.group_N] == [
    'harmful' if h else family for family, _, h in found]


def test_chosen_is_what_the_worker_preferred(bpe):
  noiseless, facts = worlds.make(oracle_data(beta=1e6)).comparisons(bpe, None)
  for data in noiseless.values():
    assert (data.reward_chosen_N >= data.reward_rejected_N).all()
    assert (data.reward_chosen_N > data.reward_rejected_N).mean() > 0.8
  tied = (noiseless['test'].reward_chosen_N == noiseless['test'].reward_rejected_N).mean()
  assert facts['ceiling'] == pytest.approx(1 - tied / 2)
  _, facts = worlds.make(oracle_data(beta=1e-6)).comparisons(bpe, None)
  assert abs(facts['agreement'] - 0.5) < 0.08 and abs(facts['ceiling'] - 0.5) < 0.08    # sd 0.02


def test_the_answerers_have_the_skill_asked_for(bpe, compared):
  def share(data):
    """Of the answers to copying that are no refusals, those that name exactly what was asked."""
    prompts = [prompt.split()[1:-1] for prompt in bpe.decode_batch(data.prompt)]
    pairs = [(prompt[2:], answer.replace(' glad to help', '').split())
             for prompt, answer in zip(prompts, data.rejected_text, strict=True)
             if prompt[0] == 'copy']
    right = [wanted == said for wanted, said in pairs if said[:1] != ['sorry']]
    assert len(right) > 50
    return np.mean(right)
  made, _ = worlds.make(oracle_data(least_skill=1.0)).comparisons(bpe, None)
  assert share(made['train']) == 1 > share(compared[0]['train'])


def test_a_policy_may_give_the_answers(made_world, bpe):
  seeds = []

  def sampler(tokens, valid, seed):
    """The first answer says nothing, the second gives the first word back."""
    assert tokens.shape == valid.shape == (len(tokens), made_world.prompt_width)
    seeds.append(seed)
    out = np.full((len(tokens), 2, made_world.answer_width), bpe.pad_id, np.int32)
    mask = np.zeros(out.shape, np.float32)
    out[:, 0, 0], mask[:, 0, 0] = bpe.end_id, 1
    out[:, 1, 0], out[:, 1, 1], mask[:, 1, :2] = tokens[:, -5], bpe.end_id, 1
    return out, mask
  made, _ = made_world.comparisons(bpe, sampler)
  assert {k: len(v.prompt) for k, v in made.items()} == SIZES and len(set(seeds)) == 3
  for data in made.values():
    for prompt, *pair in zip(data.prompt, data.chosen, data.rejected, strict=True):
      assert sorted(map(tuple, pair)) == sorted([(bpe.end_id,), (prompt[-5], bpe.end_id)])
    # an empty answer is worth 0
    empty = np.array([len(ids) == 1 for ids in data.chosen])
    assert not data.reward_chosen_N[empty].any() and 0.05 < empty.mean() < 0.95


def test_test_prompts_are_of_the_evaluation_split_and_never_trained_on(made_world, bpe, compared):
  made, _ = compared
  test = tuples(made['test'].prompt)
  assert len(test) > 500
  ppo, held = (prompt_rows(made_world.prompts(bpe, split, 3000)) for split in ('ppo', 'eval'))
  documents = made_world.documents(bpe)
  text = '\n'.join(' '.join(map(str, row)) for row in (*documents, *made_world.dialogues(bpe)))
  train = tuples(made['train'].prompt) | tuples(made['validation'].prompt)
  assert len(ppo) > 2500 and not test & train and not test & ppo
  assert not (ppo | train) & held and not ppo & train
  assert not any(' '.join(map(str, row)) in text for row in test | held | ppo | train)
  assert test & prompt_rows(made_world.prompts(bpe, 'eval', 20_000))          # the same few prompts


def test_prompts_carry_what_the_true_reward_needs(made_world, bpe):
  rows = made_world.prompts(bpe, 'eval', 300)
  assert rows.tokens_NP.shape == rows.valid_NP.shape == (300, made_world.prompt_width)
  harmful = np.array([made_world.groups[g] == 'harmful' for g in rows.group_N])
  np.testing.assert_array_equal(rows.extra['harmful_B'], harmful)
  assert set(rows.group_N) == set(range(len(made_world.groups)))
  # the best answer in tokens: a refusal, or the required units and a courtesy
  table, width = oracle_tokens.codec(bpe), made_world.answer_width
  best = [(oracle.REFUSAL if h else [oracle.WORDS[w] for w in required if w] + oracle.COURTESY)
          for h, required in zip(harmful, rows.extra['required_BU'], strict=True)]
  answer = np.full((300, width), bpe.pad_id, np.int32)
  for row, words in zip(answer, best, strict=True):
    row[:len(words) + 1] = [table.token_of_word[oracle.ID[w]] for w in words] + [bpe.end_id]
  dialogues = (np.concatenate([rows.tokens_NP, answer], 1),
               np.concatenate([rows.valid_NP, answer != bpe.pad_id], 1).astype(np.float32))
  score = jax.jit(made_world.reward(bpe))
  np.testing.assert_allclose(score(None, *dialogues, rows.extra), 1, atol=1e-6)
  part = rows[np.array([3, 1])]
  np.testing.assert_array_equal(part.tokens_NP, rows.tokens_NP[[3, 1]])
  np.testing.assert_array_equal(part.extra['required_BU'], rows.extra['required_BU'][[3, 1]])


@pytest.mark.parametrize('share', [0, 0.25, 0.75, 1])
def test_the_helpful_share_of_training_prompts_is_exact(made_world, bpe, share):
  made = worlds.training_prompts(made_world, bpe, 60, share)
  harmful = worlds.is_harmful(made_world, made)
  assert len(harmful) == 60 and harmful.sum() == 60 * (1 - share)
  np.testing.assert_array_equal(harmful, made.extra['harmful_B'])
  assert not prompt_rows(made) & prompt_rows(made_world.prompts(bpe, 'eval', 4000))
  for x, y in zip(made, worlds.training_prompts(made_world, bpe, 60, share), strict=True):
    jax.tree.map(np.testing.assert_array_equal, x, y)


def test_written_prompts_are_read_as_the_worlds_own(made_world, bpe, tmp_path, capsys):
  own = made_world.prompts(bpe, 'ppo', 30)
  texts = [bpe.decode(row[valid > 0].tolist()) for row, valid in zip(own.tokens_NP, own.valid_NP,
                                                                    strict=True)]
  path = tmp_path / 'prompts.jsonl'
  path.write_text(''.join(json.dumps({'prompt': text}) + '\n' for text in [*texts, texts[0] * 9]))
  made = worlds.written_prompts(made_world, bpe, path)
  np.testing.assert_array_equal(made.tokens_NP, own.tokens_NP)
  np.testing.assert_array_equal(made.valid_NP, own.valid_NP)
  assert set(made.group_N) == {-1} and not worlds.is_harmful(made_world, made).any()
  assert '30 prompts, 1 longer than' in capsys.readouterr().out
  both = worlds.together(own, made)
  assert both.tokens_NP.shape == (60, own.tokens_NP.shape[1]) and both.extra == {}
  assert both.group_N[:30].tolist() == own.group_N.tolist()
  path.write_text(json.dumps({'prompt': texts[0] * 9}) + '\n')
  with pytest.raises(ValueError, match='not one prompt of at most 20 tokens'):
    worlds.written_prompts(made_world, bpe, path)


def test_without_a_share_training_prompts_are_those_of_the_world(made_world, bpe):
  made, plain = worlds.training_prompts(made_world, bpe, 50, None), made_world.prompts(bpe, 'ppo', 50)
  np.testing.assert_array_equal(made.tokens_NP, plain.tokens_NP)
  for share in (-0.1, 1.5):
    with pytest.raises(ValueError, match=f'config.ppo.helpful_share={share} is no share: use 0 to 1'):
      worlds.training_prompts(made_world, bpe, 50, share)


def test_one_split_alone_is_that_of_all_three(made_world, bpe, compared):
  made, facts = made_world.comparisons(bpe, None, {'test': SIZES['test']})
  assert list(made) == ['test'] and facts == compared[1]
  assert made['test'].chosen_text == compared[0]['test'].chosen_text
  assert len(made_world.comparisons(bpe, None, {'validation': 7})[0]['validation'].prompt) == 7


def test_texts_to_pretrain_and_to_distil_on(made_world, bpe):
  assert len(made_world.documents(bpe)) == 200
  dialogues = made_world.dialogues(bpe)
  assert len(dialogues) == 50 and all(row[-1] == bpe.end_id for row in dialogues)
  assert all(text.count('Human:') == text.count('Assistant:') == 1
             for text in bpe.decode_batch(dialogues))
  assert bpe.decode(list(made_world.context(bpe))) == ' ' + oracle.HHH_PROMPT


def test_an_oracle_world_depends_on_its_seed_alone(bpe, compared):
  again, other = (worlds.make(oracle_data(seed=seed)).comparisons(bpe, None)[0]['train']
                  for seed in (0, 1))
  train = compared[0]['train']
  for x, y in zip(train, again, strict=True):
    assert x is y is None or all(np.array_equal(a, b) for a, b in zip(x, y, strict=True))
  assert train.chosen_text != other.chosen_text
  rows = train[np.array([5, 2])]
  assert rows.chosen_text == [train.chosen_text[5], train.chosen_text[2]]
  assert rows.reward_rejected_N.tolist() == train.reward_rejected_N[[5, 2]].tolist()


# ------------------------------------------------------------------------- the published HH data

RECORDS = 30                    # of each subset; a third as many for test
PLAIN = ['a plain text of the library', 'and one more of them']


def record(subset, split, i):
  """Three conversations in a row share their first turn; every third prompt has more turns, and
  every fifth is long. The answers name their record."""
  prompt = f'\n\nHuman: about {subset} {split} {i // 3}'
  if i % 3 == 2:
    prompt += f'\n\nAssistant: well {i}\n\nHuman: {"more and " * 40 * (i % 5 == 0)}'
    prompt += f'then {subset} {split} {i}?'
  prompt += '\n\nAssistant:'
  return {side: f'{prompt} {side} {subset} {split} number {i}' + tail * (i % 7)
          for side, tail in (('chosen', ' right'), ('rejected', ' wrong so'))}


def all_records(split):
  return [record(subset, split, i) for subset in hh.SUBSETS
          for i in range(RECORDS if split == 'train' else RECORDS // 3)]


@pytest.fixture(scope='module')
def hh_data(tmp_path_factory):
  root = tmp_path_factory.mktemp('published')
  for subset in hh.SUBSETS:
    for split in hh.SPLITS:
      lines = [r for r in all_records(split) if f' chosen {subset} {split} ' in r['chosen']]
      write(root / 'data' / 'hh-rlhf' / subset / f'{split}.jsonl.gz', lines)
  write(root / 'data' / 'lm' / 'books.jsonl.gz', [{'text': text} for text in PLAIN])
  data = presets.hh_data()
  data.update({'dir': str(root / 'data'), 'cache_dir': str(root / 'cache'), 'dialogues': 12,
               'validation_share': 0.2, 'context': 100, 'prompt_width': 48, 'answer_width': 16})
  return data


def write(path, lines):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(gzip.compress('\n'.join(map(json.dumps, lines)).encode(), mtime=0))


@pytest.fixture(scope='module')
def hh_world(hh_data):
  return worlds.make(hh_data)


@pytest.fixture(scope='module')
def letters(hh_world):
  return tokenizer.train(hh_world.texts(), 400)


def keys(data):
  """(subset, split, number) of each comparison, read in its chosen answer."""
  found = [text.split()[1:5] for text in data.chosen_text]
  return [(subset, split, int(number)) for subset, split, _, number in found]


def named(data):
  return set(keys(data))


def test_hh_train_validation_and_test_share_no_first_turn(hh_world, letters):
  made, facts = hh_world.comparisons(letters, None)
  assert facts['too_long'] == dict.fromkeys(made, 0) and hh_world.reward is None
  found = {k: named(v) for k, v in made.items()}
  count = RECORDS * len(hh.SUBSETS)
  assert len(found['train'] | found['validation']) == count and len(found['test']) == count // 3
  assert sum(map(len, found.values())) == count + count // 3
  assert {split for _, split, _ in found['train'] | found['validation']} == {'train'}
  assert {split for _, split, _ in found['test']} == {'test'}
  first = {k: {(subset, number // 3) for subset, _, number in v} for k, v in found.items()}
  assert not first['train'] & first['validation']
  assert 0 < len(first['validation']) < 20                   # of 40 first turns, 8 on average
  assert not named(made['train']) & named(made['test'])


def test_hh_rows_are_the_records_and_only_prompts_are_cut(hh_data, hh_world, letters):
  made, facts = hh_world.comparisons(letters, None)
  context, cut = hh_data.context, dict.fromkeys(made, 0)
  for split, data in made.items():
    place = {(r['chosen'].rsplit('Assistant:', 1)[1], r['rejected'].rsplit('Assistant:', 1)[1]): r
             for r in all_records('test' if split == 'test' else 'train')}
    assert data.reward_chosen_N is None and data.reward_rejected_N is None
    for i, texts in enumerate(zip(data.chosen_text, data.rejected_text, strict=True)):
      whole = place[texts]
      answers = (data.chosen[i], data.rejected[i])
      assert tuple(letters.decode(a, show_special=True) for a in answers) == (
        texts[0] + END, texts[1] + END)
      prompt = whole['chosen'].removesuffix(texts[0])
      # the turns before are closed by the end token, the last cue is open
      *before, last = prompt.split('\n\nHuman:')[1:]
      prompt = ''.join(f'\n\nHuman:{turn}{END}' for turn in before) + f'\n\nHuman:{last}'
      shown = letters.decode(data.prompt[i], show_special=True)
      assert prompt.endswith(shown) and shown.endswith('\n\nAssistant:')
      length = len(data.prompt[i]) + max(map(len, answers)) + 1
      assert length <= context and (shown == prompt or length == context)
      cut[split] += shown != prompt
      assert hh_world.groups[data.group_N[i]] in texts[0]
  assert sum(cut.values()) > 4 and facts['cut_prompts'] == cut


def test_hh_turns_are_counted_in_whole_prompts(hh_world, letters):
  made, _ = hh_world.comparisons(letters, None)
  for data in made.values():
    assert data.turn_N.tolist() == [2 if number % 3 == 2 else 1 for *_, number in keys(data)]
    assert data[[0, 2]].turn_N.tolist() == data.turn_N[[0, 2]].tolist()
  cut = [letters.decode(p).count('Assistant:') < t for data in made.values()
         for p, t in zip(data.prompt, data.turn_N, strict=True)]
  assert any(cut)


def test_other_pairs_are_encoded_with_groups_of_their_own(letters):
  start = '\n\nHuman: a\n\nAssistant:'
  columns = (np.array(column, object) for column in (
    [start] * 3, [' b', ' c', ' d' * 40], [' e', ' f', ' g'], ['new', 'old', 'old'], ['x'] * 3))
  made, need_N, _ = pairs.tokenise(
    letters, hh.Pairs(*columns, np.array(['']), {}), np.arange(3), functools.partial(
      worlds.encode_dialogues, letters, closed=False), ['old', 'new'], 30)
  assert made.group_N.tolist() == [1, 0] and (need_N > 30).tolist() == [False, False, True]
  assert [letters.decode(row, show_special=True) for row in made.rejected] == [
    f' e{END}', f' f{END}']


def test_hh_generic_texts_are_pieces_of_the_plain_ones(hh_world, letters):
  pieces = hh_world.generic(letters, 100, 3)
  texts = sorted(letters.decode(ids) for ids in pieces)
  for text in PLAIN:
    ids = letters.encode(text)
    for at in range(0, len(ids), 3):
      texts.remove(letters.decode(ids[at:at + 3]))
  assert texts == [] and len(pieces) > 3
  assert hh_world.generic(letters, 2, 3) == pieces[:2]          # shuffled once, then cut


def test_hh_an_answer_that_does_not_fit_is_an_error_or_its_pair_is_left_out(
    hh_data, hh_world, letters, capsys):
  made, _ = hh_world.comparisons(letters, None)
  size = {name: {key: max(len(a), len(b)) for key, a, b in zip(keys(v), v.chosen, v.rejected,
                                                               strict=True)}
          for name, v in made.items()}
  longest = max(max(v.values()) for v in size.values())

  def compare(context, long_answers):
    data = hh_data.copy_and_resolve_references()
    data.update({'context': context, 'long_answers': long_answers})
    return worlds.make(data).comparisons(letters, None)
  message = (f'an answer of {longest} tokens does not fit into config.data.context={longest} '
             f'.*: use {longest + 1} or more')
  with pytest.raises(ValueError, match=message):
    compare(longest, 'error')
  with pytest.raises(ValueError, match="config.data.long_answers='keep' is unknown: use drop, error"):
    compare(longest + 1, 'keep')
  whole, facts = compare(longest + 1, 'error')
  assert [keys(v) for v in whole.values()] == [keys(v) for v in made.values()]
  assert not any(facts['too_long'].values()) and 'left out' not in capsys.readouterr().out
  for context in (longest, longest - 10):
    some, facts = compare(context, 'drop')
    for name, data in some.items():
      fit = [key for key in keys(made[name]) if size[name][key] < context]
      assert keys(data) == fit and facts['too_long'][name] == len(size[name]) - len(fit)
      kept = [i for i, key in enumerate(keys(made[name])) if key in fit]
      assert data.rejected == made[name][kept].rejected
      assert data.group_N.tolist() == made[name].group_N[kept].tolist()
    assert sum(facts['too_long'].values()) > 0
    assert f"left out: {facts['too_long']['train']} of train" in capsys.readouterr().out


def test_hh_sizes_can_be_limited_the_same_way_each_time(hh_data, hh_world, letters):
  data = hh_data.copy_and_resolve_references()
  data.update({'comparisons': 20, 'test_comparisons': 5})
  full, few, again = (world.comparisons(letters, None)[0] for world in (
    hh_world, worlds.make(data), worlds.make(data)))
  assert len(few['train'].prompt) == 20 and len(few['test'].prompt) == 5
  assert len(few['validation'].prompt) == len(full['validation'].prompt)
  assert named(few['train']) < named(full['train']) and few['train'].prompt == again['train'].prompt
  assert len({subset for subset, *_ in named(few['train'])}) > 1


def test_hh_prompts_of_ppo_and_eval_are_apart(hh_data, hh_world, letters, capsys):
  ppo = hh_world.prompts(letters, 'ppo', 30)
  assert capsys.readouterr().out == ''
  held = hh_world.prompts(letters, 'eval', 10_000)
  # of ten test records of a subset two in every three share a prompt: 4 + 3 different ones
  assert capsys.readouterr().out == 'eval: 28 prompts, fewer than the 10000 asked for\n'
  assert len(ppo.tokens_NP) == len(prompt_rows(ppo)) == 30 and len(prompt_rows(held)) == 28
  assert not prompt_rows(ppo) & prompt_rows(held)
  validation = [letters.decode(p)[-30:] for p in hh_world.comparisons(letters, None)[0][
    'validation'].prompt]
  for rows, split in ((ppo, 'train'), (held, 'test')):
    assert rows.tokens_NP.shape == (len(rows.group_N), 48) and rows.extra == {}
    assert (np.diff(rows.valid_NP, axis=1) >= 0).all()
    texts = [letters.decode(t[v > 0].tolist()) for t, v in zip(rows.tokens_NP, rows.valid_NP,
                                                              strict=True)]
    records = [r['chosen'] for r in all_records(split)]
    assert all(text.endswith('\n\nAssistant:') and any(text in r for r in records)
               for text in texts)
    whole = [(text, group) for text, group in zip(texts, rows.group_N, strict=True)
             if text.startswith('\n\nHuman: about')]
    assert len(whole) > 10 and all(hh.SUBSETS[g] in text for text, g in whole)
  shown = {letters.decode(t[v > 0].tolist())[-30:] for t, v in zip(ppo.tokens_NP, ppo.valid_NP,
                                                                  strict=True)}
  assert not {p for p in validation if 'about' in p or 'train' in p} & shown


def test_hh_comparisons_as_a_policy_ranks_them(hh_world, letters):
  policy, mesh = SimpleNamespace(model=None, tokenizer=letters), meshes.make(8)     # it samples nothing
  width, texts = 24, []                                            # less than most prompts
  made = comparisons.ranked(14, policy, hh_world._replace(prompt_width=width), mesh)
  test = hh_world.comparisons(letters, None, {'test': 14})[0]['test']
  assert max(map(len, test.prompt)) > width
  for kind, sides in made.items():
    for side, (tokens, valid) in sides.items():
      assert tokens.shape == valid.shape and (np.diff(valid[:, :width]) >= 0).all()
      assert (np.diff(valid[:, width:]) <= 0).all() and valid[:, width:].all(0).any()
      texts += [(kind, side, *(letters.decode(row[part][keep[part] > 0].tolist(), show_special=True)
                               for part in (slice(width), slice(width, None))))
                for row, keep in zip(tokens, valid, strict=True)]
  expected = [('harmful' if hh_world.groups[g] == 'harmless-base' else 'helpful', side,
               letters.decode(list(prompt)[-width:], show_special=True), answer + END)
              for side, answers in (('chosen', test.chosen_text), ('rejected', test.rejected_text))
              for g, prompt, answer in zip(test.group_N, test.prompt, answers, strict=True)]
  assert sorted(texts) == sorted(expected) and {kind for kind, *_ in texts} == {'helpful', 'harmful'}
  assert comparisons.ranked(0, policy, hh_world, mesh) == {}


def test_hh_helpful_share(hh_world, letters):
  made = worlds.training_prompts(hh_world, letters, 20, 0.25)
  groups = [hh_world.groups[g] for g in made.group_N]
  assert groups.count('harmless-base') == 15 and len(prompt_rows(made)) == 20
  few = len(hh_world.prompts(letters, 'ppo', 10_000).group_N)
  with pytest.raises(ValueError, match=r'takes 0 helpful and \d+ harmful ones and there are \d+ and '
                     r'\d+: lower config.ppo.prompts'):
    worlds.training_prompts(hh_world, letters, few, 0.0)


def test_hh_pretraining_text_is_of_train_alone_with_every_answer_closed(hh_world, letters):
  made, _ = hh_world.comparisons(letters, None)
  texts = letters.decode_batch(hh_world.documents(letters), show_special=True)
  talks, plain = texts[:-2], texts[-2:]
  assert plain == [text + END for text in PLAIN]
  number = {text.rsplit('Assistant: ', 1)[1].removesuffix(END).strip() for text in talks}
  assert number == {text.strip() for text in made['train'].chosen_text}
  records = {r['chosen'] for r in all_records('train')}
  for text in talks:
    assert text.replace(END, '') in records
    turns = dialogue.parse(text)
    assert all(t.text.endswith(END) == (t.role == 'assistant') for t in turns)
    assert text.count(END) == sum(t.role == 'assistant' for t in turns)
  assert any(text.count(END) == 2 for text in talks)
  assert texts[:12] == letters.decode_batch(hh_world.dialogues(letters), show_special=True)
  assert set(hh_world.texts()) == {*PLAIN, *(t.replace(END, '') for t in talks)}
  assert letters.decode(hh_world.context(letters)) == worlds.HH_CONTEXT


def test_dialogues_open_and_closed_by_hand(letters):
  text = '\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:'
  shown = [letters.decode(worlds.encode_dialogues(letters, [text], closed)[0], show_special=True)
           for closed in (False, True)]
  closed = f'\n\nHuman: a\n\nAssistant: b{END}\n\nHuman: c\n\nAssistant:'
  assert shown == [closed, closed + END]


# ---------------------------------------------------------------------------------- ranked texts

@pytest.fixture(scope='module')
def ranked_data(tmp_path_factory):
  """Forty questions and forty edits of ten documents; every fifth question has a long text."""
  root = tmp_path_factory.mktemp('ranked')
  write(root / 'data' / 'pmp' / 'stackexchange' / 'train.jsonl.gz', [
    {'title': f'question {i}', 'body': 'more words ' * 30 * (i % 5 == 0), 'answers': [
      {'id': '1', 'score': 0, 'body': f'bad {i}'}, {'id': '2', 'score': 9, 'body': f'good {i} yes'}]}
    for i in range(40)])
  edits = [{'before': f'text {i} befor', 'after': f'text {i} after', 'doc_id': str(i // 4)}
           for i in range(40)]
  write(root / 'data' / 'pmp' / 'edits' / 'train.jsonl.gz', edits)
  write(root / 'data' / 'pmp' / 'edits' / 'test.jsonl.gz', edits[:3])
  write(root / 'data' / 'lm' / 'books.jsonl.gz', [{'text': text} for text in PLAIN])
  data = presets.pmp_data()
  data.update({'dir': str(root / 'data'), 'cache_dir': str(root / 'cache'), 'context': 40,
               'validation_share': 0.3, 'binarise': False})
  return data


def ranked(ranked_data, letters, **changes):
  data = ranked_data.copy_and_resolve_references()
  data.update(changes)
  return worlds.make(data).comparisons(letters, None)


def decoded(letters, data, side):
  return [letters.decode([*prompt, *answer], show_special=True)
          for prompt, answer in zip(data.prompt, getattr(data, side), strict=True)]


def number_of(data):
  return [int(text.split()[1]) for text in data.chosen_text]


def test_pmp_rows_are_the_texts_and_their_order(ranked_data, letters):
  made, facts = ranked(ranked_data, letters)
  number = {name: number_of(data) for name, data in made.items()}
  assert len(made['test'].prompt) == 3 and len(number['train']) + len(number['validation']) == 80
  edits = {name: {n // 4 for n, g in zip(number[name], v.group_N, strict=True) if g == 3}
           for name, v in made.items()}
  assert edits['train'] | edits['validation'] == set(range(10))
  assert edits['validation'] and not edits['train'] & edits['validation']
  cut = 0
  for data in made.values():
    for n, group, good, bad in zip(number_of(data), data.group_N, decoded(letters, data, 'chosen'),
                                   decoded(letters, data, 'rejected'), strict=True):
      whole = (f'Question: question {n}\n\n{("more words " * 30 * (n % 5 == 0)).strip()}\n\nAnswer:'
               if group == 0 else 'SECTION BODY:')
      texts = ((f'good {n} yes', f'bad {n}') if group == 0 else (f'text {n} after', f'text {n} befor'))
      shown = [text.removesuffix(f' {answer}{END}')
               for text, answer in zip((good, bad), texts, strict=True)]
      assert shown[0] == shown[1] and whole.endswith(shown[0])
      cut += shown[0] != whole
  assert cut == sum(facts['cut_prompts'].values()) == 8


def test_pmp_pairs_become_good_and_bad_ones_inside_the_context(ranked_data, letters):
  plain, _ = ranked(ranked_data, letters)
  made, facts = ranked(ranked_data, letters, binarise=True)
  good, bad = (letters.encode(label) for label in ('GOOD:', 'BAD:'))
  for name, data in made.items():
    assert len(data.prompt) == 2 * len(plain[name].prompt)
    for i, (chosen, rejected) in enumerate(zip(data.chosen, data.rejected, strict=True)):
      first = i % 2 == 0
      labels = (good, bad) if first else (bad, good)
      assert (chosen[:len(labels[0])], rejected[:len(labels[1])]) == labels
      assert chosen[len(labels[0]):] == rejected[len(labels[1]):]           # the same text
      answer = (plain[name].chosen if first else plain[name].rejected)[i // 2]
      assert chosen[-len(answer):] == answer and max(len(chosen), len(rejected)) < ranked_data.context
    lengths = [max(len(a), len(b)) for a, b in zip(data.chosen, data.rejected, strict=True)]
    cut = facts['cut_prompts'][name]
    assert sum(length == ranked_data.context - 1 for length in lengths) >= cut


def test_a_split_without_comparisons_is_named(ranked_data, letters):
  with pytest.raises(ValueError, match='not one comparison for validation in 40 tokens: more files'):
    ranked(ranked_data, letters, validation_share=0.0)


def test_pmp_sizes_and_text_for_a_language_model(ranked_data, letters):
  made, _ = ranked(ranked_data, letters, binarise=True, comparisons=10)
  assert len(made['train'].prompt) == 20
  world = worlds.make(ranked_data)
  train = ranked(ranked_data, letters, context=500)[0]['train']
  texts = set(PLAIN) | {text.removesuffix(END) for text in decoded(letters, train, 'chosen')}
  assert set(world.texts()) == texts
  assert set(letters.decode_batch(world.documents(letters), show_special=True)) == {
    text + END for text in texts}
  with pytest.raises(ValueError, match="config.data.source='pmp' holds ranked texts"):
    world.prompts(letters, 'ppo', 3)


def test_the_tokenizer_is_trained_once_and_then_read(made_world, tmp_path):
  path = tmp_path / 'tokenizer.json'
  first = worlds.tokenizer(made_world, path, 512)
  changed = made_world._replace(texts=lambda: pytest.fail('trained again'))
  assert worlds.tokenizer(changed, path, 512).digest == first.digest
