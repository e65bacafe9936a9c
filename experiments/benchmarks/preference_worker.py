"""Our side of `experiments.benchmarks.preference`: one process, one kind of number.

Settings as in peers/preference.py, with `packed`: whole pairs in rows of `width`, or a row of `width`
for each text. The update is that of `experiments.train_pm`.
"""
import dataclasses
import json
import resource
import sys
import time

import jax
import numpy as np

from experiments.benchmarks import contest
from rlhf_jax.core import mesh as meshes
from rlhf_jax.core import optim, step
from rlhf_jax.data import layouts
from rlhf_jax.data.batches import Bucket
from rlhf_jax.data.pairs import Comparisons
from rlhf_jax.models import huggingface
from rlhf_jax.run import build


def main():
  settings = json.loads(sys.argv[1])
  with open(settings['batches'], encoding='utf-8') as file:
    plan = json.load(file)
  config, params = huggingface.load(settings['folder'])
  device = jax.devices()[0]
  body = build.decoder(dataclasses.replace(
    config, dtype=settings['dtype'], remat=settings['remat'], unroll=device.platform == 'cpu'),
    meshes.make(devices=[device]))
  optimizer = optim.adam(optim.schedule(1), b2=settings['b2'])
  loss = build.preference_loss(body, 0.0, packed=settings['packed'])
  update = jax.jit(step.update(loss, optimizer), donate_argnums=0)
  prompt, chosen, rejected = zip(*(pair for batch in plan for pair in batch), strict=True)
  texts = [''] * len(prompt)
  data = Comparisons(prompt, chosen, rejected, texts, texts, np.zeros(len(prompt), np.int32))
  made = layouts.packed if settings['packed'] else layouts.separate
  layout, count = made(data, [settings['width']], None, settings['pad_id']), len(plan[0])

  def batch(i):
    index = np.arange(i * count, (i + 1) * count)
    bucket = Bucket(settings['width'], index, np.ones(count, np.float32))
    return layout.lay(bucket, -(-layout.rows(bucket) // 2) * 2)     # even: few programs

  def work():
    state = jax.block_until_ready(
      step.create(params, optimizer, jax.random.key(0), settings['learning_rate']))
    losses, start = [], time.perf_counter()
    for i in range(len(plan)):
      state, metrics = update(state, batch(i), {})
      losses.append(metrics['loss'])
    state, losses = jax.block_until_ready((state, losses))
    return {'seconds': time.perf_counter() - start, 'losses': [float(x) for x in losses],
            'steps': len(plan),
            'tokens': sum(2 * len(p) + len(a) + len(b) for p, a, b in zip(prompt, chosen, rejected,
                                                                          strict=True)),
            'programs': update._cache_size(),
            'peak_bytes': (device.memory_stats() or {}).get(            # a CPU does not tell
              'peak_bytes_in_use', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)}
  contest.serve(work, jax=jax.__version__, device=device.device_kind, remat=settings['remat'])


if __name__ == '__main__':
  main()
