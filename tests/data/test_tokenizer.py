"""Byte-level BPE: nothing is lost, special ids stay apart, training is deterministic."""
import hashlib
import json

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

from rlhf_jax.data import tokenizer

TEXTS = ['the cat sat on the mat', '\n\nHuman: the cat\n\nAssistant: the mat', 'sat on <|end|>'] * 9
HARD = [
  '', ' ', '  two  blanks ', '\n\nHuman: na\u00efve?\n\nAssistant:', 'tab\tand\r\n',
  '\u201cquotes\u201d \u00a0 \u2028', '\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f600',
  ''.join(map(chr, range(0x250))), '\u4f60\u597d \u0645\u0631\u062d\u0628\u0627', 'e\u0301 \ufeff',
]


@pytest.fixture(scope='module')
def small():
  return tokenizer.train(TEXTS, 300)


@pytest.mark.parametrize('text', HARD)
def test_every_text_comes_back(small, text):
  ids = small.encode(text)
  assert small.decode(ids) == text
  assert min(ids, default=9) > 2 and max(ids, default=0) < small.vocab_size


def test_all_bytes_have_an_id_even_with_nothing_to_learn_from():
  bare = tokenizer.train([], 259)
  assert bare.vocab_size == 259
  text = ''.join(HARD)
  assert bare.decode(bare.encode(text)) == text
  assert len(bare.encode(text)) == len(text.encode())


def test_frequent_words_become_one_id_with_their_space(small):
  assert len(small.encode(' the')) == 1 and len(small.encode(' xyz')) == 4
  assert small.encode('on the')[-1] == small.encode(' the')[0]


def test_the_three_special_ids_are_0_1_2(small):
  assert (small.pad_id, small.end_id, small.eoc_id) == (0, 1, 2)
  assert small.decode([0, 1, 2], show_special=True) == '<|pad|><|end|><|eoc|>'


def test_a_text_that_spells_a_special_token_is_text(small, tmp_path):
  small.save(tmp_path / 'bpe.json')
  for this in (small, tokenizer.load(tmp_path / 'bpe.json')):
    for name in tokenizer.SPECIAL:
      for ids in (this.encode(f'a{name}b'), *this.encode_batch([f'a{name}b'])):
        assert min(ids) > 2
        assert this.decode(ids) == f'a{name}b'      # shown although special tokens are not


def test_special_ids_are_left_out_of_the_text_unless_asked_for(small):
  ids = [*small.encode(' the cat'), small.end_id, small.pad_id]
  assert small.decode(ids) == ' the cat'
  assert '<|end|>' in small.decode(ids, show_special=True)
  assert small.decode_batch([ids, []]) == [' the cat', '']
  assert '<|end|>' in small.decode_batch([ids], show_special=True)[0]


def test_a_batch_is_row_by_row(small):
  assert small.encode_batch(HARD) == [small.encode(text) for text in HARD]


def test_the_same_texts_give_the_same_file_and_others_do_not(small, tmp_path):
  again = tokenizer.train(iter(TEXTS), 300)
  assert again.digest == small.digest
  smaller = tokenizer.train(TEXTS, 280)
  assert smaller.vocab_size == 280 and smaller.digest != small.digest
  again.save(tmp_path / 'bpe.json')
  assert hashlib.sha256((tmp_path / 'bpe.json').read_bytes()).hexdigest() == small.digest
  loaded = tokenizer.load(tmp_path / 'bpe.json')
  assert loaded.digest == small.digest
  assert loaded.encode_batch(HARD) == small.encode_batch(HARD)


def test_wrong_input_is_refused_in_one_line(tmp_path):
  with pytest.raises(ValueError, match='258 is too small.*at least 259'):
    tokenizer.train(TEXTS, 258)
  with pytest.raises(FileNotFoundError, match='none.json does not exist: name the folder'):
    tokenizer.load(tmp_path / 'none.json')
  (tmp_path / 'bad.json').write_text('{"model": ')
  with pytest.raises(ValueError, match='bad.json: not a tokenizer file'):
    tokenizer.load(tmp_path / 'bad.json')


