"""One setting of PPO over several seeds, from the runs' folders alone: does any of them break?"""

import numpy as np

from rlhf_jax.analysis import figures, fits, report, seeds, sweeps, tables
from rlhf_jax.core import rundir

CURVES = {'true_reward': 'True reward', 'score': 'PM score', 'kl': 'KL (nats)'}


def rows(runs):
  """One row a seed: the reward that counts (true, else the score) at its start, end and peak, its gain
  over the paired error, the KL at the end, and the sqrt(KL) law of the score in its early part."""
  made = []
  for run in runs:
    curve, summary = run.curve, run.summary
    reward = curve.get('true_reward', curve['score'])
    gain = 'gain' if 'gain' in summary else 'pm_gain'
    early = fits.early_part(curve['score'])
    law = fits.sqrt_kl_report(curve['kl'][early], curve['score'][early])
    made.append({'seed': run.seed, 'start': reward[0], 'end': reward[-1], 'peak': reward.max(),
                 'gain / error': summary[gain] / summary[f'{gain}_stderr'], 'KL': curve['kl'][-1],
                 **{name: law[name] for name in ('r2', 'r2_kl', 'exponent')},
                 '95%': None if law['exponent'] is None else
                 '[{exponent_low:.2f}, {exponent_high:.2f}]'.format(**law)})
  return made


def over_seeds(table):
  """{column: Interval} of the numbers of `rows` that every seed has."""
  names = [name for name in table[0] if name not in ('seed', '95%')]
  return {name: seeds.interval([row[name] for row in table]) for name in names
          if all(row[name] is not None for row in table)}


def write(path):
  """Writes summary.json and report.html into `path`, the folder of a sweep over seeds; prints the
  table."""
  runs = sweeps.read(path, 'seed')
  table = rows(runs)
  means = over_seeds(table)
  print(tables.text_table(table))
  rundir.write_summary(path, {'runs': table, 'over_seeds': means})
  samples = runs[0].curve['step'] * runs[0].config['ppo']['batch_size']
  def band(name):
    values_ST = np.stack([run.curve[name] for run in runs])
    return samples, values_ST.mean(axis=0), values_ST.min(axis=0), values_ST.max(axis=0)
  panels = {title: {'': band(name)} for name, title in CURVES.items() if name in runs[0].curve}
  report.write(
    path, 'One setting, several seeds', sweeps.said(path, runs), [report.Section(
      'Along training', figures=[(figures.lines(panels, 'samples', '', marker='', share_y=False),
                                  'Means over the seeds, and the range from lowest to highest.')]),
      report.Section('Seed by seed', paragraphs=[
        'start, end and peak: true reward on held-out prompts where it is known, else the preference '
        "model's score; r2, r2_kl: of the score against √KL and against KL, up to half of its gain."],
        table=table),
      report.Section('Over seeds', paragraphs=['Means with 95% intervals.'], table=[
        {name: seeds.text(value) for name, value in means.items()}])])
