"""What is drawn is what was passed: positions read back from the artists."""
import subprocess
import sys

import matplotlib
import numpy as np
import pytest

from rlhf_jax.analysis import calibration, figures, seeds, style


def _line(axis, count):
  """The drawn lines with `count` points."""
  return [np.array(line.get_xydata()) for line in axis.lines if len(line.get_xydata()) == count]


def _texts(axis):
  return [text.get_text() for text in axis.texts]


def _overlaps(figure, axis):
  """Number of pairs of labels of the axis that overlap where they are drawn."""
  figure.draw_without_rendering()
  boxes = [text.get_window_extent() for text in axis.texts]
  return sum(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_loss_curves_draw_a_panel_a_stage_and_leave_out_what_is_missing():
  step = np.arange(4)
  figure = figures.loss_curves({'one': (step, [4, 3, np.nan, 2]), 'gone': None,
                                'empty': ([], []), 'two': (step, step / 2)})
  assert [axis.get_title(loc='left') for axis in figure.axes] == ['one', 'two']
  np.testing.assert_array_equal(_line(figure.axes[0], 3)[0], [[0, 4], [1, 3], [3, 2]])
  assert _texts(figure.axes[0]) == ['2'] and _texts(figure.axes[1]) == ['1.5']
  assert figures.loss_curves({'gone': None}) is None


def test_preference_accuracy_labels_every_level_without_overlap():
  figure = figures.preference_accuracy(
    [1, 2, 3], [0.5, 0.6, 0.7], ceiling=0.81, agreement=0.7001,
    baselines={'longer': 0.541, 'signed': 0.542, 'words': 0.543, 'gone': None})
  axis = figure.axes[0]
  levels = [line.get_ydata()[0] for line in axis.lines if len(set(line.get_ydata())) == 1]
  assert sorted(levels) == [0.541, 0.542, 0.543, 0.7001, 0.81]
  # from the lowest up, in the order of the values
  assert _texts(axis) == ['longer 0.541', 'signed 0.542', 'words 0.543',
                          'preference model 0.700', 'worker agreement 0.700',
                          'noise ceiling 0.810']
  assert not _overlaps(figure, axis)


def test_learning_curves_draw_means_in_their_bands_and_zero_on_the_axis():
  seen = np.array([0, 64, 128, 512])
  curves = {'a': seeds.Interval(np.array([0.5, 0.6, 0.7, 0.9]), np.array([0.5, 0.5, 0.6, 0.8]),
                                np.array([0.5, 0.7, 0.8, 1.0])),
            'b': seeds.Interval(*np.full((3, 4), 0.9))}
  figure = figures.learning_curves(seen, curves, 'pairs', 'accuracy')
  axis, = figure.axes
  np.testing.assert_array_equal(_line(axis, 4)[0], np.stack([seen, curves['a'].mean], 1))
  band = axis.collections[0].get_paths()[0].vertices
  for x, low, high in zip(seen, curves['a'].low, curves['a'].high, strict=True):
    np.testing.assert_allclose([band[band[:, 0] == x, 1].min(), band[band[:, 0] == x, 1].max()],
                               [low, high])
  assert [tick.get_text() for tick in axis.get_xticklabels()] == ['0', '64', '128', '256', '512']
  assert _texts(axis) == ['a 0.900', 'b 0.900'] and not _overlaps(figure, axis)
  assert figures.learning_curves(seen, {}, '', '') is None


def test_accuracy_bars_start_at_chance():
  figure = figures.accuracy_bars({'a': (0.6, 0.55, 0.65), 'b': None, 'c': (0.45, 0.4, 0.5)},
                                 {'a': {'longer': 0.52}, 'c': {'longer': 0.48, 'words': 0.51}})
  axis = figure.axes[0]
  assert [text.get_text() for text in axis.get_yticklabels()] == ['c', 'a']      # a on top
  bars = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in axis.patches]
  np.testing.assert_allclose(bars, [(0.5, 0.45), (0.5, 0.6)])
  marks = sorted(line.get_xydata()[0].tolist() for line in axis.lines
                 if len(line.get_xydata()) == 1)
  assert marks == [[0.48, 0], [0.51, 0], [0.52, 1]]
  assert sorted(text.get_text() for text in figure.legends[0].get_texts()) == ['longer', 'words']


