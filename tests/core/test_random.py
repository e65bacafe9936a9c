"""Addressed keys: the same address the same noise, any other address other noise."""
import itertools

import jax
import numpy as np

from rlhf_jax.core.random import key_for

ROOT = jax.random.key(7)


def bits(key):
  return tuple(np.asarray(jax.random.key_data(key)).tolist())


def test_an_address_is_a_function_of_root_stream_and_numbers():
  addresses = [(ROOT, 'rollout', 0), (ROOT, 'rollout', 1), (ROOT, 'loss', 0), (ROOT, 'rollout'),
               (ROOT, 'rollout', 0, 1), (ROOT, 'rollout', 1, 0), (jax.random.key(8), 'rollout', 0)]
  keys = [bits(key_for(*address)) for address in addresses]
  assert keys == [bits(key_for(*address)) for address in addresses]
  for a, b in itertools.combinations(keys, 2):
    assert a != b


def test_traced_numbers_give_the_same_key():
  traced = jax.jit(lambda step: key_for(ROOT, 'rollout', step, 3))(np.int32(5))
  assert bits(traced) == bits(key_for(ROOT, 'rollout', 5, 3))


def test_noise_of_a_known_address_never_changes():
  # The CRC-32 of 'init' is 0xc674e474; its low 31 bits are folded in: checkpoints rely on it.
  expected = jax.random.fold_in(jax.random.fold_in(ROOT, 0x4674e474), 2)
  assert bits(key_for(ROOT, 'init', 2)) == bits(expected)


def test_streams_are_independent():
  draws = np.stack([jax.random.normal(key_for(ROOT, name, step), (500,))
                    for name in ('a', 'b') for step in range(3)])
  off = np.corrcoef(draws) - np.eye(6)
  assert np.abs(off).max() < 5 / 500 ** 0.5
