"""What any training step keeps, whatever the method: one compile, ratio 1, padding, donation.

Most are run on one device and on eight.
"""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.algorithms import kl, ppo
from rlhf_jax.core import masked, optim, step
from rlhf_jax.core import mesh as meshes
from rlhf_jax.models import decode, logp
from rlhf_jax.run import build, checkpoint
from rlhf_jax.run.fit import fit
from tests.contracts import tiny

on_meshes = pytest.mark.parametrize('mesh', tiny.MESHES.values(), ids=tiny.MESHES)


@pytest.fixture(scope='module', params=tiny.MESHES.values(), ids=tiny.MESHES)
def first(request):
  """A PPO run whose policy equals its reference, its first batch, and one update of it."""
  run = tiny.ppo_run(request.param())
  run.mesh = request.param()
  run.params = tiny.host(run.state.params)
  run.batch = run.source(run.state, run.frozen, 0)
  run.new, run.metrics = run.update(jax.tree.map(jnp.copy, run.state), run.batch, run.frozen)
  return run


@pytest.mark.parametrize('make', [tiny.pm_run, lambda: tiny.ppo_run(passes=2, minibatches=2)],
                         ids=['preference', 'ppo'])
def test_one_compile_for_all_values(make, caplog):
  run, compiled = make(), []
  state = run.state
  with jax.log_compiles(), caplog.at_level('WARNING', logger='jax'):
    for i in range(3):                       # source and update of other data and other rates
      batch = run.source(state, run.frozen, i)
      state, _ = run.update(state, batch, run.frozen)
      state = state.replace(extra={k: x * 0.5 for k, x in state.extra.items()})
      compiled.append(sum('Compiling' in record.getMessage() for record in caplog.records))
  assert run.update._cache_size() == 1
  assert compiled[0] > 0 and compiled[1] <= compiled[0] + 1 and compiled[2] == compiled[1]


def test_the_first_minibatch_has_ratio_one(first):
  np.testing.assert_allclose(first.metrics['ratio'], 1, atol=1e-6)
  np.testing.assert_allclose(first.metrics['approx_kl'], 0, atol=1e-9)
  assert first.metrics['clip_fraction'] == 0
  for name in ('ratio_max', 'ratio_min'):
    np.testing.assert_allclose(first.metrics[name], 1, atol=1e-5)
  assert abs(first.metrics['policy_loss']) < 1e-6                    # whitened advantages, ratio 1


def test_a_policy_equal_to_its_reference_has_no_kl(first):
  assert first.metrics['k1'] == 0 and first.metrics['k3'] == 0
  rollout = first.batch.rollout
  np.testing.assert_array_equal(rollout.logp_BT, rollout.ref_logp_BT)
  assert float(jnp.abs(rollout.logp_BT).sum()) > 10


@on_meshes
def test_estimates_of_the_kl_are_right_on_average_and_none_is_negative(mesh):
  """Against another reference: k1 and k3 of 128 answers, and the exact KL at the same prefixes."""
  run, rows = tiny.ppo_run(mesh(), reference=9), []
  exact = jax.jit(lambda *args: logp.exact_kl(tiny.MODEL, *args, tiny.TEMPERATURE))
  for i in range(16):
    out = run.source(run.state, run.frozen, i).rollout
    estimates = [estimate(out.logp_BT, out.ref_logp_BT) for estimate in (kl.k1, kl.k3)]
    truth_BT = exact(run.state.params['policy'], run.frozen['reference'], out.tokens_BT, out.valid_BT)
    rows.append([kl.sequence(x_BT, out.mask_BT) for x_BT in (*estimates, truth_BT)])
  k1, k3, truth = np.concatenate(rows, axis=1)
  assert (k3 >= 0).all() and truth.mean() > 0.1
  for estimate in (k1, k3):
    error = (estimate - truth).std() / np.sqrt(len(truth))
    assert abs(estimate.mean() - truth.mean()) < 4 * error
    assert estimate.mean() > 0


def test_sampled_log_probs_are_teacher_forced_ones(first):
  rollout = first.batch.rollout
  np.testing.assert_allclose(rollout.sampled_logp_BT, rollout.logp_BT, atol=2e-5)
  valid_BT, mask_BT = rollout.valid_BT, rollout.mask_BT
  whole = logp.token_logp(tiny.MODEL, first.params['policy'], rollout.tokens_BT, valid_BT, 1.3)
  np.testing.assert_allclose(rollout.logp_BT, whole * mask_BT, atol=1e-5)
  assert first.metrics['logp_gap'] < 2e-5
  # Between 1 and ANSWER tokens: rows that end early are among them, and rows that do not.
  length_B = np.asarray(mask_BT.sum(1))
  assert length_B.min() < tiny.ANSWER == length_B.max()


