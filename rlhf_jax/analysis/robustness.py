"""A robustness study, read from its run directories alone.

Bai et al. 2022, section 4.2 and appendix B.2: preference models trained on the other half of the
comparisons look at a policy along its training. Scores of different models are compared after the
mean of each on one held-out set has been taken off. Intervals are Student's over seeds.
"""
import pathlib
from typing import NamedTuple

import numpy as np

from rlhf_jax.analysis import figures, fits, report, tables
from rlhf_jax.analysis.pm_study import parameters
from rlhf_jax.analysis.seeds import equal, interval, text
from rlhf_jax.core import rundir


class Run(NamedTuple):
  """One policy's training: sizes of policy and judge, comparisons the judge was trained on, and
  columns over the evaluations. score: of the judge, tests: size -> scores of models of the other
  half, each less its mean on the test comparisons; spread: its standard deviation there, of the judge
  and of each test model; true_reward None where it is not known; gain_errors: what training gained, in
  paired standard errors."""
  policy: str
  judge: str
  comparisons: int
  seed: int
  kl: np.ndarray
  score: np.ndarray
  tests: dict
  spread: float
  test_spreads: dict
  true_reward: np.ndarray | None
  gain_errors: float

  @property
  def gap(self):
    """Judge minus the test model of its own size, or None."""
    return self.score - self.tests[self.judge] if self.judge in self.tests else None

  @property
  def standard_gap(self):
    """The same of scores in standard deviations of their models: a model that spreads its scores more
    leaves the other behind without parting from it."""
    if self.judge not in self.tests:
      return None
    return self.score / self.spread - self.tests[self.judge] / self.test_spreads[self.judge]


def read(path):
  """The Runs of the study in the folder `path`, in order of size."""
  return sorted((_read(folder) for folder in sorted(pathlib.Path(path).glob('ppo-*'))), key=lambda r: (
    parameters(r.policy), parameters(r.judge), r.comparisons, r.seed))


def _read(folder):
  config, curve = rundir.read_config(folder), rundir.read_metrics(folder, 'eval/kl', 'eval/score')
  def beside(workdir):
    return folder.parent / pathlib.Path(workdir).name
  def size(workdir):
    return rundir.read_config(workdir)['model']['name']
  judge = beside(config['preference_model'])
  there = rundir.read_config(judge)['data']['comparisons']
  mean, spread = _moments(judge)
  tests, test_spreads = {}, {}
  for pm in map(beside, config['test_models']):
    if rundir.read_config(pm)['data']['comparisons'] == there:
      test_mean, test_spreads[size(pm)] = _moments(pm)
      name = f'eval/score_{pm.name}'
      tests[size(pm)] = rundir.read_metrics(folder, name)[name] - test_mean
  summary, truth = rundir.read_summary(folder), None
  if 'gain' in summary:
    truth = rundir.read_metrics(folder, 'eval/true_reward')['eval/true_reward']
  gain = [name for name in ('gain', 'pm_gain') if name in summary][0]
  return Run(config['model']['name'], size(judge), there, config['seed'], curve['eval/kl'],
             curve['eval/score'] - mean, tests, spread, test_spreads, truth,
             summary[gain] / summary[f'{gain}_stderr'])


def _moments(pm):
  """(mean, standard deviation) of the scores of the test comparisons."""
  scores = np.load(pm / 'test_scores.npz')
  both = np.concatenate([scores['chosen'], scores['rejected']])
  return float(both.mean()), float(both.std())


# ---------------------------------------------------------------------------------------- numbers

def cells(runs):
  """{(policy, judge, comparisons): [its Runs, one a seed, or two where halves are crossed]}."""
  found = {}
  for run in runs:
    found.setdefault((run.policy, run.judge, run.comparisons), []).append(run)
  return found


def seed_means(values):
  """{seed: the mean of its values} of (seed, value) pairs."""
  found = {}
  for seed, value in values:
    found.setdefault(seed, []).append(value)
  return {seed: np.mean(of_seed) for seed, of_seed in found.items()}


def by_seed(value, runs):
  """The mean of value(run) over the runs of each seed: two where each half is trained against."""
  return np.array(list(seed_means((r.seed, value(r)) for r in runs).values()))


def law(run):
  """The numbers of the sqrt(KL) law over the early part of one run, None where points are too few."""
  early = fits.early_part(run.score)
  return fits.sqrt_kl_report(run.kl[early], run.score[early])


