"""What choosing among n samples gives: score and true reward against n."""
import jax
import numpy as np

from rlhf_jax.algorithms import best_of_n

_expected_max = jax.jit(jax.vmap(best_of_n.expected_max, in_axes=(0, None, 0)), static_argnums=1)


def table(score_NK, reward_NK, sizes):
  """{n: {pm_score, true_reward, stderr}}: means over prompts of the exact expectation over all
  n-subsets of the K candidates; stderr is that of the true reward (of the score where there is
  none) over prompts."""
  rows = {}
  for n in sizes:
    score_N = _expected_max(score_NK, n, score_NK)
    row = {'pm_score': float(np.mean(score_N))}
    error_N = score_N
    if reward_NK is not None:
      error_N = _expected_max(score_NK, n, reward_NK)
      row['true_reward'] = float(np.mean(error_N))
    row['stderr'] = float(np.std(error_N, ddof=1) / np.sqrt(len(error_N)))
    rows[str(n)] = row
  return rows
