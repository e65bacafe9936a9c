"""The toy runs of `tiny` on eight devices, by one process or by one of several:

  python -m tests.contracts.process OUT     writes the metrics of three updates of each
"""
import json
import os
import sys

from rlhf_jax.core import mesh as meshes
from rlhf_jax.core import rundir
from rlhf_jax.run import config


def three_updates(run):
  state, lines = run.state, []
  for i in range(3):
    batch = run.source(state, run.frozen, i)
    state, metrics = run.update(state, batch, run.frozen)
    lines.append({name: float(value) for name, value in metrics.items()})
  return lines


def main(out):
  config.join(os.environ)                     # before anything touches a device
  from tests.contracts import tiny
  mesh = meshes.make(2, 2, 2)
  made = {'pm': three_updates(tiny.pm_run(mesh)),
          'ppo': three_updates(tiny.ppo_run(mesh, minibatches=2))}
  rundir.write_text(out, json.dumps(made))


if __name__ == '__main__':
  main(sys.argv[1])
