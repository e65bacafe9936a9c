"""The frontier of a sweep over KL coefficients, from folders written by hand."""
import json

import numpy as np
import pytest

from rlhf_jax.analysis import frontier, sweeps
from rlhf_jax.core import rundir

KL = np.linspace(0, 1, 6)


def write(path, coef, seed, scale, truth=True, key='kl_coef'):
  folder = path / f'run-{coef}-{seed}'
  folder.mkdir()
  (folder / 'config.json').write_text(json.dumps({'ppo': {key: coef}, 'seed': seed}))
  for step, kl in enumerate(scale * KL):
    values = {'eval/kl': kl, 'eval/score': np.sqrt(kl)}
    if truth:
      values['eval/true_reward'] = 1 - (kl - 2) ** 2
    rundir.append_metrics(folder, step, values)
  rundir.write_summary(folder, {'gain': 1.0} if truth else {})
  rundir.mark_done(folder)


def test_runs_end_in_order_and_peak_where_the_truth_does(tmp_path, capsys):
  for coef, scale in ((0.1, 1), (0.01, 5), (0.3, 0.5)):
    for seed in (0, 1):
      write(tmp_path, coef, seed, scale)
  runs = sweeps.read(tmp_path, 'ppo.kl_coef')
  first, *_, last = frontier.rows(runs, 'kl_coef')
  assert first['KL'] == 5 and first['KL at peak'] == 2 and first['peak'] == 1
  assert first['true reward'] == pytest.approx(-8) and first['score'] == pytest.approx(5 ** 0.5)
  assert last['KL at peak'] == last['KL'] == 0.5
  assert frontier.in_order(runs, 'kl_coef')
  assert not frontier.in_order(runs, 'kl_target')                      # a budget: upwards
  frontier.write(tmp_path, 'kl_coef')
  assert 'final KL falls as the coefficient rises: in order' in capsys.readouterr().out
  assert rundir.read_summary(tmp_path)['in_order'] is True
  assert (tmp_path / 'report.html').read_text().count('<img') == 1


def test_order_is_that_of_means_over_seeds(tmp_path):
  for coef, scales in ((0.1, (3, 3)), (0.2, (1, 4)), (0.3, (2, 4))):
    for seed, scale in enumerate(scales):
      write(tmp_path, coef, seed, scale)
  assert not frontier.in_order(sweeps.read(tmp_path, 'ppo.kl_coef'), 'kl_coef')


def test_without_a_true_reward_the_score_alone_is_drawn(tmp_path):
  write(tmp_path, 1.0, 0, 1, truth=False, key='kl_target')
  frontier.write(tmp_path, 'kl_target')
  assert set(frontier.rows(sweeps.read(tmp_path, 'ppo.kl_target'), 'kl_target')[0]) == {
    'KL budget (nats)', 'seed', 'KL', 'score'}
  assert (tmp_path / 'report.html').read_text().count('<img') == 1
