"""The table of mutants is up to date: each text stands once in its file, each test exists."""
import pytest

from tests import mutants
from tests.contracts.test_docs import functions


@pytest.mark.parametrize('file', sorted({m.file for m in mutants.MUTANTS}))
def test_each_row_changes_its_file_and_names_a_test(file):
  source = (mutants.ROOT / 'rlhf_jax' / file).read_text()
  for mutant in (m for m in mutants.MUTANTS if m.file == file):
    assert source.count(mutant.text) == 1, mutant.text
    assert mutant.text != mutant.replacement
    path, name = mutant.test.split('::')
    assert name.split('[')[0] in functions(mutants.ROOT / 'tests' / path), mutant.test
