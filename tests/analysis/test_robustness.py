"""The numbers of a robustness study, from folders written by hand."""
import json

import numpy as np
import pytest
from scipy import stats

from rlhf_jax.analysis import robustness
from rlhf_jax.core import rundir

KL = np.linspace(0, 4, 41)


def write_pm(path, size, chosen, rejected, comparisons=100):
  path.mkdir()
  (path / 'config.json').write_text(json.dumps({'model': {'name': size},
                                                'data': {'comparisons': comparisons}}))
  np.savez(path / 'test_scores.npz', chosen=np.array(chosen), rejected=np.array(rejected))


def write_ppo(path, policy, judge, tests, seed, columns, summary):
  folder = path / f'ppo-{policy}-{judge}-{seed}'
  folder.mkdir()
  (folder / 'config.json').write_text(json.dumps({
    'model': {'name': policy}, 'seed': seed, 'preference_model': f'elsewhere/{judge}',
    'test_models': [f'elsewhere/{t}' for t in tests]}))
  for i in range(len(KL)):
    rundir.append_metrics(folder, i, {name: values[i] for name, values in columns.items()})
  rundir.write_summary(folder, summary)


@pytest.fixture
def study(tmp_path):
  """Two policies, two judges, two seeds. Judge scores are offset + 2 sqrt(KL) + seed / 10; test scores
  part from them by 0.1 KL against `micro` and 0.05 KL against `mini`."""
  means = {'micro': 3.0, 'mini': -1.0}
  for seed in (0, 1):
    for size, mean in means.items():
      write_pm(tmp_path / f'pm-{size}-a-{seed}', size, [mean + 4, mean + 4], [mean - 4, mean - 4])
      write_pm(tmp_path / f'pm-{size}-b-{seed}', size, [12.0, 8.0], [8.0, 12.0])
    for policy in means:
      for judge, parting in (('micro', 0.1), ('mini', 0.05)):
        rise = 2 * np.sqrt(KL) + seed / 10
        columns = {'eval/kl': KL, 'eval/score': means[judge] + rise,
                   'eval/true_reward': 1 - (KL - 3 + seed) ** 2 / 10}
        columns |= {f'eval/score_pm-{size}-b-{seed}': 10 + rise - parting * KL for size in means}
        write_ppo(tmp_path, policy, f'pm-{judge}-a-{seed}', [f'pm-{s}-b-{seed}' for s in means], seed,
                  columns, {'gain': 3.0 + seed, 'gain_stderr': 0.5})
  return tmp_path


def test_scores_are_read_less_the_mean_of_their_model(study):
  runs = robustness.read(study)
  assert [(r.policy, r.judge, r.seed) for r in runs] == [
    (p, j, s) for p in ('micro', 'mini') for j in ('micro', 'mini') for s in (0, 1)]
  for run in runs:
    np.testing.assert_allclose(run.score, 2 * np.sqrt(KL) + run.seed / 10, atol=1e-9)
    np.testing.assert_allclose(run.gap, (0.1 if run.judge == 'micro' else 0.05) * KL, atol=1e-9)
    assert set(run.tests) == {'micro', 'mini'}
    assert run.gain_errors == pytest.approx(6 + 2 * run.seed)


def test_a_cell_by_hand(study):
  row = robustness.cell(robustness.cells(robustness.read(study))['mini', 'micro', 100])
  # The score passes half of its gain, 2, at KL 1: the points below it follow the law exactly.
  assert row['seeds'] == 2 and row['gain / error, least'] == pytest.approx(6)
  assert row['slope'] == pytest.approx(2) and row['exponent'] == pytest.approx(0.5, abs=2e-3)
  assert row['r2'] == pytest.approx(1) and row['r2'] > row['r2_kl']
  assert [row[k] for k in ('runs', 'fitted', 'nearer')] == [2, 2, 2]
  # Means of 0.1 KL over the last four and the first four of 41 points: 0.385 - 0.015.
  assert [row[k] for k in ('gap grew', 'gap, low', 'gap, high')] == pytest.approx([0.37] * 3)
  # Peaks at KL 3 and 2; the end is 0.1 and 0.4 below them. Student's t with 1 degree: 12.706.
  assert row['KL at peak'] == pytest.approx(2.5)
  assert row['KL, high'] - row['KL at peak'] == pytest.approx(12.706 * 0.5, rel=1e-4)
  assert row['peak'] == pytest.approx(1)
  # Read beside the evaluations at 2.9 and 1.9, chosen among every second: 0.098 and 0.398.
  assert row['lost after'] == pytest.approx(0.248)


