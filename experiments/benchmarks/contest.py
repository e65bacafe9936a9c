"""Who is faster: the same work by several programs in turn, round after round, on an idle machine.

Every contender, ours too, is a process of its own that waits for work on its standard input (`serve`),
so that none disturbs another and each lives in its own virtual environment. A round in which anything
else used more than `MOST_LOAD` cores is thrown away and repeated. Only ratios within a round are
claims: the machine's own speed drifts.
"""
import contextlib
import json
import os
import pathlib
import platform
import shutil
import signal
import subprocess
import sys
import time
from typing import NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from rlhf_jax.core import environment as environments
from rlhf_jax.run.config import reported

MOST_LOAD = 0.2                 # cores used by anything but the contender
MOST_REPEATS = 4                # rounds thrown away for each that counts, before giving up
ROOT = pathlib.Path(__file__).resolve().parents[2]
VENVS = ROOT / '.venv-bench'
SCRIPTS = pathlib.Path(__file__).parent / 'peers'
# For all contenders alike: freed memory stays with the process, in huge pages. Without it every call of
# a program that takes its working memory as one piece pays for each of its pages anew.
MEMORY = {'GLIBC_TUNABLES': 'glibc.malloc.hugetlb=1:glibc.malloc.arena_max=1:glibc.malloc.mmap_max=0:'
                            'glibc.malloc.trim_threshold=100000000000'}
# Of a GPU JAX may take as much as it needs, as torch may, and not before: several processes share it.
for name, value in ('PREALLOCATE', 'false'), ('MEM_FRACTION', '0.9'):
  os.environ.setdefault(f'XLA_PYTHON_CLIENT_{name}', value)
TICK = os.sysconf('SC_CLK_TCK') if hasattr(os, 'sysconf') else 100
# What all of them measure: 10.6M parameters outside the tables, a size of `models.sizes`.
LLAMA = {'name': 'llama', 'layers': 6, 'width': 384, 'heads': 6, 'vocab_size': 8192, 'context': 1024,
         'mlp_ratio': 8 / 3}
# By that number; the second is for a GPU, with heads of 128 and a hidden width of whole tiles.
SIZES = {'10.6M': LLAMA, '810M': LLAMA | {
  'layers': 16, 'width': 2048, 'heads': 16, 'vocab_size': 2**15, 'context': 2048,
  'mlp_ratio': 5504 / 2048}}
# Made by `environment`, never in our own. Versions that the measured tables were made with.
PEERS = {
  'torch': ('torch==2.13.0', 'transformers==5.23.0', 'numpy'),
  'trl': ('torch==2.13.0', 'transformers==5.23.0', 'trl==1.16.0', 'numpy'),
  'tunix': ('google-tunix==0.1.7', 'jax==0.10.2', 'numpy'),
  # The last release that has PPOTrainer.
  'trl-ppo': ('trl==1.12.0', 'torch==2.13.0', 'transformers==5.23.0', 'numpy'),
}


class Ratio(NamedTuple):
  """Of two contenders in the same rounds: how many times the first is faster."""
  median: float
  low: float
  high: float


def environment(name):
  """The Python of a peer's virtual environment, which is made when it is not there; where the variable
  RLHF_PEER_PYTHON names one that has the libraries of all peers, that."""
  if given := os.environ.get('RLHF_PEER_PYTHON'):
    if shutil.which(given) is None:
      sys.exit(f'RLHF_PEER_PYTHON={given} is no program: name the Python that has the libraries of all '
               'peers')
    return given
  folder = VENVS / name
  python, done = folder / 'bin' / 'python', folder / 'installed.txt'
  wanted = '\n'.join(PEERS[name])
  if not done.exists() or done.read_text() != wanted:
    print(f'{name}: installing {", ".join(PEERS[name])} into {folder}', flush=True)
    subprocess.run([sys.executable, '-m', 'venv', '--clear', folder], check=True)
    if subprocess.run([python, '-m', 'pip', 'install', '--quiet', '--disable-pip-version-check',
                       *PEERS[name]]).returncode:
      sys.exit(f'{name}: its libraries could not be installed into {folder}, see above')
    done.write_text(wanted)
  return str(python)


