"""Hooks of the training loop: metrics to file, progress to the terminal, evaluation on the way.

Each is a function hook(step, state, metrics). Metrics are fetched one step late, when the next step is
already under way, so the device never waits; a value that is not finite stops the run at once, and
nothing made with it is saved.
"""
import contextlib
import functools
import math
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from rlhf_jax.core import rundir


class Diverged(RuntimeError):
  """A run that is broken: a loss that is not finite, or an update beyond a stated limit."""


def check_finite(step, metrics, workdir):
  """Raises `Diverged`, naming step and batch, when loss or gradient norm is not finite."""
  for name in ('loss', 'grad_norm'):
    if name in metrics and not math.isfinite(float(metrics[name])):
      raise Diverged(f'{workdir}: {name} is {float(metrics[name])} at step {step} (batch {step - 1})'
                     '; the last good checkpoint is kept: look at that batch, or start another run '
                     'with a lower config.optimizer.learning_rate')


def writer(workdir, every, last, stops=(), watch=None, times=lambda step: {}):
  """Writes metrics to `metrics.jsonl` every so many steps and at the `last`; checks every step, and
  without delay at `stops`, where the state is evaluated or saved next. watch(step, metrics), when
  there is one, checks first what is particular to a method. times(step): more numbers, of the clock."""
  waiting = []

  def hook(step, state, metrics):
    del state
    waiting.append((step, metrics))
    at_once = step == last or step in stops
    while len(waiting) > (not at_once):
      past, values = waiting.pop(0)
      if watch is not None:
        watch(past, values)
      check_finite(past, values, workdir)
      if past % every == 0 or past == last:
        rundir.append_metrics(workdir, past, {k: float(v) for k, v in values.items()} | times(past))
  return hook


@contextlib.contextmanager
def progress(label, start, last, show=('loss',), unit='step'):
  """Gives the hook of a progress bar with rate and time left, beside it the latest values of `show`,
  means over runs. The bar is left as it is at the end, so that an error has a line of its own."""
  bar = tqdm(total=last, initial=start, desc=f'{label:>14}', unit=unit, dynamic_ncols=True,
             mininterval=0.5, smoothing=0.1)
  shown, before = 0.0, {}

  def hook(step, state, metrics):
    nonlocal shown, before
    del state
    bar.update(step - bar.n)
    if time.monotonic() - shown > 2 or step == last:
      shown, values = time.monotonic(), metrics if step == last else before
      shown_now = jax.device_get({name: values[name] for name in show if name in values})
      bar.set_postfix_str(', '.join(f'{name} {np.mean(x):.3f}' for name, x in shown_now.items()))
    before = metrics
  with contextlib.closing(bar):
    yield hook


def at(steps, run):
  """Calls run(step, state, metrics) at each of `steps`, a collection of step numbers."""
  steps = frozenset(steps)

  def hook(step, state, metrics):
    if step in steps:
      run(step, state, metrics)
  return hook


class _Slice(NamedTuple):
  """One run's number among several: fetched with all metrics of its step when any is first read."""
  fetched: Callable
  name: str
  run: int

  def __float__(self):
    return float(self.fetched()[self.name][self.run])


def members(hooks_S):
  """Several runs in one program: each hook gets the metrics of its own run, and the state of all."""
  def hook(step, state, metrics):
    fetched = functools.cache(lambda: jax.device_get(metrics))
    for s, each in enumerate(hooks_S):
      each(step, state, {name: _Slice(fetched, name, s) for name in metrics})
  return hook
