"""A run directory is resumed or refused, never overwritten; its files survive a kill."""
import json
import platform
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.core import rundir

CONFIG = {'seed': 0, 'ppo': {'clip': 0.2, 'minibatches': 4}, 'sizes': (16, 32), 'data': {}}


def _files(folder):
  return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_folder_is_new_then_resumed_then_done(tmp_path):
  folder = tmp_path / 'deep' / 'run'
  assert rundir.open_run(folder, CONFIG) == 'new'
  assert rundir.read_config(folder) == {**CONFIG, 'sizes': [16, 32]}
  assert rundir.open_run(folder, CONFIG) == 'resume'
  rundir.mark_done(folder)
  assert rundir.open_run(folder, dict(reversed(CONFIG.items()))) == 'done'


def test_each_start_is_noted_with_code_libraries_and_devices(tmp_path, monkeypatch):
  monkeypatch.setattr(sys, 'orig_argv', ['/x/python', '-m', 'experiments.x', '--config.data.dir=a b'])
  for name in ('study', 'study/stage'):
    rundir.open_run(tmp_path / name, CONFIG)
  rundir.open_run(tmp_path / 'study', CONFIG)
  rundir.mark_done(tmp_path / 'study')
  rundir.open_run(tmp_path / 'study', CONFIG)
  lines = (tmp_path / 'study' / 'starts.jsonl').read_text().splitlines()
  assert len(lines) == 2                                        # not that of the finished run
  made = rundir.made_with(tmp_path / 'study')
  assert made['jax'] == [jax.__version__] and made['python'] == [platform.python_version()]
  assert made['devices'] == [f'{jax.device_count()} x cpu']
  assert made['code'][0].startswith(('commit ', 'version ')) and len(made['code']) == 1
  assert made['command'] == ["python -m experiments.x '--config.data.dir=a b'"]
  rundir.mark_done(tmp_path / 'study')
  (tmp_path / 'study' / 'starts.jsonl').unlink()
  assert rundir.made_with(tmp_path / 'study')['jax'] == [jax.__version__]     # of the stage
  (tmp_path / 'study' / 'stage' / 'starts.jsonl').unlink()
  assert rundir.made_with(tmp_path / 'study') == {}


def test_a_process_that_does_not_write_notes_no_start(tmp_path, monkeypatch):
  rundir.open_run(tmp_path, CONFIG)
  monkeypatch.setenv('RLHF_PROCESS', '1')
  rundir.open_run(tmp_path, CONFIG)
  assert len((tmp_path / 'starts.jsonl').read_text().splitlines()) == 1


def test_a_run_killed_before_its_config_was_in_place_is_new(tmp_path):
  (tmp_path / 'config.json.tmp').write_text('{"see')
  assert rundir.open_run(tmp_path, CONFIG) == 'new'
  assert sorted(_files(tmp_path)) == ['config.json', 'starts.jsonl']


@pytest.mark.parametrize('other, words', [
  ({**CONFIG, 'ppo': {'clip': 0.3, 'minibatches': 8}}, 'ppo.clip is 0.2 there and 0.3 here'),
  ({**CONFIG, 'seed': 0.0}, 'seed is 0 there and 0.0 here'),
  ({**CONFIG, 'extra': None}, 'extra is absent there and null here'),
  ({**CONFIG, 'data': None}, 'data is {} there and null here'),
  ({**CONFIG, 'ppo': {}}, 'ppo is absent there and {} here'),
  ({'ppo': CONFIG['ppo'], 'data': {}, 'seed': 0}, 'sizes is [16, 32] there and absent here'),
])
def test_another_config_is_refused_by_its_first_key_and_nothing_changes(tmp_path, other, words):
  rundir.open_run(tmp_path, CONFIG)
  before = _files(tmp_path)
  with pytest.raises(ValueError, match='another config') as error:
    rundir.open_run(tmp_path, other)
  assert words in str(error.value) and '\n' not in str(error.value)
  assert _files(tmp_path) == before


def test_a_folder_that_is_no_run_and_a_file_are_refused(tmp_path):
  (tmp_path / 'thesis.tex').write_text('precious')
  with pytest.raises(ValueError, match='no config.json'):
    rundir.open_run(tmp_path, CONFIG)
  assert list(_files(tmp_path)) == ['thesis.tex']
  with pytest.raises(ValueError, match='is a file'):
    rundir.open_run(tmp_path / 'thesis.tex', CONFIG)


def test_a_config_that_json_cannot_hold_is_refused_before_anything_is_written(tmp_path):
  for value in (float('inf'), object()):
    with pytest.raises(ValueError, match='cannot be written as JSON'):
      rundir.open_run(tmp_path / 'run', {'clip': value})
  assert not (tmp_path / 'run').exists()


def test_the_hash_ignores_the_order_of_keys_and_nothing_else():
  # printf '{"a": {"b": 1, "c": [2, 3]}, "d": null}' | sha256sum
  config = {'d': None, 'a': {'c': (2, 3), 'b': 1}}
  assert rundir.config_hash(config) == '984bd40690'
  assert rundir.config_hash({'a': {'b': 1, 'c': [2, 3]}, 'd': None}) == '984bd40690'
  changed = [{**config, 'd': 0}, {**config, 'e': None}, {'d': None, 'a': {'c': (3, 2), 'b': 1}}]
  assert len({rundir.config_hash(c) for c in [config, *changed]}) == 4


