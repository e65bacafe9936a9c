"""Studies of preference models, from folders written by hand."""
import json

import numpy as np
import pytest

from rlhf_jax.analysis import pm_study
from rlhf_jax.core import rundir

A, B, C, CEILING = 0.9, 0.01, 0.02, 0.8
SEEN = np.array([0, 256, 1024, 8192])


def write_run(path, size, point, seed, accuracy, sides, curve=None, ceiling=CEILING, **settings):
  name = '-'.join(str(part) for part in ('pm', size, point, seed) if part != '')
  folder = path / name
  folder.mkdir()
  (folder / 'config.json').write_text(json.dumps(
    {'model': {'name': size}, 'seed': seed, 'batch_size': 32, **settings}))
  for step, value in zip(SEEN // 32, [0.5] * len(SEEN) if curve is None else curve, strict=True):
    rundir.append_metrics(folder, step, {'eval/accuracy': value})
    rundir.append_metrics(folder, step, {'loss': 1.0})
  rundir.write_summary(folder, {
    'accuracy': accuracy, 'ceiling': ceiling,
    'subsets': {'sort': {'accuracy': accuracy}, 'copy': {'accuracy': accuracy - 0.1}},
    'sides': {side: {'accuracy': value} for side, value in zip(pm_study.SIDES, sides, strict=True)}})
  rundir.mark_done(folder)


def study(path, points):
  (path / 'config.json').write_text(json.dumps(
    {'points': [[p, []] for p in points], 'title': 'A study'}))


@pytest.fixture
def scaling(tmp_path):
  """Three sizes, two seeds, curves that follow the law but for a seed's own 0.01 in c; the last point
  of the largest size stands above 0.8 of the excess and off the law."""
  study(tmp_path, [''])
  for size in ('micro', 'mini', 'tiny'):
    p = pm_study.parameters(size)
    for seed in (0, 1):
      c = C + (0.01 if seed else -0.01)
      curve = [0.5, *(A + B * np.log(p / 1e11) + c * np.log(SEEN[1:] / 8e4))]
      if size == 'tiny':
        curve[-1] = 0.79
      write_run(tmp_path, size, '', seed, 0.7 + seed / 100, (0.7, 0.6), curve)
  return tmp_path


def test_the_law_is_that_of_the_cells_below_the_ceiling(scaling):
  found = pm_study.law(pm_study.read(scaling))
  assert (found['cells'], found['used']) == (9, 8)
  for name, value in zip('abc', (A, B, C), strict=True):
    assert found[name].mean == pytest.approx(value, abs=1e-6)
  assert found['r2'] == pytest.approx(1)
  # Student's interval of two seeds 0.02 apart: 12.706 * 0.01
  assert found['c'].high - C == pytest.approx(0.12706, abs=1e-4) and found['b'].high == pytest.approx(B)
  all_cells = pm_study.law(pm_study.read(scaling), below=2.0)
  assert all_cells['used'] == 9 and all_cells['r2'] < 0.999


def test_a_scaling_study_is_written(scaling, capsys):
  summary = pm_study.write(scaling, 'scaling')
  assert [row['size'] for row in summary['cells']] == ['micro', 'mini', 'tiny']
  assert rundir.read_summary(scaling)['law']['b'][0] == pytest.approx(B)
  row = rundir.read_summary(scaling)['cells'][2]
  assert row['seen'] == SEEN.tolist() and row['accuracy'][0][-1] == pytest.approx(0.79)
  assert row['of the ceiling'][0] == pytest.approx(0.705 / 0.8)
  assert '8,192' in capsys.readouterr().out
  page = (scaling / 'report.html').read_text()
  assert page.count('<img') == 2 and 'b = 0.010' in page and 'over 8 of 9 cells' in page


def test_sides_are_means_over_seeds_at_each_share(tmp_path):
  study(tmp_path, ['share-1.0', 'share-0.0'])
  for share, base in ((0.0, (0.8, 0.4)), (1.0, (0.45, 0.9))):
    for seed in (0, 1, 2):
      write_run(tmp_path, 'micro', f'share-{share}', seed, 0.6, np.add(base, seed / 100),
                harmful_share=share)
  rows = pm_study.sides(pm_study.read(tmp_path), 'harmful_share')
  assert [row['harmful_share'] for row in rows] == [1.0, 0.0]           # in the order of the points
  assert [rows[1][side].mean for side in pm_study.SIDES] == pytest.approx([0.81, 0.41])
  assert rows[0]['mean'].mean == pytest.approx(0.685) and rows[0]['seeds'] == 3
  half = 4.30265 * 0.01 / 3 ** 0.5                                      # Student's, two degrees
  assert rows[1]['harmful'].high == pytest.approx(0.41 + half, abs=1e-5)
  summary = pm_study.write(tmp_path, 'fractions')
  assert summary['best'] == {'micro': 1.0}
  assert (tmp_path / 'report.html').read_text().count('<img') == 2


def test_ablations_are_paired_with_the_first_point(tmp_path):
  study(tmp_path, ['default', 'no-lm-loss'])
  for seed in (0, 1, 2):
    write_run(tmp_path, 'mini', 'default', seed, 0.7 + seed / 10, (0.5, 0.5), ceiling=None)
    write_run(tmp_path, 'mini', 'no-lm-loss', seed, 0.69 + seed / 10, (0.5, 0.5), ceiling=None)
  first, second = pm_study.write(tmp_path, 'ablations')['cells']
  assert first['against the first'].mean == 0 and first['of the ceiling'] is None
  assert second['against the first'].mean == pytest.approx(-0.01)
  assert second['against the first'].high == pytest.approx(-0.01)       # what seeds share drops out
  assert (tmp_path / 'report.html').read_text().count('<img') == 1


def test_skills_are_read_by_kind_of_comparison(tmp_path):
  study(tmp_path, ['both', 'sort-only'])
  for point, accuracy in (('both', 0.7), ('sort-only', 0.8)):
    for seed in (0, 1):
      write_run(tmp_path, 'micro', point, seed, accuracy + seed / 50, (0.5, 0.5))
  both, only = pm_study.write(tmp_path, 'skills')['cells']
  assert (both['trained on'], only['trained on']) == ('both', 'sort-only')
  assert both['sort'].mean == pytest.approx(0.71) and only['copy'].mean == pytest.approx(0.71)
  assert (tmp_path / 'report.html').read_text().count('<img') == 1      # of the one size


def test_what_is_not_there_is_said(tmp_path):
  study(tmp_path, [''])
  with pytest.raises(FileNotFoundError, match='no finished preference model'):
    pm_study.read(tmp_path)
  with pytest.raises(ValueError, match="config.analysis='x' is unknown: use scaling, ablations"):
    pm_study.check('x')
