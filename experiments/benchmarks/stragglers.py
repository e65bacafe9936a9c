"""What leaving ended rows behind is worth, and seating others in their place: in turn, on one policy.

  python -m experiments.benchmarks.stragglers --policy=runs/quickstart/policy [--slots=256]

Answers differ in length, and a batch that runs until its longest answer has ended spends most of its
time on rows that have. Prints tokens a second, and the median ratio to the first way with its range.
"""
import argparse
import time

import jax
import numpy as np
from ml_collections import ConfigDict

from rlhf_jax.analysis import tables
from rlhf_jax.core import mesh as meshes
from rlhf_jax.core import rundir
from rlhf_jax.run import build, worlds


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--policy', required=True)
  parser.add_argument('--rows', type=int, default=2048)
  parser.add_argument('--slots', type=int, default=256)
  parser.add_argument('--repeats', type=int, default=7)
  args = parser.parse_args()
  mesh = meshes.make(data=-1)
  policy, config = build.role(args.policy, mesh), ConfigDict(rundir.read_config(args.policy))
  world = worlds.make(config.data)
  prompts = world.prompts(policy.tokenizer, 'eval', args.rows)
  rows = meshes.put_batch((prompts.tokens_NP, prompts.valid_NP), mesh)
  ways = {'all rows to the end': {'shares': ()}, 'unfinished rows alone': {},
          f'{args.slots} slots': {'slots': args.slots}}
  run = {name: jax.jit(build.sampler(policy, world.answer_width, mesh, **options))
         for name, options in ways.items()}
  speed, length_B = {name: [] for name in run}, None
  for repeat in range(args.repeats + 1):                         # the first one compiles
    for name, sample in run.items():
      start = time.perf_counter()
      made = jax.block_until_ready(sample(policy.params, *rows, jax.random.key(repeat)))
      seconds = time.perf_counter() - start
      length_B = np.asarray(made.mask_BT).sum(1)
      if repeat:
        speed[name].append(length_B.sum() / seconds)
  print(tables.key_values({
    'rows': args.rows, 'tokens an answer, mean': float(length_B.mean()),
    'tokens an answer, longest': float(length_B.max())}))
  first = np.array(speed['all rows to the end'])
  print(tables.text_table([{
    'way': name, 'tokens/s': float(np.median(x)), 'ratio': float(np.median(x / first)),
    'lowest': float((x / first).min()), 'highest': float((x / first).max())}
    for name, x in ((name, np.array(x)) for name, x in speed.items())]))


if __name__ == '__main__':
  main()
