"""PPO's networks from saved roles, refused settings, and what stops or warns along a run."""
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import presets, train_ppo
from rlhf_jax.algorithms import ppo
from rlhf_jax.core import mesh as meshes
from rlhf_jax.core import optim, spec
from rlhf_jax.core.step import create
from rlhf_jax.core.types import Experience, Rollout
from rlhf_jax.models import heads, sizes, transformer
from rlhf_jax.run import rl
from rlhf_jax.run.build import Role
from rlhf_jax.run.hooks import Diverged

MODEL = transformer.decoder(sizes.config('micro', width=16, heads=2, vocab_size=12, context=16))
JUDGE = heads.scalar(MODEL, heads.initial_normal(16))
POLICY = Role(MODEL, spec.init(MODEL.spec, jax.random.key(0)), None, MODEL.spec)
PM = Role(JUDGE, spec.init(JUDGE.spec, jax.random.key(1)), None, JUDGE.spec)


def settings(p=None, rank=0, frozen_dtype='', **changes):
  """A config with these changes of its section `ppo`."""
  made = ConfigDict({'ppo': p or presets.ppo(), 'lora': presets.lora(), 'frozen_dtype': frozen_dtype,
                     'test_models': (), 'microbatches': 1})
  made.ppo.update(changes)
  made.lora.rank = rank
  return made


@pytest.mark.parametrize('value_init, value_head, body', [
  ('preference_model', 'zero', PM.params['body']), ('policy', 'copied', POLICY.params),
  ('shared', 'copied', None)])
def test_networks_start_from_what_is_named(value_init, value_head, body):
  made = settings(value_init=value_init, value_head=value_head)
  reader, whole, specs, init = rl.networks(made, POLICY, PM, 2)
  params = init(None, jax.random.key(3))
  assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, spec.abstract(specs))
  head = params['value'] if body is None else params['value']['head']
  assert not np.asarray(head['weight']).any()
  jax.tree.map(np.testing.assert_array_equal, params['policy'], POLICY.params)
  if body is not None:
    jax.tree.map(np.testing.assert_array_equal, params['value']['body'], body)
  logp_BT, value_BT = reader(lambda model: model)(params, jnp.ones((2, 6), jnp.int32), jnp.ones((2, 6)))
  assert not np.asarray(value_BT).any() and np.asarray(logp_BT)[:, 2:].all()


def test_the_value_starts_as_the_whole_preference_model():
  init = rl.networks(settings(), POLICY, PM, 2).init
  jax.tree.map(np.testing.assert_array_equal, init(None, jax.random.key(3))['value'], PM.params)


FROZEN = {'reference': POLICY.params, 'score': PM.params}


@pytest.mark.parametrize('value_init', ['preference_model', 'policy', 'shared'])
def test_adapters_start_as_the_networks_themselves_and_both_learn(value_init):
  """Whatever they are added to: both are read as without adapters, and a step moves nothing else."""
  made = rl.networks(settings(rank=2, value_init=value_init), POLICY, PM, 2)
  plain = rl.networks(settings(value_init=value_init), POLICY, PM, 2)
  params = made.init(None, jax.random.key(3))
  assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, spec.abstract(made.specs))
  adapters, head = params['policy']['layers'], params['value'].get('head', params['value'])
  assert adapters['query']['a'].shape == (2, 16, 2) and head['weight'].shape == (16,)
  jax.tree.map(np.testing.assert_array_equal, made.whole(params, FROZEN),
               plain.init(None, jax.random.key(3)))
  moved = jax.tree.map(lambda x: x + 0.1, params)
  for name in made.specs:
    whole, start = (made.whole(p, FROZEN)[name] for p in (moved, params))
    changed = {jax.tree_util.keystr(path) for path, x in jax.tree_util.tree_leaves_with_path(
      jax.tree.map(lambda x, y: not np.array_equal(x, y), whole, start)) if x}
    assert any('query' in path for path in changed) == (name == 'policy' or value_init != 'shared')
    assert any('weight' in path for path in changed) == (name == 'value')
    assert not any('norm' in path or 'embed' in path for path in changed)