def test_calibration_draws_the_curve_and_all_of_the_density():
  rng = np.random.default_rng(0)
  curve = calibration.curve(rng.normal(size=400), rng.random(400) < 0.7, 8)
  figure = figures.calibration(curve)
  axis, strip = figure.axes
  np.testing.assert_allclose(_line(axis, 8)[0], np.stack([curve.centre, curve.accuracy], 1))
  x, y = _line(axis, 200)[0].T
  np.testing.assert_allclose(y, 1 / (1 + np.exp(-x)))
  bars = axis.collections[0].get_segments()
  np.testing.assert_allclose([bar[:, 1] for bar in bars], np.stack([curve.low, curve.high], 1))
  area = sum(bar.get_width() * bar.get_height() for bar in strip.patches)
  np.testing.assert_allclose(area, 1)
  assert all(bar.get_x() <= centre <= bar.get_x() + bar.get_width()
             for bar, centre in zip(strip.patches, curve.centre, strict=True))


def test_calibration_by_subset_draws_each_curve_beside_the_logistic():
  rng = np.random.default_rng(0)
  curves = {name: (calibration.curve(rng.normal(size=400), rng.random(400) < 0.7, 8), f'note {name}')
            for name in 'abcd'}
  figure = figures.calibration_by(curves)
  assert [axis.get_title(loc='left') for axis in figure.axes] == list('abcd')
  assert [axis.get_ylabel() for axis in figure.axes] == ['accuracy', '', '', 'accuracy']
  for axis, (curve, note) in zip(figure.axes, curves.values(), strict=True):
    np.testing.assert_allclose(_line(axis, 8)[0], np.stack([curve.centre, curve.accuracy], 1))
    x, y = _line(axis, 100)[0].T
    np.testing.assert_allclose(y, 1 / (1 + np.exp(-x)))
    bars = np.array(axis.collections[0].get_segments())
    np.testing.assert_allclose(bars[:, :, 1], np.stack([curve.low, curve.high], 1))
    assert _texts(axis) == [note]


def test_accuracy_along_names_the_place_and_the_count_of_every_point():
  rows = [{'turn': 1, 'accuracy': 0.75, 'interval': [0.6, 0.8], 'count': 1200},
          {'turn': 2, 'accuracy': 0.5, 'interval': [0.3, 0.7], 'count': 4}]
  figure = figures.accuracy_along({'all': rows, 'gone': []}, 'turn', 'turn')
  axis, = figure.axes
  np.testing.assert_allclose(_line(axis, 2)[1], [[1, 0.75], [2, 0.5]])
  bars = axis.collections[0].get_segments()
  np.testing.assert_allclose(bars, [[[1, 0.6], [1, 0.8]], [[2, 0.3], [2, 0.7]]])
  assert [text.get_text() for text in axis.get_xticklabels()] == ['1\n1,200', '2\n4']
  assert figures.accuracy_along({}, 'turn', 'turn') is None


def test_score_differences_are_counted_on_their_side():
  gap = np.r_[np.full(30, -1.0), np.full(70, 0.5), 100.0]
  axis, = figures.score_differences({'all': gap}, bins=4).axes
  left, count = zip(*((bar.get_x(), bar.get_height()) for bar in axis.patches), strict=True)
  assert left == (-1, -0.5, 0, 0.5) and count == (30, 0, 0, 71)      # what lies outside is in the last
  assert [bar.get_facecolor()[:3] == axis.patches[0].get_facecolor()[:3] for bar in axis.patches] == [
    True, True, False, False]
  assert _texts(axis) == ['wrong 30%', 'right 70%']


