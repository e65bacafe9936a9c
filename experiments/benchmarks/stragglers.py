"""What leaving ended rows behind is worth: sampling with and without it, in turn, on one policy.

  python -m experiments.benchmarks.stragglers --policy=runs/quickstart/policy [--rows=2048]

Answers differ in length, and a batch that runs until its longest answer has ended spends most of its
time on rows that have. Prints tokens a second of both and the median ratio with its range.
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
  parser.add_argument('--repeats', type=int, default=7)
  args = parser.parse_args()
  mesh = meshes.make(data=-1)
  policy, config = build.role(args.policy, mesh), ConfigDict(rundir.read_config(args.policy))
  world = worlds.make(config.data)
  prompts = world.prompts(policy.tokenizer, 'eval', args.rows)
  rows = meshes.put_batch((prompts.tokens_NP, prompts.valid_NP), mesh)
  run = {name: jax.jit(build.sampler(policy, world.answer_width, mesh, shares=shares))
         for name, shares in (('all rows to the end', ()), ('unfinished rows alone', (4, 16)))}
  speed, length_B = {name: [] for name in run}, None
  for repeat in range(args.repeats + 1):                         # the first one compiles
    for name, sample in run.items():
      start = time.perf_counter()
      made = jax.block_until_ready(sample(policy.params, *rows, jax.random.key(repeat)))
      seconds = time.perf_counter() - start
      length_B = np.asarray(made.mask_BT).sum(1)
      if repeat:
        speed[name].append(length_B.sum() / seconds)
  before, after = speed.values()
  ratio = np.array(after) / np.array(before)
  print(tables.key_values({
    'rows': args.rows, 'tokens an answer, mean': float(length_B.mean()),
    'tokens an answer, longest': float(length_B.max()),
    **{f'{name}, tokens/s': float(np.median(x)) for name, x in speed.items()},
    'ratio, median': float(np.median(ratio)), 'ratio, lowest': float(ratio.min()),
    'ratio, highest': float(ratio.max())}))


if __name__ == '__main__':
  main()