def test_a_file_without_the_special_tokens_is_refused(small, tmp_path):
  text = small.bpe.to_str().replace('<|end|>', '<|stop|>')
  (tmp_path / 'other.json').write_text(text)
  with pytest.raises(ValueError, match='have the ids .0, None, 2. and need one each'):
    tokenizer.load(tmp_path / 'other.json')


def foreign(path, texts=TEXTS, size=300, blank=False):
  """A tokenizer.json as others publish it: end token 0, cuts to 4 and pads; returns the tokenizer."""
  bpe = Tokenizer(models.BPE())
  bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=blank)
  bpe.decoder = tokenizer.decoders.ByteLevel()
  bpe.train_from_iterator(texts, trainers.BpeTrainer(
    vocab_size=size, special_tokens=['<|endoftext|>', '<|user|>'], show_progress=False,
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
  bpe.post_processor = processors.TemplateProcessing('$A <|endoftext|>', None, [('<|endoftext|>', 0)])
  bpe.enable_truncation(4)
  bpe.enable_padding(length=9)
  bpe.save(str(path))
  return bpe


def test_a_tokenizer_of_others_gets_three_special_ids_and_keeps_all_others(tmp_path):
  bpe = foreign(tmp_path / 'theirs.json')
  size = bpe.get_vocab_size()
  made = tokenizer.adopt(tmp_path / 'theirs.json', 0)
  assert (made.end_id, made.pad_id, made.eoc_id, made.vocab_size) == (0, size, size + 1, size + 2)
  bpe.no_truncation()
  bpe.no_padding()
  for text in HARD:
    assert made.encode(text) == bpe.encode(text, add_special_tokens=False).ids
    assert made.decode(made.encode(text)) == text
  for name in ('<|endoftext|>', '<|user|>', *tokenizer.SPECIAL):
    assert made.decode(made.encode(name)) == name and min(made.encode(name)) > 1
  # Its file is one of ours; taken over again it stays as it is.
  made.save(tmp_path / 'ours.json')
  again = tokenizer.load(tmp_path / 'ours.json')
  assert again.digest == made.digest and again.end_id == 0 and again.pad_id == size
  assert tokenizer.adopt(tmp_path / 'ours.json', 0).digest == made.digest


def test_every_row_of_the_table_has_an_id(tmp_path):
  size = foreign(tmp_path / 'theirs.json').get_vocab_size()
  spare = tokenizer.adopt(tmp_path / 'theirs.json', 0, rows=size + 7)
  assert spare.vocab_size == size + 7 and spare.pad_id == size
  full = tokenizer.adopt(tmp_path / 'theirs.json', 0, rows=size, multiple_of=64)
  assert full.vocab_size == -(-(size + 2) // 64) * 64
  assert full.decode([size + 1, size + 5]) == '' and full.encode(f'<|unused {size + 5}|>')[0] < size


def test_tokenizers_that_cannot_be_taken_over(tmp_path):
  path = tmp_path / 'theirs.json'
  size = foreign(path).get_vocab_size()
  with pytest.raises(ValueError, match=f'the end token cannot be id {size}, which is None'):
    tokenizer.adopt(path, size)
  file = json.loads(path.read_text())
  file['added_tokens'][1]['content'] = '<|end|>'
  path.write_text(json.dumps(file))
  with pytest.raises(ValueError, match="be id 0, which is '<|endoftext|>', <|end|> being another"):
    tokenizer.adopt(path, 0)
  foreign(path, blank=True)
  with pytest.raises(ValueError, match='encoded apart do not join to the text again: only byte-level'):
    tokenizer.adopt(path, 0)
  words = Tokenizer(models.WordLevel({'a': 0}, unk_token='a'))
  words.save(str(path))
  with pytest.raises(ValueError, match='tokenizer of type WordLevel is not implemented'):
    tokenizer.adopt(path, 0)
  file['model']['vocab']['xyz'] = size + 9
  file['added_tokens'][1]['content'] = '<|user|>'
  path.write_text(json.dumps(file))
  with pytest.raises(ValueError, match='each once: a tokenizer with gaps is not implemented'):
    tokenizer.adopt(path, 0)
