"""Eight small PPO runs in one program against the same eight one after another.

  python -m experiments.benchmarks.vectorised --workdir=runs/bench/vectorised

They differ in seed, learning rate and KL coefficient. Their numbers are compared; then they are timed
warm, a number of iterations of all of them, and fresh: one process that starts, compiles and runs them
together against eight processes in a row, each side with a compilation cache that is empty at first.
"""
import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

import jax
import numpy as np

from experiments.benchmarks import contest, ppo_worker
from rlhf_jax.analysis import tables
from rlhf_jax.core import mesh as meshes
from rlhf_jax.core import rundir, spec
from rlhf_jax.models import heads, sizes, transformer
from rlhf_jax.run.clock import Stopwatch
from rlhf_jax.run.config import prepare_backend

TOGETHER, IN_A_ROW = 'one program', 'one after another'


def start(work, members):
  """(states, source, update, frozen) of the runs `members`: one state of them all where the work is
  'together', else one each, which share their programs."""
  mesh, watch = meshes.make(data=-1), Stopwatch()
  model = transformer.decoder(sizes.config(work['size']))
  judge = heads.scalar(model, heads.initial_normal(heads.width(model)))
  roles = [ppo_worker.role(network, spec.init(network.spec, jax.random.key(n)), mesh)
           for n, network in enumerate((model, judge))]
  prompts = np.random.default_rng(0).integers(2, 512, (16 * work['rows'], work['prompt_width']))
  configs = [ppo_worker.settings_of(1e-4 * 1.5 ** s, seed=s, kl_coef=0.02 * (s + 1), minibatches=2,
                                    batch_size=work['rows'], passes=1) for s in members]
  groups = [configs] if work['together'] else [[c] for c in configs]
  made = [ppo_worker.program(group, *roles, prompts.astype(np.int32), work['answer_width'], mesh, watch)
          for group in groups]
  return [m[0] for m in made], *made[0][1:]


def worker(work):
  """A piece of work: so many more iterations of all runs, one at first -> seconds, and numbers to
  compare. After many iterations runs part as any two roundings do."""
  states, source, update, frozen = start(work, work['members'])
  position = 0

  def run():
    nonlocal position
    began, losses, steps = time.perf_counter(), [], work['iterations'] if position else 1
    for n, state in enumerate(states):
      for i in range(position, position + steps):
        state, metrics = update(state, source(state, frozen, i), frozen)
      states[n] = jax.block_until_ready(state)
      losses.append(np.asarray(metrics['loss'], float).reshape(-1).tolist())
    seconds, position = time.perf_counter() - began, position + steps
    tables_SVD = np.reshape([s.params['policy']['embed'] for s in states], (len(work['members']), -1))
    return {'seconds': seconds, 'loss': sum(losses, []),
            'norm': np.linalg.norm(tables_SVD, axis=1).tolist()}
  return run


def fresh(work, cache):
  """Seconds of whole processes that each start, compile and run their members once."""
  shutil.rmtree(cache, ignore_errors=True)
  groups = [work['members']] if work['together'] else [[s] for s in work['members']]
  began = time.perf_counter()
  for members in groups:
    asked = json.dumps(work | {'members': members, 'once': True})
    subprocess.run([sys.executable, '-m', 'experiments.benchmarks.vectorised', asked], check=True,
                   cwd=contest.ROOT, env=os.environ | {'RLHF_CACHE_DIR': str(cache)})
  return time.perf_counter() - began


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--workdir', required=True)
  parser.add_argument('--size', default='micro')
  parser.add_argument('--runs', type=int, default=8)
  parser.add_argument('--rows', type=int, default=32)
  parser.add_argument('--prompt-width', type=int, default=24)
  parser.add_argument('--answer-width', type=int, default=24)
  parser.add_argument('--iterations', type=int, default=10)
  parser.add_argument('--repeats', type=int, default=5)
  parser.add_argument('--fresh-repeats', type=int, default=1, help='0: warm alone')
  args = parser.parse_args()
  path = pathlib.Path(args.workdir)
  path.mkdir(parents=True, exist_ok=True)
  work = {k: getattr(args, k) for k in ('size', 'rows', 'prompt_width', 'answer_width', 'iterations')}
  works = {name: work | {'members': list(range(args.runs)), 'together': name == TOGETHER}
           for name in (TOGETHER, IN_A_ROW)}
  workers = [contest.ours(name, 'vectorised', asked) for name, asked in works.items()]
  first = [w.run() for w in workers]
  said, thrown = contest.rounds(workers, args.repeats, label='warm')
  for each in workers:
    each.close()
  loss, norm = (float(np.abs(np.subtract(*(r[key] for r in first))).max()) for key in ('loss', 'norm'))
  cold = {name: [fresh(asked, (path / 'cache').absolute()) for _ in range(args.fresh_repeats)]
          for name, asked in works.items()}
  shutil.rmtree(path / 'cache', ignore_errors=True)
  warm = contest.ratio(said, IN_A_ROW, TOGETHER, lambda r: 1 / r['seconds'])
  rows = [{'': name, 'warm, s': round(float(np.median([r['seconds'] for r in said[name]])), 2),
           'fresh, s': round(float(np.median(cold[name])), 1) if cold[name] else 'not measured'}
          for name in works]
  ratio = float(np.median(np.divide(cold[TOGETHER], cold[IN_A_ROW]))) if args.fresh_repeats else None
  summary = {'work': work, 'runs': args.runs, 'rows': rows, 'warm_ratio': warm._asdict(),
             'fresh_ratio': ratio, 'largest_difference': {'loss': loss, 'norm': norm},
             'thrown': thrown, 'machine': contest.machine(), 'jax': jax.__version__}
  rundir.write_summary(path, summary)
  text = (f'{tables.text_table(rows)}\nwarm: {warm.median:.2f} [{warm.low:.2f}, {warm.high:.2f}] of '
          f'one after another; fresh: {"not measured" if ratio is None else f"{ratio:.2f}"}; largest '
          f'difference of a loss {loss:.1e}, of a norm of the embedding {norm:.1e}\n')
  rundir.write_text(path / 'table.txt', text)
  print(text)


if __name__ == '__main__':
  if sys.argv[1:2] and sys.argv[1].startswith('{'):
    asked = json.loads(sys.argv[1])
    if asked.get('once'):
      prepare_backend()
      worker(asked)()
    else:
      contest.serve(worker(asked), jax=jax.__version__)
  else:
    contest.command(main)
