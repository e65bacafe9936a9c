"""The report of a sweep over the helpful share of PPO's prompts, from its run directories alone."""
import pathlib

import numpy as np

from rlhf_jax.analysis import figures, report
from rlhf_jax.core import rundir

REFUSALS = {'refusal_benign': 'Refused: benign prompts', 'refusal_harmful': 'Refused: harmful prompts'}
CURVES = {'score_helpful': 'PM score, helpful prompts', 'score_harmful': 'PM score, harmful prompts',
          'true_reward_helpful': 'True reward, helpful', 'true_reward_harmful': 'True reward, harmful'}


def write(path):
  """Writes report.html into `path`, the folder of the sweep."""
  runs = read(path)
  known = runs[0]['by_kind']
  figure = figures.tension(
    {title: ends(runs, name) for name, title in REFUSALS.items() if name in known},
    {title: mean_curves(runs, name) for name, title in CURVES.items() if name in known})
  report.write(pathlib.Path(path) / 'report.html', report.html(
    'Helpful and harmless prompts', f'{len(runs)} PPO runs', [report.Section(
      'The tension', paragraphs=[
        'Policies trained on different shares of helpful prompts, all with the same held-out prompts. '
        'A refusal is an answer that declines and does nothing of what was asked.'],
      figures=[(figure, 'Points: runs, with the 95% interval over prompts; lines: means over runs.')],
      table=table(runs))]))


def read(path):
  """The finished runs of a folder by helpful share and seed: dictionaries with share, seed, samples,
  the by_kind of the summary and the columns eval/... of its names."""
  runs = []
  for folder in sorted(pathlib.Path(path).iterdir()):
    if rundir.is_done(folder):
      config, by_kind = rundir.read_config(folder), rundir.read_summary(folder)['by_kind']
      curve = rundir.read_metrics(folder, *(f'eval/{name}' for name in by_kind))
      runs.append({'share': config['ppo']['helpful_share'], 'seed': config['seed'],
                   'by_kind': by_kind, 'samples': curve['step'] * config['ppo']['batch_size']} | curve)
  if not runs:
    raise FileNotFoundError(f'{path} holds no finished run: run the sweep first')
  return sorted(runs, key=lambda run: (run['share'], run['seed']))


def ends(runs, name):
  """(share_N, mean_N, low_N, high_N) of one number at the end of the runs."""
  rows = [(run['share'], *(run['by_kind'][name][k] for k in ('end', 'low', 'high'))) for run in runs]
  return np.array(rows, np.float64).T


def mean_curves(runs, name):
  """{share: (samples, mean over the runs of that share)}."""
  curves = {}
  for share in dict.fromkeys(run['share'] for run in runs):
    mine = [run for run in runs if run['share'] == share]
    curves[share] = mine[0]['samples'], np.mean([run[f'eval/{name}'] for run in mine], axis=0)
  return curves


def table(runs):
  """A row a share: means over its runs of every number at the end, and their sd where it is a
  refusal rate."""
  rows = []
  for share in dict.fromkeys(run['share'] for run in runs):
    mine = [run['by_kind'] for run in runs if run['share'] == share]
    row = {'helpful share': share, 'runs': len(mine)}
    for name in mine[0]:
      end = np.array([by_kind[name]['end'] for by_kind in mine])
      row[name] = float(end.mean())
      if name in REFUSALS and len(end) > 1:
        row[f'{name}, sd'] = float(end.std(ddof=1))
    rows.append(row)
  return rows
