"""Elo scores from who beat whom (Bai et al. 2022, eq. B.1).

P(A beats B) = sigmoid(r_A - r_B) with r = Elo ln(10) / 400. A difference of preference-model scores
means the same on the scale of r (eq. 4.2), so one unit of score is 173.7 Elo. NumPy, float64.
Shapes: N players, P prompts, M comparisons.
"""
import numpy as np
from scipy import special

from rlhf_jax.feedback import worker

PER_SCORE = 400 / np.log(10)      # Elo of one unit of preference-model score
PRIOR_SD = 2000.0                 # Elo; 2,000 Elo are odds of 100,000 to 1
MOST_STEPS = 100                  # of Newton's method; 10^12 games, all won, take 47


def win_rate(elo_difference):
  """The chance that the first of two players wins, from his Elo minus the other's."""
  return special.expit(np.asarray(elo_difference, np.float64) / PER_SCORE)


def from_score(score_difference):
  """Elo difference that a difference of preference-model scores predicts."""
  return PER_SCORE * np.asarray(score_difference, np.float64)


def fit(wins_NN, anchor=0):
  """(elo_N, stderr_N) relative to player `anchor`, whose score and error are 0.

  wins[i, j] = times i beat j; fractions are allowed (a tie is half a win for each). The maximum of
  the likelihood of eq. B.1 times a Gaussian prior of sd `PRIOR_SD` on each player's Elo around their
  mean. The prior moves nothing that was measured; it keeps finite a player who won every game, and
  two groups that never met, whose error then says so. Errors are those of the difference to the
  anchor, from the curvature at the maximum; they take the comparisons to be independent.
  """
  wins_NN = _checked(wins_NN, anchor)
  games_NN, precision = wins_NN + wins_NN.T, (PER_SCORE / PRIOR_SD) ** 2
  r_N = np.zeros(len(wins_NN))
  for _ in range(MOST_STEPS):
    p_NN = special.expit(r_N[:, None] - r_N)
    gradient_N = (wins_NN * p_NN.T - wins_NN.T * p_NN).sum(1) - precision * r_N
    weight_NN = games_NN * p_NN * p_NN.T
    curvature_NN = np.diag(weight_NN.sum(1) + precision) - weight_NN
    step_N = np.linalg.solve(curvature_NN, gradient_N)
    size = np.ptp(step_N)
    if size < 1e-9:
      break
    # the third derivative of the log-logistic is at most its second: so damped, it always converges
    r_N = r_N + step_N * np.log1p(size) / size
  covariance_NN = np.linalg.inv(curvature_NN)
  variance_N = np.diag(covariance_NN) + covariance_NN[anchor, anchor] - 2 * covariance_NN[anchor]
  return PER_SCORE * (r_N - r_N[anchor]), PER_SCORE * np.sqrt(np.maximum(variance_N, 0))


def games(score_NP, beta=1.0, rng=None):
  """wins_PNN between N policies on each of P prompts, from a score of the answer of each; summed over
  prompts it is what `fit` takes.

  A prompt is one comparison of each pair. Without `rng` it counts sigmoid(beta * difference) for the
  one and the rest for the other: beta = 1 for a preference model (eq. 4.2). With it a simulated
  worker of sharpness beta chooses, and the comparisons of the weakest level do not count (appendix
  B.5), which makes differences larger than those of the scores.
  """
  score_NP = np.asarray(score_NP, np.float64)
  count, prompts = score_NP.shape
  a_M, b_M = np.triu_indices(count, 1)
  if rng is None:
    a_wins_MP = special.expit(beta * (score_NP[a_M] - score_NP[b_M]))
    b_wins_MP = 1 - a_wins_MP
  else:
    said = worker.judge(score_NP[a_M].ravel(), score_NP[b_M].ravel(), beta, rng)
    prefers_MP, kept_MP = (x.reshape(len(a_M), -1) for x in (said.prefers_a_N, said.kept_N))
    a_wins_MP, b_wins_MP = prefers_MP & kept_MP, ~prefers_MP & kept_MP
  wins_PNN = np.zeros((prompts, count, count))
  wins_PNN[:, a_M, b_M], wins_PNN[:, b_M, a_M] = a_wins_MP.T, b_wins_MP.T
  return wins_PNN


def fit_games(wins_PNN, anchor=0, draws=200):
  """(elo_N, stderr_N) from the `games` on P prompts.

  Errors are those of the choice of prompts, by drawing them again `draws` times: one answer meets
  those of all other policies, and an expected win has less noise than a game, so the errors of `fit`
  would be wrong.
  """
  def fitted(times_P):
    return fit(np.tensordot(times_P, wins_PNN, 1), anchor)[0]
  prompts = len(wins_PNN)
  times_DP = np.random.default_rng(0).multinomial(prompts, np.full(prompts, 1 / prompts), draws)
  return fitted(np.ones(prompts)), np.std([fitted(times_P) for times_P in times_DP], axis=0, ddof=1)


def _checked(wins_NN, anchor):
  wins_NN = np.asarray(wins_NN, np.float64)
  if wins_NN.ndim != 2 or len(wins_NN) != wins_NN.shape[-1] or not len(wins_NN):
    raise ValueError(f'wins has shape {wins_NN.shape}: give one row and one column to each player')
  for bad_NN, what in ((~np.isfinite(wins_NN), 'use finite counts'), (wins_NN < 0, 'use counts >= 0'),
                       ((wins_NN != 0) & np.eye(len(wins_NN), dtype=bool),
                        'nobody plays against himself, so the diagonal is 0')):
    if bad_NN.any():
      i, j = np.argwhere(bad_NN)[0]
      raise ValueError(f'wins[{i}, {j}] is {wins_NN[i, j]}: {what}')
  if not 0 <= anchor < len(wins_NN):
    raise ValueError(f'anchor={anchor} is none of the {len(wins_NN)} players: use 0 to '
                     f'{len(wins_NN) - 1}')
  return wins_NN
