"""Tables typed out by hand."""
import numpy as np

from rlhf_jax.analysis import tables


def test_text_table_by_hand():
  rows = [{'policy': 'start', 'reward': 0.5, 'samples': 512},
          {'policy': 'best of 16', 'reward': np.float32(-12.25), 'samples': np.int64(8192)},
          {'policy': 'PPO', 'samples': None, 'kl': 3e-5}]
  assert tables.text_table(rows) == '\n'.join([
    'policy      reward  samples        kl',
    '----------  ------  -------  --------',
    'start         0.50      512         –',
    'best of 16  -12.25    8,192         –',
    'PPO              –        –  3.00e-05'])
  assert tables.text_table(rows[:1], ['samples', 'policy']) == '\n'.join([
    'samples  policy', '-------  ------', '    512  start'])


def test_a_column_with_text_or_truth_values_is_not_numeric():
  assert tables.column_texts([1, 'x']) == (['1', 'x'], False)
  assert tables.column_texts([True, 1]) == (['True', '1'], False)
  assert tables.column_texts([None, None]) == (['–', '–'], False)


def test_decimals_follow_the_largest_of_the_column():
  assert tables.column_texts([0.123456, 9.9]) == (['0.123', '9.900'], True)
  assert tables.column_texts([0.5, 123.456]) == (['0.5', '123.5'], True)
  assert tables.column_texts([1234.5, float('nan')]) == (['1,234', 'nan'], True)
  assert tables.column_texts([0.001, -0.0]) == (['1.00e-03', '-0.00e+00'], True)


def test_key_values_by_hand():
  lines = tables.key_values({'pm': {'accuracy': 0.75, 'n': 4000}, 'note': 'made data'})
  assert lines == 'pm.accuracy  0.750\npm.n         4,000\nnote         made data'
