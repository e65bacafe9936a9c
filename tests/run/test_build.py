"""From configs to functions: optimisers whose schedules are counted in samples; what a run directory
holds, a language model or a preference model with its head and its place to read the score."""
import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from configs import presets
from rlhf_jax.core import mesh, rundir, spec, step
from rlhf_jax.data import tokenizer as tokenizers
from rlhf_jax.models import attention, gpu, heads, logp, splash
from rlhf_jax.run import build, checkpoint


def rates(optimizer, steps, samples, at):
  """The factor of the learning rate at optimiser steps `at`: Adam's step for a constant gradient."""
  made = build.optimizer(ConfigDict({'optimizer': optimizer, 'batch_size': 4}), steps, None, samples)
  state, update, out = made.init({'w': jnp.zeros(1)}), jax.jit(made.update), []
  for _ in range(max(at) + 1):
    step, state = update({'w': jnp.ones(1)}, state)
    out.append(-float(step['w'][0]))
  return [out[i] for i in at]


def table(**changes):
  made = presets.optimizer(1.0, warmup=0.0, decay='constant')
  made.update(changes)
  return made


def test_warm_up_and_halving_are_counted_in_samples():
  # 40 steps of 10,000 samples each: the rise to 50,000 takes 5 steps, a halving comes every 10.
  got = rates(table(warmup_samples=50_000, halve_samples=100_000), 40, 400_000,
              [0, 1, 4, 5, 9, 10, 19, 20, 39])
  np.testing.assert_allclose(got, [.2, .4, 1, 1, 1, .5, .5, .25, .125], rtol=1e-3)
  # The same run with 4 optimiser steps a batch.
  got = rates(table(warmup_samples=50_000, halve_samples=100_000), 160, 400_000, [0, 19, 39, 40])
  np.testing.assert_allclose(got, [.05, 1, 1, .5], rtol=1e-3)


def test_without_a_number_of_samples_a_step_is_a_batch():
  got = rates(table(halve_samples=12), 10, None, [0, 2, 3, 6])               # 4 rows a step
  np.testing.assert_allclose(got, [1, 1, .5, .25], rtol=1e-3)


def test_zero_samples_leave_the_shares():
  np.testing.assert_allclose(rates(table(warmup=0.5), 8, 800, [0, 3, 7]), [.25, 1, 1], rtol=1e-3)


@pytest.mark.parametrize('key, value', [('weight_decay', 0.1), ('early_eps', True), ('eps', 1e-5)])
def test_what_is_for_adam_only(key, value):
  made = table(name='muon', **{key: value})
  with pytest.raises(ValueError, match=f'config.optimizer.{key}={value} is for adam only: set it to '):
    build.check_settings(ConfigDict({'optimizer': made}))


def test_what_lies_on_the_host_is_never_whole_on_one_device():
  """Neither parameters nor their moments, as a state is made."""
  made, whole = build.optimizer(ConfigDict({'optimizer': table(), 'batch_size': 4}), 1, None), []
  def init(params):
    whole.extend(x.sharding.is_fully_replicated for x in jax.tree.leaves((params, made.init(params)))
                 if x.ndim)
    return made.init(params)
  build.initial_state(
    [ConfigDict({'seed': 0, 'optimizer': table()})], mesh.make(fsdp=8),
    {'w': spec.Spec((8, 3), ('embed', 'mlp'))}, lambda config, key: {'w': np.ones((8, 3), np.float32)},
    made._replace(init=init))
  assert whole == [False] * 3


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
  np.testing.assert_allclose(role.model.apply(role.params, *ROWS), BODY.apply(params['body'], *ROWS),
                             rtol=1e-5, atol=1e-6)
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