def test_values_are_of_the_state_before_the_token(first):
  rollout = first.batch.rollout
  read_BT = np.asarray(jax.jit(tiny.JUDGE.apply)(first.params['value'], rollout.tokens_BT,
                                                 rollout.valid_BT))
  for b, t in zip(*np.nonzero(np.asarray(rollout.mask_BT)), strict=True):
    before = np.flatnonzero(rollout.valid_BT[b, :t])[-1]
    np.testing.assert_allclose(rollout.value_BT[b, t], read_BT[b, before], atol=1e-5)


@on_meshes
def test_learning_rate_zero_leaves_every_log_ratio_at_zero(mesh):
  run = tiny.ppo_run(mesh(), learning_rate=0.0, passes=2, minibatches=2)
  before, state = tiny.host(run.state.params), run.state
  for i in range(2):
    batch = run.source(state, run.frozen, i)
    state, metrics = run.update(state, batch, run.frozen)
    assert metrics['approx_kl'] < 1e-9 and metrics['clip_fraction'] == 0 and metrics['k1'] == 0
    np.testing.assert_allclose(metrics['ratio'], 1, atol=1e-6)
  jax.tree.map(np.testing.assert_array_equal, tiny.host(state.params), before)


def test_nothing_after_the_end_and_no_padding_content_matters(first):
  """Invariant I4, metrics included: where `valid` is 0 stand other tokens, and 77 elsewhere."""
  rollout = first.batch.rollout
  dead_BT = rollout.valid_BT == 0
  assert dead_BT[:, tiny.PROMPT:].any() and dead_BT[:, :tiny.PROMPT].any()
  junk_BT = np.random.default_rng(0).integers(0, tiny.VOCAB, dead_BT.shape)
  other = rollout.replace(
    tokens_BT=jnp.where(dead_BT, junk_BT, rollout.tokens_BT),
    **{name: jnp.where(rollout.mask_BT > 0, getattr(rollout, name), 77.0)
       for name in ('logp_BT', 'sampled_logp_BT', 'ref_logp_BT', 'value_BT')})
  junk = ppo.experience(other, 1.0, 0.95, True)
  np.testing.assert_allclose(junk.advantage_BT, first.batch.advantage_BT, atol=2e-6)
  results = [first.gradient(first.params, batch.normalise(), None, {}) for batch in (first.batch, junk)]
  tiny.assert_close(*results, atol=1e-6)
  healths = [ppo.diagnostics(batch.rollout, tiny.END) for batch in (first.batch, junk)]
  tiny.assert_close(*healths, rtol=1e-6)
  _, metrics = first.update(jax.tree.map(jnp.copy, first.state), junk, first.frozen)
  tiny.assert_close(metrics, first.metrics, rtol=1e-5, atol=1e-6)


def test_the_amount_of_prompt_padding_changes_nothing(first):
  wide = tiny.ppo_run(first.mesh, left=3)
  batch = wide.source(wide.state, wide.frozen, 0)
  np.testing.assert_array_equal(batch.rollout.tokens_BT[:, tiny.PROMPT + 3:],
                                first.batch.rollout.tokens_BT[:, tiny.PROMPT:])
  np.testing.assert_allclose(batch.rollout.score_B, first.batch.rollout.score_B, atol=1e-5)
  tiny.assert_close(*[run.gradient(first.params, run_batch.normalise(), None, {})
                      for run, run_batch in ((first, first.batch), (wide, batch))], atol=2e-5)
  tiny.assert_close(*[ppo.diagnostics(b.rollout, tiny.END) for b in (first.batch, batch)],
                    rtol=1e-4, atol=2e-5)
  np.testing.assert_allclose(batch.advantage_BT[:, 3:], first.batch.advantage_BT, atol=1e-4)


def test_the_side_of_prompt_padding_changes_no_loss(first):
  """The same dialogues with the prompt's padding between prompt and answer."""
  rollout = first.batch.rollout
  order_BT = np.concatenate([np.argsort(-rollout.valid_BT[:, :tiny.PROMPT], axis=1, kind='stable'),
                             np.tile(np.arange(tiny.PROMPT, rollout.mask_BT.shape[1]), (8, 1))], 1)
  moved = jax.tree.map(lambda x: jnp.take_along_axis(x, order_BT, 1) if x.ndim == 2 else x,
                       first.batch)
  assert not np.array_equal(moved.rollout.valid_BT, rollout.valid_BT)
  tiny.assert_close(*[first.gradient(first.params, batch.normalise(), None, {})
                      for batch in (first.batch, moved)], atol=2e-5)
  tiny.assert_close(*[ppo.diagnostics(batch.rollout, tiny.END) for batch in (first.batch, moved)],
                    rtol=1e-6)