class Worker:
  """A contender's process. `run()` does the work once -> what the process says of it, a dictionary with
  'seconds' and whatever else it counts ('tokens')."""

  def __init__(self, name, python, script, settings):
    self.name = name
    self.process = subprocess.Popen(
      [python, *script, json.dumps(settings)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
      cwd=ROOT, env=os.environ | MEMORY)
    self.facts = self._answer()

  def run(self):
    """One piece of work; 'load' is the number of cores that anything else used meanwhile."""
    wall, busy, own = time.monotonic(), _busy(), _of_process(self.process.pid)
    with contextlib.suppress(BrokenPipeError):                       # what has ended has no answer
      self.process.stdin.write('run\n')
      self.process.stdin.flush()
    said = self._answer()
    wall = time.monotonic() - wall
    own = _of_process(self.process.pid) - own
    return said | {'load': max(0.0, _busy() - busy - own) / wall, 'cores': own / wall}

  def close(self):
    self.process.stdin.close()
    self.process.wait()

  def _answer(self):
    """The next line of JSON; anything else that is printed goes to our standard error."""
    for line in self.process.stdout:
      if line.startswith('{'):
        return json.loads(line)
      print(f'{self.name}: {line}', end='', file=sys.stderr)
    code = self.process.wait()
    sys.exit(f'{self.name} ended with exit code {code}: ' + (
      'killed, as a rule since all contenders together need more memory than there is; name fewer of '
      'them' if code == -signal.SIGKILL else 'its own messages stand above'))


def ours(name, module, settings):
  """A Worker of this project: `python -m experiments.benchmarks.MODULE`."""
  return Worker(name, sys.executable, ['-m', f'experiments.benchmarks.{module}'], settings)


def peer(name, environment_name, script, settings):
  """A Worker of another project: a file of `peers/` in its own virtual environment."""
  return Worker(name, environment(environment_name), [str(SCRIPTS / script)], settings)


def command(main):
  """main() from the command line: what its user can mend is one line."""
  reported(lambda argv: main(), [])


def serve(work, **facts):
  """The other side: says `facts`, then answers each line of standard input by `work()`, a dictionary
  with at least 'seconds'. Scripts in `peers/` carry these lines too: they cannot import this file."""
  print(json.dumps(facts), flush=True)
  for _ in sys.stdin:
    print(json.dumps(work()), flush=True)


def rounds(workers, repeats, label='rounds'):
  """({name: [what `run` said, of each round]}, number of rounds thrown away): all workers in turn,
  `repeats` times on an idle machine. Just before each piece of work that counts comes one that does
  not: the first compiles, and memory that lay idle while others had their turn may be gone."""
  def counted(worker):
    worker.run()
    return worker.run()
  said, thrown = {w.name: [] for w in workers}, 0
  with tqdm(total=repeats, desc=f'{label:>16}', unit='round') as bar:
    while bar.n < repeats:
      order = workers if bar.n % 2 == 0 else workers[::-1]
      results = {w.name: counted(w) for w in order}
      load = max(result['load'] for result in results.values())
      if load > MOST_LOAD:
        thrown += 1
        if thrown > MOST_REPEATS * repeats:
          sys.exit(f'other work uses {load:.2f} cores, more than {MOST_LOAD}: {thrown} rounds were '
                   'thrown away; measure on an idle machine')
        continue
      for name, result in results.items():
        said[name].append(result)
      bar.update()
  return said, thrown


def ratio(said, first, second, rate):
  """How many times `first` is faster than `second` in rate(result), over the rounds -> Ratio."""
  r = np.array([rate(a) / rate(b) for a, b in zip(said[first], said[second], strict=True)])
  return Ratio(float(np.median(r)), float(r.min()), float(r.max()))


def per_second(key='tokens'):
  return lambda result: result[key] / result['seconds']


def machine():
  """What the numbers were made on, and by which code; whose Python the peers had, if not their own."""
  made = {'cpu': environments.processor(), 'cores': os.cpu_count(), 'python': platform.python_version(),
          'code': environments.code()}
  if jax.default_backend() != 'cpu':
    made['chip'] = jax.devices()[0].device_kind
  if given := os.environ.get('RLHF_PEER_PYTHON'):
    made['python of peers'] = given
  return made


def _busy():
  """Seconds of all cores that were not idle since the machine started; 0 where that is not told."""
  try:
    with open('/proc/stat') as file:
      user, nice, system, _, _, irq, soft, steal, *_ = map(int, file.readline().split()[1:])
  except OSError:
    return 0.0
  return (user + nice + system + irq + soft + steal) / TICK


def _of_process(pid):
  """Seconds of processor time of a process and of its ended children."""
  try:
    with open(f'/proc/{pid}/stat') as file:
      fields = file.read().rsplit(')', 1)[1].split()
  except OSError:
    return 0.0
  return sum(map(int, fields[11:15])) / TICK