def test_adapters_are_read_merged_into_the_network_they_started_from(tmp_path):
  """By `judge`, and as the start of another run."""
  base = save(tmp_path / 'lm', BODY)
  lora = {'rank': 2, 'scale': 0.5, 'targets': ['query', 'down']}
  part = build.trained_part(ConfigDict({'lora': lora}), BODY.spec)
  made = judge_model()._replace(spec={'body': part.spec, 'head': judge_model().spec['head']})
  pairs = save(tmp_path / 'pm', made, end_of_context=False, lora=lora, init=str(tmp_path / 'lm'))
  pairs = jax.tree.map(lambda x: x + 0.1, pairs)                # B is no longer zero
  with checkpoint.manager(tmp_path / 'pm') as manager:
    checkpoint.save(manager, 2, step.create(pairs, optax.identity(), jax.random.key(0), 0.1))
  merged = jax.tree.map(np.array, base)
  for name, formula in (('query', 'ldr,lrhk->ldhk'), ('down', 'lfr,lrd->lfd')):
    two = pairs['body']['layers'][name]
    merged['layers'][name] += 0.5 * np.einsum(formula, two['a'], two['b'])
  role, score = build.judge(tmp_path / 'pm', mesh.make(data=-1))
  expected = judge_model().apply({'body': merged, 'head': pairs['head']}, *map(jnp.array, ROWS))
  np.testing.assert_allclose(score(role.params, *map(jnp.array, ROWS)),
                             [expected[0, 3], expected[1, 1]], rtol=1e-5)
  body, head = build.body_and_head(tmp_path / 'pm', mesh.make(data=-1))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), body.params, merged)
  assert_same(head, pairs['head'])


def test_without_a_rank_all_weights_are_trained():
  params = spec.init(BODY.spec, jax.random.key(0))
  for config in ({}, {'lora': {'rank': 0, 'scale': 1.0, 'targets': ['up']}}):
    part = build.trained_part(ConfigDict(config), BODY.spec)
    assert part.spec is BODY.spec
    assert part.whole(part.start(params, None), None) is params


def test_adapters_of_a_policy_are_merged_into_the_policy_they_started_from(tmp_path):
  base, mesh_ = save(tmp_path / 'lm', BODY), mesh.make(data=-1)
  lora = {'rank': 2, 'scale': 0.5, 'targets': ['query', 'down']}
  part = build.trained_part(ConfigDict({'lora': lora}), BODY.spec)
  both = {'policy': part.spec, 'value': judge_model().spec['head']}
  pairs = save(tmp_path / 'ppo', BODY._replace(spec=both), lora=lora, ppo={},
               policy=str(tmp_path / 'lm'), init='another')
  policy = build.policy(str(tmp_path / 'ppo'), mesh_)
  assert_same(policy.params, base)                              # B is zero
  pairs = jax.tree.map(lambda x: x + 0.1, pairs)
  with checkpoint.manager(tmp_path / 'ppo') as manager:
    checkpoint.save(manager, 2, step.create(pairs, optax.identity(), jax.random.key(0), 0.1))
  policy, layer = build.policy(str(tmp_path / 'ppo'), mesh_), pairs['policy']['layers']['down']
  for i in range(2):
    np.testing.assert_allclose(
      policy.params['layers']['down'][i] - base['layers']['down'][i],
      0.5 * layer['a'][i] @ layer['b'][i], atol=1e-6)
  assert_same(policy.params['embed'], base['embed'])


def test_a_frozen_role_in_another_type_keeps_its_own_on_the_host():
  params = spec.init(BODY.spec, jax.random.key(3))
  role = build.Role(BODY, params, TOKENIZER, BODY.spec)
  assert build.kept(role, '') == (role, params)
  host, kept = build.kept(role, 'bfloat16')
  assert all(isinstance(x, np.ndarray) and x.dtype == 'float32' for x in jax.tree.leaves(host.params))
  assert_same(host.params, params)
  assert {x.dtype.name for x in jax.tree.leaves(kept)} == {'bfloat16'}
  error = jax.tree.map(lambda x, y: float(jnp.abs(x - y).max() / jnp.abs(y).max()), kept, params)
  assert 1e-3 < max(jax.tree.leaves(error)) <= 2 ** -8          # 8 bits are kept


def test_what_bfloat16_changes_of_a_reference():
  """Log-probs move by less than 0.01 nats where the computation is in float32, and not at all where it
  is in bfloat16 itself."""
  for dtype, least, most in (('float32', 1e-6, 1e-2), ('bfloat16', 0.0, 0.0)):
    model = build.model(ConfigDict({'model': CONFIG['model'] | {'dtype': dtype}}), 259)
    params = spec.init(model.spec, jax.random.key(3))
    _, kept = build.kept(build.Role(model, params, None, model.spec), 'bfloat16')
    a, b = (logp.token_logp(model, p, *map(jnp.array, ROWS)) for p in (params, kept))
    moved = float(jnp.abs(a - b).max())
    assert least <= moved <= most and float(jnp.abs(a).max()) > 1


