"""Symbols in a secret order: how fast is a true ranking learnt after a wrong one? NumPy only.

Askell et al. 2021, appendix C.6: the 676 symbols AA to ZZ in random order, each shown four times as
the context. Pretraining sees that order after random transpositions (T1 to T4), or only which half a
symbol is in (binary); fine-tuning sees the order itself. A symbol is two tokens, one a letter, so
that a network has to join them; nothing about the rank of a symbol can be told from its letters.
"""
import numpy as np

LETTERS, REPEATS = 26, 4
SYMBOLS = LETTERS ** 2
EOC_ID = LETTERS                                     # the score is read here
VOCAB_SIZE = LETTERS + 1                             # no padding: all contexts have one length
WIDTH = 2 * REPEATS + 1
TRANSPOSITIONS = {'T1': 10, 'T2': 40, 'T3': 160, 'T4': 640}
ORDERS = (*TRANSPOSITIONS, 'binary', 'none')


def tokens(symbol_N):
  """tokens_NT of symbols 0 (AA) to 675 (ZZ): ABABABAB and the end-of-context token."""
  symbol_N = np.asarray(symbol_N)
  letters_N2 = np.stack(np.divmod(symbol_N, LETTERS), axis=1)
  return np.pad(np.tile(letters_N2, REPEATS), ((0, 0), (0, 1)),
                constant_values=EOC_ID).astype(np.int32)


def true_worth(seed):
  """worth_N of each symbol in the true order, 0 (worst) to 675."""
  return np.random.default_rng([seed, 0]).permutation(SYMBOLS)


def pretraining_worth(order, seed):
  """worth_N of each symbol as pretraining has it: the true order with that many transpositions; 1
  in its top half and 0 below ('binary'); all the same ('none').

  The transpositions of T1 are the first of T2 and so on, so that orders differ by nothing else.
  """
  worth_N = true_worth(seed)
  if order in TRANSPOSITIONS:
    return transpose(worth_N, TRANSPOSITIONS[order], np.random.default_rng([seed, 1]))
  return {'binary': (worth_N >= SYMBOLS // 2).astype(int), 'none': np.zeros_like(worth_N)}[order]


def transpose(worth_N, count, rng):
  """worth_N after `count` exchanges between two different symbols, drawn one after another."""
  worth_N = worth_N.copy()
  for _ in range(count):
    pair = rng.choice(len(worth_N), 2, replace=False)
    worth_N[pair] = worth_N[pair[::-1]]
  return worth_N


def ranked(pair_N2, worth_N):
  """The pairs (better, worse) by `worth_N`; pairs of equal worth are left out."""
  first_N, second_N = worth_N[pair_N2].T
  pair_N2 = np.where((first_N > second_N)[:, None], pair_N2, pair_N2[:, ::-1])
  return pair_N2[first_N != second_N]


def lessons(order, seed, finetune, test):
  """{'pretrain', 'finetune', 'test'}: pairs_N2 of symbols, the better one first, in random order.

  No pair is in two of them. `finetune` and `test` pairs are ranked by the true order, all others by
  that of pretraining.
  """
  pair_N2 = np.random.default_rng([seed, 2]).permutation(
    np.stack(np.triu_indices(SYMBOLS, 1), axis=1))
  if test + finetune > len(pair_N2):
    raise ValueError(f'{finetune} pairs for fine-tuning and {test} for the test are more than the '
                     f'{len(pair_N2)} pairs of {SYMBOLS} symbols: ask for fewer')
  asked, shown, others = np.split(pair_N2, [test, test + finetune])
  return {'pretrain': ranked(others, pretraining_worth(order, seed)),
          'finetune': ranked(shown, true_worth(seed)), 'test': ranked(asked, true_worth(seed))}
