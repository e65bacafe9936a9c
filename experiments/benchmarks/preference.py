"""A preference model's training step: ours against torch, on the same model, pairs and optimiser.

  python -m experiments.benchmarks.preference --workdir=runs/bench_pm [--data=DIR] [--repeats=5]

Ours, TRL's RewardTrainer and a plain torch loop, eager and compiled, each in float32 and bfloat16,
start from one Hugging Face folder (a llama of `contest.SIZES`, 10.6M parameters without the embedding,
on a GPU 810M). At full length: 8 pairs of 256 random tokens a batch, on a GPU of 1,024. On published
pairs: random batches of 16, padded to the longest by torch, packed by us (prompt once). Tokens are
those of both texts of every pair, prompt included, whoever computes them how often. `--steps=200`
compares the losses of one long run instead.

On one NVIDIA GPU float32 products are rounded to TF32 by all, peak memory is the GPU's, and contenders
run one after another, not in turn: they do not fit beside each other.
"""
import argparse
import json
import pathlib
import sys

import jax
import numpy as np

from configs import train_pm
from experiments.benchmarks import contest, limits
from rlhf_jax.analysis import tables
from rlhf_jax.core import spec
from rlhf_jax.data import sources, tokenizer
from rlhf_jax.models import heads, huggingface, sizes, transformer
from rlhf_jax.run import worlds

ON_CPU = jax.default_backend() == 'cpu'
PAD, HH_PAIRS, HH_WIDTH = 0, 16, 768
FULL_BATCHES = 2 if ON_CPU else 8                       # a piece of work
TYPES = {'f32': 'float32', 'bf16': 'bfloat16'}
TORCH = {'TRL': 'trl', 'torch eager': 'eager', 'torch compiled': 'compiled'}
ASKED = {f'{who} {short}': kind for who, kind in ({'ours': ''} | TORCH).items() for short in TYPES}


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--workdir', required=True, type=pathlib.Path)
  parser.add_argument('--data', default=None, help='published files; default: $RLHF_DATA_DIR')
  parser.add_argument('--size', default='10.6M' if ON_CPU else '810M', choices=contest.SIZES)
  parser.add_argument('--pairs', type=int, default=8, help='full: in a batch')
  parser.add_argument('--length', type=int, default=256 if ON_CPU else 1024, help='full: of a text')
  parser.add_argument('--remat', default=False, choices=('dots',), help='ours; torch: none')
  parser.add_argument('--apart', action=argparse.BooleanOptionalAction, default=not ON_CPU,
                      help='one contender after another instead of in turn')
  parser.add_argument('--repeats', type=int, default=5)
  parser.add_argument('--parts', nargs='+', default=('full', 'pairs'), choices=('full', 'pairs'))
  parser.add_argument('--contenders', default='', help='parts of their names, comma separated')
  parser.add_argument('--batches', type=int, default=4, help='of published pairs, a piece of work')
  parser.add_argument('--steps', type=int, default=0, help='one run of so many batches instead')
  args = parser.parse_args()
  if not named(args):
    parser.error(f'--contenders={args.contenders} names none of {", ".join(ASKED)}')
  args.workdir.mkdir(parents=True, exist_ok=True)
  config = sizes.config(**contest.SIZES[args.size])
  settings = {'folder': str(folder(args.workdir / f'start_{args.size}', config)), 'pad_id': PAD,
              'learning_rate': 3e-4, 'b2': 0.95, 'remat': args.remat}
  for part in args.parts:
    if part == 'pairs' and sources.data_dir(args.data) is None:
      print('published pairs: pass --data=DIR or set RLHF_DATA_DIR to a folder that holds hh-rlhf/')
      continue
    made = args.workdir / f'{part}_{args.steps}.json'
    plan = full(config, args) if part == 'full' else published(config, args, args.steps or args.batches)
    made.write_text(json.dumps(plan))
    result = contend(part, config, settings | {'batches': str(made.resolve())}, args)
    of = args.contenders.replace(' ', '-').replace(',', '_') or 'all'
    (args.workdir / f'results_{part}_{args.steps}_{of}.json').write_text(json.dumps(
      {'machine': contest.machine(), 'command': sys.argv[1:], part: result}, indent=2))


def named(args):
  """The contenders that are asked for."""
  return [name for name in ASKED if any(w in name for w in args.contenders.split(','))]


def folder(path, config):
  """The reward model that all start from."""
  if not path.exists():
    model = heads.scalar(transformer.decoder(config), heads.initial_normal(config.width))
    params = jax.jit(lambda key: spec.init(model.spec, key))(jax.random.key(0))
    huggingface.save(path, config, jax.device_get(params), {'pad_token_id': PAD})
  return path.resolve()


