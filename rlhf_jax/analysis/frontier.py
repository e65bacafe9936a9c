"""What a KL coefficient or a KL budget buys: the runs of a sweep over one of them, from their folders.

Bai et al. 2022, sections 4.1 and 4.3: reward against the distance from the initial policy. The score
that is optimised rises along the way; the true reward shows where that stops to pay.
"""
import pathlib

import numpy as np

from rlhf_jax.analysis import figures, report
from rlhf_jax.core import rundir

SETTINGS = {'kl_coef': 'KL coefficient', 'kl_target': 'KL budget (nats)'}


def read(path, key):
  """The finished runs of a sweep over `ppo.<key>`, in its order: dictionaries with the value of the
  key, seed, summary and the columns eval/... of KL, score and (where it is known) true reward."""
  runs = []
  for folder in sorted(pathlib.Path(path).iterdir()):
    if rundir.is_done(folder):
      config, summary = rundir.read_config(folder), rundir.read_summary(folder)
      names = ['eval/kl', 'eval/score'] + ['eval/true_reward'] * ('gain' in summary)
      runs.append({key: config['ppo'][key], 'seed': config['seed'], 'summary': summary}
                  | rundir.read_metrics(folder, *names))
  if not runs:
    raise FileNotFoundError(f'{path} holds no finished run: run the sweep first')
  return sorted(runs, key=lambda run: (run[key], run['seed']))


def in_order(runs, key):
  """Whether the final KL falls as the coefficient rises (as the budget falls), each value's mean over
  seeds below the one before."""
  values = list(dict.fromkeys(run[key] for run in runs))
  kl = [np.mean([run['eval/kl'][-1] for run in runs if run[key] == value]) for value in values]
  steps = np.diff(kl)
  return bool((steps < 0).all() if key == 'kl_coef' else (steps > 0).all())


def rows(runs, key):
  """One row a run: where it ends and its highest true reward."""
  made = []
  for run in runs:
    row = {SETTINGS[key]: run[key], 'seed': run['seed'], 'KL': run['eval/kl'][-1],
           'score': run['eval/score'][-1]}
    if 'eval/true_reward' in run:
      peak = int(np.argmax(run['eval/true_reward']))
      row |= {'true reward': run['eval/true_reward'][-1], 'peak': run['eval/true_reward'][peak],
              'KL at peak': run['eval/kl'][peak]}
    made.append(row)
  return made


def _panels(runs, key):
  for title, name in (('Score, optimised', 'eval/score'), ('True reward', 'eval/true_reward')):
    lines = {}
    for run in runs:
      if name in run and f'{run[key]:g}' not in lines:                  # one seed a value
        lines[f'{run[key]:g}'] = np.sqrt(np.maximum(run['eval/kl'], 0)), run[name]
    yield title, lines


def write(path, key):
  """Writes summary.json and report.html into `path`; prints whether the KLs are in order."""
  runs = read(path, key)
  ordered = in_order(runs, key)
  said = 'falls as the coefficient rises' if key == 'kl_coef' else 'rises with the budget'
  line = f"final KL {said}: {'in order' if ordered else 'not in order'}"
  print(line)
  table = rows(runs, key)
  rundir.write_summary(path, {'in_order': ordered, 'runs': table})
  report.write(pathlib.Path(path) / 'report.html', report.html(
    f'Reward against distance, by {SETTINGS[key]}', f'{len(runs)} PPO runs; {line}', [report.Section(
      'The frontier', paragraphs=['Against the square root of the KL to the initial policy, along each '
                                  'run; the first seed of each value.'],
      figures=[(figures.lines({title: lines}, '√KL (√nats)', title.lower()),
                f'One line a {SETTINGS[key]}.') for title, lines in _panels(runs, key)],
      table=table)]))
