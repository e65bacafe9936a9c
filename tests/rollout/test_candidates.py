"""Rejection sampling on candidates typed in by hand."""
import jax.numpy as jnp
import numpy as np

from rlhf_jax.rollout import candidates


def test_the_best_of_every_n_is_kept_in_order():
  score_BK = jnp.array([[1.0, 3.0, 2.0, 9.0, 8.0, 7.0], [0.0, -1.0, 5.0, 4.0, 4.0, 6.0]])
  tokens_BKT = jnp.arange(24).reshape(2, 6, 2)
  made = candidates.best_of(candidates.Candidates(tokens_BKT, 100 + tokens_BKT, score_BK), 3)
  np.testing.assert_array_equal(made.score_BK, [[3, 9], [5, 6]])
  np.testing.assert_array_equal(made.tokens_BKT, [[[2, 3], [6, 7]], [[16, 17], [22, 23]]])
  np.testing.assert_array_equal(made.mask_BKT, 100 + np.asarray(made.tokens_BKT))
  same = candidates.best_of(made, 1)
  np.testing.assert_array_equal(same.tokens_BKT, made.tokens_BKT)
