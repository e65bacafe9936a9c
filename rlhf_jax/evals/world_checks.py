"""Whether a made world is fit to study RLHF in: each check is one line when it fails."""

from rlhf_jax.evals.preference import excess


def policy(ended_share, reward_NK):
  """The start policy: it ends its answers, is neither hopeless nor good, and can be improved by
  choosing. reward_NK: true rewards of K samples a prompt, 0 an empty answer, 1 the best."""
  mean = float(reward_NK.mean())
  reachable = float((reward_NK.max(1) >= 0.8).mean())
  _require(ended_share >= 0.95, f'the start policy ends {ended_share:.1%} of its answers, 95% wanted')
  _require(0.25 <= mean <= 0.60, f'the mean true reward of the start policy is {mean:.3f}, '
           'wanted between 0.25 and 0.60 of the way from the empty to the best answer')
  _require(reachable >= 0.9, f'the best of {reward_NK.shape[1]} samples reaches 80% of the way on '
           f'{reachable:.1%} of the prompts, 90% wanted')
  return {'ended': float(ended_share), 'mean_true_reward': mean, 'best_of_k_reaches': reachable}


def comparisons(baselines, ceiling, agreement):
  """The comparisons: no shortcut knows the answer, and workers agree as the paper's do."""
  shares = {name: excess(accuracy, ceiling) for name, accuracy in baselines.items()}
  _require(shares['longer'] <= 0.35, f"'longer wins' has excess {shares['longer']:.2f}, 0.35 at most")
  _require(shares['ngram'] <= 0.7, f"the n-gram model has excess {shares['ngram']:.2f}, 0.7 at most")
  _require(0.63 <= agreement <= 0.70, f'two workers agree on {agreement:.1%} of the kept pairs, '
           '63-70% wanted: set config.data.beta')
  return shares


def _require(good, message):
  if not good:
    raise ValueError(f'world check failed: {message}')


def ended(tokens_BKT, mask_BKT, end_id):
  """Share of answers that hold their end token."""
  return float(((tokens_BKT == end_id) & (mask_BKT > 0)).any(-1).mean())