def full(config, args):
  """Batches of [prompt, chosen, rejected] at full length, without a common prompt."""
  ids = np.random.default_rng(0).integers(3, config.vocab_size,
                                          (FULL_BATCHES, args.pairs, 2, args.length))
  return [[[[], *pair] for pair in batch] for batch in ids.tolist()]


def published(config, args, batches):
  """The same of published comparisons in random order, with a tokenizer of their own."""
  path = args.workdir / f'pairs_{config.vocab_size}.json'
  if not path.exists():
    data = train_pm.get_config('hh').data
    data.dir, data.comparisons = args.data or '', 4000
    world = worlds.make(data)
    ids = tokenizer.train(world.texts(), config.vocab_size)
    train = world.comparisons(ids, None)[0]['train']
    path.write_text(json.dumps([train.prompt, train.chosen, train.rejected]))
  pairs = list(zip(*json.loads(path.read_text()), strict=True))
  if batches * HH_PAIRS > len(pairs):
    raise ValueError(f'{batches} batches of {HH_PAIRS} pairs and there are {len(pairs)}: ask for '
                     f'{len(pairs) // HH_PAIRS} or fewer')
  order = np.random.default_rng(1).permutation(len(pairs))[:batches * HH_PAIRS]
  return [[pairs[i] for i in batch] for batch in order.reshape(batches, HH_PAIRS)]


def contend(part, config, settings, args):
  """Rounds of all contenders -> what is written down; prints the table."""
  packed = part == 'pairs'
  def start(name, kind):
    given = settings | {'dtype': TYPES[name.split()[-1]], 'kind': kind}
    if kind:
      return contest.peer(name, 'trl', 'preference.py', given)
    return contest.ours(name, 'preference_worker', given | {
      'packed': packed, 'width': HH_WIDTH if packed else args.length})
  names = named(args)
  facts, said, thrown = {}, {}, 0
  # Those of a type take turns: the memory that all of both types keep is more than 24 GiB.
  by_type = [[name for name in names if name.endswith(short)] for short in TYPES]
  for group in [[name] for name in names] if args.apart else filter(None, by_type):
    workers = [start(name, ASKED[name]) for name in group]
    runs, again = ({w.name: [w.run()] for w in workers}, 0) if args.steps else contest.rounds(
      workers, args.repeats, label=part)
    facts |= {w.name: w.facts for w in workers}
    said, thrown = said | runs, thrown + again
    for w in workers:
      w.close()
  rate = contest.per_second()
  table = {name: {'ms a step': 1e3 * float(np.median([r['seconds'] / r['steps'] for r in runs])),
                  'valid tokens/s': float(np.median([rate(r) for r in runs])),
                  'peak GiB': max(r['peak_bytes'] for r in runs) / 2**30,
                  'last losses': float(np.mean(runs[-1]['losses'][-50:]))}
           for name, runs in said.items()}
  if part == 'full':
    for name, row in table.items():
      ends = 2 * args.pairs if name.startswith('ours') and ON_CPU else None     # all that is read there
      limit = least_seconds(config, args, TYPES[name.split()[-1]], ends)
      row['share of the matmul rate'] = 1e3 * limit / row['ms a step']
  ratios = {}
  for short in TYPES:
    ours, peers = f'ours {short}', [n for n in said if n.endswith(short) and not n.startswith('ours')]
    if ours in said and peers:
      fastest = max(peers, key=lambda n: table[n]['valid tokens/s'])
      ratios[short] = {'against': fastest, **contest.ratio(said, ours, fastest, rate)._asdict()}
  print(f'\n{part}: rounds thrown away {thrown}')
  for name, row in table.items():
    print(f'{name:20s}', '  '.join(f'{k} {v:.4g}' for k, v in row.items()))
  print(tables.key_values({f'ours / {r["against"]}, {s}, {k}': r[k] for s, r in ratios.items()
                           for k in ('median', 'low', 'high')}))
  return {'facts': facts, 'table': table, 'ratios': ratios, 'thrown': thrown, 'said': said}


def least_seconds(config, args, dtype, last):
  """Seconds of one step at full length at the matmul rate: its useful FLOPs (no recomputation,
  attention halved by causality; last: of `limits.training_products`) over the rate of its own product
  shapes."""
  products, attention = limits.training_products(config, 2 * args.pairs * args.length, last)
  return limits.seconds_of(products, dtype) * (
    1 + attention * args.length / sum(p.flops for p in products))


if __name__ == '__main__':
  contest.command(main)
