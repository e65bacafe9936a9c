"""PPO: rewards, experience, losses and diagnostics by hand, identities and invariances."""
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.algorithms import ppo
from rlhf_jax.algorithms.gae import gae
from rlhf_jax.core.types import Rollout, TokenBatch

END = 9
experience = jax.jit(ppo.experience, static_argnames=('whiten', 'whiten_rewards'))


def make_rollout(seed=0, rows=4, columns=7):
  """Random answers from column 2 on, of 1 to 5 tokens, with garbage everywhere else."""
  rng = np.random.default_rng(seed)
  length_B = rng.integers(1, 6, size=rows)
  column_T = np.arange(columns)
  mask_BT = ((column_T >= 2) & (column_T < 2 + length_B[:, None])).astype(np.float32)
  logp_BT, ref_BT, value_BT = rng.normal(size=(3, rows, columns)).astype(np.float32)
  garbage_BT = np.where(mask_BT > 0, 0.0, np.nan).astype(np.float32)
  return jax.tree.map(jnp.asarray, Rollout(
      tokens_BT=rng.integers(0, 9, size=(rows, columns)), valid_BT=np.ones_like(mask_BT),
      mask_BT=mask_BT, logp_BT=logp_BT - 2 + garbage_BT, sampled_logp_BT=logp_BT - 2,
      ref_logp_BT=ref_BT - 2 + garbage_BT, value_BT=value_BT + garbage_BT,
      score_B=rng.normal(size=rows).astype(np.float32), weight_B=np.ones(rows, np.float32),
      kl_coef_B=np.full(rows, 0.1, np.float32), group_B=np.zeros(rows, int),
      index_B=np.arange(rows)))


def test_rewards_two_answers_by_hand():
  mask_BT = jnp.array([[0, 1, 1, 0, 0], [0, 0, 1, 1, 1]])
  logp_BT = jnp.array([[7., -1., -2., 7., 7.], [7., 7., -1., -1., -3.]])
  ref_BT = jnp.array([[5., -2., -1., 5., 5.], [5., 5., -1., -3., -2.]])
  # k1: (1, -1) and (0, 2, -1); the scores 10 and 20 on columns 2 and 4
  expected_BT = [[0, -.5, 10.5, 0, 0], [0, 0, 0, -1, 20.5]]
  got_BT = ppo.token_rewards(jnp.array([10, 20]), logp_BT, ref_BT, mask_BT, 0.5)
  assert got_BT.dtype == jnp.float32
  np.testing.assert_array_equal(got_BT, expected_BT)


def test_rewards_a_coefficient_per_row():
  mask_BT = jnp.ones((2, 2))
  logp_BT, ref_BT = jnp.zeros((2, 2)), jnp.full((2, 2), -1.0)
  got_BT = ppo.token_rewards(jnp.zeros(2), logp_BT, ref_BT, mask_BT, jnp.array([0.5, 2.0]))
  np.testing.assert_array_equal(got_BT, [[-.5, -.5], [-2, -2]])


def test_rewards_an_empty_row_and_garbage_outside_the_mask_give_nothing():
  mask_BT = jnp.array([[0., 0., 0.], [0., 1., 0.]])
  garbage_BT = jnp.array([[jnp.nan, jnp.inf, 1.], [jnp.nan, -1., jnp.inf]])
  got_BT = ppo.token_rewards(jnp.array([3.0, 4.0]), garbage_BT, garbage_BT, mask_BT, 1.0)
  np.testing.assert_array_equal(got_BT, [[0, 0, 0], [0, 4, 0]])


def test_rewards_an_integer_score_and_bfloat16_log_probs_lose_nothing():
  logp_BT, ref_BT = jnp.array([[-1.]], jnp.bfloat16), jnp.array([[-256.]], jnp.bfloat16)
  got_BT = ppo.token_rewards(jnp.array([1]), logp_BT, ref_BT, jnp.array([[1]]), 0.25)
  np.testing.assert_array_equal(got_BT, [[1 - 0.25 * 255]])


def test_rewards_a_row_adds_up_to_the_score_minus_the_sequence_kl():
  rollout = make_rollout()
  got_BT = ppo.token_rewards(rollout.score_B, rollout.logp_BT, rollout.ref_logp_BT,
                             rollout.mask_BT, 0.3)
  on_BT = rollout.mask_BT > 0
  kl_B = np.where(on_BT, rollout.logp_BT - rollout.ref_logp_BT, 0).sum(1)
  np.testing.assert_allclose(got_BT.sum(1), rollout.score_B - 0.3 * kl_B, rtol=1e-5)


