"""The architecture as a test: imports go down only, and side effects live in named modules.

Every file of rlhf_jax/ and experiments/ is parsed, never imported. A violation names the file, the
line and the rule. To allow a new module to touch files or the network, add it to EDGE.
"""
import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAYER = {'core': 0, 'models': 1, 'data': 1, 'algorithms': 2, 'rewards': 2, 'rollout': 2,
         'feedback': 3, 'evals': 4, 'analysis': 5, 'run': 6, 'configs': 6, 'experiments': 7,
         'tests': 8}
EDGE = ('core.environment', 'core.rundir', 'data.sources', 'data.tokenizer', 'data.hh',
        'data.teacher_file', 'models.huggingface', 'feedback.store', 'analysis.report', 'run',
        'experiments')
FILE_MODULES = {'gzip', 'bz2', 'lzma', 'zipfile', 'tarfile', 'shutil', 'tempfile', 'sqlite3',
                'urllib', 'requests', 'http', 'socket', 'subprocess'}
FILE_METHODS = {'open', 'read_text', 'read_bytes', 'write_text', 'write_bytes', 'savefig'}


def module_name(path):
  """'core.masked' for rlhf_jax/core/masked.py, 'experiments.sweep' for experiments/sweep.py."""
  parts = list(path.with_suffix('').parts)
  parts = parts[1:] if parts[0] == 'rlhf_jax' else parts
  return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


