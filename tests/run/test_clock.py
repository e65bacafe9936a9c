"""Seconds of a step's parts by a clock that stands still, on a device that ends when it is told to."""
from threading import Event

import pytest

from rlhf_jax.run.clock import KEPT, Stopwatch


class Array:
  """What a program gives: ready when `end` is called."""

  def __init__(self):
    self.waited_for, self._ended = Event(), Event()

  def block_until_ready(self):
    self.waited_for.set()
    self._ended.wait(5)

  def end(self):
    self._ended.set()


class Clock:
  time = 0.0

  def __call__(self):
    return self.time


def test_a_part_takes_from_the_end_of_the_one_before_and_the_rest_is_the_hosts():
  now, arrays = Clock(), [Array() for _ in range(4)]
  watch = Stopwatch(start=6, now=now)
  score = watch.part('score', lambda array: {'a': 'given before', 'b': array})
  train = watch.last('train', lambda array: ('donated', {'loss': array}))
  now.time = 1.0                               # both are given at once, the second runs after the first
  assert score(arrays[0]) == {'a': 'given before', 'b': arrays[0]}
  train(arrays[1])
  now.time = 5.0
  arrays[0].end()
  assert arrays[1].waited_for.wait(5)
  now.time = 7.5
  arrays[1].end()
  assert watch.of(7) == {'time/score': 4.0, 'time/train': 2.5, 'time/host': 1.0}
  now.time = 10.0                              # the device has nothing to do for 2.5 seconds
  score(arrays[2])
  assert arrays[2].waited_for.wait(5)
  now.time = 10.5
  arrays[2].end()
  train(arrays[3])
  assert arrays[3].waited_for.wait(5)
  now.time = 12.5
  arrays[3].end()
  assert watch.of(8) == {'time/score': 0.5, 'time/train': 2.0, 'time/host': 2.5}
  assert watch.of(7)['time/score'] == 4.0      # every run of a group asks


def test_only_the_last_steps_are_kept():
  watch, array = Stopwatch(), Array()
  array.end()
  train = watch.last('train', lambda: (None, array))
  for _ in range(KEPT + 1):
    train()
  assert watch.of(2)['time/train'] >= 0
  with pytest.raises(KeyError):
    watch.of(1)