# One token each: ratio 2, 2, 1/2, 1/2 with advantage +1, -1, +1, -1; clip 0.2.
NEW_BT = jnp.log(jnp.array([[.5, .5, .25, .25]]))
OLD_BT = jnp.log(jnp.array([[.25, .25, .5, .5]]))
ADVANTAGE_BT = jnp.array([[1., -1., 1., -1.]])


def test_policy_four_corners_by_hand():
  # min(r A, clip(r) A): 1.2, -2, 0.5, -0.8
  for column, expected in enumerate([1.2, -2.0, 0.5, -0.8]):
    weight_BT = jnp.zeros((1, 4)).at[0, column].set(0.5)
    value = ppo.policy_loss(NEW_BT, OLD_BT, ADVANTAGE_BT, weight_BT, 0.2)
    assert float(value) == pytest.approx(-0.5 * expected, rel=1e-6)


def test_policy_the_gradient_stops_only_where_clipping_wins():
  grad_BT = jax.grad(ppo.policy_loss)(NEW_BT, OLD_BT, ADVANTAGE_BT, jnp.ones((1, 4)), 0.2)
  np.testing.assert_allclose(grad_BT, [[0, 2, -0.5, 0]], atol=1e-6)      # -A * ratio


def test_policy_at_ratio_one_it_is_the_policy_gradient():
  rollout = make_rollout()
  advantage_BT = np.random.default_rng(3).normal(size=rollout.mask_BT.shape)
  value, grad_BT = jax.value_and_grad(ppo.policy_loss)(
      rollout.logp_BT, rollout.logp_BT, advantage_BT, rollout.mask_BT, 0.2)
  assert float(value) == pytest.approx(-float((advantage_BT * rollout.mask_BT).sum()), rel=1e-5)
  np.testing.assert_allclose(grad_BT, -advantage_BT * rollout.mask_BT, rtol=1e-5)


def test_policy_weight_zero_hides_garbage_from_value_and_gradient():
  weight_BT = jnp.array([[1., 0., 0., 0.]])
  bad = jnp.array([[1., jnp.nan, jnp.inf, 1e30]])
  value, grad_BT = jax.value_and_grad(ppo.policy_loss)(
      jnp.where(weight_BT > 0, NEW_BT, bad), OLD_BT,
      jnp.where(weight_BT > 0, ADVANTAGE_BT, bad), weight_BT, 0.2)
  assert float(value) == pytest.approx(-1.2, rel=1e-6)
  np.testing.assert_array_equal(grad_BT, jnp.zeros((1, 4)))


def test_value_the_worse_of_clipped_and_unclipped_by_hand():
  value_BT = jnp.array([[1.0, 0.5, -1.0]])
  old_BT = jnp.array([[0.0, 0.5, 0.0]])
  return_BT = jnp.array([[1.0, 1.0, -3.0]])
  # clip 0.2 moves the values to .2, .5, -.2. Squared errors: 0 or .64; .25; 4 or 7.84
  weight_BT = jnp.array([[1.0, 2.0, 0.5]])
  got = ppo.value_loss(value_BT, old_BT, return_BT, weight_BT, 0.2)
  assert float(got) == pytest.approx(0.5 * (0.64 + 2 * 0.25 + 0.5 * 7.84), rel=1e-6)
  got = ppo.value_loss(value_BT, old_BT, return_BT, weight_BT, None)
  assert float(got) == pytest.approx(0.5 * (0 + 2 * 0.25 + 0.5 * 4), rel=1e-6)


def test_value_the_gradient_is_the_error_and_ends_where_clipping_wins():
  # unclipped wins in the first: gradient w (v - R); clipped wins in the second: none
  value_BT, old_BT = jnp.array([[0.1, 1.0]]), jnp.zeros((1, 2))
  return_BT, weight_BT = jnp.array([[2.0, 1.0]]), jnp.array([[3.0, 3.0]])
  grad_BT = jax.grad(ppo.value_loss)(value_BT, old_BT, return_BT, weight_BT, 0.2)
  np.testing.assert_allclose(grad_BT, [[3 * -1.9, 0]], rtol=1e-6)