def test_policy_and_value_have_adapters_of_their_own():
  params = rl.networks(settings(rank=2), POLICY, PM, 2).init(None, jax.random.key(3))
  assert not np.array_equal(params['policy']['layers']['query']['a'],
                            params['value']['body']['layers']['query']['a'])


def test_updates_on_packed_rows_are_the_same_updates():
  """Parts of two texts of 12 columns: in one row where they fit, as they come where they do not."""
  rng, rows, columns = np.random.default_rng(0), 8, 12
  length_B = np.array([12, 4, 9, 5, 12, 3, 7, 4])
  valid_BT = (np.arange(columns) < length_B[:, None]).astype(np.float32)
  mask_BT, real_BT = valid_BT * (np.arange(columns) >= 2), rng.normal(size=(6, rows, columns))
  logp, sampled, ref, value, advantage, returns = real_BT.astype('float32')
  batch = jax.tree.map(jnp.asarray, Experience(Rollout(
    rng.integers(2, 12, (rows, columns)), valid_BT, mask_BT, logp, sampled, ref, value,
    *np.ones((3, rows), np.float32), *np.zeros((2, rows), int)), advantage, returns, mask_BT))
  made, results = settings(minibatches=2), []
  made.microbatches = 2
  optimizer = optim.adam(optim.schedule(10))
  for packing in (rl.NOT_PACKED, rl.Packing((0.5,), 1)):
    nets = rl.networks(made, POLICY, PM, 2, packing.blocks)
    state = create(nets.init(None, jax.random.key(3)), optimizer, jax.random.key(1), 0.1,
                   **ppo.memory(0.1))
    update = rl.update(made, MODEL, nets, optimizer, 1, packing)
    results.append(jax.jit(update)(state, batch, FROZEN))
  (plain, told), (cut, said) = results
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), plain.params, cut.params)
  for name in told:
    np.testing.assert_allclose(said[name], told[name], rtol=2e-4, atol=1e-5, err_msg=name)


def test_packing_that_is_refused():
  eight, made = meshes.make(data=8), settings(packed=(0.5, 0.75))
  assert rl.packing(made, eight) == ((0.5, 0.75), 8)
  plain = settings()
  assert rl.packing(plain, eight) == rl.packing(plain, eight, several=True) == ((), None)
  with pytest.raises(ValueError, match='several runs in one program, computed at once, would compute'):
    rl.packing(made, eight, several=True)
  for parts, rows in ((32, 4), (16, 8)):              # of 128; 8 divide, and leave one to each device
    made.microbatches = parts // made.ppo.minibatches
    with pytest.raises(ValueError, match=rf'{rows} texts of a part of the batch .* on 8 devices .data '
                       r'. fsdp. cannot be in fewer rows: use a multiple of 8, 16 or more, smaller'):
      rl.packing(made, eight)
  for wrong in ((0.75, 0.5), (0.5, 0.5), (0.5, 1.0), (0.0, 0.5)):
    with pytest.raises(ValueError, match='does not ascend between 0 and 1'):
      rl.packing(settings(packed=wrong), eight)


