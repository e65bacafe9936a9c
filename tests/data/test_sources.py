"""Reading published files: what is damaged is named by file and line, or counted."""
import gzip
import hashlib
import json
import tracemalloc

import pytest

from rlhf_jax.data import sources

GOOD = [{'text': 'a\u2028b'}, {'text': '\u00e9 \U0001f600'}, {'text': ''}]


def lines(records):
  return ''.join(json.dumps(r, ensure_ascii=False) + '\n' for r in records).encode()


def write(path, content):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(content)
  return path


@pytest.mark.parametrize('name, pack', [('a.jsonl', bytes), ('a.jsonl.gz', gzip.compress),
                                        ('stored_under_another_name', gzip.compress)])
def test_plain_and_gzip_by_content(tmp_path, name, pack):
  path = write(tmp_path / name, pack(lines(GOOD) + b'\n'))
  assert sources.read_jsonl(path, ('text',)) == (GOOD, [])


@pytest.mark.parametrize('bad, why', [
  (b'{"text": "cut o', 'Unterminated string'),
  (b'["text"]', 'not a JSON object'),
  (b'{"text": 3}', "no text in the field 'text'"),
  (b'{"title": "x"}', "no text in the field 'text'"),
  (b'{"text": "\xff"}', "can't decode byte 0xff"),
  (rb'{"text": "\ud83d"}', 'surrogates not allowed'),
  ('{"text": "x"}'.encode('utf-16'), "can't decode byte"),
])
def test_a_bad_line_is_named_or_left_out(tmp_path, bad, why):
  path = write(tmp_path / 'a.jsonl', lines(GOOD[:1]) + bad + b'\n' + lines(GOOD[1:]))
  with pytest.raises(ValueError, match='a.jsonl, line 2: ') as error:
    sources.read_jsonl(path, ('text',))
  assert why in str(error.value) and '\n' not in str(error.value)
  records, problems = sources.read_jsonl(path, ('text',), on_error='skip')
  assert records == GOOD
  assert problems == [str(error.value)]


def test_a_gzip_stream_cut_off_keeps_the_lines_before(tmp_path):
  whole = lines([{'text': f'{i} {hashlib.sha256(bytes([i])).hexdigest()}'} for i in range(200)])
  path = write(tmp_path / 'a.jsonl.gz', gzip.compress(whole)[:-600])
  with pytest.raises(ValueError, match=r'a.jsonl.gz, line \d+: the rest is unreadable'):
    sources.read_jsonl(path)
  records, problems = sources.read_jsonl(path, on_error='skip')
  assert len(problems) == 1 and 0 < len(records) < 200
  assert lines(records) == whole[:len(lines(records))]
  assert f'line {len(records) + 1}: ' in problems[0]


def test_a_gzip_stream_with_a_flipped_byte_is_noticed(tmp_path):
  packed = bytearray(gzip.compress(lines(GOOD * 50)))
  packed[-6] ^= 1                                        # in the checksum
  path = write(tmp_path / 'a.jsonl.gz', bytes(packed))
  with pytest.raises(ValueError, match='line 151: the rest is unreadable .CRC'):
    sources.read_jsonl(path)


ROWS = b'''<?xml version="1.0"?>
<posts>
  <row Id="1" Body="a&#xA;&lt;b&gt;"
    Score="2" />

  <other Id="2" /><row Id="3" />
</posts>'''


@pytest.mark.parametrize('pack', [bytes, gzip.compress])
def test_rows_of_a_dump_with_the_line_they_end_on(tmp_path, pack):
  path = write(tmp_path / 'Posts.xml', pack(ROWS))
  assert list(sources.xml_rows(path)) == [
    (4, {'Id': '1', 'Body': 'a\n<b>', 'Score': '2'}, None), (6, {'Id': '3'}, None)]


@pytest.mark.parametrize('content, number', [
  (ROWS[:-8], 6), (ROWS.replace(b'</posts>', b'</post>'), 7), (ROWS.replace(b'</posts>', b'&no;'), 7),
  (gzip.compress(ROWS)[:-8], 7)])
