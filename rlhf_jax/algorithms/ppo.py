"""PPO for language models: an answer is an episode, a token is an action.

Bai et al. 2022, section 4.1: score minus a KL penalty, clip 0.2, discount 1, no entropy bonus. The
paper is silent on its value function: separate parameters, value clipping and whitened advantages
follow Stiennon et al. 2020. The KL penalty is paid token by token, the score on the last one.
Steps: `paid_score` and `experience` once per rollout, then `make_loss` on minibatches of it.
"""
import jax
import jax.numpy as jnp

from rlhf_jax.algorithms import kl, language_model
from rlhf_jax.algorithms.gae import gae
from rlhf_jax.core import masked
from rlhf_jax.core.types import Experience


def token_rewards(score_B, logp_BT, ref_logp_BT, mask_BT, kl_coef):
  """KL-shaped rewards: the score on the last masked token, -kl_coef * k1 on every masked one.

  Bai et al. 2022, eq. 4.1: r_total = r_PM - lambda_KL * KL. kl_coef: scalar or [B]. A row with an
  empty mask gets no reward at all, not even its score.
  """
  penalty_BT = masked.select(kl.k1(logp_BT, ref_logp_BT), mask_BT)
  score_BT = masked.select(jnp.asarray(score_B)[:, None], _last(mask_BT))
  return score_BT - jnp.reshape(jnp.asarray(kl_coef, jnp.float32), (-1, 1)) * penalty_BT


def _last(mask_BT):
  """1 on the last masked token of each row, 0 elsewhere; all 0 in a row with an empty mask."""
  on_BT = jnp.asarray(mask_BT) > 0
  following_BT = jnp.cumsum(on_BT[:, ::-1], axis=1)[:, ::-1]                # counts token t itself
  return on_BT & (following_BT == 1)


def score_moments(extra, rollout, running):
  """The scores of `extra`'s memory and of this rollout taken together: {'score_count', 'score_mean',
  'score_variance'}, rows counting by weight (merged as in Chan et al. 1979).

  running False: of the first rollout alone, which is the start policy's.
  """
  weight_B, score_B = rollout.weight_B, rollout.score_B
  old, mean, variance = (extra[f'score_{name}'] for name in ('count', 'mean', 'variance'))
  new = jnp.where(running | (old == 0), weight_B.sum(), 0.0)
  share = new / jnp.where(old + new > 0, old + new, 1.0)
  step = masked.mean(score_B, weight_B) - mean
  spread = masked.variance(score_B, weight_B) - variance
  return {'score_count': old + new, 'score_mean': mean + share * step,
          'score_variance': variance + share * spread + share * (1 - share) * step ** 2}


def paid_score(rollout, end_id, moments=None, no_end_score=None, no_end_penalty=0.0):
  """score_B as PPO pays it, from the raw one.

  moments: as of `score_moments`, which brings it to mean 0 and variance 1. Then, for answers without
  the end token, `no_end_score` in its place (Ziegler et al. 2019; None: their own) less
  `no_end_penalty`.
  """
  score_B, ended_B = rollout.score_B, ended(rollout, end_id)
  if moments is not None:
    score_B = (score_B - moments['score_mean']) / jnp.sqrt(moments['score_variance'] + 1e-8)
  cut_B = (score_B if no_end_score is None else no_end_score) - no_end_penalty
  return jnp.where(ended_B, score_B, cut_B)


def ended(rollout, end_id):
  """Whether the last token of each answer is the end token."""
  return (_last(rollout.mask_BT) & (rollout.tokens_BT == end_id)).any(axis=1)


def experience(rollout, discount, lam, whiten, score_B=None, whiten_rewards=False):
  """The Experience of a rollout: rewards, advantages and returns, out of reach of any gradient.

  score_B: what is paid, the rollout's own by default. Whitening is over all weighted tokens of the
  rollout, once, before it is cut into minibatches. By default only the advantages are whitened:
  rewards and returns keep the scale of the score; whitened rewards keep their mean.
  """
  weight_BT = rollout.mask_BT * rollout.weight_B[:, None]
  reward_BT = token_rewards(rollout.score_B if score_B is None else score_B, rollout.logp_BT,
                            rollout.ref_logp_BT, rollout.mask_BT, rollout.kl_coef_B)
  if whiten_rewards:
    reward_BT = masked.whiten(reward_BT, weight_BT, shift_mean=False)
  advantage_BT, return_BT = gae(reward_BT, rollout.value_BT, rollout.mask_BT, discount, lam)
  if whiten:
    advantage_BT = masked.whiten(advantage_BT, weight_BT)
  return jax.lax.stop_gradient(Experience(rollout, advantage_BT, return_BT, weight_BT))