@pytest.mark.parametrize('changes, says', [
  ({'value_init': 'pm'}, "config.ppo.value_init='pm' is unknown: use preference_model, policy, shared"),
  ({'normalise': 'running'}, "pay in other units: set value_head to 'zero'"),
  ({'whiten_rewards': True}, "pay in other units: set value_head to 'zero'"),
  ({'value_head': 'one'}, "config.ppo.value_head='one' is unknown: use copied, zero"),
  ({'normalise': 'yes'}, "config.ppo.normalise='yes' is unknown: use none, start, running"),
  ({'frozen_dtype': 'f16'}, "config.frozen_dtype='f16' is unknown: use '', 'bfloat16', 'float32'"),
  ({'frozen_dtype': 'bfloat16', 'rank': 2}, 'config.lora.rank=2 are added to: set one of them'),
  ({'kl_target': 1.0, 'kl_horizon': 63}, 'config.ppo.kl_horizon=63 lets the coefficient change by more '
   'than two fifths at an update of config.ppo.batch_size=128: use 64 or more'),
  ({'minibatches': 1}, 'config.ppo.max_update_kl=0.16 is seen by later parts of an update'),
  ({'generated': 'p.jsonl', 'helpful_share': 0.5}, 'adds prompts of unknown kind to a share of '
   'config.ppo.helpful_share=0.5: set one of them'),
  ({'samples': 100}, 'config.ppo.samples=100 is less than one batch: use at least '
   'config.ppo.batch_size=128')])
def test_settings_that_are_refused(changes, says):
  with pytest.raises(ValueError) as error:
    rl.check_settings(settings(**changes))
  assert says in str(error.value)


def test_settings_that_fit_are_not_refused():
  for p in (settings(), settings(value_head='zero', normalise='running'), settings(samples=128),
            settings(presets.bai2022('online').ppo), settings(presets.openai2019().ppo),
            settings(rank=2), settings(frozen_dtype='bfloat16'),
            settings(kl_target=1.0, kl_horizon=64),
            settings(minibatches=1, max_update_kl=0.0), settings(generated='p.jsonl'),
            settings(minibatches=1, passes=2), settings(kl_horizon=1)):
    rl.check_settings(p)


@pytest.mark.parametrize('key', ['ppo.prompts', 'eval_prompts'])
def test_an_empty_prompt_set_is_refused(key):
  world = SimpleNamespace(prompts=lambda tokenizer, split, n: SimpleNamespace(
    group_N=np.zeros(0 if (split == 'ppo') == (key == 'ppo.prompts') else n)))
  config = train_ppo.get_config()
  with pytest.raises(ValueError, match=f'config.{key}=[0-9]* gives no prompts: ask for some'):
    rl.prompts([config], world, None)
  config.update_from_flattened_dict({key: 0})
  world = SimpleNamespace(prompts=lambda tokenizer, split, n: SimpleNamespace(group_N=np.zeros(n)))
  with pytest.raises(ValueError, match=f'config.{key}=0 gives no prompts'):
    rl.prompts([config], world, None)


@pytest.mark.parametrize('made, says', [
  (lambda tokens_BT: jnp.zeros((4, 1)), r'is float32 of shape \(4, 1\): PPO needs one real number'),
  (lambda tokens_BT: tokens_BT.sum(), r'is int32 of shape \(\)'),
  (lambda tokens_BT: tokens_BT.sum(1), r'is int32 of shape \(4,\): PPO needs one real number each, '
   r'shape \(4,\); mend the Score or config.preference_model')])
def test_a_score_of_another_shape_or_type_is_refused(made, says):
  score = lambda params, tokens_BT, valid_BT, extra: made(tokens_BT)          # noqa: E731
  with pytest.raises(ValueError, match=says):
    rl.check_score(score, None, 4, 7)
  rl.check_score(lambda params, tokens_BT, valid_BT, extra: valid_BT.sum(1), None, 4, 7)


def test_texts_longer_than_the_context_are_refused():
  rl.check_room(24, 8, 32)
  with pytest.raises(ValueError, match='prompts of 24 and answers of 9 tokens do not fit into the 32 '
                     'that the policy reads: lower config.ppo.answer_width to 8 or fewer'):
    rl.check_room(24, 9, 32)
  with pytest.raises(ValueError, match='lower config.data.prompt_width, or use one that reads more'):
    rl.check_room(32, 9, 32)


HEALTHY = {'score': 0.5, 'approx_kl': 1e-4, 'k1': 0.2, 'response_length': 5.0, 'truncated': 0.1}


