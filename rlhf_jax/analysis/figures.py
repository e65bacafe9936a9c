"""Figures from plain arrays, as matplotlib Figures. A series that is None or empty is left out;
a figure with nothing to draw is None. Non-finite points are not drawn, so columns read from a run
can be passed as they are. Nothing is smoothed.
"""
import itertools

import numpy as np
from matplotlib.ticker import MaxNLocator

from rlhf_jax.analysis import fits, style
from rlhf_jax.analysis.style import BLUE, GREEN, GREY, INK, ORANGE, SERIES


@style.styled
def loss_curves(curves, x_label='step'):
  """One panel a stage; curves: stage -> (step or tokens, loss in nats)."""
  curves = {name: points for name, pair in curves.items()
            if (points := _points(pair)) is not None}
  if not curves:
    return None
  figure, axes = style.panels(len(curves))
  for axis, (name, (x, loss)) in zip(axes, curves.items(), strict=True):
    axis.plot(x, loss, color=BLUE)
    _end_value(axis, x, loss, BLUE)
    axis.set(title=name, xlabel=x_label)
    style.thousands(axis)
  axes[0].set_ylabel('loss (nats)')
  return figure


@style.styled
def preference_accuracy(seen, accuracy, ceiling=None, agreement=None, baselines=None):
  """Accuracy on held-out comparisons against comparisons seen, between the share that the best
  possible predictor reaches (ceiling) and what simple rules reach (baselines: name -> accuracy)."""
  points = _points((seen, accuracy))
  if points is None:
    return None
  figure, (axis,) = style.panels(1, width=6.4, height=3.4)
  axis.plot(*points, color=BLUE, marker='o', markersize=3.5)
  levels = [('noise ceiling', ceiling, GREEN), ('worker agreement', agreement, ORANGE),
            *((name, value, GREY) for name, value in (baselines or {}).items())]
  levels = [level for level in levels if level[1] is not None]
  for _, value, colour in levels:
    axis.axhline(value, color=colour, linewidth=1.1, linestyle=(0, (4, 2.5)), zorder=1)
  labels = [(value, f'{name} {value:.3f}', colour) for name, value, colour in levels]
  labels.append((points[1][-1], f'preference model {points[1][-1]:.3f}', BLUE))
  values = [*points[1], *(value for _, value, _ in levels)]
  margin = 0.06 * (max(values) - min(values)) + 1e-3
  axis.set(ylim=(min(values) - margin, max(values) + margin), xlabel='comparisons seen',
           ylabel='accuracy on held-out comparisons')
  style.thousands(axis)
  style.end_labels(axis, labels)
  return figure


@style.styled
def learning_curves(seen, curves, x_label, y_label):
  """One line a name, the mean over seeds in its 95% interval; curves: name -> `seeds.Interval` at
  the numbers of examples `seen`, logarithmic from the first that is not 0."""
  if not curves:
    return None
  figure, (axis,) = style.panels(1, width=6.4, height=3.8)
  seen, colours = np.asarray(seen), dict(zip(curves, (*SERIES, GREY), strict=False))
  first = seen[seen > 0].min()
  axis.set_xscale('symlog', linthresh=first, linscale=0.5, base=2)
  for name, (mean, low, high) in curves.items():
    axis.fill_between(seen, low, high, color=colours[name], alpha=0.15, linewidth=0)
    axis.plot(seen, mean, color=colours[name])
  ticks = [0, *(first * 2 ** np.arange(0, np.log2(seen.max() / first) + 1e-9))]
  axis.set_xticks(ticks, [f'{tick:g}' for tick in ticks])
  axis.set(xlabel=x_label, ylabel=y_label, xlim=(0, seen.max()))
  style.end_labels(axis, [(mean[-1], f'{name} {mean[-1]:.3f}', colours[name])
                          for name, (mean, _, _) in curves.items()])
  return figure


