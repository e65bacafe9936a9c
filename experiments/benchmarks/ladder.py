"""The ladder of sizes on one chip: training a preference model, generating, a whole PPO iteration.

  python -m experiments.benchmarks.ladder --workdir=runs/bench/ladder [--sizes 810M 2.7B]

No other library takes part: what is quoted is the share of the chip's own limits, measured in the same
process. Random weights and tokens. Training computes in bfloat16 over float32 weights and moments,
generation has weights of bfloat16; on a CPU all is float32.

train: the update of `experiments.train_pm` on pairs of two full texts. Its share is that of its useful
FLOP (6 a parameter and token, attention halved by causality; what is recomputed does not count) at the
rate of one large square product, and of the products of its own shapes.
decode: `--new` tokens after prompts, the end token forbidden. A step is the whole without the prefill
by its tokens; its share of the bandwidth is the bytes of weights and of the filled cache over the
bytes that a copy moves in that time.
ppo: the iteration of `experiments.train_ppo`, four networks of one size, and what its parts take.
"""
import argparse
import functools
import itertools
import json
import pathlib
import time

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from ml_collections import ConfigDict

from configs import presets
from experiments.benchmarks import contest, limits, ppo_worker
from rlhf_jax.analysis import tables
from rlhf_jax.core import mesh as meshes
from rlhf_jax.core import optim, rundir, spec, step
from rlhf_jax.core.types import PreferenceBatch
from rlhf_jax.models import decode, heads, sizes
from rlhf_jax.run import build, lowering
from rlhf_jax.run.clock import Stopwatch

ON_CPU = jax.default_backend() == 'cpu'
DTYPE, SQUARE = ('float32', 2048) if ON_CPU else ('bfloat16', 8192)
REMAT = {'False': False, 'dots': 'dots', 'True': True}
NEVER = -1                                                # no token's number: answers do not end


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--workdir', required=True, type=pathlib.Path)
  parser.add_argument('--parts', nargs='+', default=('train', 'decode', 'ppo'),
                      choices=('train', 'decode', 'ppo'))
  parser.add_argument('--sizes', nargs='+', choices=sizes.NAMES,
                      default=('micro', 'mini', 'tiny', 'small') if ON_CPU else ('810M', '2.7B'))
  parser.add_argument('--vocab', type=int, default=512 if ON_CPU else 2**16)
  parser.add_argument('--pairs', type=int, default=8, help='train: in a batch')
  parser.add_argument('--length', type=int, default=128 if ON_CPU else 1024, help='train: of a text')
  parser.add_argument('--remat', nargs='+', choices=REMAT,
                      default=('False',) if ON_CPU else tuple(REMAT))
  parser.add_argument('--rows', nargs='+', type=int, default=(1, 4, 16, 64, 256), help='decode')
  parser.add_argument('--prompt', type=int, default=64 if ON_CPU else 256)
  parser.add_argument('--new', type=int, default=128)
  parser.add_argument('--answers', type=int, default=128, help='ppo: in a batch')
  parser.add_argument('--microbatches', type=int, default=4, help='ppo')
  parser.add_argument('--repeats', type=int, default=5)
  args = parser.parse_args()
  args.workdir.mkdir(parents=True, exist_ok=True)
  mesh = meshes.make(devices=jax.devices()[:1])
  machine = {'chip': jax.devices()[0].device_kind, 'jax': jax.__version__, **contest.machine(),
             'copy, GB/s': limits.bandwidth() / 1e9,
             'product, TFLOP/s': rate(SQUARE, SQUARE, SQUARE) / 1e12}
  print(tables.key_values(machine), flush=True)
  results = {'machine': machine}
  runs = {'train': [(train, {'remat': remat}) for remat in args.remat],
          'decode': [(generate, {'rows': rows}) for rows in args.rows], 'ppo': [(iteration, {})]}
  for part in args.parts:
    results[part] = []
    for name in args.sizes:
      for run, options in runs[part]:
        results[part].append({'size': name, **options, **tried(run, name, mesh, args, **options)})
        rundir.write_text(args.workdir / 'ladder.json', json.dumps(results, indent=1))
        print(results[part][-1], flush=True)
  text = '\n\n'.join([tables.key_values(machine), *(tables.text_table(results[p]) for p in args.parts)])
  rundir.write_text(args.workdir / 'table.txt', text + '\n')
  print(text)
  if 'decode' in args.parts:
    draw(results['decode'], args.workdir / 'ladder.png')


def tried(run, *args, **options):
  """Its row, or what the device said when its memory did not do."""
  try:
    return run(*args, **options)
  except jax.errors.JaxRuntimeError as error:
    if 'RESOURCE_EXHAUSTED' not in str(error) and 'out of memory' not in str(error).lower():
      raise
    return {'failed': 'out of memory'}


def rate(*shape):
  return limits.matmul_rate(*shape, DTYPE, DTYPE)


def config(name, vocab, remat='False'):
  """As `experiments.train_pm` has it, of this size."""
  made = ConfigDict({'model': presets.model(name, vocab)})
  made.model.update({'dtype': DTYPE, 'unroll': ON_CPU})
  made.model.remat = REMAT[remat]
  return made


def compiled(function, *args, donate=()):
  """(the program, seconds to compile it, GiB that it needs)."""
  began = time.perf_counter()
  program = jax.jit(function, donate_argnums=donate).lower(*args).compile()
  return program, time.perf_counter() - began, lowering.allotted(program) / 2**30


def seconds_of(run, repeats):
  """Median seconds of `run()`, waited for, after one that does not count."""
  took = []
  for _ in range(repeats + 1):
    began = time.perf_counter()
    jax.block_until_ready(run())
    took.append(time.perf_counter() - began)
  return float(np.median(took[1:]))