def test_the_gap_at_equal_kl_and_its_slope_over_sizes(study):
  runs = robustness.read(study)
  gap = robustness.gaps(runs)
  assert gap['kl'] == pytest.approx(4) and gap['grew_in'] == 1
  assert gap['at_kl']['micro', 100] == pytest.approx((0.4, 0.4, 0.4))
  assert gap['at_kl']['mini', 100].mean == pytest.approx(0.2)
  # 98,304 and 331,776 parameters: ln of their ratio is 1.2164.
  assert gap['slopes'] == {100: pytest.approx([-0.2 / 1.2164] * 3, rel=1e-4)}
  # 0.37 KL for micro, half of it for mini, the mean of the two in each seed
  assert gap['grew'] == pytest.approx([0.2775] * 3)
  # Spreads of 4 and 2: half of before less sqrt(KL) / 2, which grows by (1.961935 - 0.327791) / 2.
  assert gap['grew_standard'] == pytest.approx([0.2775 / 2 - 1.634144 / 2] * 3, rel=1e-5)
  assert gap['grew_standard_in'] == 0
  more = [r._replace(comparisons=800, score=r.score + 0.1 * r.kl, kl=r.kl / 2)
          for r in runs if r.judge == 'mini']
  both = robustness.gaps(runs + more)
  assert both['kl'] == pytest.approx(2) and list(both['slopes']) == [100]
  assert both['at_kl']['mini', 800].mean == pytest.approx(0.6)
  assert both['at_kl']['mini', 100].mean == pytest.approx(0.1)


def test_values_at_a_kl_lie_between_evaluations(study):
  run = robustness.read(study)[0]
  assert robustness.at_kl(run, run.score, 2.25) == pytest.approx(3)        # linear in sqrt(KL)
  shuffled = run._replace(kl=run.kl[::-1], score=run.score[::-1])
  assert robustness.at_kl(shuffled, shuffled.score, 2.25) == pytest.approx(3)


def test_slopes_against_one_judge_by_policy(study):
  runs = robustness.read(study)
  found, _ = robustness.slopes(runs, 'mini')
  assert list(found) == ['micro', 'mini']
  for mean, low, high in found.values():
    assert (mean, low, high) == pytest.approx((2, 2, 2))
  # slopes 2.0 and 2.4 of one policy, 3.0 and 3.6 of the other: F = 1.21 / 0.01 with 1 and 1 degrees
  factor = {('micro', 0): 1.0, ('micro', 1): 1.2, ('mini', 0): 1.5, ('mini', 1): 1.8}
  apart = [r._replace(score=r.score * factor[r.policy, r.seed]) for r in runs]
  found, p = robustness.slopes(apart, 'mini')
  assert found['mini'][0] == pytest.approx(3.3)
  assert p == pytest.approx(stats.f.sf(121, 1, 1), rel=1e-6)
  assert robustness.slopes([r for r in apart if r.policy == 'mini'], 'mini')[1] is None


def test_the_report_shows_every_cell(study):
  summary = robustness.write(study)
  assert summary['gap']['grew_in'] == 1.0 and len(summary['cells']) == 4
  assert rundir.read_summary(study)['cells'][0]['policy'] == 'micro'
  page = (study / 'report.html').read_text()
  assert page.count('data:image/svg') == 3