@pytest.mark.parametrize('at_once', [True, False], ids=['at once', 'in turn'])
def test_several_runs_go_through_one_program_each_with_its_own(at_once):
  def one(state, frozen, batch, i):
    return state['w'] @ batch + frozen, jax.random.uniform(state['key']) + i
  keys = jax.random.split(jax.random.key(0), 3)
  state_S = {'w': jnp.arange(6.0).reshape(3, 2), 'key': keys}
  batch_S = jnp.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
  many = jax.jit(build.across(one, (0, None, 0, None), at_once))
  product_S, random_S = many(state_S, jnp.float32(10), batch_S, 7)
  np.testing.assert_array_equal(product_S, [12, 28, 60])       # 0 + 2, 6 + 12, 20 + 30, and 10 each
  np.testing.assert_allclose(random_S, [7 + jax.random.uniform(key) for key in keys], rtol=1e-6)


@pytest.mark.parametrize('here, platform, text_by, past_by', [
  ('cpu', 'cpu', 'attention', 'attention'), ('cpu', 'cuda', 'attention', 'gpu'),
  ('cpu', 'tpu', 'splash', 'attention'), ('gpu', None, 'cudnn', 'gpu'),
  ('rocm', None, 'attention', 'gpu'), ('gpu', 'cpu', 'attention', 'attention')])
def test_each_platform_has_its_attention(here, platform, text_by, past_by, monkeypatch):
  """Of whole texts and of one token. cuDNN is for processes with such a GPU: no other lowers it."""
  asked = []
  def recorded(name):
    return lambda q, *others: asked.append(name) or q
  monkeypatch.setattr(attention, 'attention', recorded('attention'))
  monkeypatch.setattr(attention, 'attend_cache', recorded('attention'))
  monkeypatch.setattr(gpu, 'attend_cache', recorded('gpu'))
  monkeypatch.setattr(splash, 'attention', lambda mesh: recorded('splash'))
  monkeypatch.setattr(gpu, 'attention', lambda mesh: recorded('cudnn'))
  config, one = ConfigDict({'model': presets.model('micro')}), mesh.make(devices=jax.devices()[:1])
  with monkeypatch.context() as there:
    there.setattr(jax, 'default_backend', lambda: 'gpu' if here == 'rocm' else here)
    there.setattr(jax, 'devices', lambda: [SimpleNamespace(client=SimpleNamespace(
      platform_version={'gpu': 'PJRT C API\ncuda 13000', 'rocm': 'rocm 60000', 'cpu': ''}[here]))])
    model = build.model(config, 512, one, platform)
  params, text = spec.abstract(model.spec), jax.ShapeDtypeStruct((2, 8), np.int32)
  jax.eval_shape(model.apply, params, text, text)
  assert set(asked) == {text_by}
  _, cache = jax.eval_shape(functools.partial(model.prefill, room=8), params, text, text)
  asked.clear()
  jax.eval_shape(model.decode, params, jax.ShapeDtypeStruct((2,), np.int32), cache)
  assert set(asked) == {past_by}


@pytest.mark.parametrize('platform, between', [('cpu', 'float32'), ('tpu', 'bfloat16')])
def test_between_products_a_cpu_computes_in_float32(platform, between):
  config = ConfigDict({'model': {'name': 'micro', 'dtype': 'bfloat16'}})
  model = build.model(config, 512, mesh.make(devices=jax.devices()[:1]), platform)
  text = jax.ShapeDtypeStruct((2, 8), np.int32)
  assert jax.eval_shape(model.apply, spec.abstract(model.spec), text, text).dtype == between


def test_on_a_gpu_a_program_of_several_runs_computes_in_float32(monkeypatch):
  """The kernel of its attention takes one run; alone, or on a CPU, a run may have any type."""
  def config(seed, dtype):
    return ConfigDict({'seed': seed, 'model': {'name': 'micro', 'dtype': dtype}})
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  build.check_vary([config(0, 'float32'), config(1, 'float32')])
  build.check_vary([config(0, 'bfloat16')])
  with pytest.raises(ValueError, match='float32 only: give each run a group of its own'):
    build.check_vary([config(0, 'bfloat16'), config(1, 'bfloat16')])