@style.styled
def accuracy_bars(by_subset, baselines=None):
  """Accuracy above chance by subset, with its 95% interval.

  by_subset: subset -> (accuracy, low, high). baselines: subset -> {name: accuracy}.
  """
  rows = [(name, value) for name, value in by_subset.items() if value is not None][::-1]
  if not rows:
    return None
  baselines = baselines or {}
  figure, (axis,) = style.panels(1, width=6.4, height=0.9 + 0.45 * len(rows))
  kinds = list(dict.fromkeys(kind for name, _ in rows for kind in baselines.get(name, {})))
  for y, (name, (value, low, high)) in enumerate(rows):
    axis.barh(y, value - 0.5, left=0.5, height=0.5, color=BLUE, alpha=0.85)
    axis.hlines(y, low, high, color=INK, linewidth=1.3)
    for kind, level in baselines.get(name, {}).items():
      axis.plot(level, y, marker='Dov^s'[kinds.index(kind) % 5], markersize=6, color='white',
                markeredgecolor=SERIES[1 + kinds.index(kind) % 4], markeredgewidth=1.6,
                linestyle='none', label=kind)
    axis.text(1.015, y, f'{value:.3f}', va='center', color=BLUE,
              transform=axis.get_yaxis_transform())
  axis.axvline(0.5, color=GREY, linewidth=1)
  axis.set_yticks(range(len(rows)), [name for name, _ in rows], color=INK)
  axis.tick_params(axis='y', length=0)
  axis.grid(axis='y', visible=False)
  axis.set_xlabel('accuracy on held-out comparisons (bars start at chance)')
  if kinds:
    handles = dict(zip(*axis.get_legend_handles_labels()[::-1], strict=True))
    figure.legend(handles.values(), handles, loc='outside upper left', frameon=False,
                  ncols=len(kinds), handletextpad=0.2)
  return figure


@style.styled
def calibration(curve):
  """Accuracy by |score difference| with Wilson 95% bars against the logistic, and below it where
  the comparisons lie. curve: of `analysis.calibration`."""
  figure, (axis, strip) = style.panels(2, columns=1, width=5.2, height=2.0, sharex=True,
                                       height_ratios=(3, 1))
  edges = np.concatenate([[0], (curve.centre[1:] + curve.centre[:-1]) / 2])
  edges = np.append(edges, 2 * curve.centre[-1] - edges[-1])
  x = np.linspace(0, edges[-1], 200)
  axis.plot(x, 1 / (1 + np.exp(-x)), color=GREY, linewidth=1.3, linestyle=(0, (4, 2.5)))
  axis.text(0.98, 0.05, 'points: observed, Wilson 95%\ndashed: 1 / (1 + exp(−Δ)), calibrated',
            color=GREY, ha='right', transform=axis.transAxes)
  axis.vlines(curve.centre, curve.low, curve.high, color=BLUE, linewidth=1.3)
  axis.plot(curve.centre, curve.accuracy, color=BLUE, marker='o', markersize=4.5,
            linestyle='none')
  axis.set_ylabel('accuracy')
  # bins hold equal counts, so where the comparisons lie is read from the widths
  width = np.diff(edges)
  strip.bar(edges[:-1], curve.count / curve.count.sum() / np.maximum(width, 1e-9), width,
            align='edge', color=BLUE, alpha=0.25, edgecolor='white', linewidth=0.6)
  strip.set(xlabel='|score difference| Δ', ylabel='density', xlim=(0, edges[-1]))
  strip.set_yticks([])
  return figure


@style.styled
def calibration_by(curves):
  """`calibration` without its density, one panel a name; curves: name -> (curve, note)."""
  figure, axes = style.panels(len(curves), width=3.0, height=2.5, sharey=True)
  for axis, (name, (curve, note)) in zip(axes, curves.items(), strict=True):
    x = np.linspace(0, 1.08 * curve.centre[-1], 100)
    axis.plot(x, 1 / (1 + np.exp(-x)), color=GREY, linewidth=1.3, linestyle=(0, (4, 2.5)))
    axis.vlines(curve.centre, curve.low, curve.high, color=BLUE, linewidth=1.3)
    axis.plot(curve.centre, curve.accuracy, color=BLUE, marker='o', markersize=4, linestyle='none')
    axis.text(0.03, 0.97, note, color=GREY, va='top', transform=axis.transAxes)
    axis.set(title=name, xlabel='|score difference| Δ', xlim=(0, x[-1]))
    axis.xaxis.set_major_locator(MaxNLocator(5))
  axes[0].set_ylim(top=1.15)                     # room for the notes
  axes[0].set_yticks([0.25, 0.5, 0.75, 1])
  _share_labels(axes, 'accuracy')
  return figure