@pytest.mark.parametrize('clip', [None, 0.2])
def test_value_weight_zero_hides_garbage_from_value_and_gradient(clip):
  nan_BT = jnp.array([[1.0, jnp.nan]])
  value, grad_BT = jax.value_and_grad(ppo.value_loss)(
      nan_BT, nan_BT, 2 * nan_BT, jnp.array([[1.0, 0.0]]), clip)
  assert float(value) == 0.5
  assert float(grad_BT[0, 1]) == 0 and np.isfinite(grad_BT).all()


def test_experience_is_rewards_then_advantages_with_the_weights_of_rows():
  rollout = make_rollout().replace(weight_B=np.array([1, 0.5, 0, 2], np.float32))
  out = experience(rollout, 0.9, 0.8, whiten=False)
  reward_BT = ppo.token_rewards(rollout.score_B, rollout.logp_BT, rollout.ref_logp_BT,
                                rollout.mask_BT, rollout.kl_coef_B)
  advantage_BT, return_BT = gae(reward_BT, rollout.value_BT, rollout.mask_BT, 0.9, 0.8)
  np.testing.assert_allclose(out.advantage_BT, advantage_BT, rtol=1e-5)
  np.testing.assert_allclose(out.return_BT, return_BT, rtol=1e-5)
  np.testing.assert_array_equal(out.weight_BT[1], rollout.mask_BT[1] / 2)
  assert float(out.weight_BT[2].sum()) == 0


def test_experience_whitened_advantages_have_weighted_mean_0_and_variance_1_and_keep_their_order():
  rollout = make_rollout().replace(weight_B=np.array([1, 0.5, 0, 2], np.float32))
  plain, white = (experience(rollout, 1.0, 0.95, whiten) for whiten in (False, True))
  w, x = np.array(white.weight_BT).ravel(), np.array(white.advantage_BT).ravel()
  assert np.average(x, weights=w) == pytest.approx(0, abs=1e-6)
  assert np.average(x ** 2, weights=w) == pytest.approx(1, rel=1e-5)
  on = w > 0
  before = np.array(plain.advantage_BT).ravel()[on]
  np.testing.assert_array_equal(np.argsort(before), np.argsort(x[on]))
  np.testing.assert_allclose(plain.return_BT, white.return_BT, rtol=1e-6)


def test_experience_no_gradient_passes_through():
  rollout = make_rollout()

  def total(score_B, value_BT):
    out = experience(rollout.replace(score_B=score_B, value_BT=value_BT), 1.0, 0.95, True)
    return (out.advantage_BT ** 3 + out.return_BT).sum() + out.rollout.score_B.sum()

  for grad in jax.jit(jax.grad(total, argnums=(0, 1)))(rollout.score_B, rollout.value_BT):
    np.testing.assert_array_equal(grad, jnp.zeros_like(grad))


def toy_loss(value_clip=0.2, entropy_coef=0.0):
  """A policy whose log-probs are its parameters, and a value that is its parameters."""
  return ppo.make_loss(lambda params, tokens_BT, valid_BT: (params['policy'], params['value']),
                       0.2, value_clip, 0.1, entropy_coef)


def test_loss_first_pass_has_ratio_1_and_no_kl_and_no_clipping():
  batch = experience(make_rollout(), 1.0, 0.95, True).normalise()
  params = {'policy': batch.rollout.logp_BT, 'value': batch.rollout.value_BT}
  value, aux = jax.jit(toy_loss())(params, batch, None, {})
  assert float(aux['ratio']) == pytest.approx(1, rel=1e-6)
  assert float(aux['approx_kl']) == float(aux['clip_fraction']) == 0
  assert float(aux['policy_loss']) == pytest.approx(0, abs=1e-6)       # advantages are whitened
  assert float(value) == pytest.approx(0.1 * float(aux['value_loss']), abs=1e-6)
  assert 'entropy_estimate' not in aux


