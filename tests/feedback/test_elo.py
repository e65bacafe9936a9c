"""Elo scores: the published table, planted scores, two independent fits, what may change nothing."""
import numpy as np
import pytest
from scipy import optimize, special
from sklearn.linear_model import LogisticRegression

from rlhf_jax.feedback import elo, worker

# Askell et al. 2021, Table 2: how often the row beats the column, models of 200M to 52B parameters
TABLE = {(0, 1): .34, (0, 2): .30, (0, 3): .13, (0, 4): .16, (1, 2): .40, (1, 3): .26, (1, 4): .25,
         (2, 3): .34, (2, 4): .34, (3, 4): .45}


def table(games=100):
  wins = np.zeros((5, 5))
  for (i, j), rate in TABLE.items():
    wins[i, j], wins[j, i] = games * rate, games * (1 - rate)
  return wins


def played(elo_N, games, seed=0):
  """Wins of players of known scores, `games` for each pair."""
  rng, n = np.random.default_rng(seed), len(elo_N)
  wins = np.zeros((n, n))
  for i, j in zip(*np.triu_indices(n, 1), strict=True):
    wins[i, j] = rng.binomial(games, 1 / (1 + 10 ** ((elo_N[j] - elo_N[i]) / 400)))
    wins[j, i] = games - wins[i, j]
  return wins


def unequal(n=6, seed=3):
  wins = np.random.default_rng(seed).integers(0, 40, (n, n)).astype(float)
  return wins * (1 - np.eye(n))


def test_the_published_table():
  made, _ = elo.fit(table())
  np.testing.assert_allclose(made, [0, 102, 177, 277, 297], atol=15)


def test_two_players_by_hand():
  """30 of 40 games: odds 3, so 400 log10(3); variance 1 / (40 * 3/4 * 1/4) on the scale of r."""
  made, error = elo.fit([[0, 30], [10, 0]])
  np.testing.assert_allclose(made, [0, -400 * np.log10(3)], rtol=5e-3)           # the prior is weak
  np.testing.assert_allclose(error, [0, 400 / np.log(10) / np.sqrt(7.5)], rtol=5e-3)


def test_planted_scores_are_found_within_their_errors():
  planted = np.array([0, 50., -120, 260, 90])
  z = []
  for seed in range(40):
    made, error = elo.fit(played(planted, 200, seed))
    z.append((made - planted)[1:] / error[1:])
  assert 0.85 < np.std(z) < 1.15 and abs(np.mean(z)) < 0.25


def test_equals_brute_force_and_logistic_regression():
  wins = unequal()
  n, sd = len(wins), elo.PRIOR_SD * np.log(10) / 400

  def loss(r):
    likelihood = sum(wins[i, j] * np.log(special.expit(r[i] - r[j])) for i in range(n)
                     for j in range(n))
    return (r ** 2).sum() / (2 * sd ** 2) - likelihood
  found = optimize.minimize(loss, np.zeros(n), method='BFGS', options={'gtol': 1e-7}).x
  pairs = np.array([np.eye(n)[i] - np.eye(n)[j] for i in range(n) for j in range(n)])
  x, y = np.concatenate([pairs, -pairs]), np.repeat([1, 0], n * n)
  regression = LogisticRegression(C=sd ** 2, fit_intercept=False, tol=1e-10, max_iter=10_000)
  regression.fit(x, y, sample_weight=np.tile(wins.ravel(), 2) / 2)
  made, error = elo.fit(wins, anchor=2)
  for r in (found, regression.coef_[0]):
    np.testing.assert_allclose(made, (r - r[2]) * 400 / np.log(10), atol=0.02)
  step = 1e-3                                             # the curvature by differences
  e = np.eye(n) * step
  hessian = np.array([[loss(found + a + b) - loss(found + a - b) - loss(found - a + b)
                       + loss(found - a - b) for a in e] for b in e]) / (4 * step ** 2)
  contrast = np.eye(n) - np.eye(n)[2]
  expected = np.sqrt(np.diag(contrast @ np.linalg.inv(hessian) @ contrast.T)) * 400 / np.log(10)
  np.testing.assert_allclose(error, expected, rtol=1e-4, atol=1e-9)
  assert error[2] == 0


