"""A simulated crowdworker: noisy judgements of pairs whose true reward is known.

P(A is preferred) = sigmoid(beta * (reward A - reward B)). The strength of a judgement is the size of
the noisy difference in four levels; as in Bai et al. section 2.2, comparisons of the weakest level
are dropped and the rest count alike.
"""
from typing import NamedTuple

import numpy as np

WEAKEST_SHARE = 0.25      # the weakest of four levels, taken as a quarter of the judgements


class Judgements(NamedTuple):
  """prefers_a_N: bool; strength_N: 1 (weakest) to 4; kept_N: strength above the weakest."""
  prefers_a_N: np.ndarray
  strength_N: np.ndarray
  kept_N: np.ndarray


def judge(reward_a_N, reward_b_N, beta, rng):
  """Judgements of N pairs; beta in 1 / reward. The logistic noise makes P(A) = sigmoid(beta d)."""
  noisy_N = reward_a_N - reward_b_N + rng.logistic(size=len(reward_a_N)) / beta
  edges = np.quantile(np.abs(noisy_N), WEAKEST_SHARE * np.arange(1, 4))
  strength_N = 1 + np.searchsorted(edges, np.abs(noisy_N), side='left')
  return Judgements(noisy_N > 0, strength_N, strength_N > 1)


def agreement(reward_a_N, reward_b_N, judgements, beta, rng):
  """Share of the kept pairs on which a second, independent worker says the same."""
  second = judge(reward_a_N, reward_b_N, beta, rng)
  return float(np.mean((second.prefers_a_N == judgements.prefers_a_N)[judgements.kept_N]))


def ceiling(reward_chosen_N, reward_rejected_N):
  """The noise ceiling: share of pairs whose label agrees with the sign of the true difference;
  equal true rewards count one half."""
  return float(np.mean(0.5 + 0.5 * np.sign(reward_chosen_N - reward_rejected_N)))