def test_loss_terms_and_diagnostics_by_hand():
  batch = experience(make_rollout(), 1.0, 0.95, False)
  logp_BT = batch.rollout.logp_BT.at[:, 2].add(jnp.log(1.5))           # every answer has column 2
  value_BT = batch.rollout.value_BT + 0.1
  loss = jax.jit(toy_loss(value_clip=None, entropy_coef=0.01))
  value, aux = loss({'policy': logp_BT, 'value': value_BT}, batch, None, {})
  on = np.array(batch.weight_BT) > 0
  adv, old, new = (np.array(x)[on] for x in (batch.advantage_BT, batch.rollout.logp_BT, logp_BT))
  ratio, tokens = np.exp(new - old), on.sum()
  policy = -np.minimum(ratio * adv, np.clip(ratio, 0.8, 1.2) * adv).sum()
  error = 0.5 * ((np.array(value_BT)[on] - np.array(batch.return_BT)[on]) ** 2).sum()
  entropy = -(ratio * new).sum()
  assert float(aux['policy_loss']) == pytest.approx(policy, rel=1e-5)
  assert float(aux['value_loss']) == pytest.approx(error, rel=1e-5)
  assert float(aux['entropy_estimate']) == pytest.approx(entropy, rel=1e-5)
  assert float(value) == pytest.approx(policy + 0.1 * error - 0.01 * entropy, rel=1e-5)
  assert float(aux['clip_fraction']) == 4                              # four rows, sums not means
  assert float(aux['ratio']) == pytest.approx(tokens + 4 * 0.5, rel=1e-5)
  assert float(aux['approx_kl']) == pytest.approx(4 * (0.5 - np.log(1.5)), rel=1e-4)
  assert float(aux['ratio_max']) == pytest.approx(1.5, rel=1e-5) and float(aux['ratio_min']) == 1


def test_the_range_of_ratios_is_of_the_tokens_that_count():
  got = ppo.ratio_statistics(NEW_BT, OLD_BT, jnp.array([[1.0, 1, 1, 0]]), 0.2)
  assert float(got['ratio_max']) == pytest.approx(2) and float(got['ratio_min']) == pytest.approx(.5)
  got = ppo.ratio_statistics(NEW_BT, OLD_BT, jnp.array([[0.1, 0, 0, 0]]), 0.2)
  assert float(got['ratio_max']) == pytest.approx(2) and float(got['ratio_min']) == 1


def test_loss_adds_up_over_microbatches():
  batch = experience(make_rollout(), 1.0, 0.95, True).normalise()
  params = {'policy': batch.rollout.logp_BT + 0.3, 'value': batch.rollout.value_BT - 0.2}
  loss = jax.jit(toy_loss(entropy_coef=0.01))
  whole = loss(params, batch, None, {})
  parts = [loss(*jax.tree.map(lambda x, i=i: x[i:i + 2], (params, batch)), None, {})
           for i in (0, 2)]
  for _, aux in (whole, *parts):                           # extremes do not add up: core/test_step.py
    del aux['ratio_max'], aux['ratio_min']
  total = jax.tree.map(lambda *x: sum(x), *parts)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), whole, total)


def test_loss_text_after_the_answer_and_padding_change_nothing():
  rollout = make_rollout()
  batch = experience(rollout, 1.0, 0.95, True).normalise()

  def pad(x):
    wide = np.ndim(x) == 2
    return np.pad(x, ((0, 0), (3, 2)), constant_values=0) if wide else x

  padded = experience(jax.tree.map(pad, rollout), 1.0, 0.95, True).normalise()
  new_BT, value_BT = batch.rollout.logp_BT + 0.3, batch.rollout.value_BT - 0.2
  loss = jax.jit(toy_loss())
  plain = loss({'policy': new_BT, 'value': value_BT}, batch, None, {})
  wide = loss({'policy': pad(new_BT), 'value': pad(value_BT)}, padded, None, {})
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), plain, wide)


def test_the_entropy_gradient_is_exact_on_average():
  # Old policy q draws the token, new policy p = softmax(logits): sum_v q_v grad(estimate_v) must be
  # the gradient of the entropy of p.
  old_V = jnp.array([0.5, 0.3, 0.2])

  def mean_estimate(logits_V):
    logp_V1 = jax.nn.log_softmax(logits_V)[:, None]
    return ppo.entropy_estimate(logp_V1, jnp.log(old_V)[:, None], old_V[:, None])

  def entropy(logits_V):
    return -(jax.nn.softmax(logits_V) * jax.nn.log_softmax(logits_V)).sum()

  got, expected = (jax.jit(jax.value_and_grad(f))(jnp.array([0.2, -0.4, 1.0]))
                   for f in (mean_estimate, entropy))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), got, expected)