def test_a_dump_that_breaks_keeps_the_rows_before(tmp_path, content, number):
  path = write(tmp_path / 'Posts.xml', content)
  *rows, last = sources.xml_rows(path)
  assert [row[0] for row in rows] == [4, 6] and last[:2] == (number, None)
  assert last[2].startswith(f'{path}, line {number}: the rest is unreadable (')


def test_rows_do_not_stay_in_memory(tmp_path):
  lines = [b'<posts>', *(b'<row Body="%s" />' % (b'x' * 1000) for _ in range(4000)), b'</posts>']
  path = write(tmp_path / 'Posts.xml', b'\n'.join(lines))
  tracemalloc.start()
  assert sum(1 for _ in sources.xml_rows(path)) == 4000
  most = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert most < 1e6                                                        # of 4 MB


def test_a_text_has_its_number_and_numbers_are_uniform():
  assert sources.uniform('a') == int.from_bytes(hashlib.sha256(b'a').digest()[:8], 'big') / 2 ** 64
  drawn = [sources.uniform(str(i)) for i in range(4000)]
  # standard deviation of the mean of 4,000 uniform numbers: 0.0046
  assert abs(sum(drawn) / 4000 - 0.5) < 0.015 and 0 <= min(drawn) < 0.01 and 0.99 < max(drawn) < 1


def test_wrong_arguments(tmp_path):
  with pytest.raises(FileNotFoundError, match='none.jsonl: no such file'):
    sources.read_jsonl(tmp_path / 'none.jsonl')
  with pytest.raises(ValueError, match="not 'ignore'"):
    sources.read_jsonl(write(tmp_path / 'a.jsonl', b''), on_error='ignore')


def test_digest_is_of_contents_in_order(tmp_path):
  a, b = write(tmp_path / 'a', b'xy'), write(tmp_path / 'b', b'z')
  by_hand = hashlib.sha256(hashlib.sha256(b'xy').digest() + hashlib.sha256(b'z').digest())
  assert sources.digest([a, b]) == by_hand.hexdigest()
  assert sources.digest([a, b]) == sources.digest([write(tmp_path / 'c' / 'a', b'xy'), b])
  moved = [write(tmp_path / 'd', b'x'), write(tmp_path / 'e', b'yz')]      # the same bytes in all
  assert len({sources.digest(p) for p in ([a, b], [b, a], [a], moved)}) == 4


def test_the_data_folder_is_the_argument_then_the_environment_then_none(tmp_path, monkeypatch):
  monkeypatch.delenv(sources.DATA_VARIABLE, raising=False)
  assert sources.data_dir() is None and sources.data_dir('') is None
  monkeypatch.setenv(sources.DATA_VARIABLE, str(tmp_path))
  assert sources.data_dir() == tmp_path
  (tmp_path / 'inner').mkdir()
  assert sources.data_dir(str(tmp_path / 'inner')) == tmp_path / 'inner'
  with pytest.raises(FileNotFoundError, match='none does not exist: correct RLHF_DATA_DIR'):
    sources.data_dir(tmp_path / 'none')


def test_the_cache_folder_is_the_argument_then_the_environment_then_home(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path / 'home'))
  monkeypatch.delenv(sources.CACHE_VARIABLE, raising=False)
  assert sources.cache_dir() == tmp_path / 'home' / '.cache' / 'rlhf_jax'
  monkeypatch.setenv(sources.CACHE_VARIABLE, str(tmp_path / 'environment'))
  assert sources.cache_dir() == tmp_path / 'environment'
  assert sources.cache_dir(tmp_path / 'argument') == tmp_path / 'argument'


def test_texts_are_those_under_lm_in_order_of_names(tmp_path):
  assert sources.texts(tmp_path) == []
  write(tmp_path / 'lm' / 'b.jsonl.gz', gzip.compress(lines([{'text': 'third'}])))
  write(tmp_path / 'lm' / 'a.jsonl.gz',
        gzip.compress(lines([{'text': 'first'}, {'text': 'second', 'source': 'x'}])))
  write(tmp_path / 'lm' / 'notes.txt', b'not this')
  assert sources.texts(tmp_path) == ['first', 'second', 'third']
