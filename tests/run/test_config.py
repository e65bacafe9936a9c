"""From the command line to a checked config: types, unknown names, one-line errors."""
import sys

import pytest
from ml_collections import ConfigDict

from rlhf_jax.run import config as configs
from rlhf_jax.run.hooks import Diverged


@pytest.fixture
def made():
  return ConfigDict({'main': __name__, 'seed': 0, 'rate': 0.5, 'name': 'micro', 'flag': True,
                     'widths': (50, 60), 'kinds': (), 'none': None,
                     'ppo': {'kl_coef': 0.02, 'clip': 0.2, 'value_clip': 0.2},
                     'optimizer': {'clip': 1.0}})


@pytest.mark.parametrize('key, text, value', [
  ('seed', '3', 3), ('rate', '2', 2.0), ('rate', '1e-3', 1e-3), ('name', '13M', '13M'),
  ('name', '7', '7'), ('flag', 'false', False), ('flag', 'True', True), ('widths', '(8,)', (8,)),
  ('widths', '8', (8,)), ('widths', '[8, 9]', (8, 9)), ('widths', '8,9', (8, 9)), ('widths', '()', ()),
  ('kinds', 'a', ('a',)), ('kinds', 'a, b,', ('a', 'b')), ('kinds', "('a',)", ('a',)),
  ('none', '5', 5), ('none', 'text', 'text'), ('ppo.kl_coef', '0', 0.0), ('ppo.clip', '1', 1.0),
  ('optimizer.clip', 'None', None), ('ppo.value_clip', 'None', None)])
def test_overrides_keep_types(made, key, text, value):
  configs.override(made, key, text)
  found = dict(configs.flatten(made))[key]
  assert found == value and type(found) is type(value)


@pytest.mark.parametrize('key, text', [('seed', '1.5'), ('seed', 'true'), ('rate', 'fast'),
                                       ('flag', '1'), ('widths', 'all'), ('rate', 'True'),
                                       ('kinds', 'None'), ('kinds', '3'), ('widths', '8,True'),
                                       ('rate', 'None'), ('ppo.clip', 'narrow'), ('ppo.clip', 'None')])
def test_other_types_are_refused(made, key, text):
  before = made.to_dict()
  with pytest.raises(ValueError, match=f'config.{key}={text}: an? .* is wanted here'):
    configs.override(made, key, text)
  assert made.to_dict() == before


@pytest.mark.parametrize('key, hint', [('sed', 'did you mean config.seed?'),
                                       ('kl_coef', 'did you mean config.ppo.kl_coef?'),
                                       ('ppo.kl_coeff', 'did you mean config.ppo.kl_coef?'),
                                       ('qqqq', 'keys: flag, kinds, main')])
def test_unknown_keys_name_the_nearest(made, key, hint):
  with pytest.raises(ValueError, match=f'^config.{key} is unknown; ') as error:
    configs.override(made, key, '1')
  assert hint in str(error.value)


CONFIG = '''
from ml_collections import ConfigDict
from rlhf_jax.run.config import variant

def get_config(arg=''):
  made = ConfigDict({'main': 'MAIN', 'seed': 0, 'steps': 5})
  return variant(arg, default=lambda: made, smoke=lambda: made)()
'''


@pytest.fixture
def file(tmp_path):
  path = tmp_path / 'given.py'
  path.write_text(CONFIG.replace('MAIN', __name__))
  return path


def test_parse(file):
  config, options = configs.parse([f'--config={file}:smoke', '--workdir=x', '--config.seed=4'])
  assert config.seed == 4 and options['workdir'] == 'x'


SEEN = []


def run(config, workdir):
  SEEN.append((config.seed, workdir))
  if config.seed == 13:
    raise Diverged('loss is nan')


def refused(capsys, *arguments):
  """The one line of standard error of a refused command."""
  with pytest.raises(SystemExit) as stop:
    configs.main(run, list(arguments))
  assert stop.value.code == 2
  err = capsys.readouterr().err
  assert err.startswith('error: ') and err.count('\n') == 1
  return err


def test_main_runs(file, monkeypatch, tmp_path):
  monkeypatch.setattr(configs, 'prepare_backend', lambda: None)      # a setting of the whole process
  SEEN.clear()
  configs.main(run, [f'--config={file}', '--workdir=w', '--config.seed=2'])
  assert SEEN == [(2, 'w')]


@pytest.mark.parametrize('arguments, line', [
  (['--config=FILE:tiny', '--workdir=w'], "variant 'tiny' is unknown: use one of default, smoke"),
  (['--config=nowhere.py', '--workdir=w'], 'nowhere.py: no such config file'),
  (['--workdir=w'], 'write --config=configs/FILE.py'),
  (['--config=FILE'], '--workdir=...'),
  (['--config=FILE', '--workdir=w', '--fast=1'], 'unknown: --fast'),
  (['--config=FILE', '--workdir=w', 'seed=1'], "argument 'seed=1': write --name=value"),
  (['--config=FILE', '--workdir=w', '--config.sede=1'], 'did you mean config.seed?'),
  (['--config=FILE', '--workdir=w', '--config.seed=x'], 'config.seed=x: an int is wanted'),
  (['--config=FILE', '--workdir=w', '--config.steps=0'], 'config.steps=0: use 1 or more'),
  (['--config=FILE', '--workdir=w', '--config.main=experiments.other'], 'is a config of experiments')])
