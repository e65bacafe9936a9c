"""Contracts are about what programs do, not how fast: they compile with few optimisations, and one
run of the whole pipeline serves all tests that need stages to start from."""
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope='package', autouse=True)
def quick_compile(tmp_path_factory):
  jax.config.update('jax_disable_most_optimizations', True)
  jax.config.update('jax_compilation_cache_dir', str(tmp_path_factory.mktemp('xla')))
  yield
  jax.config.update('jax_disable_most_optimizations', False)
  jax.config.update('jax_compilation_cache_dir', None)


def command(*arguments):
  """A main in a process of its own, on one device, as a user runs it."""
  environment = {**os.environ, 'PYTHONPATH': str(ROOT),
                 'XLA_FLAGS': '--xla_force_host_platform_device_count=1'}
  return subprocess.run([sys.executable, '-m', *arguments], cwd=ROOT, env=environment, text=True,
                        capture_output=True, timeout=500)


@pytest.fixture(scope='session')
def pipeline(tmp_path_factory):
  """The finished smoke run of the quickstart: its folder and the process."""
  path = tmp_path_factory.mktemp('quickstart') / 'run'
  arguments = ('experiments.quickstart', '--config=configs/quickstart.py:smoke')
  done = command(*arguments, f'--workdir={path}')
  assert done.returncode == 0, done.stderr[-3000:]
  return SimpleNamespace(path=path, arguments=arguments, output=done.stdout)
