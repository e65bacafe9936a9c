"""How long a main takes to its first update and to its end, with an empty and with a filled compilation
cache, and the most memory it holds; whole processes, of smoke size, so that starting is all there is.

  python -m experiments.benchmarks.start --workdir=runs/bench/start --inputs=runs/quickstart
"""
import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import time

import numpy as np

from experiments.benchmarks import contest
from rlhf_jax.analysis import tables
from rlhf_jax.core import rundir

MAINS = {                           # what each starts from, and settings that leave little but starting
  'train_pm': (('init=lm', 'policy=policy'), (
    'data.comparisons=320', 'data.validation_comparisons=64', 'data.test_comparisons=64',
    'baselines=false')),
  'train_ppo': (('policy=policy', 'preference_model=pm'), (
    'ppo.samples=512', 'ppo.prompts=512', 'eval_prompts=128'))}


def once(main, inputs, workdir, cache):
  """(seconds to the first update, seconds in all, MiB) of one process."""
  shutil.rmtree(workdir, ignore_errors=True)
  starts, short = MAINS[main]
  settings = [f'{key}={inputs}/{name}' for key, name in (s.split('=') for s in starts)]
  began = time.monotonic()
  process = subprocess.Popen(
    [sys.executable, '-m', f'experiments.{main}', f'--config=configs/{main}.py', f'--workdir={workdir}',
     *(f'--config.{s}' for s in (*settings, *short, 'log_every=1'))],
    cwd=contest.ROOT, env=os.environ | {'RLHF_CACHE_DIR': str(cache)}, stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL)
  metrics, first, done = pathlib.Path(workdir) / 'metrics.jsonl', None, 0
  while not done:
    if first is None and metrics.exists() and 'grad_norm' in metrics.read_text():
      first = time.monotonic() - began
    time.sleep(0.05)
    done, status, used = os.wait4(process.pid, os.WNOHANG)
  if status:
    sys.exit(f'{main} ended with exit code {os.waitstatus_to_exitcode(status)}: '
             + ' '.join(process.args[1:]) + ' says why')
  return first, time.monotonic() - began, used.ru_maxrss / 1024


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--workdir', required=True)
  parser.add_argument('--inputs', required=True, help='a finished quickstart')
  parser.add_argument('--mains', nargs='+', default=list(MAINS), choices=MAINS)
  parser.add_argument('--repeats', type=int, default=3)
  args = parser.parse_args()
  path, inputs = (pathlib.Path(p).absolute() for p in (args.workdir, args.inputs))
  if not rundir.is_done(inputs):
    parser.error(f'--inputs={args.inputs} is no finished quickstart: make quickstart first')
  path.mkdir(parents=True, exist_ok=True)
  rows = []
  for name in args.mains:
    for state in ('empty', 'filled'):
      made = []
      for _ in range(args.repeats):
        if state == 'empty':
          shutil.rmtree(path / 'cache', ignore_errors=True)
        made.append(once(name, inputs, path / 'run', path / 'cache'))
      first, whole, used = np.array(made).T
      rows.append({'main': name, 'cache': state, 'first update, s': spread(first),
                   'whole process, s': spread(whole), 'peak memory, MiB': round(float(used.max()))})
  shutil.rmtree(path / 'cache', ignore_errors=True)
  shutil.rmtree(path / 'run', ignore_errors=True)
  rundir.write_summary(path, {'rows': rows, 'machine': contest.machine(), 'repeats': args.repeats})
  rundir.write_text(path / 'table.txt', tables.text_table(rows) + '\n')
  print(tables.text_table(rows))


def spread(values):
  return f'{np.median(values):.1f} [{values.min():.1f}, {values.max():.1f}]'


if __name__ == '__main__':
  contest.command(main)