def train(name, mesh, args, remat):
  c = config(name, args.vocab, remat)
  body, sized = build.model(c, args.vocab, mesh), build.size(c, args.vocab)
  network = heads.scalar(body, heads.initial_normal(sized.width))
  optimizer = optim.adam(optim.schedule(1))
  params = jax.jit(lambda key: spec.init(network.spec, key))(jax.random.key(0))
  state = jax.jit(lambda params: step.create(params, optimizer, jax.random.key(0), 1e-5),
                  donate_argnums=0)(params)
  shape, rng = (args.pairs, args.length), np.random.default_rng(0)
  texts = [jnp.array(rng.integers(3, args.vocab, shape), jnp.int32) for _ in range(2)]
  on, one, index = jnp.ones(shape), jnp.ones(args.pairs), jnp.arange(args.pairs)
  batch = PreferenceBatch(texts[0], on, texts[1], on, one, one, on, index, index)
  update, compiling, memory = compiled(step.update(build.preference_loss(body, 0.0), optimizer), state,
                                       batch, {}, donate=0)

  def run():
    nonlocal state
    state, metrics = update(state, batch, {})
    return metrics
  seconds = seconds_of(run, args.repeats)
  flops, least = work(sized, 2 * args.pairs * args.length, args.length,
                      2 * args.pairs if sized.unroll else None)
  return {'rows x columns': f'{2 * args.pairs} x {args.length}', 'ms': 1e3 * seconds,
          'tokens/s': 2 * args.pairs * args.length / seconds, 'TFLOP/s': flops / seconds / 1e12,
          'of a large product': flops / rate(SQUARE, SQUARE, SQUARE) / seconds,
          'of its products': least / seconds,
          'GiB': memory, 'compiling, s': compiling}


def work(config, tokens, length, last):
  """(useful FLOP of a training step, the least seconds of its products at their own rates). last: of
  `limits.training_products`."""
  products, attention = limits.training_products(config, tokens, last)
  flops, attention = sum(p.flops for p in products), attention * length
  least = sum(p.flops / rate(p.rows, p.inner, p.columns) for p in products)
  return flops + attention, least * (1 + attention / flops)


def generate(name, mesh, args, rows):
  c = config(name, args.vocab)
  model, sized = build.model(c, args.vocab, mesh), build.size(c, args.vocab)
  params = jax.jit(lambda key: jax.tree.map(lambda x: x.astype(DTYPE),
                                            spec.init(model.spec, key)))(jax.random.key(0))
  prompt = jnp.array(np.random.default_rng(0).integers(3, args.vocab, (rows, args.prompt)), jnp.int32)
  text, key = (prompt, jnp.ones(prompt.shape)), jax.random.key(0)
  whole, compiling, memory = compiled(functools.partial(
    decode.generate, model, max_new_tokens=args.new, eos_id=NEVER, pad_id=0), params, *text, key)
  prefill, _, _ = compiled(functools.partial(decode.read_prompts, model), params, *text)
  seconds, first = (seconds_of(run, args.repeats) for run in (
    lambda: whole(params, *text, key), lambda: prefill(params, *text)))
  one, filled = (seconds - first) / args.new, args.prompt + (args.new + 1) / 2
  read = sum(limits.decode_bytes(sized, rows, filled, jnp.dtype(DTYPE).itemsize))
  return {'tokens/s': rows * args.new / seconds, 'ms a step': 1e3 * one, 'prefill, ms': 1e3 * first,
          'of the bandwidth': read / one / limits.bandwidth(),
          'GiB': memory, 'compiling, s': compiling}


def iteration(name, mesh, args):
  c = config(name, args.vocab, 'dots')
  model = build.model(c, args.vocab, mesh)
  judge = heads.scalar(model, heads.initial_normal(heads.width(model)))
  roles = []
  for n, network in enumerate((model, judge)):
    init = jax.jit(functools.partial(spec.init, network.spec))
    roles.append(ppo_worker.role(network, init(jax.random.key(n)), mesh))
  prompts = np.random.default_rng(0).integers(3, args.vocab, (4 * args.answers, args.prompt))
  settings = ppo_worker.settings_of(1e-6, batch_size=args.answers, minibatches=4, passes=1)
  settings.microbatches = args.microbatches
  watch = Stopwatch()
  run = ppo_worker.measured(*ppo_worker.program([settings], *roles, prompts.astype(np.int32), args.new,
                                                mesh, watch), watch)
  first, *others = itertools.islice(run, args.repeats + 1)
  seconds = float(np.median([each['seconds'] for each in others]))
  split = {part.removeprefix('time/'): float(np.median([each['split'][part] for each in others]))
           for part in first['split']}
  return {'answers': args.answers, 'seconds': seconds,
          'produced tokens/s': others[-1]['tokens'] / seconds, **split, 'first, s': first['seconds'],
          'logp_gap': others[-1]['logp_gap']}


def draw(rows, file):
  """Tokens a second and time of a step against the rows that are generated at once, a line a size."""
  figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), layout='constrained')
  shown = ('tokens/s', 'tokens a second'), ('ms a step', 'milliseconds a step')
  for axis, (key, label) in zip(axes, shown, strict=True):
    for name in dict.fromkeys(row['size'] for row in rows):
      line = [(row['rows'], row[key]) for row in rows if row['size'] == name and key in row]
      if line:
        axis.plot(*zip(*line, strict=True), 'o-', label=name)
    axis.set(xlabel='rows', ylabel=label, xscale='log', yscale='log')
    axis.grid(alpha=0.3)
  axes[1].legend()
  figure.savefig(file, dpi=150)
  plt.close(figure)


if __name__ == '__main__':
  contest.command(main)
