"""The published comparisons: from files or a download to columns, through a cache."""
import gzip
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
from functools import partial

import numpy as np
import pytest

from rlhf_jax.data import dialogue, hh, sources

SUBSET = 'helpful-online'


def pair(question, chosen, rejected):
  start = f'\n\nHuman: {question}\n\nAssistant:'
  return {'chosen': start + chosen, 'rejected': start + rejected}


TRAIN = [pair(f'q{i}', f' good {i} \u201c\U0001f600\u201d', f' bad {i}') for i in range(5)]
TEST = [pair('t0', ' good', ' bad'), pair('t1', ' good', ' bad\n\nHuman: x\n\nAssistant: y')]


def publish(folder, train=TRAIN, test=TEST, subset=SUBSET):
  """The published layout; lines may be objects or bytes."""
  for split, records in (('train', train), ('test', test)):
    path = folder / 'hh-rlhf' / subset / f'{split}.jsonl.gz'
    path.parent.mkdir(parents=True, exist_ok=True)
    text = b'\n'.join(r if isinstance(r, bytes) else json.dumps(r).encode() for r in records)
    path.write_bytes(gzip.compress(text, mtime=0))      # without the clock: equal files, equal digests
  return folder


def load(tmp_path, **options):
  return hh.load_pairs(tmp_path / 'data', tmp_path / 'cache', subsets=[SUBSET], **options)


def test_columns_are_the_records_in_order(tmp_path):
  publish(tmp_path / 'data')
  pairs = load(tmp_path)
  for side in ('chosen', 'rejected'):
    transcripts = list(pairs.prompt + getattr(pairs, side))
    assert transcripts == [record[side] for record in TRAIN + TEST]
  assert all(prompt.endswith(dialogue.ASSISTANT_CUE) for prompt in pairs.prompt)
  assert pairs.chosen[0] == ' good 0 \u201c\U0001f600\u201d'
  assert pairs.split.tolist() == ['train'] * 5 + ['test'] * 2
  assert set(pairs.subset) == {SUBSET}
  assert pairs.dropped == {}
  assert [len(column) for column in pairs[:5]] == [7] * 5


def test_subsets_follow_one_another(tmp_path):
  publish(tmp_path / 'data')
  publish(tmp_path / 'data', train=TRAIN[:1], test=TEST[:1], subset='harmless-base')
  pairs = hh.load_pairs(tmp_path / 'data', tmp_path / 'cache', subsets=['harmless-base', SUBSET])
  assert pairs.subset.tolist() == ['harmless-base'] * 2 + [SUBSET] * 7
  with pytest.raises(FileNotFoundError, match='helpful-base/train.jsonl.gz does not exist'):
    hh.load_pairs(tmp_path / 'data', tmp_path / 'cache')


def test_what_is_left_out_is_counted_by_kind_with_the_first_example(tmp_path):
  publish(tmp_path / 'data', train=[
    pair('a', ' same', ' same'), TRAIN[0], pair('b', ' same', ' same'), pair('c', ' ', ' x'),
    {'chosen': '\n\nHuman: a\n\nAssistant: x', 'rejected': '\n\nHuman: b\n\nAssistant: x'},
    {'chosen': 'no roles', 'rejected': 'at all'}], test=[TEST[0], pair('d', ' x', '')])
  pairs = load(tmp_path)
  assert pairs.prompt.tolist() == [f'\n\nHuman: {q}\n\nAssistant:' for q in ('q0', 't0')]
  assert pairs.dropped == {
    'identical': (2, f'{SUBSET}/train, record 0'),
    'empty_answer': (2, f'{SUBSET}/train, record 3'),
    'no_common_prompt': (2, f'{SUBSET}/train, record 4')}


def test_an_unreadable_line_is_an_error_or_counted_also_from_the_cache(tmp_path):
  publish(tmp_path / 'data', train=[TRAIN[0], b'{"chosen": ', b'{"chosen": "x"}', TRAIN[1]])
  for _ in range(2):
    pairs = load(tmp_path, on_error='skip')
    count, example = pairs.dropped.pop('unreadable')
    assert count == 2 and 'train.jsonl.gz, line 2: ' in example
    assert pairs.dropped == {} and len(pairs.prompt) == 4
    with pytest.raises(ValueError, match='train.jsonl.gz, line 2: .*skip') as error:
      load(tmp_path)
    assert '\n' not in str(error.value)


def test_changed_files_are_never_served_stale(tmp_path):
  publish(tmp_path / 'data')
  assert load(tmp_path).chosen[-1] == ' good'
  publish(tmp_path / 'data', test=[TEST[0], pair('t1', ' fine', ' bad')])
  assert load(tmp_path).chosen[-1] == ' fine'
  publish(tmp_path / 'data')
  assert load(tmp_path).chosen[-1] == ' good'


def test_the_cache_serves_the_second_time_wherever_the_files_lie(tmp_path):
  publish(tmp_path / 'data')
  first = hh.prepare(SUBSET, tmp_path / 'data', tmp_path / 'cache')
  written = [(p, p.stat()) for p in sorted(first.data_path.iterdir())]
  publish(tmp_path / 'moved')
  second = hh.prepare(SUBSET, tmp_path / 'moved', tmp_path / 'cache')
  assert [(p, p.stat()) for p in sorted(second.data_path.iterdir())] == written