def test_reward_is_drawn_against_the_root_with_the_fit_solid_and_then_dashed():
  """KL 0, 1, 4, 9, 16: roots 0..4. The score is 1 + 2 sqrt(KL) on the first three, flat after."""
  kl, score = np.array([0, 1, 4, 9, 16]), np.array([1, 3, 5, 5, 5])
  early = np.array([1, 1, 1, 0, 0], bool)
  figure = figures.reward_against_sqrt_kl(kl, score, true=score / 10, early=early,
                                          best_of_n={4: (1, 4.0, 0.3), 9: (2.25, 4.5, None)})
  proxy, true = figure.axes
  np.testing.assert_allclose(_line(proxy, 5)[0], np.stack([np.arange(5), score], 1))
  np.testing.assert_allclose(_line(true, 5)[0][:, 1], score / 10)
  solid, dashed = _line(proxy, 2)
  np.testing.assert_allclose(solid, [[0, 1], [2, 5]], atol=1e-9)
  np.testing.assert_allclose(dashed, [[2, 5], [4, 9]], atol=1e-9)
  np.testing.assert_allclose(np.concatenate(_line(proxy, 1)), [[1, 4], [1.5, 4.5]])
  np.testing.assert_allclose(np.concatenate(_line(true, 1)), [[1, 0.3]])
  assert 'n = 9' in _texts(proxy) and 'n = 9' not in _texts(true)
  assert 'fit: 2 per √nat, r² 1.00' in _texts(proxy)


def test_reward_without_a_true_reward_or_a_fit_is_one_panel():
  kl, score = np.arange(4.0), np.arange(4.0)
  for early in (None, np.zeros(4, bool), np.array([1, 1, 0, 0], bool)):
    figure = figures.reward_against_sqrt_kl(kl, score, early=early)
    assert len(figure.axes) == 1 and not _line(figure.axes[0], 2)
  assert figures.reward_against_sqrt_kl(kl, None) is None


def test_a_point_that_was_not_measured_is_neither_drawn_nor_fitted():
  kl, score = np.array([0, 1, 4, 9, 16]), np.array([0, 1, np.nan, 3, 9])
  axis, = figures.reward_against_sqrt_kl(kl, score, early=np.arange(5) < 4).axes
  np.testing.assert_array_equal(_line(axis, 4)[0], [[0, 0], [1, 1], [3, 3], [4, 9]])
  np.testing.assert_allclose(_line(axis, 2)[0], [[0, 0], [3, 3]], atol=1e-9)


def test_training_panels_hold_one_or_several_lines():
  x = np.arange(5)
  figure = figures.training(x, {'KL': x * 2.0, 'gone': None, 'all gone': {'a': None},
                                'score': {'train': x * 1.0, 'test': x * 1.01, 'gone': None}})
  assert [axis.get_title(loc='left') for axis in figure.axes] == ['KL', 'score']
  np.testing.assert_array_equal(_line(figure.axes[0], 5)[0][:, 1], x * 2)
  assert _texts(figure.axes[1]) == ['train', 'test'] and not _overlaps(figure, figure.axes[1])
  with pytest.raises(ValueError, match='one length'):
    figures.training(x, {'KL': [1, 2]})


def test_labels_move_as_little_as_possible():
  """Labels at 0.5, 0.5 and 0.9 of an axis: the two part around 0.5, the third stays."""
  figure, (axis,) = style.panels(1)
  style.end_labels(axis, [(0.9, 'c', 'k'), (0.5, 'a', 'k'), (0.5, 'b', 'k')])
  heights = {text.get_text(): text.get_position()[1] for text in axis.texts}
  np.testing.assert_allclose([heights['c'], (heights['a'] + heights['b']) / 2], [0.9, 0.5])
  assert heights['b'] > heights['a'] and not _overlaps(figure, axis)


def test_the_look_stays_inside_and_pyplot_outside():
  code = '''
import sys, matplotlib
before = matplotlib.rcParams.copy()
from rlhf_jax.analysis import figures, report
figure = figures.loss_curves({'a': ([0, 1], [1, 0])})
report.html('t', 's', [report.Section('h', figures=[(figure, 'c')])])
assert all(matplotlib.rcParams[key] == before[key] for key in before if key != 'backend')
assert not {'matplotlib.pyplot', 'jax'} & set(sys.modules)
'''
  subprocess.run([sys.executable, '-c', code], check=True)