@style.styled
def accuracy_along(tables, key, x_label):
  """Accuracy with Wilson 95% bars along `key` of the rows of `evals.preference`, a panel a table, the
  number of comparisons below each point. tables: name -> rows."""
  tables = {name: rows for name, rows in tables.items() if rows}
  if not tables:
    return None
  figure, axes = style.panels(len(tables), width=3.0, height=2.4, sharey=True)
  for axis, (name, rows) in zip(axes, tables.items(), strict=True):
    x = np.array([row[key] for row in rows])
    axis.axhline(0.5, color=GREY, linewidth=1)
    axis.vlines(x, *np.array([row['interval'] for row in rows]).T, color=BLUE, linewidth=1.3)
    axis.plot(x, [row['accuracy'] for row in rows], color=BLUE, marker='o', markersize=4,
              linewidth=0.9)
    axis.set_xticks(x, [f'{round(row[key], 2) + 0.0:g}\n{row["count"]:,}' for row in rows], fontsize=7)
    axis.set(title=name, xlabel=x_label)
    axis.margins(x=0.1)
  _share_labels(axes, 'accuracy')
  return figure


@style.styled
def score_differences(gaps, bins=40):
  """Histograms of score(chosen) - score(rejected), what is ordered wrongly apart; a panel a name.

  The outer 1% of a set lies in its outer bins.
  """
  figure, axes = style.panels(len(gaps), width=3.0, height=2.2)
  for axis, (name, gap) in zip(axes, gaps.items(), strict=True):
    edge = np.quantile(np.abs(gap), 0.99) or 1.0
    count, edges = np.histogram(np.clip(gap, -edge, edge), np.linspace(-edge, edge, bins + 1))
    axis.bar(edges[:-1], count, np.diff(edges), align='edge', alpha=0.85,
             color=[BLUE if left > -1e-9 else ORANGE for left in edges[:-1]])
    axis.text(0.03, 0.95, f'wrong {np.mean(gap < 0):.0%}', color=ORANGE, va='top',
              transform=axis.transAxes)
    axis.text(0.97, 0.95, f'right {np.mean(gap > 0):.0%}', color=BLUE, va='top', ha='right',
              transform=axis.transAxes)
    axis.set(title=name, ylim=(0, 1.2 * count.max()), xlabel='score of chosen − rejected')
  _share_labels(axes, 'comparisons')
  return figure


@style.styled
def reward_against_sqrt_kl(kl, proxy, true=None, early=None, best_of_n=None):
  """The preference model's score, and the true reward beside it, against sqrt(KL).

  early: mask of the points to fit; the line is solid over them and dashed beyond. best_of_n:
  n -> (kl, proxy, true or None).
  """
  best_of_n = best_of_n or {}
  series = [('Preference model score', proxy, BLUE, 1), ('True reward', true, GREEN, 2)]
  series = [row for row in series if _points((kl, row[1])) is not None]
  if not series:
    return None
  figure, axes = style.panels(len(series), width=3.9, height=3.1)
  for axis, (title, reward, colour, column) in zip(axes, series, strict=True):
    root = np.sqrt(np.maximum(kl, 0))
    axis.plot(*_points((root, reward)), color=colour, marker='o', markersize=3.5, linewidth=0.9)
    best = {n: (np.sqrt(row[0]), row[column]) for n, row in best_of_n.items()
            if row[column] is not None}
    _best_of_n(axis, best)
    _fitted_line(axis, root, np.asarray(kl), np.asarray(reward), early)
    axis.set(title=title, xlabel='√KL (√nats)')
    axis.margins(y=0.12)
  return figure


@style.styled
def training(x, panels, x_label='samples'):
  """Small multiples along one run; panels: title -> values, or {line name: values}."""
  lines = {title: {name: points for name, values in
                   (series if isinstance(series, dict) else {'': series}).items()
                   if (points := _points((x, values))) is not None}
           for title, series in panels.items()}
  lines = {title: named for title, named in lines.items() if named}
  if not lines:
    return None
  figure, axes = style.panels(len(lines), height=2.2)
  for axis, (title, named) in zip(axes, lines.items(), strict=True):
    for (name, (at, values)), colour in zip(named.items(), SERIES, strict=False):
      axis.plot(at, values, color=colour)
      if not name:
        _end_value(axis, at, values, colour)
    axis.set_title(title)
    style.thousands(axis)
    style.end_labels(axis, [(values[-1], name, colour) for (name, (_, values)), colour
                            in zip(named.items(), SERIES, strict=False) if name])
  for axis in axes[-min(len(axes), 3):]:
    axis.set_xlabel(x_label)
  return figure