def test_whitened_rewards_have_variance_1_and_keep_their_mean():
  rollout = make_rollout().replace(weight_B=np.array([1, 0.5, 0, 2], np.float32))
  # discount 0 and values of 0: the returns are the rewards.
  rollout = rollout.replace(value_BT=0 * rollout.sampled_logp_BT)
  plain, white = (experience(rollout, 0.0, 0.0, False, whiten_rewards=w) for w in (False, True))
  w = np.array(white.weight_BT).ravel()
  a, b = (np.array(out.return_BT).ravel() for out in (plain, white))
  mean = np.average(a, weights=w)
  assert np.average(b, weights=w) == pytest.approx(mean, rel=1e-4)
  assert np.average((b - mean) ** 2, weights=w) == pytest.approx(1, rel=1e-4)
  np.testing.assert_array_equal(np.argsort(a[w > 0]), np.argsort(b[w > 0]))


def scored(score_B, weight_B):
  return make_rollout().replace(score_B=jnp.float32(score_B), weight_B=jnp.float32(weight_B))


def test_score_moments_are_those_of_all_scores_so_far():
  rollouts = [scored([1, 5, np.nan, 3], [1, 2, 0, 1]), scored([10, 0, 4, 4], [1, 1, 1, 0.5]),
              scored([2, 2, 2, 2], [1, 1, 1, 1])]
  extra, rows = ppo.memory(0.1), []
  for rollout in rollouts:
    extra |= ppo.score_moments(extra, rollout, True)
    rows += [(x, w) for x, w in zip(rollout.score_B, rollout.weight_B, strict=True) if w]
    x, w = np.array(rows).T
    mean = np.average(x, weights=w)
    assert float(extra['score_count']) == pytest.approx(w.sum())
    assert float(extra['score_mean']) == pytest.approx(mean, rel=1e-5)
    assert float(extra['score_variance']) == pytest.approx(np.average((x - mean) ** 2, weights=w),
                                                           rel=1e-5)


def test_score_moments_of_the_start_are_those_of_the_first_rollout():
  first = ppo.score_moments(ppo.memory(0.1), scored([1, 2, 3, 6], np.ones(4)), False)
  assert [float(x) for x in first.values()] == pytest.approx([4, 3, 3.5])
  again = ppo.score_moments(first, scored([50, 60, 70, 90], np.ones(4)), False)
  assert [float(x) for x in again.values()] == pytest.approx([4, 3, 3.5])


def test_paid_score_by_hand():
  mask_BT = jnp.array([[0., 1, 1], [0, 1, 0], [0, 1, 1], [0, 1, 1]])
  rollout = jax.tree.map(lambda x: x[:, :3] if x.ndim == 2 else x, make_rollout()).replace(
      mask_BT=mask_BT, score_B=jnp.array([1.0, 5.0, 3.0, 7.0]),
      tokens_BT=np.array([[END, 1, END], [1, END, 2], [1, END, 2], [1, 2, 3]]))
  moments = {'score_count': 4.0, 'score_mean': 3.0, 'score_variance': 4.0}
  for expected, options in (([1, 5, 3, 7], {}), ([1, 5, 2, 6], {'no_end_penalty': 1.0}),
                            ([1, 5, -1, -1], {'no_end_score': -1.0}),
                            ([-1, 1, -3, -3], {'moments': moments, 'no_end_score': -1.0,
                                               'no_end_penalty': 2.0}),
                            ([-1, 1, 0, 2], {'moments': moments})):
    np.testing.assert_allclose(ppo.paid_score(rollout, END, **options), expected, rtol=1e-6)


def test_normalised_scores_do_not_depend_on_scale_and_origin():
  rollout = make_rollout().replace(kl_coef_B=jnp.zeros(4))
  scores, outs = (rollout.score_B, 40 * rollout.score_B - 7), []
  for score_B in scores:
    made = rollout.replace(score_B=score_B)
    moments = ppo.score_moments(ppo.memory(0.0), made, True)
    outs.append(experience(made, 1.0, 0.95, False, ppo.paid_score(made, END, moments)))
    # The raw score is what is logged.
    assert float(ppo.diagnostics(outs[-1].rollout, END)['score']) == pytest.approx(
        float(score_B.mean()), rel=1e-5)
  np.testing.assert_allclose(outs[0].advantage_BT, outs[1].advantage_BT, rtol=1e-3, atol=1e-4)


