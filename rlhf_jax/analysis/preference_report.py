"""All instruments of a preference model on one set of comparisons, and the report of several sets."""
import numpy as np

from rlhf_jax.analysis import calibration, figures, report
from rlhf_jax.evals import preference as evals

SCALES = {'scores x 3': 3.0, 'scores / 3': 1 / 3}      # what a verdict must be able to see


def measure(chosen_N, rejected_N, data, groups, mean):
  """Everything about scores on `data` (a `worlds.Comparisons`) as nested dictionaries of numbers.

  groups: names of data.group_N. mean: of the model's scores on held-out comparisons.
  """
  gap_N, right_N = _gap(chosen_N, rejected_N), evals.correct(chosen_N, rejected_N)
  lengths = [np.array([*map(len, texts)]) for texts in (data.chosen_text, data.rejected_text)]
  subsets = {groups[g]: data.group_N == g for g in np.unique(data.group_N)}
  along = {'': np.ones(len(gap_N), bool), **(subsets if len(subsets) > 1 else {})}
  return evals.rate(right_N) | {
    'calibration': calibration.verdict(gap_N),
    'scaled': {name: calibration.verdict(scale * gap_N) for name, scale in SCALES.items()},
    'length_controlled': evals.length_controlled(right_N, *lengths),
    'thresholds': {name: evals.by_threshold(chosen_N[here], rejected_N[here], mean)
                   for name, here in along.items()},
    'turns': {} if data.turn_N is None else {
      name: evals.by_turn(right_N[here], data.turn_N[here]) for name, here in along.items()},
    'subsets': {name: evals.rate(right_N[here]) | {
      'calibration': calibration.verdict(gap_N[here]),
      'length_controlled': evals.length_controlled(right_N[here], *(x[here] for x in lengths))}
      for name, here in subsets.items()}}


def rows(measured):
  """A table: each set, and each of its subsets; measured: name -> `measure`."""
  out = []
  for name, found in measured.items():
    several = found['subsets'] if len(found['subsets']) > 1 else {}
    for part, each in ((name, found), *((f'{name}: {k}', v) for k, v in several.items())):
      cal, controlled = each['calibration'], each['length_controlled'] or {}
      out.append({
        'set': part, 'count': each['count'], 'accuracy': each['accuracy'],
        '95%': _range(each['interval']), 'controlled': controlled.get('accuracy'),
        '±': controlled.get('stderr'), 'ECE': cal['error'], 'bins inside': _bins(cal),
        'slope': cal['slope'], 'verdict': cal['verdict']})
  return out


def sections(measured, scores, data, groups, ceiling):
  """The report; scores: name -> (chosen_N, rejected_N), data and groups: name -> as in `measure`.
  The first name is the model's own test set. ceiling: its noise ceiling, or None."""
  gaps = {name: _gap(*pair) for name, pair in scores.items()}
  return [_headline(next(iter(measured.values())), ceiling),
          report.Section('Every set', table=rows(measured), paragraphs=[
            'Controlled: the accuracy with the length of the answers controlled, ± its standard error; '
            'a rule that looks at the two lengths alone has 0.5.']),
          _calibration(measured, gaps, data, groups), _along(next(iter(measured.values()))),
          _differences(measured, gaps)]


def _gap(chosen_N, rejected_N):
  return np.asarray(chosen_N, np.float64) - np.asarray(rejected_N, np.float64)


def _range(interval):
  return '{:.3f}–{:.3f}'.format(*interval)


def _bins(cal):
  return f'{round(cal["inside"] * cal["bins"])}/{cal["bins"]}'


def _headline(test, ceiling):
  cal, controlled = test['calibration'], test['length_controlled']
  numbers = {'comparisons': test['count'], 'accuracy': test['accuracy']}
  if ceiling:
    numbers |= {'noise ceiling': ceiling, 'excess': evals.excess(test['accuracy'], ceiling)}
  if controlled:
    numbers |= {'length controlled': controlled['accuracy']}
  return report.Section('The test set in numbers', numbers=numbers | {
    'calibration error': f'{cal["error"]:.3f}', 'bins inside': _bins(cal), 'slope': cal['slope'],
    'verdict': cal['verdict']})


def _calibration(measured, gaps, data, groups):
  name, test = next(iter(measured.items()))
  parts = {'all': (test, gaps[name])}
  for g in np.unique(data[name].group_N):
    part = groups[name][g]
    parts[part] = test['subsets'][part], gaps[name][data[name].group_N == g]
  curves = {}
  for part, (found, gap_N) in parts.items():
    cal = found['calibration']
    curves[part] = (calibration.curve(gap_N, evals.correct(gap_N, 0), cal['bins']),
                    f'{found["count"]:,} comparisons, ECE {cal["error"]:.3f}\n{cal["verdict"]}')
  table = [{'scores': part, 'ECE': cal['error'], 'ECE, 95%': _range(cal['error_interval']),
            'noise alone': cal['noise'], 'inside': cal['inside'],
            'inside, 95%': _range(cal['inside_interval']), 'slope': cal['slope'],
            'slope, 95%': _range(cal['slope_interval']), 'verdict': cal['verdict']}
           for part, cal in (('as they are', test['calibration']), *test['scaled'].items())]
  return report.Section('Calibration', paragraphs=[
    'A calibrated model is right with chance 1 / (1 + exp(−Δ)) where its two scores differ by Δ. '
    f'Called calibrated: an expected calibration error (ECE) of at most {calibration.LIMIT}, or no '
    'more than label noise alone gives (97.5%), and 8 of 10 bins of equal count whose expected '
    'accuracy lies inside the Wilson interval of the observed one. The slope is the factor that would '
    'calibrate the scores. The same scores times 3 and divided by 3 show whether the set is large '
    'enough to tell.'],
    figures=[(figures.calibration_by(curves), 'Points: observed, Wilson 95%. Dashed: calibrated.')],
    table=table)


def _along(test):
  def named(tables):
    return {name or 'all': table for name, table in tables.items()}
  return report.Section('By turn and by height of the scores', figures=[
    (figures.accuracy_along(named(test['turns']), 'turn', 'turn of the assistant'),
     'Accuracy by the turn that is compared; the last one holds all that follow. Below: comparisons.'),
    (figures.accuracy_along(named(test['thresholds']), 'threshold', 'both scores at least'),
     'Accuracy where both answers score at least so much, after subtracting the mean score on '
     'validation comparisons.')])


def _differences(measured, gaps):
  bars, longer = {}, {}
  for name, found in list(measured.items())[1:]:
    several = found['subsets'] if len(found['subsets']) > 1 else {}
    for part, each in ((name, found), *((f'{name}: {k}', v) for k, v in several.items())):
      bars[part] = each['accuracy'], *each['interval']
      if each['length_controlled']:
        longer[part] = {'longer answer': each['length_controlled']['longer_chosen']}
  heading = 'Score differences' + (', and sets from elsewhere' if bars else '')
  return report.Section(heading, figures=[
    (figures.score_differences(gaps), 'The outer 1% lies in the outer bins.'),
    (figures.accuracy_bars(bars, longer),
     'Sets that the model was not trained on, with 95% intervals.')])