def test_metrics_come_back_as_columns(tmp_path):
  rundir.append_metrics(tmp_path, 0, {'loss': jnp.float32(0.5), 'kl': 0})
  rundir.append_metrics(tmp_path, np.int64(1), {'loss': np.array([0.25])})
  rundir.append_metrics(tmp_path, 2, {'loss': float('nan'), 'kl': jnp.bfloat16(1.5)})
  columns = rundir.read_metrics(tmp_path)
  np.testing.assert_array_equal(columns['step'], [0, 1, 2])
  np.testing.assert_array_equal(columns['loss'], [0.5, 0.25, np.nan])
  np.testing.assert_array_equal(columns['kl'], [0, np.nan, 1.5])
  evaluated = rundir.read_metrics(tmp_path, 'kl')       # only the lines that hold it
  assert evaluated.keys() == {'step', 'kl'}
  np.testing.assert_array_equal(evaluated['step'], [0, 2])
  with pytest.raises(ValueError, match="no metric 'lost': it has step, loss, kl"):
    rundir.read_metrics(tmp_path, 'lost')


def test_metrics_are_strict_json_and_one_number_each(tmp_path):
  rundir.append_metrics(tmp_path, 3, {'ratio': float('inf'), 'loss': np.float32(0.5)})
  def refuse(constant):
    raise AssertionError(constant)
  line = (tmp_path / 'metrics.jsonl').read_text()
  assert json.loads(line, parse_constant=refuse) == {'step': 3, 'ratio': None, 'loss': 0.5}
  with pytest.raises(ValueError, match="'grad' has 2 values"):
    rundir.append_metrics(tmp_path, 4, {'grad': np.ones(2)})
  assert (tmp_path / 'metrics.jsonl').read_text() == line


def _log(folder, steps):
  for step in steps:
    rundir.append_metrics(folder, step, {'loss': 1 / (1 + step)})


@pytest.mark.parametrize('restored, torn', [(4, ''), (4, '{"step": 8, "lo'), (-1, '{"st')])
def test_an_interrupted_run_leaves_the_metrics_of_an_uninterrupted_one(tmp_path, restored, torn):
  """Killed after step 7, also inside a write; restored at step 4, or with no checkpoint at all."""
  whole, broken = tmp_path / 'whole', tmp_path / 'broken'
  for folder in (whole, broken):
    rundir.open_run(folder, CONFIG)
    _log(folder, range(8))
  _log(whole, range(8, 10))
  with open(broken / 'metrics.jsonl', 'a') as file:
    file.write(torn)
  np.testing.assert_array_equal(rundir.read_metrics(broken)['step'], np.arange(8))
  rundir.truncate_metrics(broken, restored)
  _log(broken, range(restored + 1, 10))
  assert _files(broken) == _files(whole)


def test_a_spoiled_line_inside_the_file_is_named(tmp_path):
  (tmp_path / 'metrics.jsonl').write_text('{"step": 0}\n{"step"\n{"step": 2}\n')
  with pytest.raises(ValueError, match='line 2 is not JSON'):
    rundir.read_metrics(tmp_path)


def test_a_summary_comes_back(tmp_path):
  rundir.write_summary(tmp_path, {'pm': {'accuracy': jnp.float32(0.75), 'bins': np.arange(3)},
                                  1: [float('nan'), True, None, 'text']})
  assert rundir.read_summary(tmp_path) == {'pm': {'accuracy': 0.75, 'bins': [0, 1, 2]},
                                           '1': [None, True, None, 'text']}
  assert list(_files(tmp_path)) == ['summary.json']


def test_what_is_missing_or_spoiled_is_said_in_one_line(tmp_path):
  for read in (rundir.read_summary, rundir.read_metrics, rundir.read_config):
    with pytest.raises(FileNotFoundError, match='does not exist'):
      read(tmp_path)
  (tmp_path / 'config.json').write_text('{"seed": ')
  with pytest.raises(ValueError, match='config.json is not JSON'):
    rundir.open_run(tmp_path, CONFIG)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
  rundir.write_text(tmp_path / 'a.html', 'old')
  with pytest.raises(UnicodeEncodeError):
    rundir.write_text(tmp_path / 'a.html', 'new \ud800')      # fails while the text is written
  assert (tmp_path / 'a.html').read_text() == 'old'
  rundir.write_text(tmp_path / 'a.html', 'new')
  assert {name: text for name, text in _files(tmp_path).items()} == {'a.html': b'new'}


def test_of_several_processes_the_first_alone_writes(tmp_path, monkeypatch):
  def acts(path):
    status = rundir.open_run(path, {'seed': 0})
    rundir.append_metrics(path, 1, {'loss': 2.0})
    rundir.write_summary(path, {'loss': 2.0})
    rundir.mark_done(path)
    return status, {file.name for file in path.iterdir()}
  monkeypatch.setenv('RLHF_PROCESS', '1')
  assert acts(tmp_path / 'second') == ('new', set())
  monkeypatch.setenv('RLHF_PROCESS', '0')
  assert acts(tmp_path / 'first') == (
    'new', {'config.json', 'starts.jsonl', 'metrics.jsonl', 'summary.json', 'DONE'})
  monkeypatch.setenv('RLHF_PROCESS', '1')
  assert rundir.open_run(tmp_path / 'first', {'seed': 0}) == 'done'