def test_a_pretraining_loss_is_added_and_is_the_policys_alone():
  weight_BT = jnp.array([[0., 1., 1.], [0., 1., 0.]])
  text = TokenBatch(weight_BT, weight_BT, weight_BT, weight_BT, jnp.arange(2))
  batch = experience(make_rollout(rows=2), 1.0, 0.95, True).replace(text=text)
  assert float(batch.normalise().text.weight_BT.sum()) == pytest.approx(1)
  rollout = batch.rollout
  params = {'policy': rollout.logp_BT, 'value': rollout.value_BT, 'text': jnp.float32(2.0)}

  def text_logp(policy, tokens_BT, valid_BT, segment_BT):
    return -policy[:, :3] * tokens_BT * valid_BT * segment_BT

  loss, plain = ppo.with_pretraining(toy_loss(), text_logp, 0.5), toy_loss()
  params['policy'] = jnp.full_like(rollout.logp_BT, 2.0)
  total, aux = loss(params, batch.normalise(), None, {})
  expected, _ = plain(params, batch.normalise(), None, {})
  assert float(aux['pretrain_loss']) == pytest.approx(2)            # mean of 2, 2, 2 over three tokens
  assert float(total) == pytest.approx(float(expected) + 0.5 * 2, rel=1e-5)


@pytest.mark.parametrize(('stop', 'rate'), [(0.0, 3.0), (4.1, 3.0), (4.0, 0.0), (0.5, 0.0)])
def test_a_kl_stop_ends_all_learning_when_it_is_reached(stop, rate):
  """Three answers of 4 nats; one of weight 0 at 40 does not count."""
  ones_BT = jnp.ones((4, 2))
  rollout = jax.tree.map(lambda x: x[:, :2] if x.ndim == 2 else x, make_rollout()).replace(
      mask_BT=ones_BT, ref_logp_BT=-ones_BT, logp_BT=ones_BT * jnp.array([[1.], [1.], [1.], [19.]]),
      weight_B=jnp.array([1., 1., 1., 0.]))
  extra = {k: jnp.float32(v) for k, v in ppo.memory(0.5, kl_stop=stop).items()}
  state = SimpleNamespace(extra=extra | {'learning_rate': jnp.float32(3.0)})
  new = ppo.after(40, True)(state, ppo.Experience(rollout, *[ones_BT] * 3), {})
  assert float(new['learning_rate']) == rate and float(new['kl_coef']) == 0.5
  # It does not come back, whatever the next rollout shows, and the scores are remembered meanwhile.
  state.extra = new
  calm = rollout.replace(logp_BT=-ones_BT)
  again = ppo.after(40, True)(state, ppo.Experience(calm, *[ones_BT] * 3), {})
  assert float(again['learning_rate']) == rate and float(again['score_count']) == 6


def test_explained_variance():
  return_BT = jnp.array([[1.0, 2.0, 3.0, jnp.nan]])
  mask_BT = jnp.array([[1.0, 1.0, 1.0, 0.0]])
  # errors 0, 0, 1 around a mean of 1/3: variance 2/9 against 2/3
  value_BT = jnp.array([[1.0, 2.0, 2.0, 7.0]])
  assert float(ppo.explained_variance(value_BT, return_BT, mask_BT)) == pytest.approx(2 / 3)
  assert float(ppo.explained_variance(return_BT + 5, return_BT, mask_BT)) == pytest.approx(1)
  assert float(ppo.explained_variance(0 * value_BT, return_BT, mask_BT)) == pytest.approx(0)
  assert float(ppo.explained_variance(value_BT, 0 * value_BT, mask_BT)) == 0