def test_a_seed_counts_where_all_its_runs_have_a_law(study):
  """One of two runs of a seed did not rise: the seed is left out whole, and nothing fails."""
  pairs = robustness.read(study)[:2]
  more = [r._replace(seed=2, score=1.5 * r.score) for r in pairs[:1]]
  flat = pairs[1]._replace(score=-pairs[1].score)
  runs = [*pairs, *more, *(r._replace(kl=1.0 * r.kl) for r in more), flat]
  assert [(run.seed, fit['slope']) for run, fit in robustness.with_law(runs)] == [
    (0, pytest.approx(2)), (2, pytest.approx(3)), (2, pytest.approx(3))]
  row = robustness.cell(runs)
  assert [row[k] for k in ('runs', 'fitted', 'nearer')] == [5, 3, 3]
  assert row['slope'] == pytest.approx(2.5)                   # of two seeds, not of three runs
  found, p = robustness.slopes(runs, 'micro')
  assert found['micro'].mean == pytest.approx(2.5) and p is None
  assert robustness.slopes([pairs[0], flat], 'micro') == ({}, None)
  assert 'exponent' not in robustness.cell([pairs[0], flat])
  # The exponent is that of each run: sqrt(KL) in one, KL in the other, not that of their mean.
  bent = [pairs[0], pairs[1]._replace(score=pairs[1].kl)]
  assert robustness.cell(bent)['exponent'] == pytest.approx(0.75, abs=2e-3)
  assert robustness.cell(bent)['nearer'] == 1


def test_what_is_lost_after_the_peak():
  """By hand: chosen at the 5, read at the 2 and the 4 beside it. Noise about a level loses nothing."""
  assert robustness.lost(np.array([0.0, 1, 2, 5, 4, 0, 1])) == pytest.approx(3 - 1)
  assert robustness.lost(np.array([0.0, 1, 9, 5, 4, 0, 7])) == pytest.approx(6.5 - 7)
  assert np.isnan(robustness.lost(np.array([1.0, 2.0])))
  noise_SN = np.random.default_rng(0).normal(size=(4000, 29))
  assert abs(np.mean([robustness.lost(n) for n in noise_SN])) < 0.06           # 3 standard errors


def test_growth_is_of_the_last_over_the_first_tenth():
  assert robustness.growth(np.array([1.0, 2.0] + [7.0] * 16 + [3.0, 5.0])) == pytest.approx(2.5)
  assert robustness.growth(np.array([1.0, 5.0])) == pytest.approx(4)


def test_seeds_and_not_runs_give_the_intervals(study):
  """Each half is trained against in turn: what one model of a pair scores higher falls out."""
  pairs, apart = robustness.read(study)[:2], np.linspace(0, 1, 41)
  runs = [run._replace(score=run.score + sign * (5 + run.seed) * apart)
          for run in pairs for sign in (1, -1)]
  row = robustness.cell(runs)
  assert row['seeds'] == 2
  assert [row[k] for k in ('gap grew', 'gap, low', 'gap, high')] == pytest.approx([0.37] * 3)
  assert row['KL, high'] - row['KL at peak'] == pytest.approx(12.706 * 0.5, rel=1e-4)
  # Alone one of two runs grows and the other shrinks, by 5 and 6 of what is taken off.
  assert robustness.gaps(runs)['grew_in'] == 1
  # Slopes 1.9 and 2.1 of one seed, 2.2 and 2.6 of the other: means 2 and 2.4, not four numbers.
  factor = iter((0.95, 1.05, 1.1, 1.3))
  turned = [r._replace(score=r.score * next(factor)) for r in (pairs[0], pairs[0], pairs[1], pairs[1])]
  assert robustness.slopes(turned, 'micro')[0]['micro'] == pytest.approx(
    (2.2, 2.2 - 12.7062 * 0.2, 2.2 + 12.7062 * 0.2), rel=1e-4)