def policy_loss(logp_BT, old_logp_BT, advantage_BT, weight_BT, clip):
  """sum(weight * clipped surrogate): Schulman et al. 2017, eq. 7, as a loss."""
  ratio_BT = jnp.exp(_log_ratio(logp_BT, old_logp_BT, weight_BT))
  advantage_BT = masked.select(advantage_BT, weight_BT)
  clipped_BT = jnp.clip(ratio_BT, 1 - clip, 1 + clip)
  return -(weight_BT * jnp.minimum(ratio_BT * advantage_BT, clipped_BT * advantage_BT)).sum()


def _log_ratio(logp_BT, old_logp_BT, weight_BT):
  return masked.select(logp_BT, weight_BT) - masked.select(old_logp_BT, weight_BT)


def value_loss(value_BT, old_value_BT, return_BT, weight_BT, clip):
  """sum(weight * half the squared error), the worse of the value and of the value clipped around
  the old one (Ziegler et al. 2019); clip None: plain squared error."""
  value_BT = masked.select(value_BT, weight_BT)
  return_BT = masked.select(return_BT, weight_BT)
  error_BT = (value_BT - return_BT) ** 2
  if clip is not None:
    old_BT = masked.select(old_value_BT, weight_BT)
    clipped_BT = jnp.clip(value_BT, old_BT - clip, old_BT + clip)
    error_BT = jnp.maximum(error_BT, (clipped_BT - return_BT) ** 2)
  return 0.5 * (weight_BT * error_BT).sum()


def make_loss(read, clip, value_clip, value_coef, entropy_coef):
  """The Loss of an Experience: policy + value_coef * value - entropy_coef * entropy.

  read: (params, tokens_BT, valid_BT) -> (logp_BT, value_BT), the function that gave the rollout's,
  so that the first ratio is 1, to rounding where texts are packed.
  The paper has no entropy bonus: with entropy_coef 0 it is not computed.
  """

  def ppo_loss(params, batch, key, frozen):
    rollout, weight_BT = batch.rollout, batch.weight_BT
    logp_BT, value_BT = read(params, rollout.tokens_BT, rollout.valid_BT)
    aux = ratio_statistics(logp_BT, rollout.logp_BT, weight_BT, clip)
    aux['policy_loss'] = policy_loss(logp_BT, rollout.logp_BT, batch.advantage_BT, weight_BT, clip)
    aux['value_loss'] = value_loss(value_BT, rollout.value_BT, batch.return_BT, weight_BT,
                                   value_clip)
    total = aux['policy_loss'] + value_coef * aux['value_loss']
    if entropy_coef:
      aux['entropy_estimate'] = entropy_estimate(logp_BT, rollout.logp_BT, weight_BT)
      total = total - entropy_coef * aux['entropy_estimate']
    return total, aux

  return ppo_loss


def with_pretraining(loss, token_logp, coef):
  """`loss` plus coef * the mean loss per token of the policy on `batch.text`, documents of its
  pretraining (Ouyang et al. 2022, PPO-ptx; not in Bai et al. 2022).

  token_logp: (params['policy'], tokens_BT, valid_BT, segment_BT) -> logp_BT at temperature 1.
  """
  text_loss = language_model.make_loss(token_logp)

  def mixed(params, batch, key, frozen):
    total, aux = loss(params, batch, key, frozen)
    text, _ = text_loss(params['policy'], batch.text, key, frozen)
    return total + coef * text, aux | {'pretrain_loss': text}
  return mixed


def entropy_estimate(logp_BT, old_logp_BT, weight_BT):
  """sum(weight * entropy per token), estimated on the old policy's samples.

  The importance ratio makes the gradient right: the mean of -logp alone has the right value and a
  gradient of mean zero.
  """
  logp_BT = masked.select(logp_BT, weight_BT)
  ratio_BT = jnp.exp(_log_ratio(logp_BT, old_logp_BT, weight_BT))
  return -(weight_BT * ratio_BT * logp_BT).sum()


def ratio_statistics(logp_BT, old_logp_BT, weight_BT, clip):
  """Weighted sums of the ratio, of tokens outside the clip range, and of k3 of KL(old || new); the
  largest and the smallest ratio, where tokens of weight 0 count as 1."""
  log_ratio_BT = _log_ratio(logp_BT, old_logp_BT, weight_BT)
  ratio_BT = jnp.exp(log_ratio_BT)
  return {'ratio': (weight_BT * ratio_BT).sum(),
          'ratio_max': ratio_BT.max(), 'ratio_min': ratio_BT.min(),
          'clip_fraction': (weight_BT * (jnp.abs(ratio_BT - 1) > clip)).sum(),
          'approx_kl': (weight_BT * kl.k3(0.0, log_ratio_BT)).sum()}


def whole_update(approx_kl, parts):
  """What an update of so many equal parts moves, nats per token, from the mean of its `approx_kl`.

  Each part is measured before its own step, so the first shows 0 and the last step nothing. Where
  each moves as far as the others, d, in one direction, the mean is d^2 (P - 1)(2 P - 1) / 12 and the
  whole d^2 P^2 / 2: 8 times as much for two parts. One part shows nothing, hence nan.
  """
  seen = (parts - 1) * (2 * parts - 1)
  return approx_kl * 6 * parts ** 2 / seen if seen else float('nan')


