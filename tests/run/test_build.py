"""What a run directory holds: a language model, or a preference model with its head and its place to
read the score."""
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from rlhf_jax.core import mesh, rundir, spec, step
from rlhf_jax.data import tokenizer as tokenizers
from rlhf_jax.models import heads
from rlhf_jax.run import build, checkpoint

CONFIG = {'model': {'name': 'micro', 'vocab_size': 259, 'width': 16, 'heads': 2, 'unroll': False}}
TOKENIZER = tokenizers.train(['abc'], 259)
BODY = build.model(ConfigDict(CONFIG), 259)
ROWS = np.array([[70, 71, 72, 73], [74, 75, 0, 0]]), np.array([[1.0, 1, 1, 1], [1, 1, 0, 0]])


def save(path, model, **config):
  """A run directory with drawn parameters of `model`; returns them."""
  rundir.open_run(path, CONFIG | config)
  TOKENIZER.save(path / 'tokenizer.json')
  params = spec.init(model.spec, jax.random.key(3))
  with checkpoint.manager(path) as manager:
    checkpoint.save(manager, 1, step.create(params, optax.identity(), jax.random.key(0), 0.1))
  return params


def judge_model():
  return heads.scalar(BODY, heads.initial_normal(16))


def assert_same(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_language_model_has_a_body_and_no_head(tmp_path):
  params = save(tmp_path / 'lm', BODY)
  role, head = build.body_and_head(tmp_path / 'lm', mesh.make(data=-1))
  assert head is None
  assert_same(role.params, params)


def test_a_preference_model_gives_its_body_and_its_head(tmp_path):
  params = save(tmp_path / 'pm', judge_model(), end_of_context=True)
  role, head = build.body_and_head(tmp_path / 'pm', mesh.make(data=-1))
  assert_same({'body': role.params, 'head': head}, params)
  assert np.abs(head['weight']).sum() > 0
  assert_same(spec.abstract(role.spec), spec.abstract(BODY.spec))
  np.testing.assert_allclose(role.model.apply(role.params, *ROWS), BODY.apply(params['body'], *ROWS))
  assert role.tokenizer.digest == TOKENIZER.digest


def test_what_is_neither_is_one_line(tmp_path):
  with pytest.raises(FileNotFoundError, match='nowhere.*does not exist'):
    build.body_and_head(tmp_path / 'nowhere', mesh.make(data=-1))
  rundir.open_run(tmp_path / 'begun', CONFIG)
  with pytest.raises(FileNotFoundError, match='begun: no checkpoints here; run the stage'):
    build.body_and_head(tmp_path / 'begun', mesh.make(data=-1))


@pytest.mark.parametrize('saved, with_token', [({'end_of_context': True}, True), ({}, True),
                                               ({'end_of_context': False}, False)])
def test_a_score_is_read_where_its_model_learnt_it(tmp_path, saved, with_token):
  params = save(tmp_path / 'pm', judge_model(), **saved)
  _, score = build.judge(tmp_path / 'pm', mesh.make(data=-1))
  expected = []
  for row, keep in zip(*ROWS, strict=True):                    # one by one, without any padding
    tokens = [*row[keep > 0], *[TOKENIZER.eoc_id] * with_token]
    hidden_BTD = BODY.apply(params['body'], jnp.array([tokens]), jnp.ones((1, len(tokens))))
    expected.append(hidden_BTD[0, -1] @ params['head']['weight'] + params['head']['bias'])
  np.testing.assert_allclose(score(params, *map(jnp.array, ROWS)), expected, rtol=1e-5)


def test_a_fresh_head_is_drawn_or_zero():
  drawn, zero = (build.head_init(ConfigDict({'head': name}), 99)(jax.random.key(0), (9999,), 'float32')
                 for name in ('normal', 'zero'))
  # standard deviation 1 / sqrt(100), known to 0.7%
  assert abs(drawn.std() - 0.1) < 0.003 and not zero.any()
  with pytest.raises(ValueError, match="config.head='one' is unknown: use normal, zero"):
    build.head_init(ConfigDict({'head': 'one'}), 99)
