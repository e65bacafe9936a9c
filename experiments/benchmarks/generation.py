"""Generation against `transformers` generate and Tunix's sampler, on the same weights and prompts.

  python -m experiments.benchmarks.generation --workdir=runs/generation \
    [--cases fixed-32] [--dtype bfloat16] [--repeats 5]

Cases: fixed-B, a batch of B prompts of 64 tokens and 128 new ones each, the end token forbidden; queue,
512 prompts whose answers end with probability 1/32 at every token, 128 at most. All settings of a peer
(cache, compiled or not, precision, batch) run once, then its fastest takes turns with ours. All read
one Hugging Face folder of random weights (a Llama of `contest.SIZES`, 10.6M parameters without the
embedding, on a GPU 810M; float32), and their logits of one prompt are compared before anything is
timed. A second call adds its rounds to those in the workdir. Case mixed: ours alone, a queue of 16
batches with such lengths against one whose answers all have the mean length; the ratio is the cost of
mixed lengths, seconds a token over seconds a token.

On one NVIDIA GPU all keep their weights in the type of their products, float32 products are rounded to
TF32 by all, and Tunix, whose script is for a CPU, takes no part.

The roofline of a step: for each matrix product the larger of its FLOP over the measured rate at its
shape and the bytes of its weights over the measured bandwidth, plus the bytes of the filled part of the
cache (prompt and half of the answer) over that bandwidth. A step of ours: seconds of the whole minus
those of the prefill, which is measured alone, by the number of new tokens.
"""
import argparse
import dataclasses
import functools
import json
import pathlib
import shutil
import sys
import time

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from experiments.benchmarks import contest, limits
from rlhf_jax.analysis import tables
from rlhf_jax.core import mesh as meshes
from rlhf_jax.core import spec
from rlhf_jax.models import decode, huggingface, sizes, transformer
from rlhf_jax.run import build

ON_CPU = jax.default_backend() == 'cpu'
QUEUE, MEAN, END, PAD = 512, 32, 3, 0
CASES = ('fixed-1', 'fixed-32', 'fixed-256', 'queue', 'mixed')
SLOTS, BATCHES = (64, [32, 128]) if ON_CPU else (256, [128, 512])   # queue: of ours, of peers
PRECISIONS = {'float32': 1e-3 if ON_CPU else 2e-2, 'bfloat16': 0.2}  # how far logits may lie from ours


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--workdir', type=pathlib.Path, required=True)
  parser.add_argument('--cases', nargs='+', default=CASES, choices=CASES)
  peers = ('torch', 'tunix') if ON_CPU else ('torch',)
  parser.add_argument('--peers', nargs='+', default=peers, choices=peers)
  parser.add_argument('--settings', nargs='+', help='of the peers, as "dynamic float32 32"; all')
  parser.add_argument('--repeats', type=int, default=5)
  parser.add_argument('--dtype', default='float32' if ON_CPU else 'bfloat16', choices=PRECISIONS,
                      help='of our products')
  parser.add_argument('--size', default='10.6M' if ON_CPU else '810M', choices=contest.SIZES)
  parser.add_argument('--prompt', type=int, default=64, help='tokens of each')
  parser.add_argument('--new', type=int, default=128, help='tokens of each answer, at most')
  args = parser.parse_args()
  # Tunix 0.1.7 has this base whatever is said.
  config = sizes.config(**contest.SIZES[args.size], tie_embeddings=True, rope_base=1e6)
  here = contest.machine() | {'size': args.size, 'prompt': args.prompt, 'new': args.new}
  file = args.workdir / 'generation.json'
  results = json.loads(file.read_text()) if file.exists() else {'machine': here}
  if results['machine'] != here:
    parser.error(f'{file} was measured on {results["machine"]} and this is {here}: name another '
                 '--workdir')
  known = {setting for case in args.cases if case != 'mixed' for name in peers
           for setting in candidates(case, name)}
  if unknown := set(args.settings or ()) - known:
    parser.error(f'--settings {min(unknown)!r} is none of {", ".join(sorted(known))}')
  folder = weights(args.workdir / f'weights_{args.size}', config)
  for case in args.cases:
    for name in (p for p in args.peers if chosen(case, p, args)) if case != 'mixed' else ['equal']:
      result = results.setdefault(f'{case}, {name}, {args.dtype}',
                                  {'rounds': {}, 'scouted': {}, 'thrown': 0})
      (mixed if case == 'mixed' else measure)(result, case, name, folder, args)
      file.write_text(json.dumps(results, indent=1))
    if case.startswith('fixed') and args.dtype not in (floor := results.setdefault(case, {})):
      floor |= {args.dtype: roofline(config, int(case.removeprefix('fixed-')), args)}
      file.write_text(json.dumps(results, indent=1))
  print(tables.text_table(table(results)))
  draw(results, args.workdir / 'generation.png')


