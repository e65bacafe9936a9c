"""What the benchmarks divide by, by hand: FLOP of a training step, bytes of a step of generation."""
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks import contest, ladder, limits
from rlhf_jax.models import sizes


def test_useful_flop_of_a_training_step(monkeypatch):
  """6 a parameter and token for the matrices, and for attention 12 times the width, the layers and the
  half of the columns that a token sees on average."""
  monkeypatch.setattr(limits, 'matmul_rate', lambda *shape: 1e9)
  c = sizes.config('mini')                                     # 3 layers of width 96, the MLP 384
  flop, least = ladder.work(c, tokens=640, length=64, last=None)
  layer = 4 * 96 * 96 + 2 * 96 * 384
  assert flop == 6 * 3 * layer * 640 + 12 * 3 * 96 * 32 * 640
  assert least == pytest.approx(flop / 1e9)
  # Of 10 texts the last tokens alone come out of the last layer, and see all 64 columns.
  flop, least = ladder.work(c, tokens=640, length=64, last=10)
  keys = 2 * 96 * 96
  assert flop == (6 * (2 * layer + keys) * 640 + 6 * (layer - keys) * 10
                  + 12 * 96 * (2 * 32 * 640 + 64 * 10))
  assert least == pytest.approx(flop / 1e9)


def test_bytes_of_a_step_of_generation():
  """Each weight of a matrix and of the table once; keys and values of what is filled, for each row."""
  c = sizes.config('mini', kv_heads=1)                         # 3 heads of 32 share one of keys
  weights, cache = limits.decode_bytes(c, rows=5, filled=70, size=2)
  assert weights == 2 * (3 * (2 * 96 * 96 + 2 * 96 * 32 + 2 * 96 * 384) + 512 * 96)
  assert cache == 2 * 5 * 70 * 2 * 3 * 32
  gated = sizes.config('llama', layers=2, width=64, heads=2, vocab_size=100, context=32, mlp_ratio=2)
  assert limits.decode_bytes(gated, 1, 0, size=1) == (2 * (4 * 64 * 64 + 3 * 64 * 128) + 100 * 64, 0)


def test_no_product_of_the_measured_rate_can_be_left_out():
  """Each one reads a number of the one before: as many times as asked, in this order."""
  rng = np.random.default_rng(0)
  x, *weights = rng.normal(size=(4, 3, 3))
  expected = x.copy()
  for w in weights * 5:
    made = expected @ w
    expected[0, 0] = made[0, 0]
  got, products = jax.jit(limits.in_turn, static_argnums=0)(
    'float32', *jax.tree.map(jnp.float32, (x, weights)), 5)
  np.testing.assert_allclose(got, expected, rtol=1e-3)
  np.testing.assert_allclose(products[-1], made, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('name', contest.SIZES)
def test_sizes_bear_the_number_of_their_parameters(name):
  """In whole tiles: what is not a multiple of 128 fills part of one."""
  c = sizes.config(**contest.SIZES[name])
  assert f'{sizes.non_embedding_parameters(c) / 1e6:.3g}M' == name
  assert c.mlp_width % 128 == c.width % 128 == 0


@pytest.mark.parametrize('end, said', [
  ('sys.exit(3)', 'TRL ended with exit code 3: its own messages stand above'),
  ('os.kill(os.getpid(), 9)', 'TRL ended with exit code -9: killed, .* name fewer of them')])
def test_a_contender_that_ends_is_named(end, said):
  script = f'import os, sys; print("{{}}", flush=True); {end}'
  worker = contest.Worker('TRL', sys.executable, ['-c', script], {})
  worker.process.wait()
  with pytest.raises(SystemExit, match=said):
    worker.run()


def test_peers_can_be_given_a_python(monkeypatch, tmp_path):
  """Nothing is installed then, and the machine's facts name it."""
  monkeypatch.setattr(contest, 'VENVS', tmp_path)
  monkeypatch.delenv('RLHF_PEER_PYTHON', raising=False)
  assert 'python of peers' not in contest.machine()
  monkeypatch.setenv('RLHF_PEER_PYTHON', sys.executable)
  assert contest.environment('torch') == contest.machine()['python of peers'] == sys.executable
  assert not list(tmp_path.iterdir())
