"""What makes a made world fit, each check seen to pass and to fail."""

import numpy as np
import pytest

from rlhf_jax.evals import world_checks

# Ten prompts, two samples each: the mean is 0.45, the better sample is at 0.85.
REWARD_NK = np.tile([0.05, 0.85], (10, 1))


def test_a_fit_start_policy():
  got = world_checks.policy(0.99, REWARD_NK)
  assert got == pytest.approx({'ended': 0.99, 'mean_true_reward': 0.45, 'best_of_k_reaches': 1})


@pytest.mark.parametrize('ended, reward, message', [
  (0.90, REWARD_NK, 'the start policy ends 90.0% of its answers, 95% wanted'),
  (0.99, REWARD_NK - 0.3, 'the mean true reward of the start policy is 0.150'),
  (0.99, REWARD_NK + 0.3, 'the mean true reward of the start policy is 0.750'),
  (0.99, np.tile([0.4, 0.5], (10, 1)), 'the best of 2 samples reaches 80% of the way on 0.0%'),
  # the better of two is at 80% on eight prompts of ten; the mean over all samples says nothing
  (0.99, np.concatenate([REWARD_NK[:8], np.full((2, 2), 0.4)]), 'on 80.0% of the prompts'),
])
def test_an_unfit_start_policy(ended, reward, message):
  with pytest.raises(ValueError, match=f'world check failed: .*{message}'):
    world_checks.policy(ended, reward)


def test_fit_comparisons():
  # ceiling 0.9: 0.6 is a quarter of what can be known, 0.7 a half
  got = world_checks.comparisons({'longer': 0.6, 'longer_signed': 0.62, 'ngram': 0.7}, 0.9, 0.66)
  assert got == pytest.approx({'longer': 0.25, 'longer_signed': 0.3, 'ngram': 0.5})


@pytest.mark.parametrize('longer, ngram, agreement, message', [
  (0.7, 0.7, 0.66, "'longer wins' has excess 0.50"),
  (0.6, 0.86, 0.66, 'the n-gram model has excess 0.90'),
  (0.6, 0.7, 0.55, 'two workers agree on 55.0% of the kept pairs.* set config.data.beta'),
  (0.6, 0.7, 0.85, 'two workers agree on 85.0%'),
])
def test_unfit_comparisons(longer, ngram, agreement, message):
  with pytest.raises(ValueError, match=message):
    world_checks.comparisons({'longer': longer, 'ngram': ngram}, 0.9, agreement)


def test_ended_counts_answers_with_an_end_token_inside_the_mask():
  tokens = np.array([[[5, 9, 0], [5, 5, 5]], [[9, 9, 9], [5, 5, 9]]])       # 9 is the end token
  mask = np.array([[[1, 1, 0], [1, 1, 1]], [[1, 0, 0], [1, 1, 0]]])
  assert world_checks.ended(tokens, mask, 9) == 0.5