def kl_controller(horizon):
  """after(state, batch, metrics) -> extra, for `core.step.passes`: keeps the KL to a budget.

  Where extra['kl_target'] is above 0, extra['kl_coef'] follows Ziegler et al. 2019 by the k1 of the
  rollout, nats per sequence, and does not fall below extra['kl_least']; horizon: in samples. Where it
  is 0 the coefficient stays, as in Bai et al. 2022. Where extra['kl_stop'] is above 0 and k1 has
  reached it, the learning rate is 0 from now on: the policy stays as it is to the end of the run.
  """
  def after(state, batch, metrics):
    rollout, extra = batch.rollout, state.extra
    observed = masked.mean(_sequence_k1(rollout), rollout.weight_B)
    target = jnp.where(extra['kl_target'] > 0, extra['kl_target'], 1.0)
    coef = kl.adaptive_coefficient(extra['kl_coef'], observed, target, horizon,
                                   rollout.weight_B.shape[0])
    coef = jnp.maximum(coef, extra['kl_least'])
    reached = (extra['kl_stop'] > 0) & (observed >= extra['kl_stop'])
    return extra | {'kl_coef': jnp.where(extra['kl_target'] > 0, coef, extra['kl_coef']),
                    'learning_rate': jnp.where(reached, 0.0, extra['learning_rate'])}
  return after


def memory(kl_coef, kl_target=0.0, kl_least=0.0, kl_stop=0.0):
  """What PPO remembers in state.extra, as it starts."""
  return {'kl_coef': kl_coef, 'kl_target': kl_target, 'kl_least': kl_least, 'kl_stop': kl_stop,
          'score_count': 0.0, 'score_mean': 0.0, 'score_variance': 0.0}


def after(horizon, running):
  """after(state, batch, metrics) -> extra: `kl_controller` and `score_moments`."""
  control = kl_controller(horizon)
  return lambda state, batch, metrics: control(state, batch, metrics) | score_moments(
    state.extra, batch.rollout, running)


def _sequence_k1(rollout):
  return kl.sequence(kl.k1(rollout.logp_BT, rollout.ref_logp_BT), rollout.mask_BT)


def explained_variance(value_BT, return_BT, mask_BT):
  """Share of the variance of the returns that the values explain: 1 is perfect, 0 is a constant.

  A statistic of the whole batch: it does not add up over microbatches. 0 when returns do not vary.
  """
  error_BT = masked.select(return_BT, mask_BT) - masked.select(value_BT, mask_BT)
  total = masked.variance(return_BT, mask_BT)
  unexplained = masked.variance(error_BT, mask_BT)
  return jnp.where(total > 0, 1 - unexplained / jnp.where(total > 0, total, 1.0), 0.0)


def diagnostics(rollout, end_id):
  """The health of a rollout, over its weighted rows.

  Score, KL in nats per sequence (k1 and k3) and its coefficient, entropy in nats per token (mean of
  -logp), length in tokens, shares of truncated answers (no end token) and of empty ones (nothing but
  the end token), and the largest gap between the sampler's log-probs and the recomputed ones.
  """
  mask_BT, weight_B = rollout.mask_BT, rollout.weight_B
  length_B, ended_B = mask_BT.sum(axis=1), ended(rollout, end_id)
  weight_BT = mask_BT * weight_B[:, None]
  gap_BT = jnp.abs(kl.k1(rollout.logp_BT, rollout.sampled_logp_BT))
  row_values = {
      'score': rollout.score_B,
      'k1': _sequence_k1(rollout),
      'k3': kl.sequence(kl.k3(rollout.logp_BT, rollout.ref_logp_BT), mask_BT),
      'kl_coef': rollout.kl_coef_B,
      'response_length': length_B,
      'truncated': ~ended_B,
      'empty': ended_B & (length_B == 1)}
  return {**{name: masked.mean(x_B, weight_B) for name, x_B in row_values.items()},
          'entropy_per_token': masked.mean(-rollout.logp_BT, weight_BT),
          'logp_gap': masked.select(gap_BT, weight_BT).max()}


def tokens(rollout, passes):
  """Valid tokens: of the prompts, of the answers, and read by the update, once a pass."""
  produced = rollout.mask_BT.sum()
  whole = rollout.valid_BT.sum()
  return {'tokens/prompt': whole - produced, 'tokens/produced': produced,
          'tokens/trained': passes * whole}


def reported(update, end_id, passes=1):
  """`update` of Experiences with the health of the rollout, and its tokens, among its metrics."""
  def step(state, batch, frozen):
    state, metrics = update(state, batch, frozen)
    rollout = batch.rollout
    fit = explained_variance(rollout.value_BT, batch.return_BT, batch.weight_BT)
    return state, (metrics | diagnostics(rollout, end_id) | tokens(rollout, passes)
                   | {'explained_variance': fit})
  return step