def test_diagnostics_by_hand():
  mask_BT = np.array([[0, 1, 1, 1], [0, 0, 1, 1], [0, 1, 0, 0], [0, 1, 1, 1]], np.float32)
  ones_BT = np.ones((4, 4), np.float32)
  rollout = Rollout(
      # cut off, ended in the last column, only the end, and a row of weight 0
      tokens_BT=np.array([[END, 1, END, 2], [1, END, 2, END], [3, END, 0, 0], [1, 1, 1, END]]),
      valid_BT=ones_BT, mask_BT=mask_BT, logp_BT=-ones_BT,
      sampled_logp_BT=-ones_BT + [[9, 0, 0.25, 0], [9, 9, -0.5, 0], [9, 0, 9, 9], [9, 9, 9, 9]],
      ref_logp_BT=-ones_BT - np.float32(np.log(2)), value_BT=0 * ones_BT,
      score_B=np.array([1, 2, 6, 100], np.float32), weight_B=np.array([1, 1, 1, 0], np.float32),
      kl_coef_B=np.array([0.1, 0.2, 0.3, 9]), group_B=np.zeros(4, int), index_B=np.arange(4))
  got = jax.jit(ppo.diagnostics)(rollout, END)
  expected = {'score': 3, 'kl_coef': 0.2, 'response_length': 2, 'truncated': 1 / 3, 'empty': 1 / 3,
              'entropy_per_token': 1, 'logp_gap': 0.5,
              'k1': 2 * np.log(2),                       # 2 tokens a row of ln 2 each
              'k3': 2 * (0.5 - 1 + np.log(2))}           # the ratio ref / pi is 1/2
  assert got.keys() == expected.keys()
  for name, value in expected.items():
    assert float(got[name]) == pytest.approx(value, rel=1e-5), name


def test_tokens_are_counted_by_hand():
  """Prompts of 1 and 2 tokens, answers of 2 and 1, two passes; the columns of 0 are padding."""
  rollout = jax.tree.map(lambda x: x[:2], make_rollout()).replace(
      valid_BT=np.array([[0, 1, 1, 1], [1, 1, 1, 0]], np.float32),
      mask_BT=np.array([[0, 0, 1, 1], [0, 0, 1, 0]], np.float32))
  assert ppo.tokens(rollout, 2) == {'tokens/prompt': 3, 'tokens/produced': 3, 'tokens/trained': 12}


@pytest.mark.parametrize(('target', 'factor'),
                         [(0.0, 1.0), (1.0, 1.02), (8.0, 0.99), (4.1, 1 - 0.1 / 41),
                          (3.9, 1 + 0.1 / 39)])
def test_a_kl_budget_moves_the_coefficient(target, factor):
  """4 answers at 4 nats each (weight 0 hides one at 40), horizon 40: the error, at most 0.2, times
  4 / 40; not below the least, 0.99 of the start."""
  mask_BT = np.array([[0, 1, 1], [0, 1, 0], [0, 1, 1], [0, 1, 1]], np.float32)
  rollout = jax.tree.map(lambda x: x[:, :3] if x.ndim == 2 else x, make_rollout()).replace(
      mask_BT=mask_BT, ref_logp_BT=-np.ones((4, 3), np.float32),
      logp_BT=np.array([[9, 0, 2], [9, 3, 9], [9, 1, 1], [9, 9, 29]], np.float32),
      weight_B=np.array([1, 1, 1, 0], np.float32))
  batch = ppo.Experience(rollout, mask_BT, mask_BT, mask_BT)
  extra = {'kl_coef': jnp.float32(0.5), 'kl_target': jnp.float32(target), 'learning_rate': 1.0,
           'kl_stop': 0.0, 'kl_least': jnp.float32(0.495)}
  new = jax.jit(lambda extra, batch: ppo.kl_controller(40)(SimpleNamespace(extra=extra), batch, {}))(
      extra, batch)
  assert float(new['kl_coef']) == pytest.approx(0.5 * factor, rel=1e-5)
  assert float(new['kl_target']) == pytest.approx(target) and float(new['learning_rate']) == 1


def test_a_one_token_answer_without_an_end_is_truncated_and_not_empty():
  rollout = jax.tree.map(lambda x: x[:, :3] if x.ndim == 2 else x, make_rollout())
  got = jax.jit(ppo.diagnostics)(rollout.replace(tokens_BT=np.zeros((4, 3), int)), END)
  assert float(got['truncated']) == 1 and float(got['empty']) == 0


def test_what_a_whole_update_moves_by_its_parts():
  """Steps of 0.1 in one direction: k3 is half the square of what has been gone."""
  for parts in (2, 3, 8):
    seen = np.mean([(0.1 * i) ** 2 / 2 for i in range(parts)])
    assert ppo.whole_update(seen, parts) == pytest.approx((0.1 * parts) ** 2 / 2)
  assert np.isnan(ppo.whole_update(0.0, 1))
