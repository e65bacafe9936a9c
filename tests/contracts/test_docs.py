"""What the documents name exists: functions, tests, files, config keys."""
import ast
import pathlib
import re

import pytest

from configs import train_ppo

ROOT = pathlib.Path(__file__).parents[2]
DOCS = sorted((ROOT / 'docs').glob('*.md'))


def functions(file):
  return {node.name for node in ast.walk(ast.parse(file.read_text()))
          if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def missing(text):
  """The names `path.py::function` in a text that are not there."""
  lost = []
  for path, name in re.findall(r'`([\w/]+\.py)::(\w+)`', text):
    file = ROOT / ('tests' if name.startswith('test_') else 'rlhf_jax') / path
    if not file.exists() or name not in functions(file):
      lost.append(f'{path}::{name}')
  return lost


@pytest.mark.parametrize('path', DOCS, ids=lambda p: p.stem)
def test_functions_and_tests_exist(path):
  assert missing(path.read_text()) == []


def test_the_check_sees_what_is_lost():
  assert missing('`core/step.py::passes` and `core/step.py::gone`, `core/gone.py::passes`') == [
    'core/step.py::gone', 'core/gone.py::passes']
  assert missing('`core/test_step.py::test_gone`') == ['core/test_step.py::test_gone']


def test_the_options_of_ppo_are_keys_of_its_config():
  text = (ROOT / 'docs' / 'ppo.md').read_text()
  config = train_ppo.get_config()
  keys = re.findall(r'`((?:ppo|optimizer)\.\w+)`', text)
  assert len(keys) > 10
  for section, key in (key.split('.') for key in keys):
    assert key in config[section], f'{section}.{key}'