@on_meshes
def test_a_restored_run_goes_on_bit_by_bit_text_included(mesh, tmp_path):
  run = tiny.ppo_run(mesh(), minibatches=2)

  def go(state, start, stop):
    texts = []
    for i in range(start, stop):
      batch = run.source(state, run.frozen, i)
      texts.append(np.asarray(batch.rollout.tokens_BT))
      state, _ = run.update(state, batch, run.frozen)
    return state, texts

  whole, text = go(jax.tree.map(jnp.copy, run.state), 0, 4)
  half, _ = go(jax.tree.map(jnp.copy, run.state), 0, 2)
  with checkpoint.manager(tmp_path) as manager:
    checkpoint.save(manager, 2, half)
    back, at = checkpoint.restore(manager, run.state)
  assert at == 2
  end, rest = go(back, at, 4)
  np.testing.assert_array_equal(text[2:], rest)
  assert not np.array_equal(text[2], text[3])
  jax.tree.map(np.testing.assert_array_equal, tiny.host(end), tiny.host(whole))


def test_donation_deletes_the_state_and_the_reference_survives():
  run = tiny.ppo_run()
  shared = run.frozen['reference']
  state = step.create({'policy': shared, 'value': run.state.params['value']},
                      optim.adam(optim.schedule(100)), jax.random.key(5), 1e-2, kl_coef=0.1)
  batch = run.source(state, run.frozen, 0)
  state = jax.device_put(state, jax.tree.map(lambda x: x.sharding, run.state))
  leaves = jax.tree.leaves(state.params)
  new, _ = run.update(state, batch, run.frozen)
  assert all(x.is_deleted() for x in leaves)
  tiny.assert_close(shared, tiny.parameters(0), rtol=0)
  change = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), new.params['policy'], shared)
  assert max(jax.tree.leaves(change)) > 1e-3


def test_a_new_method_is_a_loss_and_a_source():
  """Expert iteration: sample four answers, imitate the one with most of token 4."""
  rows = tiny.prompts(0)
  def source(state, frozen, i):
    sample = decode.generate(tiny.MODEL, state.params, rows['prompt'], rows['valid'],
                             jax.random.fold_in(state.key, i), max_new_tokens=tiny.ANSWER,
                             eos_id=tiny.END, pad_id=tiny.PAD, samples=4)
    valid_NT = jnp.concatenate([jnp.repeat(rows['valid'], 4, 0), sample.mask_BT[:, tiny.PROMPT:]], 1)
    score_BK = ((sample.tokens_BT == 4) * sample.mask_BT).sum(1).reshape(-1, 4)
    best_B = jnp.arange(8) * 4 + jnp.argmax(score_BK, axis=1)
    return tiny.Imitation(*(x[best_B] for x in (sample.tokens_BT, valid_NT, sample.mask_BT)),
                          score_BK.mean(1))

  def loss(params, batch, key, frozen):
    logp_BT = logp.token_logp(tiny.MODEL, params, batch.tokens_BT, batch.valid_BT)
    return -(batch.weight_BT * logp_BT).sum(), {'score': batch.score_B.mean()}

  scores, optimizer = [], optim.adam(optim.schedule(100))
  state = step.create(tiny.parameters(0), optimizer, jax.random.key(5), 2e-2)
  fit(state, jax.jit(step.update(loss, optimizer), donate_argnums=0), jax.jit(source), {}, 30,
      hooks=[lambda i, state, metrics: scores.append(float(metrics['score']))])
  assert len(scores) == 30
  assert np.mean(scores[-5:]) > np.mean(scores[:5]) + 1              # of ANSWER = 5 tokens


def test_statistics_are_those_of_the_global_minibatch(first):
  weight_BT = np.asarray(first.batch.weight_BT)
  advantage = np.asarray(first.batch.advantage_BT)[weight_BT > 0]
  assert abs(advantage.mean()) < 1e-5 and abs(advantage.std() - 1) < 1e-4
  np.testing.assert_allclose(masked.normalise(first.batch.weight_BT).sum(), 1, rtol=1e-6)


def test_runs_in_one_program_are_the_runs_one_after_another():
  """Of other seeds, learning rates and KL coefficients: texts equal, numbers to 1e-5."""
  settings = [{}, {'seed': 6, 'learning_rate': 1e-3, 'kl_coef': 0.5}]
  states = [tiny.ppo_state(**each) for each in settings]
  group, run = tiny.ppo_program(tiny.one_device(), runs=2), tiny.ppo_run()
  together = meshes.put(build.stack(states), group.shardings)
  singles = [meshes.put(state, run.shardings) for state in states]
  for i in range(2):
    batch = group.source(together, run.frozen, i)
    together, metrics = group.update(together, batch, run.frozen)
    for s, state in enumerate(singles):
      alone = run.source(state, run.frozen, i)
      np.testing.assert_array_equal(batch.rollout.tokens_BT[s], alone.rollout.tokens_BT)
      singles[s], told = run.update(state, alone, run.frozen)
      tiny.assert_close({k: v[s] for k, v in metrics.items()}, told, rtol=1e-5, atol=1e-5)
  for s, state in enumerate(singles):
    tiny.assert_close(jax.tree.map(lambda x, s=s: x[s], together.params), state.params, atol=1e-5)
  assert not np.array_equal(*batch.rollout.tokens_BT)
