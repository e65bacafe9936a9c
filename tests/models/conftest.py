"""One small decoder, compiled once for all tests of the models."""
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from rlhf_jax.core import spec
from rlhf_jax.models import sizes, transformer


@pytest.fixture(scope='session')
def tiny():
  config = sizes.config('micro', width=16, heads=2, vocab_size=23, context=64,
                        unroll=False)         # quicker to compile
  model = transformer.decoder(config)
  params = jax.jit(lambda key: spec.init(model.spec, key))(jax.random.key(0))
  # Norms away from 1, so that no test passes without them.
  params['norm'] = params['norm'] * np.linspace(0.2, 0.8, 16, dtype=np.float32)
  params['layers']['mlp_norm'] = params['layers']['mlp_norm'] * np.float32(0.7)
  return SimpleNamespace(config=config, model=model, params=params, apply=jax.jit(model.apply))


@pytest.fixture(scope='session')
def text():
  """(tokens_BT, valid_BT): padding left, right, on both sides, inside, and none."""
  rng = np.random.default_rng(0)
  valid_BT = np.array([[1, 1, 1, 1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1, 1, 1],
                       [1, 1, 1, 1, 0, 0, 0, 0], [0, 1, 1, 1, 1, 1, 0, 0],
                       [1, 1, 1, 0, 0, 1, 1, 1]], np.float32)
  return rng.integers(0, 23, valid_BT.shape).astype(np.int32), valid_BT
