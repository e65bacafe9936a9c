"""What a KL coefficient or a KL budget buys: the runs of a sweep over one of them, from their folders.

Bai et al. 2022, sections 4.1 and 4.3: reward against the distance from the initial policy. The score
that is optimised rises along the way; the true reward shows where that stops to pay.
"""

import numpy as np

from rlhf_jax.analysis import figures, report, sweeps
from rlhf_jax.core import rundir

SETTINGS = {'kl_coef': 'KL coefficient', 'kl_target': 'KL budget (nats)'}


def in_order(runs, key):
  """Whether the final KL falls as the coefficient rises (as the budget falls), each value's mean over
  seeds below the one before."""
  steps = np.diff([np.mean([run.curve['kl'][-1] for run in mine])
                   for mine in sweeps.by_value(runs).values()])
  return bool((steps < 0).all() if key == 'kl_coef' else (steps > 0).all())


def rows(runs, key):
  """One row a run: where it ends and its highest true reward."""
  made = []
  for run in runs:
    curve = run.curve
    row = {SETTINGS[key]: run.value, 'seed': run.seed, 'KL': curve['kl'][-1],
           'score': curve['score'][-1]}
    if 'true_reward' in curve:
      peak = int(np.argmax(curve['true_reward']))
      row |= {'true reward': curve['true_reward'][-1], 'peak': curve['true_reward'][peak],
              'KL at peak': curve['kl'][peak]}
    made.append(row)
  return made


def _panels(runs):
  for title, name in (('Score, optimised', 'score'), ('True reward', 'true_reward')):
    yield title, {f'{value:g}': (np.sqrt(np.maximum(first.curve['kl'], 0)), first.curve[name])
                  for value, (first, *_) in sweeps.by_value(runs).items() if name in first.curve}


def write(path, key):
  """Writes summary.json and report.html into `path`; prints whether the KLs are in order."""
  runs = sweeps.read(path, f'ppo.{key}')
  ordered = in_order(runs, key)
  said = 'falls as the coefficient rises' if key == 'kl_coef' else 'rises with the budget'
  line = f"final KL {said}: {'in order' if ordered else 'not in order'}"
  print(line)
  table = rows(runs, key)
  rundir.write_summary(path, {'in_order': ordered, 'runs': table})
  report.write(
    path, f'Reward against distance, by {SETTINGS[key]}', f'{sweeps.said(path, runs)}; {line}', [
      report.Section('The frontier', [
        'Against the square root of the KL to the initial policy, along each run; the first seed of '
        'each value.'], table=table, figures=[(
          figures.frontier(dict(_panels(runs)), '√KL (√nats)'),
          f'One line a {SETTINGS[key]}, which stands at its end.')])])
