"""Halves of the comparisons."""
import numpy as np

from rlhf_jax.run import comparisons
from rlhf_jax.run.worlds import Comparisons


def made(prompts):
  n = len(prompts)
  return Comparisons(prompts, [[i] for i in range(n)], [[-i] for i in range(n)],
                     [str(i) for i in range(n)], [''] * n, np.arange(n), np.arange(n) * 2.0, None)


def test_halves_are_disjoint_whole_and_share_no_prompt():
  rng = np.random.default_rng(0)
  prompts = [rng.integers(0, 50, rng.integers(1, 4)) for _ in range(400)]        # many are equal
  data = made(prompts)
  a, b = (comparisons.half(data, name) for name in 'ab')
  assert sorted([*a.group_N, *b.group_N]) == list(range(400))
  assert not {tuple(p) for p in a.prompt} & {tuple(p) for p in b.prompt}
  assert 120 < len(a.prompt) < 280
  for part in (a, b):                                                   # rows stay together
    assert [c[0] for c in part.chosen] == part.group_N.tolist()
    np.testing.assert_array_equal(part.reward_chosen_N, 2.0 * part.group_N)
  assert part.reward_rejected_N is None


def test_a_half_depends_on_the_prompt_alone():
  few, many = made([[5, 6], [7]]), made([[1], [7], [2, 2], [5, 6], [9]])
  for name in 'ab':
    there = {tuple(p) for p in comparisons.half(many, name).prompt}
    assert {tuple(p) for p in comparisons.half(few, name).prompt} == there & {(5, 6), (7,)}
