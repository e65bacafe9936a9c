"""Specs: initial values addressed by path, shapes, counts, shardings and their refusals."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from rlhf_jax.core import mesh, spec
from rlhf_jax.core.spec import Spec

TREE = {'table': Spec((40, 30), ('vocab', 'embed'), spec.normal(0.5)),
        'layers': {'up': Spec((2, 4, 8), ('layers', 'embed', 'mlp'), spec.normal(2.0), 'bfloat16'),
                   'norm': Spec((4,), (None,), spec.ones), 'bias': Spec((), ())}}


def test_a_new_leaf_leaves_the_others_as_they_were():
  key = jax.random.key(0)
  small, large = spec.init(TREE, key), spec.init({**TREE, 'a': TREE['table']}, key)
  np.testing.assert_array_equal(small['table'], large['table'])
  np.testing.assert_array_equal(small['layers']['up'], large['layers']['up'])
  assert np.abs(large['a'] - large['table']).max() > 0.1      # equal specs, different paths


def test_initial_values():
  params = spec.init(TREE, jax.random.key(1))
  # 1,200 draws: the standard error of a standard deviation of 0.5 is 0.5 / sqrt(2 * 1200) = 0.01.
  assert abs(float(params['table'].std()) - 0.5) < 0.04
  assert abs(float(params['table'].mean())) < 0.06
  np.testing.assert_array_equal(params['layers']['norm'], np.ones(4))
  assert float(params['layers']['bias']) == 0.0
  assert params['layers']['up'].dtype == jnp.bfloat16


def test_initial_numbers_are_the_same_jitted_and_cut_over_devices():
  """To the last bit: 0.02 times a normal number would be rounded once less if the two were one."""
  tree = {'table': Spec((40, 32), ('vocab', 'embed'), spec.normal(0.02))}
  places = spec.shardings(tree, mesh.make(2, 2, 2), mesh.TRAIN_RULES)
  plain = spec.init(tree, jax.random.key(1))['table']
  for options in {}, {'out_shardings': places}:
    made = jax.jit(functools.partial(spec.init, tree), **options)(jax.random.key(1))['table']
    np.testing.assert_array_equal(made, plain)
  assert made.sharding.shard_shape(made.shape) == (20, 16)


def test_abstract_and_count_agree_with_the_parameters():
  params = spec.init(TREE, jax.random.key(0))
  assert jax.tree.map(lambda x: (x.shape, x.dtype), spec.abstract(TREE)) == jax.tree.map(
    lambda x: (x.shape, x.dtype), params)
  assert spec.count(TREE) == 40 * 30 + 2 * 4 * 8 + 4 + 1


def test_shardings_follow_the_rules():
  places = spec.shardings(TREE, mesh.make(2, 2, 2), mesh.TRAIN_RULES)
  assert places['table'].spec == PartitionSpec('tensor', 'fsdp')
  assert places['layers']['up'].spec == PartitionSpec(None, 'fsdp', 'tensor')
  assert places['layers']['up'].shard_shape((2, 4, 8)) == (2, 2, 4)
  assert places['layers']['bias'].spec == PartitionSpec()


def test_a_dimension_that_does_not_divide_is_named():
  with pytest.raises(ValueError, match=r"table: dimension 1 \('embed'\) of size 30 .* 'fsdp' of "
                     'size 4'):
    spec.shardings(TREE, mesh.make(1, 4, 2), mesh.TRAIN_RULES)


def test_an_axis_without_a_rule_is_named():
  with pytest.raises(ValueError, match="layers/up: the sharding rules lack axis 'mlp'"):
    spec.shardings(TREE, mesh.make(2, 2, 2),
                   {'embed': None, 'vocab': None, 'layers': None})