def test_the_order_of_players_and_the_anchor_change_nothing_else():
  wins, order = unequal(), np.array([4, 0, 5, 2, 1, 3])
  made, error = elo.fit(wins, anchor=4)
  again, its_error = elo.fit(wins[np.ix_(order, order)], anchor=0)
  np.testing.assert_allclose(again, made[order], atol=1e-6)
  np.testing.assert_allclose(its_error, error[order], atol=1e-6)
  other, _ = elo.fit(wins, anchor=1)
  np.testing.assert_allclose(other, made - made[1], atol=1e-6)
  np.testing.assert_allclose(elo.fit(wins.T, anchor=4)[0], -made, atol=1e-6)


def test_twice_the_games_are_the_same_scores_with_errors_smaller_by_the_root_of_two():
  (made, error), (again, smaller) = elo.fit(table(100)), elo.fit(table(200))
  np.testing.assert_allclose(again, made, atol=0.2)
  np.testing.assert_allclose(error[1:] / smaller[1:], np.sqrt(2), rtol=1e-3)


@pytest.mark.parametrize('games', [1, 100, 1e6, 1e12])
def test_who_won_every_game_is_far_ahead_and_finite(games):
  made, error = elo.fit([[0, games], [0, 0]], anchor=1)
  r, sd = made[0] * np.log(10) / 400, elo.PRIOR_SD * np.log(10) / 400
  # at the maximum the slopes of likelihood and prior cancel: half of the difference for each player
  np.testing.assert_allclose(games * special.expit(-r), r / (2 * sd ** 2), rtol=1e-6)
  assert 0 < error[0] < np.sqrt(2) * elo.PRIOR_SD


def test_a_table_that_plain_newton_leaves_is_fitted():
  """Counts from 1 to 13,241, all won by one side: steps as long as Newton's never settle."""
  wins = np.array([[0, 477.5, 0, 13_241.7], [0.2, 0, 0, 0], [0, 0.7, 0, 0], [0, 0, 8210.1, 0]])
  made, _ = elo.fit(wins)
  r = (made - made.mean()) * np.log(10) / 400
  p = special.expit(r[:, None] - r)
  slope = (wins * p.T - wins.T * p).sum(1)                      # that of the likelihood
  np.testing.assert_allclose(slope, r * (400 / np.log(10) / elo.PRIOR_SD) ** 2, rtol=1e-6)


def test_groups_that_never_met_have_the_error_of_the_prior():
  wins = np.zeros((4, 4))
  wins[0, 1] = wins[1, 0] = wins[2, 3] = wins[3, 2] = 1e6
  made, error = elo.fit(wins)
  np.testing.assert_allclose(made, 0, atol=1e-6)
  np.testing.assert_allclose(error[2:], elo.PRIOR_SD, rtol=1e-3)       # of two groups of two players
  np.testing.assert_allclose(elo.fit(np.zeros((2, 2)))[1], [0, np.sqrt(2) * elo.PRIOR_SD])
  assert elo.fit([[0]]) == (0, 0)


@pytest.mark.parametrize('wins, anchor, says', [
  (np.zeros((2, 3)), 0, 'one row and one column'), (np.zeros(3), 0, 'one row and one column'),
  (np.zeros((0, 0)), 0, 'one row and one column'), ([[0, -1], [1, 0]], 0, r'wins\[0, 1\] is -1.0'),
  ([[0, 1], [np.nan, 0]], 0, r'wins\[1, 0\] is nan: use finite'), ([[0, np.inf], [1, 0]], 0, 'finite'),
  ([[0, 1], [1, 2]], 0, r'wins\[1, 1\] is 2.0: nobody plays'),
  ([[0, 1], [1, 0]], 2, 'anchor=2 is none of the 2 players: use 0 to 1'),
  ([[0, 1], [1, 0]], -1, 'anchor=-1')])
