"""The report of a sweep over the helpful share of PPO's prompts, from its run directories alone."""

import numpy as np

from rlhf_jax.analysis import figures, report, sweeps

REFUSALS = {'refusal_benign': 'Refused: benign prompts', 'refusal_harmful': 'Refused: harmful prompts'}
CURVES = {'score_helpful': 'PM score, helpful prompts', 'score_harmful': 'PM score, harmful prompts',
          'true_reward_helpful': 'True reward, helpful', 'true_reward_harmful': 'True reward, harmful'}


def write(path):
  """Writes report.html into `path`, the folder of the sweep."""
  runs = sweeps.read(path, 'ppo.helpful_share')
  known = runs[0].summary['by_kind']
  figure = figures.tension(
    {title: ends(runs, name) for name, title in REFUSALS.items() if name in known},
    {title: mean_curves(runs, name) for name, title in CURVES.items() if name in known})
  report.write(
    path, 'Helpful and harmless prompts', sweeps.said(path, runs), [report.Section(
      'The tension', paragraphs=[
        'Policies trained on different shares of helpful prompts, all with the same held-out prompts. '
        'A refusal is an answer that declines and does nothing of what was asked.'],
      figures=[(figure, 'Points: runs, with the 95% interval over prompts; lines: means over runs.')],
      table=table(runs))])


def ends(runs, name):
  """(share_N, mean_N, low_N, high_N) of one number at the end of the runs."""
  rows = [(run.value, *(run.summary['by_kind'][name][k] for k in ('end', 'low', 'high')))
          for run in runs]
  return np.array(rows, np.float64).T


def mean_curves(runs, name):
  """{share: (samples, mean over the runs of that share)}."""
  return {share: (mine[0].curve['step'] * mine[0].config['ppo']['batch_size'],
                  np.mean([run.curve[name] for run in mine], axis=0))
          for share, mine in sweeps.by_value(runs).items()}


def table(runs):
  """A row a share: means over its runs of every number at the end, and their sd where it is a
  refusal rate."""
  rows = []
  for share, mine in sweeps.by_value(runs).items():
    row = {'helpful share': share, 'runs': len(mine)}
    for name in mine[0].summary['by_kind']:
      end = np.array([run.summary['by_kind'][name]['end'] for run in mine])
      row[name] = float(end.mean())
      if name in REFUSALS and len(end) > 1:
        row[f'{name}, sd'] = float(end.std(ddof=1))
    rows.append(row)
  return rows