def with_law(runs):
  """[(Run, its law)] of the seeds all of whose runs have one: half a seed would undo the crossing."""
  found = [(run, law(run)) for run in runs]
  without = {run.seed for run, fit in found if fit['r2'] is None}
  return [(run, fit) for run, fit in found if run.seed not in without]


def cell(runs):
  """One cell as a dictionary: the sqrt(KL) law of its runs, each fitted alone (means over seeds, the
  interval of the exponent, how many runs are nearer to a line in sqrt(KL) than in KL) and of their mean
  curve; the smallest gain over its paired errors; how the gap between judge and test model grew."""
  kl, score = (np.mean([getattr(r, name) for r in runs], axis=0) for name in ('kl', 'score'))
  row = {'seeds': len({r.seed for r in runs}), 'gain / error, least': min(r.gain_errors for r in runs),
         'KL, end': kl[-1], **_laws(runs), 'mean curve': law(runs[0]._replace(kl=kl, score=score))}
  if runs[0].gap is not None:
    grew = interval(by_seed(lambda r: growth(r.gap), runs))
    row |= dict(zip(('gap grew', 'gap, low', 'gap, high'), grew, strict=True))
  if runs[0].true_reward is not None:
    row |= turning_point(runs)
  return row


def _laws(runs):
  """What `cell` says of the laws of its runs."""
  kept = with_law(runs)
  row = {'runs': len(runs), 'fitted': len(kept),
         'nearer': sum(fit['r2'] > fit['r2_kl'] for _, fit in kept)}
  of = {name: list(seed_means((run.seed, fit[name]) for run, fit in kept).values())
        for name in ('slope', 'r2', 'r2_kl', 'exponent')}
  if len(of['exponent']) < 2:
    return row
  row |= {name: float(np.mean(of_seeds)) for name, of_seeds in of.items()}
  return row | dict(zip(('exponent', 'exponent_low', 'exponent_high'), interval(of['exponent']),
                        strict=True))


def growth(gap):
  """Mean of the last tenth of the evaluations minus mean of the first."""
  part = max(1, round(len(gap) / 10))
  return gap[-part:].mean() - gap[:part].mean()


def turning_point(runs):
  """Where hard optimisation stops to pay: KL at the highest true reward, that reward, and what is
  lost from there to the end, see `lost`."""
  kl = interval(by_seed(lambda r: r.kl[np.argmax(r.true_reward)], runs))
  after = interval(by_seed(lambda r: lost(r.true_reward), runs))
  return {'KL at peak': kl[0], 'KL, low': kl[1], 'KL, high': kl[2],
          'peak': float(np.mean([r.true_reward.max() for r in runs])),
          'lost after': after[0], 'lost, low': after[1], 'lost, high': after[2]}


def lost(reward):
  """What is lost from a curve's peak to its end: on average 0 for one that has levelled off, as far as
  the noise of evaluations is independent, and below 0 for one that still rises.

  The highest of many noisy evaluations is too high. So the peak is looked for among every second
  evaluation and read at the two beside it, which were not chosen for being high. NaN of fewer than 3.
  """
  seconds = np.arange(1, len(reward) - 1, 2)
  if not len(seconds):
    return float('nan')
  at = seconds[np.argmax(reward[seconds])]
  return float((reward[at - 1] + reward[at + 1]) / 2 - reward[-1])


def at_kl(run, values, kl):
  """`values` of a run at a KL in nats, linearly between evaluations in sqrt(KL)."""
  order = np.argsort(run.kl)
  return float(np.interp(np.sqrt(kl), np.sqrt(np.maximum(run.kl[order], 0)), values[order]))


