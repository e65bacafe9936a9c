"""Tables of mixed numbers and text, for the terminal and the report. Missing values are a dash."""


def text_table(rows, columns=None):
  """The rows (dictionaries) as aligned plain text, numbers to the right.

  columns: the keys to show, in order; by default all of them, in order of first appearance.
  """
  columns = columns or column_names(rows)
  texts, rights = zip(*(column_texts([row.get(name) for row in rows]) for name in columns),
                      strict=True)
  lines = [columns, *zip(*texts, strict=True)]
  widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
  lines.insert(1, ['-' * width for width in widths])
  return '\n'.join('  '.join(
    cell.rjust(width) if right else cell.ljust(width)
    for cell, width, right in zip(line, widths, rights, strict=True)).rstrip() for line in lines)


def key_values(mapping):
  """One line an entry of a nested dictionary: dotted key, value."""
  flat = _flat(mapping)
  width = max(map(len, flat), default=0)
  return '\n'.join(f'{key.ljust(width)}  {column_texts([value])[0][0]}'
                   for key, value in flat.items())


def column_names(rows):
  """All keys of the rows, in order of first appearance."""
  return list(dict.fromkeys(name for row in rows for name in row))


def column_texts(values):
  """(text of each value, whether the column is numeric). Floats in one column share decimals."""
  values = [value.item() if hasattr(value, 'item') else value for value in values]
  numbers = [value for value in values if _is_number(value)]
  floats = [abs(value) for value in numbers if isinstance(value, float) and abs(value) < 1e300]
  largest = max(floats, default=0)
  decimals = 3 if largest < 10 else 2 if largest < 100 else 1 if largest < 1000 else 0
  style = '.2e' if 0 < largest < 0.01 else f',.{decimals}f'
  texts = [format(value, style) if isinstance(value, float) else
           format(value, ',d') if _is_number(value) else '–' if value is None else str(value)
           for value in values]
  rest = [value for value in values if value is not None and not _is_number(value)]
  return texts, bool(numbers) and not rest


def _is_number(value):
  return isinstance(value, (int, float)) and not isinstance(value, bool)


def _flat(mapping, prefix=''):
  flat = {}
  for key, value in mapping.items():
    flat.update(_flat(value, f'{prefix}{key}.') if isinstance(value, dict)
                else {f'{prefix}{key}': value})
  return flat