def test_elo_draws_scores_with_their_intervals_from_the_top():
  figure = figures.elo(['start', 'end'], {'pm': ([0, 120], [0, 10]), 'worker': ([0., 80], [0., 20])})
  axis, = figure.axes
  assert [text.get_text() for text in axis.get_yticklabels()] == ['start', 'end']
  np.testing.assert_allclose(axis.get_yticks(), [1, 0])
  np.testing.assert_allclose(_line(axis, 2)[0], [[0, 1.11], [120, 0.11]])
  np.testing.assert_allclose(_line(axis, 2)[1], [[0, 0.89], [80, -0.11]])
  bars = [line.get_segments() for line in axis.collections]
  np.testing.assert_allclose(bars[0][1][:, 0], [120 - 19.6, 120 + 19.6])
  np.testing.assert_allclose(bars[1][1][:, 0], [80 - 39.2, 80 + 39.2])
  assert [text.get_text() for text in figure.legends[0].get_texts()] == ['pm', 'worker']
  assert figures.elo([], {}) is None


def test_the_frontier_marks_where_each_setting_ends():
  runs = {'0': ([0, 2], [1, 5]), '0.1': ([0, 1], [1, 3]), '0.2': ([0, 1.05], [1, 2.9]),
          '0.3': ([0, 1.05], [1, 2])}
  figure = figures.frontier({'score': runs, 'gone': {}}, 'x')
  axis, = figure.axes
  np.testing.assert_allclose([line.get_xydata()[-1] for line in axis.lines[:4]],
                             [[2, 5], [2, 5], [1, 3], [1, 3]])
  assert [(text.get_text(), text.xy) for text in axis.texts] == [
    ('0', (2, 5)), ('0.1, 0.2', (1, 3)), ('0.3', (1.05, 2))]
  dark, pale = (np.sum(matplotlib.colors.to_rgb(axis.lines[i].get_color())) for i in (0, 6))
  assert dark < 1 < pale


def test_lines_of_different_quantities_have_scales_of_their_own():
  panels = {'a': {'': ([0, 1], [0, 1])}, 'b': {'': ([0, 1], [0, 100])}}
  assert figures.lines(panels, 'x', '', share_y=False).axes[0].get_ylim()[1] < 2
  assert figures.lines(panels, 'x', '').axes[0].get_ylim()[1] > 99


def test_intervals_of_one_series_stand_on_their_rows():
  figure = figures.intervals(['a', 'b'], {'': ([1, 2], [0, 1.5], [3, 2.5])}, 'x', level=0.5)
  axis, = figure.axes
  np.testing.assert_allclose(_line(axis, 2)[0], [[1, 1], [2, 0]])
  np.testing.assert_allclose(axis.collections[0].get_segments()[1], [[1.5, 0], [2.5, 0]])
  np.testing.assert_allclose(axis.lines[-1].get_xdata(), [0.5, 0.5])
  assert not figure.legends


def test_tension_draws_runs_side_by_side_and_a_line_a_share():
  share = [0.25, 0.25, 0.75]
  figure = figures.tension({'refused': (share, [0.4, 0.2, 0.1], [0.3, 0.1, 0], [0.5, 0.3, 0.2])},
                           {'score': {0.25: ([0, 100], [1, 2]), 0.75: ([0, 100], [1, np.nan])},
                            'gone': {0.25: ([0, 1], None)}})
  rates, score = figure.axes
  np.testing.assert_allclose(_line(rates, 2)[0][:, 1], [0.4, 0.2])
  apart = _line(rates, 2)[0][:, 0]
  assert apart.mean() == 0.25 and 0.02 < apart[1] - apart[0] < 0.1
  np.testing.assert_allclose(_line(rates, 2)[1], [[0.25, 0.3], [0.75, 0.1]])          # the means
  np.testing.assert_allclose(rates.collections[0].get_segments()[1][:, 1], [0.1, 0.3])
  assert [text.get_text() for text in rates.get_xticklabels()] == ['25%', '75%']
  np.testing.assert_array_equal(_line(score, 2)[0], [[0, 1], [100, 2]])
  np.testing.assert_array_equal(_line(score, 1)[0], [[0, 1]])
  assert _texts(score) == ['75%', '25%'] and score.get_title(loc='left') == 'score'
  assert figures.tension({}, {}) is None