def test_bad_input_is_one_line(wins, anchor, says):
  with pytest.raises(ValueError, match=says) as error:
    elo.fit(wins, anchor)
  assert '\n' not in str(error.value)


def test_conversions_by_hand():
  np.testing.assert_allclose(elo.win_rate([0, 100, -400]), [0.5, 0.6401, 1 / 11], atol=1e-4)
  np.testing.assert_allclose(elo.from_score([1, -2]), [173.7, -347.4], atol=0.05)
  np.testing.assert_allclose(elo.win_rate(elo.from_score(0.7)), special.expit(0.7))


def test_expected_wins_by_hand():
  """Two prompts, three players: differences 0 and ln 3 between the first two, ln 3 and 0, ..."""
  score = np.log([[1., 3], [1, 1], [3, 1]])
  np.testing.assert_allclose(elo.games(score).sum(0), [[0, 1.25, 1], [0.75, 0, 0.75], [1, 1.25, 0]])
  np.testing.assert_allclose(elo.games(score, beta=2).sum(0)[0, 1], 0.5 + 0.9)
  # equal differences of scores on every prompt are what Elo assumes
  score = np.array([[0.], [1], [-0.5]]) + np.random.default_rng(0).normal(size=50)
  np.testing.assert_allclose(elo.fit(elo.games(score).sum(0))[0], elo.from_score([0, 1, -0.5]), atol=1)


def test_a_worker_counts_what_he_kept():
  reward = np.random.default_rng(1).normal(size=(3, 400)) + np.array([[0], [1.], [1]])
  wins = elo.games(reward, 2.0, np.random.default_rng(5)).sum(0)
  a, b = np.concatenate([reward[[0, 0, 1]]]), np.concatenate([reward[[1, 2, 2]]])
  said = worker.judge(a.ravel(), b.ravel(), 2.0, np.random.default_rng(5))
  first = said.prefers_a_N.reshape(3, 400), said.kept_N.reshape(3, 400)
  assert wins[0, 1] == (first[0] & first[1])[0].sum() and wins[2, 1] == (~first[0] & first[1])[2].sum()
  assert wins.sum() == said.kept_N.sum() == 900 and not np.diag(wins).any()
  sharp = elo.games(reward, 1e9, np.random.default_rng(0)).sum(0)
  gap = (reward[0] - reward[1])[np.abs(reward[0] - reward[1]) > np.quantile(
    np.abs(np.concatenate([a - b])), worker.WEAKEST_SHARE)]
  assert sharp[0, 1] == (gap > 0).sum() and sharp[1, 0] == (gap < 0).sum()


def test_errors_of_games_are_those_of_another_draw_of_prompts():
  """Three policies, 300 prompts, many studies: the spread of the fits is what one study says of itself.
  Prompts differ in what they do to all answers, which drops out; answers meet two others each."""
  def study(seed):
    rng = np.random.default_rng(seed)
    score_NP = np.array([0, 0.6, 1.0])[:, None] + rng.normal(size=(3, 300)) + 3 * rng.normal(size=300)
    rng = np.random.default_rng([seed, 1])
    return elo.fit_games(elo.games(score_NP)), elo.fit_games(elo.games(score_NP, rng=rng))
  studies = [study(seed) for seed in range(60)]
  for judge in range(2):
    elo_SN, error_SN = (np.array([s[judge][i] for s in studies]) for i in range(2))
    # a standard deviation of 60 studies is known to a tenth
    np.testing.assert_allclose(error_SN[:, 1:].mean(0), elo_SN[:, 1:].std(0, ddof=1), rtol=0.3)
    assert not error_SN[:, 0].any()
  score_NP = np.random.default_rng(0).normal(size=(3, 50))
  wins_PNN = elo.games(score_NP)
  np.testing.assert_allclose(elo.fit_games(wins_PNN, 1)[0], elo.fit(wins_PNN.sum(0), 1)[0])