def test_errors_are_one_line(file, capsys, arguments, line):
  SEEN.clear()
  assert line in refused(capsys, *[a.replace('FILE', str(file)) for a in arguments])
  assert not SEEN


@pytest.mark.parametrize('key, bad, good, says', [
  ('ppo.kl_coef', -0.1, 0.0, 'use 0 or more'), ('a.b.learning_rate', -1, 0, 'use 0 or more'),
  ('batch_size', 0, 1, 'use 1 or more'), ('ppo.lam', 1.5, 1.0, 'use 0 to 1'),
  ('ppo.discount', -0.5, 0, 'use 0 to 1'), ('ppo.clip', float('nan'), 0.2, 'use 0 or more')])
def test_numbers_that_no_run_can_be_made_with(key, bad, good, says):
  def of(value):
    *sections, name = key.split('.')
    made = {name: value}
    for section in reversed(sections):
      made = {section: made}
    return ConfigDict(made)
  for value in (good, None, (bad, bad)):
    configs.check_ranges(of(value))
  with pytest.raises(ValueError) as error:
    configs.check_ranges(of(bad))
  assert str(error.value) == f'config.{key}={bad}: {says}'


def test_errors_about_a_path_name_its_key():
  config = ConfigDict({'policy': 'runs/a', 'ppo': {'judge': 'runs/b@40'}, 'several': 'runs/c, runs/d/',
                       'source': 'hh'})
  def told(text):
    with pytest.raises(ValueError) as error, configs.naming(config):
      raise ValueError(text)
    return str(error.value)
  assert told('runs/b/config.json is not there') == 'runs/b/config.json is not there (config.ppo.judge)'
  assert told('no runs/d') == 'no runs/d (config.several)'
  assert told('runs/ab has none') == 'runs/ab has none'
  assert told('hh has none') == 'hh has none'
  assert told('runs/a: set config.policy') == 'runs/a: set config.policy'


def test_help_says_what_there_is_to_set(file, capsys):
  SEEN.clear()
  configs.main(run, ['--help', f'--config={file}:smoke'])
  out = capsys.readouterr().out
  assert out.startswith(__doc__) and '--config.steps=5' in out.splitlines()[-1] and not SEEN


def test_an_interrupted_command_says_how_it_goes_on(capsys):
  def stopped(argv):
    raise KeyboardInterrupt
  with pytest.raises(SystemExit) as stop:
    configs.reported(stopped, [])
  assert stop.value.code == 130 and 'the same command again goes on' in capsys.readouterr().err


def test_divergence_is_one_line_and_a_traceback_can_be_asked_for(file, capsys, monkeypatch):
  monkeypatch.setattr(configs, 'prepare_backend', lambda: None)
  arguments = f'--config={file}', '--workdir=w', '--config.seed=13'
  assert 'loss is nan' in refused(capsys, *arguments)
  monkeypatch.setenv('RLHF_TRACEBACK', '1')
  with pytest.raises(Diverged):
    configs.main(run, list(arguments))


@pytest.mark.parametrize('environment, line', [
  ({'RLHF_COORDINATOR': 'h:1', 'RLHF_PROCESS': '0'}, '_COORDINATOR is set and RLHF_PROCESSES is not'),
  ({'RLHF_PROCESSES': '2'}, 'RLHF_PROCESSES is set and RLHF_COORDINATOR is not'),
  ({'RLHF_COORDINATOR': 'h:1', 'RLHF_PROCESSES': '2', 'RLHF_PROCESS': '2'},
   'RLHF_PROCESS=2 of RLHF_PROCESSES=2: number the processes from 0'),
  ({'RLHF_COORDINATOR': 'h:1', 'RLHF_PROCESSES': 'two', 'RLHF_PROCESS': '0'}, 'RLHF_PROCESSES=two')])
def test_half_a_set_of_processes_is_refused(environment, line):
  with pytest.raises(ValueError, match=line):
    configs.join(environment)


def test_one_process_needs_no_settings():
  environment = {}
  configs.join(environment)
  assert environment == {}                   # else files would be another process's to write


def test_a_process_that_does_not_write_says_nothing(file, capsys, monkeypatch):
  monkeypatch.setattr(configs, 'prepare_backend', lambda: None)
  def told(process):
    monkeypatch.setenv('RLHF_PROCESS', process)
    configs.main(speak, [f'--config={file}', '--workdir=w'])
    return capsys.readouterr()
  assert told('1') == ('', '') and told('0') == ('out\n', 'err\n')


def speak(config, workdir):
  print('out')
  print('err', file=sys.stderr)
