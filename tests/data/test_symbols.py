"""Symbols, orders and pairs: by hand, and by what holds for every permutation."""
import numpy as np
import pytest

from rlhf_jax.data import symbols

ALL_PAIRS = 676 * 675 // 2


def as_sets(pair_N2):
  return {frozenset(pair) for pair in pair_N2.tolist()}


def odd(worth_N):
  """Whether a permutation of 0..N-1 is odd: N minus the number of its cycles."""
  seen, cycles = set(), 0
  for start in range(len(worth_N)):
    cycles += start not in seen
    while start not in seen:
      seen.add(start)
      start = int(worth_N[start])
  return (len(worth_N) - cycles) % 2


def test_a_symbol_is_its_two_letters_four_times_and_the_end_of_context():
  made = symbols.tokens([0, 28, 675])                                        # AA, BC, ZZ
  assert made.tolist() == [[0, 0] * 4 + [26], [1, 2] * 4 + [26], [25, 25] * 4 + [26]]
  assert made.dtype == np.int32 and made.max() < symbols.VOCAB_SIZE
  assert made.shape == (3, symbols.WIDTH)
  assert len(np.unique(symbols.tokens(np.arange(676)), axis=0)) == 676


@pytest.mark.parametrize('count', [0, 1, 10, 41])
def test_each_transposition_exchanges_two_symbols(count):
  """One moves two; each changes the parity of the permutation, so none is lost or of a symbol with
  itself."""
  start_N = symbols.true_worth(0)
  worth_N = symbols.transpose(start_N, count, np.random.default_rng(7))
  assert sorted(worth_N) == list(range(676))
  assert odd(worth_N) == (odd(start_N) + count) % 2
  assert (worth_N != start_N).sum() <= 2 * count and (count != 1 or (worth_N != start_N).sum() == 2)
  assert sorted(start_N) == list(range(676)) and (start_N == symbols.true_worth(0)).all()
  two_N = symbols.transpose(np.arange(2), count, np.random.default_rng(7))        # one way to do it
  assert two_N[0] == count % 2


def test_orders_of_pretraining():
  true_N = symbols.true_worth(3)
  binary_N = symbols.pretraining_worth('binary', 3)
  assert binary_N[true_N.argsort()].tolist() == [0] * 338 + [1] * 338
  assert len(np.unique(symbols.pretraining_worth('none', 3))) == 1
  rng, worth_N, done = np.random.default_rng([3, 1]), true_N, 0
  for order, count in (('T1', 10), ('T2', 40), ('T3', 160), ('T4', 640)):
    worth_N, done = symbols.transpose(worth_N, count - done, rng), count
    np.testing.assert_array_equal(symbols.pretraining_worth(order, 3), worth_N)


def test_pairs_are_ranked_by_worth_and_ties_left_out():
  pair_N2 = np.array([[0, 1], [1, 3], [0, 2], [3, 0]])
  assert symbols.ranked(pair_N2, np.array([5, 1, 5, 9])).tolist() == [[0, 1], [3, 1], [3, 0]]


@pytest.mark.parametrize('order, rest', [('T4', ALL_PAIRS - 700), ('none', 0)])
def test_every_pair_is_in_one_lesson(order, rest):
  made = symbols.lessons(order, 1, finetune=500, test=200)
  assert {name: len(pairs) for name, pairs in made.items()} == {
    'pretrain': rest, 'finetune': 500, 'test': 200}
  together = as_sets(np.concatenate(list(made.values())))
  assert len(together) == rest + 700 and all(len(pair) == 2 for pair in together)


def test_the_lessons_of_an_order_are_ranked_as_they_should_be():
  true_N = symbols.true_worth(1)
  none = symbols.lessons('none', 1, 500, 200)
  for order in ('T1', 'T4', 'binary'):
    made, worth_N = symbols.lessons(order, 1, 500, 200), symbols.pretraining_worth(order, 1)
    for name, by_N in (('pretrain', worth_N), ('finetune', true_N), ('test', true_N)):
      assert (by_N[made[name][:, 0]] > by_N[made[name][:, 1]]).all()
    for name in ('finetune', 'test'):                       # orders are compared on the same pairs
      np.testing.assert_array_equal(made[name], none[name])
  assert len(made['pretrain']) < 338 ** 2                                              # of binary


def test_seeds_differ_in_order_scrambling_and_pairs():
  assert (symbols.true_worth(0) == symbols.true_worth(1)).mean() < 0.05
  moved = [symbols.pretraining_worth('T1', seed) != symbols.true_worth(seed) for seed in (0, 1)]
  assert (moved[0] != moved[1]).any()
  asked = [as_sets(symbols.lessons('none', seed, 500, 200)['test']) for seed in (0, 1)]
  assert len(asked[0] & asked[1]) < 5


def test_more_pairs_than_there_are():
  with pytest.raises(ValueError, match='are more than the 228150 pairs of 676 symbols'):
    symbols.lessons('T1', 0, 200_000, 30_000)
