"""A study of preference models, read from its run directories alone: accuracy against size and data,
against the mixture of helpful and harmful comparisons, against one setting after another.

Bai et al. 2022, section 3.3 and eq. A.1 (scaling), figures 19, 26 and 27 (mixtures and loss weights).
Every interval is Student's 95% over seeds.
"""
import pathlib
from typing import NamedTuple

import numpy as np

from rlhf_jax.analysis import figures, fits, report, tables
from rlhf_jax.analysis.seeds import interval, text
from rlhf_jax.core import rundir
from rlhf_jax.evals.preference import excess
from rlhf_jax.models import sizes

SIDES = 'helpful', 'harmful'


class Run(NamedTuple):
  """One preference model. point: the name of its setting; seen_T, accuracy_T: comparisons seen and
  accuracy on validation along training; accuracy, sides, subsets, ceiling: on test (ceiling None where
  it is not known)."""
  size: str
  point: str
  seed: int
  config: dict
  seen_T: np.ndarray
  accuracy_T: np.ndarray
  accuracy: float
  sides: dict
  subsets: dict
  ceiling: float | None


def check(name):
  """Refuses an analysis that `write` does not know."""
  if name not in _KINDS:
    raise ValueError(f'config.analysis={name!r} is unknown: use {", ".join(_KINDS)}')


def read(path):
  """The finished Runs of the study in the folder `path`, by size, in the order of its points."""
  study = rundir.read_config(path)
  order = [name for name, _ in study['points']]
  found = []
  for folder in sorted(pathlib.Path(path).glob('pm-*')):
    if rundir.is_done(folder):
      config, summary = rundir.read_config(folder), rundir.read_summary(folder)
      curve = rundir.read_metrics(folder, 'eval/accuracy')
      size, seed = config['model']['name'], config['seed']
      point = folder.name.removeprefix(f'pm-{size}-').removesuffix(str(seed)).removesuffix('-')
      found.append(Run(size, point, seed, config, curve['step'] * config['batch_size'],
                       curve['eval/accuracy'], summary['accuracy'],
                       *({name: rate['accuracy'] for name, rate in summary[key].items()}
                         for key in ('sides', 'subsets')),
                       summary.get('ceiling')))
  if not found:
    raise FileNotFoundError(f'{path} holds no finished preference model: run the study first')
  return sorted(found, key=lambda r: (parameters(r.size), order.index(r.point), r.seed))


def parameters(size):
  """Non-embedding parameters of a size of the ladder."""
  return sizes.non_embedding_parameters(sizes.config(size))


def cells(runs):
  """{(size, point): [its Runs, one a seed]}."""
  found = {}
  for run in runs:
    found.setdefault((run.size, run.point), []).append(run)
  return found


def write(path, name):
  """Writes summary.json and report.html of the study in `path`; prints its table."""
  summary, rows, sections = _KINDS[name](read(path))
  print(tables.text_table(rows))
  rundir.write_summary(path, summary)
  title = rundir.read_config(path)['title']
  report.write(path, title, f'{len(rows)} cells', sections)
  return summary


# ---------------------------------------------------------------------------------------- scaling

def law(runs, below=0.8):
  """The law of eq. A.1 over the cells (size, comparisons seen) of learning curves.

  {'a', 'b', 'c': Interval over seeds, 'r2': of the law through the means over seeds, 'stderr': its
  least-squares errors, 'cells', 'used'}. Cells at or above `below` of the excess are left out: near
  the noise ceiling accuracy can no longer grow with a logarithm.
  """
  names, seeds = (list(dict.fromkeys(getattr(r, key) for r in runs)) for key in ('size', 'seed'))
  found = {(r.size, r.seed): r for r in runs}
  seen_D = runs[0].seen_T[1:]                                            # the first is the start
  accuracy_SPD = np.array([[found[p, s].accuracy_T[1:] for p in names] for s in seeds])
  params_PD, data_PD = np.meshgrid([parameters(p) for p in names], seen_D, indexing='ij')
  ceiling = np.mean([r.ceiling for r in runs if r.ceiling is not None] or [1.0])
  use_PD = excess(accuracy_SPD.mean(axis=0), ceiling) < below
  def fit(accuracy_PD):
    return fits.accuracy_law(params_PD[use_PD], data_PD[use_PD], accuracy_PD[use_PD])
  of_seeds, whole = [fit(accuracy_PD) for accuracy_PD in accuracy_SPD], fit(accuracy_SPD.mean(axis=0))
  return {name: interval([getattr(f, name) for f in of_seeds]) for name in 'abc'} | {
    'r2': whole.r2, 'stderr': whole.stderr, 'cells': use_PD.size, 'used': int(use_PD.sum())}