@style.styled
def lines(panels, x_label, y_label, marker='o', log=False, share_y=True):
  """Panels side by side, on one scale unless share_y is False; panels: title -> {line name: (x, y)} or
  (x, y, low, high), the last two a band. A name has one colour throughout. log: x is logarithmic."""
  panels = {title: named for title, named in panels.items() if named}
  if not panels:
    return None
  names = list(dict.fromkeys(name for named in panels.values() for name in named))
  colours = dict(zip(names, itertools.cycle(SERIES), strict=False))
  figure, axes = style.panels(len(panels), width=3.5, height=3.0, sharey=share_y)
  for axis, (title, named) in zip(axes, panels.items(), strict=True):
    for name, (x, y, *band) in named.items():
      axis.plot(x, y, color=colours[name], marker=marker, markersize=3, linewidth=1.2)
      if band:
        axis.fill_between(x, *band, color=colours[name], alpha=0.15, linewidth=0)
    axis.set(title=title, xlabel=x_label, xscale='log' if log else 'linear')
  axes[0].set_ylabel(y_label)
  for axis, named in zip(axes, panels.values(), strict=True):         # once the common scale is known
    style.end_labels(axis, [(y[-1], name, colours[name]) for name, (_, y, *_) in named.items()])
  return figure


@style.styled
def frontier(panels, x_label):
  """Runs that start in one point and end apart, a panel a quantity; panels: title -> {setting: (x, y)}
  in order of the settings, whose names stand at the ends, from dark to pale; where ends are too near
  one another for names of their own, they share one label."""
  panels = {title: runs for title, runs in panels.items() if runs}
  if not panels:
    return None
  figure, axes = style.panels(len(panels), width=4.2, height=3.2)
  for axis, (title, runs) in zip(axes, panels.items(), strict=True):
    for (x, y), colour in zip(runs.values(), style.shades(len(runs)), strict=True):
      axis.plot(x, y, color=colour, linewidth=1.2)
      axis.plot(x[-1], y[-1], marker='o', markersize=5.5, color=colour, markeredgecolor='white',
                markeredgewidth=0.8)
    axis.set(title=title, xlabel=x_label)
    axis.margins(y=0.12)
    size = np.ptp([axis.get_xlim(), axis.get_ylim()], axis=1)
    for names, place in _together({name: (x[-1], y[-1]) for name, (x, y) in runs.items()}, 0.06 * size):
      axis.annotate(', '.join(names), place, (0, 6), textcoords='offset points', ha='center', color=INK,
                    fontsize=8)
  return figure


def _together(points, near):
  """[(names, the highest of their points)] of points that lie within `near` of the one before them."""
  groups = []
  for name, point in points.items():
    if groups and (np.abs(np.subtract(point, groups[-1][1][-1])) < near).all():
      groups[-1][0].append(name)
      groups[-1][1].append(point)
    else:
      groups.append(([name], [point]))
  return [(names, max(places, key=lambda place: place[1])) for names, places in groups]


def elo(names, scores):
  """Elo scores with 95% intervals; scores: {judge: (elo_N, stderr_N)}, see `intervals`."""
  return intervals(names, {judge: (elo_N, *(np.asarray(elo_N) + side * 1.96 * np.asarray(stderr_N)
                                            for side in (-1, 1)))
                           for judge, (elo_N, stderr_N) in scores.items()}, 'Elo')


@style.styled
def intervals(names, series, x_label, level=None):
  """Means with their intervals, a row a name from the top; series: {what: (mean_N, low_N, high_N)},
  one mark beside another where there are several. level: x of a line to compare with."""
  if not names or not series:
    return None
  apart = min(0.22, 0.7 / len(series))
  figure, (axis,) = style.panels(1, width=6.4, height=0.9 + (0.25 + 0.1 * len(series)) * len(names))
  row_N = np.arange(len(names))[::-1]
  for i, (what, colour) in enumerate(zip(series, SERIES, strict=False)):
    mean_N, low_N, high_N = series[what]
    y_N = row_N + apart * ((len(series) - 1) / 2 - i)
    axis.hlines(y_N, low_N, high_N, color=colour, linewidth=1.3)
    axis.plot(mean_N, y_N, color=colour, marker='o', markersize=5, linestyle='none', label=what)
  if level is not None:
    axis.axvline(level, color=GREY, linewidth=1, zorder=1)
  axis.set_yticks(row_N, names, color=INK)
  axis.tick_params(axis='y', length=0)
  axis.grid(axis='y', visible=False)
  axis.set_xlabel(x_label)
  if len(series) > 1:
    figure.legend(loc='outside upper left', frameon=False, ncols=len(series), handletextpad=0.2)
  return figure