def checker(**changes):
  config = train_ppo.get_config()
  config.ppo.update(changes)
  return rl.watch(config, 'runs/x')


def test_a_healthy_run_is_left_alone(capsys):
  for check in (checker(), checker(kl_target=1.0, kl_stop=1.0)):
    for step in range(3):
      check(step, HEALTHY | {'approx_kl': 0.019, 'truncated': 0.99})
  assert capsys.readouterr().out == ''


@pytest.mark.parametrize('bad', [np.nan, np.inf])
def test_a_score_that_is_no_number_stops_the_run(bad):
  with pytest.raises(Diverged, match=r'runs/x: the score is (nan|inf) at step 7 \(batch 6\), from '
                     'config.preference_model=runs/pm; the last good checkpoint is kept'):
    checker()(7, HEALTHY | {'score': bad})


@pytest.mark.parametrize('bad, moved', [(0.021, 0.168), (np.nan, np.nan), (np.inf, np.inf)])
def test_an_update_beyond_the_limit_stops_the_run(bad, moved):
  with pytest.raises(Diverged) as error:
    checker()(7, HEALTHY | {'approx_kl': bad})
  assert f'one update moved the policy by {moved} nats per token at step 7 (batch 6), more than ' \
    'config.ppo.max_update_kl=0.16; the last good checkpoint is kept: start another run with a lower ' \
    'config.optimizer.learning_rate than 0.00025' in str(error.value)
  checker(max_update_kl=0.0)(7, HEALTHY | {'approx_kl': bad})
  checker(minibatches=1, max_update_kl=0.0)(7, HEALTHY)          # nothing is seen, nothing is said


@pytest.mark.parametrize('rows', [96, 100, 128])
def test_all_answers_cut_is_told_from_all_but_one(rows, capsys):
  """Whatever a mean of ones rounds to."""
  columns = 4
  real_BT, ones_B = np.ones((rows, columns), np.float32), np.ones(rows, np.float32)
  tokens_BT = np.full((rows, columns), 5)
  def told(tokens_BT):
    rollout = Rollout(tokens_BT, real_BT, real_BT, *[0 * real_BT] * 4, *[ones_B] * 2, 0 * ones_B,
                      *[np.arange(rows)] * 2)
    made = jax.jit(ppo.diagnostics, static_argnums=1)(jax.tree.map(jnp.asarray, rollout), 1)
    checker(batch_size=rows)(3, HEALTHY | {'truncated': made['truncated']})
    return capsys.readouterr().out
  assert 'every answer' in told(tokens_BT)
  tokens_BT[0, -1] = 1
  assert told(tokens_BT) == ''


@pytest.mark.parametrize('options, metrics, says', [
  ({}, {'truncated': 1.0}, 'every answer of step 3 (batch 2) was cut after 5 tokens without an end '
   'token: raise config.ppo.answer_width, or set config.ppo.no_end_penalty'),
  ({'kl_target': 0.3}, {'approx_kl': 0.01}, 'one update moves the policy by 0.4 nats per answer '
   '(step 3 (batch 2)), more than config.ppo.kl_target=0.3: it cannot be kept; lower config.opti'),
  ({'kl_stop': 0.3}, {'approx_kl': 0.01, 'k1': 0.0}, 'more than config.ppo.kl_stop=0.3'),
  ({'kl_stop': 0.2}, {}, '0.2 nats per answer at step 3 (batch 2) reach config.ppo.kl_stop=0.2: the '
   'policy stays as it is from here on')])
def test_warnings_are_said_once(options, metrics, says, capsys):
  check = checker(**options)
  check(2, HEALTHY | {'k1': 0.0})
  assert capsys.readouterr().out == ''
  check(3, HEALTHY | metrics)
  check(4, HEALTHY | metrics)
  (line,) = capsys.readouterr().out.splitlines()
  assert line.startswith('runs/x: ') and says in line