# ------------------------------------------------------------------------------------------ contenders

def candidates(case, name):
  """{setting: what a peer's script is told} of all settings that run in a case."""
  batches = [int(case.removeprefix('fixed-'))] if case != 'queue' else BATCHES
  variants = {'torch': [('dynamic', 'float32'), ('static', 'float32'), ('compiled', 'float32'),
                        ('dynamic', 'bfloat16')],
              'tunix': [('greedy', 'float32'), ('sampled', 'float32')]}[name]
  if not ON_CPU:                                           # where `generate` compiles what is static
    variants = [('dynamic', 'bfloat16'), ('static', 'bfloat16')]
  if case == 'queue':                                      # lengths of what is not sampled are others
    variants = [each for each in variants if each[0] != 'greedy']
  return {f'{variant} {precision} {batch}': {'variant': variant, 'dtype': precision, 'batch': batch}
          for variant, precision in variants for batch in batches}


def chosen(case, name, args):
  """Those of `candidates` that `--settings` names."""
  return {setting: each for setting, each in candidates(case, name).items()
          if args.settings is None or setting in args.settings}


def work(case, folder, args):
  """What every contender is told; the prompts lie in a file."""
  count = {'queue': QUEUE, 'mixed': 16 * SLOTS}.get(case) or int(case.removeprefix('fixed-'))
  file = folder.parent / f'prompts-{count}.npy'
  np.save(file, np.random.default_rng(0).integers(300, 8000, (count, args.prompt)))
  return {'folder': str(folder), 'dtype': args.dtype, 'prompts': str(file), 'new': args.new, 'end': END,
          'seed': 0, 'hazard': 0 if case.startswith('fixed') else 1 / MEAN,
          'slots': None if case.startswith('fixed') else SLOTS}


def measure(result, case, name, folder, args):
  """Adds the rounds of one case against one peer to `result`."""
  told = work(case, folder, args)
  options = chosen(case, name, args)
  mine = contest.ours('ours', 'generation', told)
  first, best = mine.facts['logits'], None
  for setting, each in options.items():
    worker = contest.peer(setting, name, f'{name}_generate.py', told | each)
    apart = np.abs(np.array(worker.facts['logits']) - np.array(first)).max()
    if apart > max(PRECISIONS[dtype] for dtype in (each['dtype'], args.dtype)):
      raise ValueError(f'{name} {setting}: its logits lie {apart:.2g} from ours')
    if len(options) > 1:
      worker.run()                                                              # compiles
      result['scouted'][setting] = contest.per_second()(worker.run())
    if best is None or result['scouted'][setting] > result['scouted'][best.name]:
      best, worker = worker, best
    if worker is not None:
      worker.close()
  compare(result, mine, best, case, args.repeats)


def mixed(result, case, name, folder, args):
  """The cost of mixed lengths: `ours` are all equal, so that the ratio is that of their speeds."""
  told = work(case, folder, args)
  compare(result, contest.ours('ours', 'generation', told | {'hazard': 0, 'new': MEAN}),
          contest.ours('mixed lengths', 'generation', told), case, args.repeats)


def compare(result, mine, other, case, repeats):
  """Adds rounds of two workers to `result`, unless those there are of others."""
  rounds, thrown = contest.rounds([mine, other], repeats, label=case)
  if result.get('against') != other.name:
    result |= {'rounds': {}, 'against': other.name}
  for each, said in rounds.items():
    result['rounds'].setdefault(each, []).extend(said)
  result['thrown'] += thrown
  result['facts'] = {w.name: w.facts for w in (mine, other)}
  mine.close()
  other.close()


def weights(folder, config):
  """The Hugging Face folder of random weights, made when it is not there."""
  if not (folder / 'model.safetensors').exists():
    shutil.rmtree(folder, ignore_errors=True)
    specs = transformer.decoder(config).spec
    params = jax.jit(lambda key: spec.init(specs, key))(jax.random.key(0))
    huggingface.save(folder, config, jax.device_get(params))
  return folder.resolve()


