"""Two processes of four devices each compute what one process of eight does, and one of them writes."""
import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from rlhf_jax.core import rundir
from tests.contracts.conftest import ROOT
from tests.files import columns

pytestmark = pytest.mark.slow
SECONDS = 500


def start(arguments, devices, cache, **settings):
  """A process with as many fake devices. PJRT_NPROC: with more than one fake device a process, jax
  0.10 starves its own threads on a machine of few cores."""
  environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'PJRT_NPROC': '16', 'RLHF_TRACEBACK': '1',
                 'RLHF_CACHE_DIR': str(cache), 'JAX_DISABLE_MOST_OPTIMIZATIONS': '1',
                 'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices}', **settings}
  return subprocess.Popen([sys.executable, '-m', *map(str, arguments)], cwd=ROOT, env=environment,
                          text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def both(arguments, cache):
  """What each of two processes printed; they meet at a free port of this machine."""
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    address = f'127.0.0.1:{free.getsockname()[1]}'
  started = [start(arguments, 4, cache, RLHF_COORDINATOR=address, RLHF_PROCESSES='2',
                   RLHF_PROCESS=str(i)) for i in range(2)]
  return ended(started)


def ended(started):
  try:
    outputs = [process.communicate(timeout=SECONDS) for process in started]
  finally:
    for process in started:
      process.kill()
  for process, (_, errors) in zip(started, outputs, strict=True):
    assert process.returncode == 0, errors[-3000:]
  return outputs


def test_the_same_updates(tmp_path):
  main, files = 'tests.contracts.process', [tmp_path / 'one', tmp_path / 'two']
  ended([start([main, files[0]], 8, tmp_path)])
  both([main, files[1]], tmp_path)
  one, two = (json.loads(file.read_text()) for file in files)
  for name in ('pm', 'ppo'):
    assert len(one[name]) == 3 and one[name][0].keys() >= {'loss', 'grad_norm'}
    for a, b in zip(one[name], two[name], strict=True):
      assert a.keys() == b.keys()
      np.testing.assert_allclose([*a.values()], [*b.values()], rtol=1e-5, atol=1e-5)


def assert_same_metrics(a, b):
  one, two = (columns(rundir.read_metrics(path)) for path in (a, b))
  assert one.keys() == two.keys()
  for name in one:
    np.testing.assert_allclose(two[name], one[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_the_same_runs(tmp_path):
  """Language model, preference model and PPO, each from what two processes saved before, parameters cut
  over both; a finished run is read by both and trained by none."""
  def arguments(main, kind, **settings):
    return [f'experiments.{main}', f'--config=configs/{main}.py:smoke',
            f'--workdir={tmp_path}/{kind}/{main}', '--config.mesh.data=1', '--config.mesh.fsdp=8',
            *(f'--config.{key}={tmp_path}/two/{value}' for key, value in settings.items())]
  stages = {'pretrain_lm': {}, 'train_pm': {'init': 'pretrain_lm', 'policy': 'pretrain_lm'},
            'train_ppo': {'policy': 'pretrain_lm', 'preference_model': 'train_pm'}}
  for main, settings in stages.items():
    ended([start(arguments(main, 'one', **settings), 8, tmp_path)])
    (told, _), (nothing, _) = both(arguments(main, 'two', **settings), tmp_path)
    folder = tmp_path / 'two' / main
    assert f'{folder}: ' in told and str(folder) not in nothing
    assert_same_metrics(tmp_path / 'one' / main, folder)
    assert rundir.is_done(folder) and not list(folder.glob('*.tmp'))
  lines = (folder / 'metrics.jsonl').read_text()
  both(arguments(main, 'two', **settings), tmp_path)
  assert (folder / 'metrics.jsonl').read_text() == lines