def imports(tree, path):
  """(line, absolute dotted name) of every import, as deep as the statement tells."""
  package = path.parent.parts
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      yield from ((node.lineno, alias.name) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      above = package[:len(package) - node.level + 1] if node.level else ()
      base = '.'.join([*above, *([node.module] if node.module else [])])
      yield from ((node.lineno, f'{base}.{alias.name}') for alias in node.names)


def import_rule(package, target):
  """The rule that an import of `target` (a dotted name) inside `package` breaks, or None."""
  parts = target.split('.')
  if package == 'data' and parts[0] in ('jax', 'jaxlib'):
    return 'data never imports jax'
  if parts[0] == 'rlhf_jax' and len(parts) > 1:
    other = parts[1]
  elif parts[0] in ('configs', 'experiments', 'tests'):
    other = parts[0]
  else:
    return None
  if package == '':
    return 'rlhf_jax/__init__.py imports nothing of its own'
  if package == 'algorithms' and other not in ('core', 'algorithms'):
    return 'algorithms imports only core'
  if other != package and LAYER.get(other, -1) >= LAYER[package]:
    return f'imports go down only: {package} may not import {other}'
  return None


def called(node):
  """The last name of the function that a syntax node calls: 'open' for open(p) and p.open()."""
  function = getattr(node, 'func', None)
  return getattr(function, 'id', getattr(function, 'attr', None))


def violations(path, source):
  """One line for each broken rule of the file at `path` (relative to the repository)."""
  tree, module = ast.parse(source), module_name(path)
  package = module.split('.')[0]
  if package and package not in LAYER:
    return [f'{path}:1: {package} has no layer: add it to LAYER']
  found = []
  at_edge = any(f'{module}.'.startswith(f'{edge}.') for edge in EDGE)
  elsewhere = f'files and network belong to {", ".join(EDGE)}'
  reads_config = package in ('run', 'configs', 'experiments')
  for line, target in imports(tree, path):
    if rule := import_rule(package, target):
      found.append((line, rule))
    if not at_edge and target.split('.')[0] in FILE_MODULES:
      found.append((line, f'imports {target}: {elsewhere}'))
    if not reads_config and target.split('.')[0] == 'ml_collections':
      found.append((line, 'only run, configs and experiments know ml_collections'))
  for node in ast.walk(tree):
    if not at_edge and called(node) in FILE_METHODS:
      found.append((node.lineno, f'calls {called(node)}: {elsewhere}'))
    if not reads_config and 'ConfigDict' in (getattr(node, 'id', ''), getattr(node, 'attr', '')):
      found.append((node.lineno, 'only run, configs and experiments know ConfigDict'))
  return [f'{path}:{line}: {rule}' for line, rule in sorted(found)]


def test_every_file_keeps_the_rules():
  files = [path.relative_to(ROOT) for folder in ('rlhf_jax', 'experiments')
           for path in sorted((ROOT / folder).rglob('*.py'))]
  assert len(files) > 10
  found = [line for path in files for line in violations(path, (ROOT / path).read_text())]
  assert not found, '\n' + '\n'.join(found)


@pytest.mark.parametrize('path, source, rule', [
    ('rlhf_jax/core/x.py', 'import rlhf_jax.models.logp', 'core may not import models'),
    ('rlhf_jax/models/x.py', 'from rlhf_jax import data', 'models may not import data'),
    ('rlhf_jax/models/x.py', 'from ..rewards import y', 'models may not import rewards'),
    ('rlhf_jax/models/x.py', 'from .. import rollout', 'models may not import rollout'),
    ('rlhf_jax/models/__init__.py', 'from ..rollout import y', 'models may not import rollout'),
    ('rlhf_jax/rewards/x.py', 'def f():\n  from rlhf_jax.rollout import y', ':2: imports go down'),
    ('rlhf_jax/feedback/x.py', 'from rlhf_jax.evals import y', 'feedback may not import evals'),
    ('rlhf_jax/run/x.py', 'import experiments.sweep', 'run may not import experiments'),
    ('rlhf_jax/run/x.py', 'from configs import presets', 'run may not import configs'),
    ('rlhf_jax/algorithms/x.py', 'from rlhf_jax.models import y', 'algorithms imports only core'),
    ('rlhf_jax/data/x.py', 'import os, jax.numpy as jnp', 'data never imports jax'),
    ('rlhf_jax/data/x.py', 'from jax import numpy', 'data never imports jax'),
    ('rlhf_jax/__init__.py', 'from rlhf_jax.core import y', 'imports nothing of its own'),
    ('rlhf_jax/newcomer/x.py', '', 'newcomer has no layer'),
    ('rlhf_jax/core/x.py', 'y = 1\nwith open(p) as f: pass', 'x.py:2: calls open'),
    ('rlhf_jax/evals/x.py', 'Path(p).write_text(s)', 'calls write_text'),
    ('rlhf_jax/data/sources_x.py', 'import gzip', 'imports gzip'),
    ('rlhf_jax/models/x.py', 'from urllib.request import urlopen', 'imports urllib.request'),
    ('rlhf_jax/rollout/x.py', 'import ml_collections as mc', 'know ml_collections'),
    ('rlhf_jax/rollout/x.py', 'def f(c: mc.ConfigDict): pass', 'know ConfigDict'),
])
def test_the_checker_sees(path, source, rule):
  found = violations(Path(path), source)
  assert len(found) == 1 and rule in found[0] and found[0].startswith(f'{path}:')


@pytest.mark.parametrize('path, source', [
    ('rlhf_jax/models/x.py', 'import jax\nfrom rlhf_jax.core import masked\nfrom . import logp'),
    ('rlhf_jax/run/x.py', 'from rlhf_jax.analysis import fits\nimport ml_collections'),
    ('rlhf_jax/analysis/x.py', 'from rlhf_jax.evals import y\nfrom rlhf_jax.feedback import elo'),
    ('rlhf_jax/algorithms/x.py', 'from rlhf_jax.algorithms.gae import gae'),
    ('rlhf_jax/core/x.py', '"""A ConfigDict never enters; nor does open(path)."""'),
    ('rlhf_jax/data/sources.py', 'import gzip\nwith gzip.open(p) as f: pass'),
    ('rlhf_jax/feedback/store.py', 'import sqlite3'),
    ('rlhf_jax/run/checkpoints.py', 'open(p)'),
    ('experiments/quickstart.py', 'from rlhf_jax.run import fit\nfrom configs import presets'),
])
def test_the_checker_allows(path, source):
  assert violations(Path(path), source) == []