def test_an_interrupted_preparation_leaves_nothing_that_is_served(tmp_path):
  publish(tmp_path / 'data', test=[b'not a record'])
  for _ in range(2):                   # train is written by then, test is not: both times an error
    with pytest.raises(ValueError, match='test.jsonl.gz: not one readable record'):
      load(tmp_path, on_error='skip')
  assert not list((tmp_path / 'cache').rglob('*.array_record*'))


def test_the_loser_of_a_race_reads_what_the_winner_prepared(tmp_path, monkeypatch):
  publish(tmp_path / 'data')
  inner = sources.read_jsonl

  def read_after_the_winner(*arguments, **options):
    monkeypatch.setattr(sources, 'read_jsonl', inner)
    load(tmp_path)
    return inner(*arguments, **options)

  monkeypatch.setattr(sources, 'read_jsonl', read_after_the_winner)
  assert load(tmp_path).dropped == {} and len(load(tmp_path).prompt) == 7


@pytest.fixture
def published(tmp_path, monkeypatch):
  """The published layout on a web server of this machine; yields what it was asked for."""
  asked = []

  class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
      asked.append((self.command, self.path))

  folder = publish(tmp_path / 'web') / 'hh-rlhf'
  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), partial(Handler, directory=folder))
  threading.Thread(target=server.serve_forever, daemon=True).start()
  monkeypatch.setattr(hh, 'PUBLISHED', f'http://127.0.0.1:{server.server_port}')
  monkeypatch.setenv('no_proxy', '127.0.0.1')
  monkeypatch.delenv(sources.DATA_VARIABLE, raising=False)
  yield asked
  server.shutdown()
  server.server_close()


def test_without_a_folder_the_files_are_downloaded_once(tmp_path, published):
  for _ in range(2):
    pairs = hh.load_pairs(cache_dir=tmp_path / 'cache', subsets=[SUBSET])
    assert list(pairs.prompt + pairs.chosen) == [r['chosen'] for r in TRAIN + TEST]
  assert sorted(path for command, path in published if command == 'GET') == [
    f'/{SUBSET}/test.jsonl.gz', f'/{SUBSET}/train.jsonl.gz']


@pytest.mark.parametrize('missing', ['train', 'test'])
def test_a_failed_download_names_the_remedy(tmp_path, published, missing):
  (tmp_path / 'web' / 'hh-rlhf' / SUBSET / f'{missing}.jsonl.gz').unlink()
  with pytest.raises(ConnectionError, match=f'no {SUBSET} from .*RLHF_DATA_DIR.*404') as error:
    hh.load_pairs(cache_dir=tmp_path / 'cache', subsets=[SUBSET])
  assert '\n' not in str(error.value)
  # not looked at: the folder of downloads, where the thread of the other file may still tidy up
  prepared = [p for p in (tmp_path / 'cache').iterdir() if p.name != 'downloads']
  assert not [file for p in prepared for file in p.rglob('*.array_record*')]


def test_without_a_network_the_download_fails_at_once(tmp_path, monkeypatch):
  monkeypatch.delenv(sources.DATA_VARIABLE, raising=False)
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    monkeypatch.setattr(hh, 'PUBLISHED', f'http://127.0.0.1:{free.getsockname()[1]}')
  start = time.monotonic()
  with pytest.raises(ConnectionError, match='RLHF_DATA_DIR'):
    hh.load_pairs(cache_dir=tmp_path / 'cache', subsets=[SUBSET])
  assert time.monotonic() - start < 60


def test_tensorflow_is_never_imported(tmp_path):
  publish(tmp_path / 'data')
  code = ('import sys; from rlhf_jax.data import hh; '
          f'pairs = hh.load_pairs({str(tmp_path / "data")!r}, {str(tmp_path / "cache")!r}, '
          f'subsets=[{SUBSET!r}]); '
          'print(len(pairs.prompt), {"jax", "tensorflow"} & set(sys.modules))')
  out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
  assert out.stdout.split()[-2:] == ['7', 'set()']


def test_validation_keeps_all_pairs_of_a_conversation_on_one_side():
  short = [f'\n\nHuman: question {i}\n\nAssistant:' for i in range(4000)]
  longer = [f'{prompt} answer\n\nHuman: and then?\n\nAssistant:' for prompt in short]
  mask = hh.validation_mask(short)
  # 4,000 draws at 0.05: standard deviation 0.0034
  assert abs(mask.mean() - 0.05) < 0.012
  np.testing.assert_array_equal(hh.validation_mask(longer), mask)
  np.testing.assert_array_equal(hh.validation_mask(short[::-1]), mask[::-1])
  wider = hh.validation_mask(short, 0.3)
  assert abs(wider.mean() - 0.3) < 0.025 and (wider >= mask).all()


@pytest.mark.skipif(not os.environ.get(sources.DATA_VARIABLE), reason='no published data here')
def test_published_records(tmp_path):
  pairs = hh.load_pairs(cache_dir=tmp_path)
  count = sum(count for count, _ in pairs.dropped.values())
  lines = sum(len(sources.read_jsonl(path)[0])
              for path in sources.data_dir().glob('hh-rlhf/*/*.jsonl.gz'))
  assert len(pairs.prompt) + count == lines
  assert count < 0.005 * lines                # fewer than 0.4% in the published test files
  assert set(pairs.dropped) <= {'identical', 'empty_answer', 'no_common_prompt'}