@style.styled
def tension(refusals, curves):
  """What a larger share of helpful prompts does (Bai et al. 2022, section 4.4, Fig. 14).

  refusals: {title: (share_N, rate_N, low_N, high_N)}, a panel each of the runs' refusal rates with
  their intervals, and the mean of each share. curves: {title: {share: (samples, values)}}, a panel
  each with a line a share.
  """
  curves = {title: kept for title, lines in curves.items() if (
    kept := {share: points for share, pair in lines.items()
             if (points := _points(pair)) is not None})}
  if not refusals and not curves:
    return None
  figure, axes = style.panels(len(refusals) + len(curves))
  for axis, (title, runs) in zip(axes, refusals.items(), strict=False):
    axis.set(title=title, xlabel='helpful share of the training prompts')
    _rates_by_share(axis, *(np.asarray(x, np.float64) for x in runs))
  for axis, (title, lines) in zip(axes[len(refusals):], curves.items(), strict=True):
    for (samples, values), colour in zip(lines.values(), SERIES, strict=False):
      axis.plot(samples, values, color=colour)
    axis.set(title=title, xlabel='samples')
    style.thousands(axis)
    style.end_labels(axis, [(values[-1], f'{share:.0%}', colour) for (share, (_, values)), colour
                            in zip(lines.items(), SERIES, strict=False)])
  return figure


def _rates_by_share(axis, share_N, rate_N, low_N, high_N):
  """The runs of one share side by side, and a line through the means of the shares."""
  shares = np.unique(share_N)
  apart = np.diff(shares).min(initial=1) / 12
  for share in shares:
    here = share_N == share
    place = share + apart * (np.arange(here.sum()) - (here.sum() - 1) / 2)
    axis.vlines(place, low_N[here], high_N[here], color=BLUE, linewidth=1.1, alpha=0.6)
    axis.plot(place, rate_N[here], color=BLUE, marker='o', markersize=3.5, linestyle='none')
  axis.plot(shares, [rate_N[share_N == share].mean() for share in shares], color=INK)
  axis.set_xticks(shares, [f'{share:.0%}' for share in shares])
  axis.set_ylim(0, None)


def _points(pair):
  """The finite points of (x, y) as two arrays; None where there are none."""
  if pair is None or pair[1] is None:
    return None
  x, y = np.asarray(pair[0], np.float64), np.asarray(pair[1], np.float64)
  if x.shape != y.shape or x.ndim != 1:
    raise ValueError(f'a curve needs x and y of one length, not {x.shape} and {y.shape}')
  finite = np.isfinite(x) & np.isfinite(y)
  return (x[finite], y[finite]) if finite.any() else None


def _share_labels(axes, y_label):
  """The label of the shared y axis, once a row of three."""
  for axis in axes[::3]:
    axis.set_ylabel(y_label)


def _end_value(axis, x, y, colour):
  axis.plot(x[-1], y[-1], marker='o', markersize=4, color=colour)
  style.end_labels(axis, [(y[-1], f'{y[-1]:.3g}', colour)])


def _best_of_n(axis, best):
  for n, (root, reward) in best.items():
    axis.plot(root, reward, marker='D', markersize=6, color='white', markeredgecolor=ORANGE,
              markeredgewidth=1.5)
    axis.annotate(f'n = {n}', (root, reward), (-5, 5), textcoords='offset points', color=ORANGE,
                  ha='right', fontsize=8)
  if best:
    axis.text(0.98, 0.05, '◇ best of n samples', ha='right', color=ORANGE,
              transform=axis.transAxes)


def _fitted_line(axis, root, kl, reward, early):
  """The sqrt(KL) law through the early points; nothing where they are too few for a line."""
  if early is None:
    return
  early = np.asarray(early, bool) & np.isfinite(root) & np.isfinite(reward)
  if len(np.unique(kl[early])) < 3:
    return
  fit = fits.sqrt_kl(kl[early], reward[early])
  last = root[early].max()
  inside, beyond = np.array([root[early].min(), last]), np.array([last, np.nanmax(root)])
  limits = axis.get_ylim()
  axis.plot(inside, fit.intercept + fit.slope * inside, color=INK, linewidth=1.2)
  axis.plot(beyond, fit.intercept + fit.slope * beyond, color=INK, linewidth=1.2,
            linestyle=(0, (4, 2.5)))
  axis.set_ylim(limits)
  axis.text(0.98, 0.13, f'fit: {fit.slope:.3g} per √nat, r² {fit.r2:.2f}', ha='right',
            transform=axis.transAxes, color=INK)