def gaps(runs):
  """What the gap between judge and test model does, over the runs that have one.

  {'kl': the largest KL that all of them reach; 'at_kl': {(judge, comparisons): Interval of the gap
  there}; 'slopes': {comparisons: Interval of its slope in ln(parameters)}, below 0 where larger
  preference models are more robust; 'grew': Interval of `growth`; 'grew_in': the share of all cells'
  seeds it is above 0 in; 'grew_standard', 'grew_standard_in': the same of `standard_gap`}. Runs are
  averaged within a seed; seeds give the intervals.
  """
  runs = [r for r in runs if r.gap is not None]
  kl = min(r.kl.max() for r in runs)
  by_judge = {}
  for run in runs:
    by_judge.setdefault((run.judge, run.comparisons), []).append(run)
  at = {key: by_seed(lambda r: at_kl(r, r.gap, kl), mine) for key, mine in by_judge.items()}
  slope = {}
  for count in dict.fromkeys(count for _, count in at):
    sized = {parameters(judge): gap_S for (judge, n), gap_S in at.items() if n == count}
    if len(sized) > 1:
      slope[count] = interval(np.polyfit(np.log(list(sized)), np.stack(list(sized.values())), 1)[0])
  def grown(gap):
    """(Interval over seeds of the growth of gap(run), the share of cells' seeds it is above 0 in)."""
    def of_seeds(runs):
      return by_seed(lambda r: growth(gap(r)), runs)
    in_cells = np.concatenate([of_seeds(mine) for mine in cells(runs).values()])
    return interval(of_seeds(runs)), float(np.mean(in_cells > 0))
  grew, grew_in = grown(lambda r: r.gap)
  standard, standard_in = grown(lambda r: r.standard_gap)
  return {'kl': kl, 'at_kl': {key: interval(gap_S) for key, gap_S in at.items()}, 'slopes': slope,
          'grew': grew, 'grew_in': grew_in, 'grew_standard': standard, 'grew_standard_in': standard_in}


def slopes(runs, judge):
  """({policy: (mean, low, high)}, p): the slope of the score in sqrt(KL) over the early part, against
  one size of judge, and the p of `seeds.equal` over policy sizes.

  Equal slopes are parallel lines (Bai et al. 2022, section 4.3: roughly so); a small p says that they
  are not. Seeds count where all their runs have a law, for p those of all policies; p is None where
  fewer than two policies or seeds are left, and a policy of fewer than two seeds is left out.
  """
  laws = with_law([run for run in runs if run.judge == judge])
  found = {policy: seed_means((run.seed, fit['slope']) for run, fit in laws if run.policy == policy)
           for policy in dict.fromkeys(run.policy for run, _ in laws)}
  found = {policy: of for policy, of in found.items() if len(of) > 1}
  seeds = sorted(set.intersection(*map(set, found.values()))) if found else []
  p = equal([[of[seed] for seed in seeds] for of in found.values()]) if (
    len(found) > 1 and len(seeds) > 1) else None
  return {policy: interval(list(of.values())) for policy, of in found.items()}, p


# ----------------------------------------------------------------------------------------- report

_CELL = ('policy', 'judge', 'comparisons')
_LAW = ('seeds', 'gain / error, least', 'KL, end', 'slope', 'r2', 'r2_kl', 'nearer to √KL', 'exponent')
_TURN = ('gap grew', 'KL at peak', 'peak', 'lost after')
_INTERVALS = {'exponent': ('exponent_low', 'exponent_high'), 'gap grew': ('gap, low', 'gap, high'),
              'KL at peak': ('KL, low', 'KL, high'), 'lost after': ('lost, low', 'lost, high')}


def _shown(row, names):
  """The named columns of a cell, a number with its interval as one text."""
  row = row | {'nearer to √KL': f'{row["nearer"]} of {row["fitted"]} runs'}
  made = {name: row[name] for name in (*_CELL, *names) if name in row}
  for name in made.keys() & _INTERVALS.keys():
    if made[name] is not None:
      made[name] = text((made[name], *(row[end] for end in _INTERVALS[name])))
  return made


def write(path):
  """Writes summary.json and report.html of the study in `path`; prints its table."""
  runs = read(path)
  rows = [{'policy': p, 'judge': j, 'comparisons': n, **cell(found)}
          for (p, j, n), found in cells(runs).items()]
  largest = max((r.judge for r in runs), key=parameters)
  found, answers = _questions(runs, largest)
  laws, turns = ([_shown(row, names) for row in rows] for names in (_LAW, _TURN))
  print(f'{tables.text_table(laws)}\n\n{tables.text_table(turns)}')
  rundir.write_summary(path, {'cells': rows} | found)
  sections = [report.Section('In numbers', paragraphs=[
    'One row a pair of sizes: means over seeds. The law is fitted to each run alone, over the points '
    'before the score passes half of its gain; r2 is that of a line in √KL, r2_kl of one in KL; '
    'exponent: of gain = a KL^b. Seeds share the language models and the held-out prompts.'],
    table=laws), report.Section('Where it parts and turns', paragraphs=[
    'The gap is the judge\'s score less that of the test model of its size; comparisons are those of '
    'both halves together. Intervals are Student\'s over seeds; where each half is trained against in '
    'turn, over their means. Lost: from the peak, looked for among every second evaluation and read '
    'at the two beside it, to the end.'], table=turns), *answers,
    *_sections(runs, largest)]
  report.write(
    path, 'Robustness of preference models and policies', f'{len(runs)} policies', sections)
  return {'cells': rows} | found