def _scaling(runs):
  made = law(runs)
  rows, numbers, curves, by_size = [], [], {}, {}
  for (size, _), found in cells(runs).items():
    seen, over = found[0].seen_T, interval([r.accuracy_T for r in found])
    curves[size] = seen[1:], *(part[1:] for part in over)
    row = {'size': size, 'parameters': parameters(size), 'seeds': len(found)}
    for d, column in zip(seen[1:], np.stack(over, axis=1)[1:], strict=True):
      row[f'{d:,}'] = text(column)
      by_size.setdefault(f'{d:,}', []).append((parameters(size), *column))
    test = {'test': interval([r.accuracy for r in found])}
    if found[0].ceiling is not None:
      test['of the ceiling'] = interval([r.accuracy / r.ceiling for r in found])
    rows.append(row | {name: text(value) for name, value in test.items()})
    numbers.append({'size': size, 'seen': seen, 'accuracy': over} | test)
  by_size = {d: tuple(np.array(columns).T) for d, columns in by_size.items()}
  formula = (f'accuracy = {made["a"].mean:.3f} + b ln(P / 1e11) + c ln(D / 8e4), '
             f'b = {text(made["b"])}, c = {text(made["c"])}, R² = {made["r2"]:.3f} over '
             f'{made["used"]} of {made["cells"]} cells.')
  label = 'accuracy on held-out comparisons'
  sections = [report.Section('Accuracy against data and size', paragraphs=[
    formula, 'One pass at a fixed learning rate, so a learning curve is a data-scaling curve. '
    'Bands: 95% over seeds.'], figures=[
      (figures.lines({'': curves}, 'comparisons seen', label, log=True), 'One line a size.'),
      (figures.lines({'': by_size}, 'non-embedding parameters', label, log=True),
       'One line a number of comparisons.')], table=rows)]
  return {'law': made, 'cells': numbers}, rows, sections


# ------------------------------------------------------------------- helpful and harmful comparisons

def sides(runs, key):
  """One row a size and value of the setting `key`: Intervals of the accuracy on helpful and harmful
  test comparisons and of the mean of the two."""
  rows = []
  for (size, _), found in cells(runs).items():
    accuracy = {side: np.array([r.sides[side] for r in found]) for side in SIDES}
    accuracy['mean'] = (accuracy['helpful'] + accuracy['harmful']) / 2
    rows.append({'size': size, key: found[0].config[key], 'seeds': len(found),
                 **{name: interval(values) for name, values in accuracy.items()}})
  return rows


def _sides(key, x_label, heading):
  def kind(runs):
    rows = sides(runs, key)
    shown = [row | {name: text(row[name]) for name in (*SIDES, 'mean')} for row in rows]
    def curve(size, name):
      mine = sorted((row[key], *row[name]) for row in rows if row['size'] == size)
      return tuple(np.array(mine).T)
    names = list(dict.fromkeys(row['size'] for row in rows))
    best = {size: max((row for row in rows if row['size'] == size), key=lambda row: row['mean'].mean)
            for size in names}
    sections = [report.Section(heading, paragraphs=['Bands: 95% over seeds.'], figures=[
      (figures.lines({size: {f'{side} test': curve(size, side) for side in SIDES} for size in names},
                     x_label, 'accuracy'), 'One panel a size of the preference model.'),
      (figures.lines({'mean of both': {size: curve(size, 'mean') for size in names}}, x_label,
                     'accuracy'), 'Mean of the accuracy on helpful and on harmful comparisons.')],
      table=shown)]
    return {'best': {size: row[key] for size, row in best.items()}, 'cells': rows}, shown, sections
  return kind


# -------------------------------------------------------------------------------------- ablations

def _ablations(runs):
  """Each point against the first, the default, on the same seeds."""
  groups, rows, numbers = cells(runs), [], []
  for (size, point), found in groups.items():
    default = next(other for (s, _), other in groups.items() if s == size)
    changed = interval([r.accuracy - d.accuracy for r, d in zip(found, default, strict=True)])
    accuracy, share = interval([r.accuracy for r in found]), None
    if found[0].ceiling is not None:
      share = interval([r.accuracy / r.ceiling for r in found])
    numbers.append({'size': size, 'setting': point, 'accuracy': accuracy, 'of the ceiling': share,
                    'against the first': changed})
    rows.append({'size': size, 'setting': point, 'accuracy': text(accuracy),
                 'of the ceiling': share and text(share),
                 'against the first': text(changed) if found is not default else None})
  drawn, settings = {}, list(dict.fromkeys(row['setting'] for row in numbers))
  for row in numbers:
    drawn.setdefault(row['size'], []).append(row['against the first'])
  figure = figures.intervals(settings, {size: np.array(found).T for size, found in drawn.items()},
                             f'test accuracy less that of “{settings[0]}”', level=0)
  return {'cells': numbers}, rows, [report.Section('One setting after another', paragraphs=[
    'Test accuracy and its paired difference to the first row, 95% over seeds.'], figures=[
      (figure if len(settings) > 1 else None, 'Paired over seeds.')], table=rows)]


def _skills(runs):
  """Accuracy on every kind of test comparison, for models trained on some kinds or on all."""
  numbers = [{'size': size, 'trained on': point} | {
    kind: interval([r.subsets[kind] for r in found]) for kind in found[0].subsets}
    for (size, point), found in cells(runs).items()]
  rows = [{key: value if isinstance(value, str) else text(value) for key, value in row.items()}
          for row in numbers]
  kinds = list(runs[0].subsets)
  drawn = [(figures.intervals(kinds, {
    row['trained on']: np.array([row[kind] for kind in kinds]).T
    for row in numbers if row['size'] == size}, f'test accuracy, {size} models', level=0.5),
    'By kind of request; one mark a training set, the line is chance.')
    for size in dict.fromkeys(row['size'] for row in numbers)]
  return {'cells': numbers}, rows, [report.Section('Specialists and the mixture', paragraphs=[
    'Test accuracy by kind of request, 95% over seeds.'], figures=drawn, table=rows)]


_KINDS = {
  'scaling': _scaling, 'ablations': _ablations, 'skills': _skills,
  'fractions': _sides('harmful_share', 'share of harmful comparisons', 'The mixture at a fixed total'),
  'weights': _sides('harmful_weight', 'weight λ of harmful comparisons', 'Weighting the loss')}
