"""One look for every figure: light ground, thin grid, colours that colour-blind readers tell apart
(Okabe and Ito), labels beside the lines instead of legends. Figures are objects; pyplot and its
global state are never used, so figures can be made on machines without a display and in threads.
"""
import math

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator
from scipy.optimize import isotonic_regression

BLUE, ORANGE, GREEN, PURPLE = '#0072b2', '#d55e00', '#009e73', '#b0568d'
SERIES = (BLUE, ORANGE, GREEN, PURPLE, '#8a6d00')
INK, GREY, PALE = '#1f2933', '#6b7680', '#e4e8ec'

_SETTINGS = {
  'font.family': 'DejaVu Sans', 'font.size': 8.5, 'text.color': INK, 'lines.linewidth': 1.7,
  'lines.solid_capstyle': 'round', 'figure.facecolor': 'white', 'axes.facecolor': 'white',
  'axes.titlesize': 9.5, 'axes.titleweight': 'bold', 'axes.titlelocation': 'left',
  'axes.titlepad': 9, 'axes.titlecolor': INK, 'axes.labelcolor': GREY, 'axes.labelsize': 8.5,
  'axes.edgecolor': '#b8c0c8', 'axes.linewidth': 0.8, 'axes.spines.top': False,
  'axes.spines.right': False, 'axes.grid': True, 'axes.axisbelow': True, 'grid.color': PALE,
  'grid.linewidth': 0.7, 'xtick.color': '#b8c0c8', 'ytick.color': '#b8c0c8',
  'xtick.labelcolor': GREY, 'ytick.labelcolor': GREY, 'xtick.labelsize': 8, 'ytick.labelsize': 8,
  'axes.unicode_minus': True, 'svg.hashsalt': 'rlhf_jax',
}


def styled(function):
  """The function, run under the settings of this file; they do not leak."""
  return matplotlib.rc_context(_SETTINGS)(function)


def panels(count, columns=3, width=3.1, height=2.5, **options):
  """(figure, list of `count` axes), `columns` to a row; sizes in inches, of one panel."""
  columns = min(count, columns)
  rows = math.ceil(count / columns)
  figure = Figure((columns * width, rows * height), layout='constrained')
  figure.get_layout_engine().set(wspace=0.07, hspace=0.09)
  axes = figure.subplots(rows, columns, squeeze=False, **options).ravel()
  for axis in axes[count:]:
    axis.remove()
  return figure, list(axes[:count])


def shades(count):
  """Colours of `count` ordered settings, from dark to pale."""
  dark, pale = np.array([[0x08, 0x30, 0x6b], [0x7f, 0xc4, 0xe8]]) / 255
  return [tuple(dark + (pale - dark) * share) for share in np.linspace(0, 1, count)]


def thousands(axis):
  """Tick labels 20k and 1.5M, and few of them."""
  axis.xaxis.set_major_formatter(EngFormatter(sep=''))
  axis.xaxis.set_major_locator(MaxNLocator(5))


def end_labels(axis, labels):
  """Text beside the right edge at the heights of (y, text, colour), moved apart where they would
  overlap: the least squares displacement is an isotonic regression. Call after the y limits are
  set."""
  labels = sorted(labels, key=lambda label: label[0])
  bottom, top = axis.get_ylim()
  inches = axis.get_position().height * axis.figure.get_figheight()
  line = (top - bottom) * 0.155 / inches * np.arange(len(labels))
  heights = isotonic_regression(np.array([y for y, _, _ in labels]) - line).x + line
  for height, (_, text, colour) in zip(heights, labels, strict=True):
    axis.text(1.015, height, text, color=colour, va='center', fontsize=8,
              transform=axis.get_yaxis_transform())
