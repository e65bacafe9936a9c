"""Preference loss: hand numbers, soft labels, extreme gaps, and one forward pass for a pair."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.algorithms import preference
from rlhf_jax.core.types import PreferenceBatch


def test_equal_scores_cost_ln_2_whatever_the_label():
  for label in (0, 0.3, 1):
    value = preference.loss(jnp.array([3.0, -1.0]), jnp.array([3.0, -1.0]), label)
    assert float(value) == pytest.approx(np.log(2), rel=1e-6)


def test_weighted_soft_labels_by_hand():
  chosen_B, rejected_B = jnp.array([np.log(3.0), 0.0]), jnp.array([0.0, np.log(3.0)])
  # sigmoid(ln 3) = 3/4. Row 1: label 1 costs -ln(3/4). Row 2: gap -ln 3, so the chosen one has
  # probability 1/4; label 1/4 costs -(1/4 ln(1/4) + 3/4 ln(3/4)).
  cost = [-np.log(0.75), -(0.25 * np.log(0.25) + 0.75 * np.log(0.75))]
  label_B = jnp.array([1.0, 0.25])
  value = preference.loss(chosen_B, rejected_B, label_B, jnp.array([2.0, 0.5]))
  assert float(value) == pytest.approx(2 * cost[0] + 0.5 * cost[1], rel=1e-6)
  value = preference.loss(chosen_B, rejected_B, label_B)
  assert float(value) == pytest.approx(np.mean(cost), rel=1e-6)


def test_huge_gaps_stay_finite_and_keep_their_slope():
  chosen_B, rejected_B = jnp.array([1e4, -1e4]), jnp.zeros(2)
  value, grad_B = jax.value_and_grad(preference.loss)(chosen_B, rejected_B, 1, jnp.ones(2))
  assert float(value) == 1e4
  np.testing.assert_array_equal(grad_B, [0.0, -1.0])


def test_bfloat16_scores_are_compared_in_float32():
  score_B = jnp.array([256.0, 1.0], jnp.bfloat16)
  value = preference.loss(score_B[:1], score_B[1:])                # 255 is not a bfloat16 number
  assert value.dtype == jnp.float32
  value, _ = jax.jvp(lambda s: preference.loss(s[1:], s[:1]), (score_B,), (score_B,))
  assert float(value) == 255.0


def test_only_score_differences_count_and_rows_of_weight_zero_do_not():
  rng = np.random.default_rng(0)
  chosen_B, rejected_B, label_B = jnp.array(rng.normal(size=(3, 5)), jnp.float32)
  weight_B = jnp.array([1.0, 0.5, 0.0, 2.0, 1.0])
  value = preference.loss(chosen_B, rejected_B, label_B, weight_B)
  shifted = preference.loss(chosen_B + 7, rejected_B + 7, label_B, weight_B)
  assert float(shifted) == pytest.approx(float(value), rel=1e-5)
  swapped = preference.loss(rejected_B, chosen_B, 1 - label_B, weight_B)
  assert float(swapped) == pytest.approx(float(value), rel=1e-5)
  hidden = preference.loss(chosen_B.at[2].set(jnp.nan), rejected_B, label_B, weight_B)
  assert float(hidden) == float(value)


def test_statistics_by_hand():
  chosen_B, rejected_B = jnp.array([2.0, 0.0, 1.0, 0.0]), jnp.array([0.0, 1.0, 1.0, 3.0])
  label_B, weight_B = jnp.array([1.0, 1.0, 1.0, 0.25]), jnp.array([0.4, 0.3, 0.2, 0.1])
  out = preference.statistics(chosen_B, rejected_B, label_B, weight_B)
  # right 1, wrong 0, tie 1/2, and a verdict for `rejected` that has probability 3/4
  assert float(out['accuracy']) == pytest.approx(0.4 + 0.2 / 2 + 0.1 * 0.75, rel=1e-6)
  # gaps 2, -1, 0, -3 towards the label: factors 1, 1, 1, -1/2
  assert float(out['margin']) == pytest.approx(0.4 * 2 - 0.3 * 1 + 0.1 * 1.5, rel=1e-6)


def toy_batch():
  rng = np.random.default_rng(1)
  tokens = rng.integers(1, 9, size=(2, 3, 4))
  valid = np.array([[[1, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 0]],
                    [[1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]], np.float32)
  return PreferenceBatch(
      chosen_BT=jnp.array(tokens[0]), chosen_valid_BT=jnp.array(valid[0]),
      rejected_BT=jnp.array(tokens[1]), rejected_valid_BT=jnp.array(valid[1]),
      label_B=jnp.array([1.0, 0.8, 0.4]), weight_B=jnp.array([1.0, 2.0, 1.0]),
      lm_weight_BT=jnp.array(valid[0]), group_B=jnp.zeros(3, int),
      index_B=jnp.arange(3)).normalise()


def toy_hidden(params, tokens_NT, valid_NT, at=None):
  x_NT = params * tokens_NT * valid_NT
  hidden_NTD = jnp.stack([x_NT, jnp.cumsum(x_NT, axis=1)], axis=-1)
  return hidden_NTD if at is None else jnp.take_along_axis(hidden_NTD, at[..., None], 1)


def toy_score(params, hidden_NKD):
  return hidden_NKD[..., 1] / 10


def toy_logp(params, hidden_BTD, tokens_BT, valid_BT):
  return -hidden_BTD[..., 0] * tokens_BT


@pytest.mark.parametrize('lm_weight', [0, 0.5])
def test_one_pass_gives_the_two_losses_of_separate_passes(lm_weight):
  batch, scale, passes = toy_batch(), jnp.float32(0.7), []

  def hidden(params, tokens_NT, valid_NT, **at):
    passes.append((tokens_NT.shape, *(x.shape for x in at.values())))
    return toy_hidden(params, tokens_NT, valid_NT, **at)

  token_logp = toy_logp if lm_weight else None      # None: the test fails if it is ever called
  value, aux = preference.make_loss(hidden, toy_score, token_logp, lm_weight)(
      scale, batch, None, {})
  assert passes == [((6, 4),) if lm_weight else ((6, 4), (6, 1))]      # of ends alone where they do

  chosen_B = (0.7 * np.array(batch.chosen_BT) * np.array(batch.chosen_valid_BT)).sum(1) / 10
  rejected_B = (0.7 * np.array(batch.rejected_BT) * np.array(batch.rejected_valid_BT)).sum(1) / 10
  prob_B = 1 / (1 + np.exp(rejected_B - chosen_B))
  label_B = np.array([1.0, 0.8, 0.4])
  cost_B = -label_B * np.log(prob_B) - (1 - label_B) * np.log(1 - prob_B)
  pair = (cost_B * [0.25, 0.5, 0.25]).sum()
  squares_BT = np.array(batch.chosen_BT) ** 2 * np.array(batch.chosen_valid_BT)
  lm = 0.7 * squares_BT.sum() / 8                   # 8 valid tokens in the chosen rows
  assert float(aux['preference_loss']) == pytest.approx(pair, rel=1e-5)
  assert float(value) == pytest.approx(pair + lm_weight * lm, rel=1e-5)
  if lm_weight:
    assert float(aux['lm_loss']) == pytest.approx(lm, rel=1e-5)


def test_losses_and_diagnostics_add_up_over_microbatches():
  batch, loss = toy_batch(), preference.make_loss(toy_hidden, toy_score, toy_logp, 1.0)
  loss = jax.jit(loss)
  whole = loss(jnp.float32(0.7), batch, None, {})
  parts = [loss(jnp.float32(0.7), jax.tree.map(lambda x, i=i: x[i:i + 1], batch), None, {})
           for i in range(3)]
  total = jax.tree.map(lambda *x: sum(x), *parts)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), whole, total)