def serve(settings):
  """Our side, a process of its own."""
  config, params = huggingface.load(settings['folder'], 'float32' if ON_CPU else settings['dtype'])
  plain = build.decoder(dataclasses.replace(config, dtype=settings['dtype'], unroll=ON_CPU),
                        meshes.make(devices=jax.devices()[:1]))
  model = plain._replace(unembed=functools.partial(unembed, plain, settings['hazard']))
  params = jax.device_put(params)
  prompt = jnp.array(np.load(settings['prompts']), jnp.int32)
  prompt = prompt, jnp.ones(prompt.shape)
  generate = jax.jit(functools.partial(
    decode.generate, model, max_new_tokens=settings['new'], eos_id=settings['end'], pad_id=PAD,
    slots=settings['slots']))
  hidden_1PD = jax.jit(plain.apply)(params, *(x[:1] for x in prompt))
  logits = plain.unembed(params, hidden_1PD[:, -1])[0, :8].tolist()
  prefill = jax.jit(functools.partial(decode.read_prompts, plain))
  calls = iter(range(10**6))

  def once():
    start = time.perf_counter()
    made = jax.block_until_ready(generate(params, *prompt, jax.random.key(next(calls))))
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    jax.block_until_ready(prefill(params, *prompt))
    return {'seconds': seconds, 'tokens': int(made.mask_BT.sum()),
            'prefill': time.perf_counter() - start, 'programs': generate._cache_size()}
  contest.serve(once, logits=logits, jax=jax.__version__, device=jax.devices()[0].device_kind)


def unembed(model, hazard, params, hidden_ND):
  """The model's logits, but the end token has the probability `hazard`, the others the rest."""
  logits_NV = model.unembed(params, hidden_ND)
  ends_1V = jnp.arange(logits_NV.shape[1])[None] == END
  others_NV = jnp.where(ends_1V, -jnp.inf, logits_NV)
  if not hazard:
    return others_NV
  total_N1 = jax.nn.logsumexp(others_NV, axis=1, keepdims=True)
  return jnp.where(ends_1V, np.log(hazard / (1 - hazard)) + total_N1, others_NV)


# --------------------------------------------------------------------------------------------- results

def roofline(config, batch, args):
  """The least seconds of one step, see above."""
  size, speed = jnp.dtype(args.dtype).itemsize, limits.bandwidth()
  _, cache = limits.decode_bytes(config, batch, args.prompt + (args.new + 1) / 2, 4 if ON_CPU else size)
  return cache / speed + sum(max(limits.seconds_of([p], args.dtype), size * p.weights / speed)
                             for p in limits.step_products(config, batch))


def table(results):
  """One row a case and peer."""
  rows, new = [], results['machine']['new']
  for key, result in results.items():
    if 'rounds' not in result:
      continue
    (case, name, dtype), other = key.split(', '), result['against']
    said = {n: result['rounds'][n] for n in ('ours', other)}
    speed = {n: float(np.median([r['tokens'] / r['seconds'] for r in each]))
             for n, each in said.items()}
    ratio = contest.ratio(said, 'ours', other, contest.per_second())
    row = {'case': case, 'ours': dtype, 'peer': f'{name} {other}',
           'ours, tokens/s': round(speed['ours']), 'peer, tokens/s': round(speed[other]),
           'ratio': ratio.median, 'lowest': ratio.low, 'highest': ratio.high,
           'rounds': len(said[other])}
    if floor := results.get(case, {}).get(dtype):
      step = float(np.median([(r['seconds'] - r['prefill']) / new for r in said['ours']]))
      row |= {'step, ms': 1e3 * step, 'of the roofline': floor / step}
    rows.append(row)
  return rows


def draw(results, file):
  """Tokens a second against the batch, of all contenders at fixed length."""
  speed = {}
  for key, result in results.items():
    if key.startswith('fixed') and 'rounds' in result:
      case, name, dtype = key.split(', ')
      for n, said in result['rounds'].items():
        points = speed.setdefault(f'ours, {dtype}' if n == 'ours' else name, {})
        points[int(case.removeprefix('fixed-'))] = np.median([r['tokens'] / r['seconds'] for r in said])
  if not speed:
    return
  figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), layout='constrained')
  for name, points in speed.items():
    batch = np.array(sorted(points))
    rate = np.array([points[b] for b in batch])
    left.plot(batch, rate, 'o-', label=name)
    right.plot(batch, 1e3 * batch / rate, 'o-', label=name)
  for axis, label in ((left, 'tokens a second'), (right, 'milliseconds a step, prefill included')):
    axis.set(xlabel='batch', ylabel=label, xscale='log', yscale='log')
  left.legend()
  figure.savefig(file, dpi=150)
  plt.close(figure)


if __name__ == '__main__':
  if sys.argv[-1].startswith('{'):
    serve(json.loads(sys.argv[-1]))
  else:
    contest.command(main)