def _questions(runs, largest):
  """(numbers, report sections): are lines of different policies parallel, and do larger judges part
  less from their test models?"""
  by_policy, p = slopes(runs, largest)
  found = {'slopes': by_policy, 'slopes_p': p}
  sections = []
  if p is not None:
    sections.append(report.Section('Are the lines parallel?', paragraphs=[
      f'Slopes of the score in √KL against {largest} judges; two-way analysis of variance, policy '
      f'sizes and seeds: p = {p:.3f}.'], table=[{'policy': policy, 'slope': text(value)}
                                      for policy, value in by_policy.items()]))
  if any(r.gap is not None for r in runs):
    gap = gaps(runs)
    table = [{'judge': judge, 'comparisons': count, 'gap': text(value)}
             for (judge, count), value in gap['at_kl'].items()]
    found['gap'] = gap | {'at_kl': [row | {'gap': value} for row, value in
                                    zip(table, gap['at_kl'].values(), strict=True)]}
    sections.append(report.Section('Are larger preference models more robust?', paragraphs=[
      f'The gap between judge and test model grew by {text(gap["grew"])} from the first tenth of the '
      f'training to the last, and in {gap["grew_in"]:.0%} of all cells\' seeds; with each score in '
      f'standard deviations of its model by {text(gap["grew_standard"])}. The table has it at '
      f'{gap["kl"]:.2f} nats, the largest KL that all runs reach.',
      *(f'Its slope in ln(parameters) with {count:,} comparisons is {text(value)}: below 0, larger is '
        'more robust.' for count, value in gap['slopes'].items())], table=table))
  return found, sections


def _sections(runs, largest):
  tested = [r for r in runs if r.gap is not None]
  if tested:
    several = len({r.policy for r in tested}) > 1
    yield report.Section('Train and test preference model', figures=[
      (figures.lines(_by_judge(tested), '√KL (√nats)', 'score, mean removed'),
       'The model that is trained against and the model of the same size from the other half of the '
       'comparisons; means over policies, seeds and halves.'),
      (figures.lines(_sets(tested, largest), '√KL (√nats)', f'score of the {largest} test model')
       if several else None,
       'One line a policy size. Left: all trained against the largest model; right: against a model of '
       'their own size.')])
  if all(r.true_reward is not None for r in runs):
    yield report.Section('True reward', figures=[
      (figures.lines(_truth(runs), '√KL (√nats)', 'true reward'),
       'One line a size of the preference model that is trained against; means over seeds, halves.')])


def _mean_curve(runs, values):
  return (np.sqrt(np.mean([r.kl for r in runs], axis=0)), np.mean([values(r) for r in runs], axis=0))


def _by_judge(runs):
  panels = {}
  for judge, count in dict.fromkeys((r.judge, r.comparisons) for r in runs):
    mine = [r for r in runs if (r.judge, r.comparisons) == (judge, count)]
    panels[f'{judge}, {count:,} comparisons'] = {
      'train': _mean_curve(mine, lambda r: r.score),
      'test': _mean_curve(mine, lambda r: r.tests[r.judge])}
  return panels


def _sets(runs, largest):
  chosen = {'Largest judge for all': [r for r in runs if r.judge == largest],
            'Judge of the same size': [r for r in runs if r.judge == r.policy]}
  return {title: {policy: _mean_curve([r for r in mine if r.policy == policy],
                                      lambda r: r.tests[largest])
                  for policy in dict.fromkeys(r.policy for r in mine)}
          for title, mine in chosen.items()}


def _truth(runs):
  panels = {}
  for (policy, judge, count), found in cells(runs).items():
    panels.setdefault(f'{policy} policy, {count:,} comparisons', {})[judge] = _mean_curve(
      found, lambda r: r.true_reward)
  return panels
