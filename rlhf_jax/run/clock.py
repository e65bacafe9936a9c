"""Seconds of the parts of a step, taken without holding the loop up.

A program is given to the device and runs behind the host's back. A thread of its own waits for each and
notes when it is done, so that nothing waits that would not have waited anyway.
"""
import time
from concurrent.futures import ThreadPoolExecutor

import jax

KEPT = 3                     # steps: metrics are written one step late


class Stopwatch:
  """The seconds of each step's parts, the first step being `start` + 1.

  A part takes from when it is given to the device, or from when the device has ended the part before,
  to its own end; compiling counts. What is left of a step is the host's: the device had nothing to do
  while batches were laid out, policies evaluated, checkpoints and metrics written.
  """

  def __init__(self, start=0, now=time.monotonic):
    self._now, self._step, self._told = now, start + 1, {}
    self._thread = ThreadPoolExecutor(1)                    # one: parts end in the order they are given
    self._step_began = self._free = now()
    self._seconds = {}

  def part(self, name, run):
    """`run`, a jitted program, its seconds taken as `name`."""
    def timed(*args):
      given = self._now()
      made = run(*args)
      self._thread.submit(self._wait, name, given, jax.tree.leaves(made)[-1])
      return made
    return timed

  def last(self, name, run):
    """The same for the part that ends a step; its result is (what is donated next, metrics)."""
    def timed(*args):
      given, step = self._now(), self._step
      made = run(*args)
      self._thread.submit(self._wait, name, given, jax.tree.leaves(made[1])[-1])
      self._told[step] = self._thread.submit(self._end)
      self._told.pop(step - KEPT, None)
      self._step += 1
      return made
    return timed

  def of(self, step):
    """{'time/NAME': seconds} of one of the last steps; waits for its end."""
    return self._told[step].result()

  def _wait(self, name, given, array):
    jax.block_until_ready(array)
    end = self._now()
    self._seconds[f'time/{name}'] = end - max(given, self._free)
    self._free = end

  def _end(self):
    seconds, began = self._seconds, self._step_began
    self._seconds, self._step_began = {}, self._free
    return seconds | {'time/host': self._free - began - sum(seconds.values())}
