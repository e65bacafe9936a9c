"""PPO's options in whole runs: all at once and resumed, the papers' presets, and a run that breaks."""
import numpy as np
import pytest

from configs import train_ppo as configs
from experiments import train_ppo
from rlhf_jax.core import rundir
from rlhf_jax.run import config
from rlhf_jax.run.hooks import Diverged
from tests.contracts.test_resume import last_digest, smoke, spied

OPTIONS = {
  'ppo__answer_width': 5, 'ppo__packed': (0.5, 0.75), 'ppo__value_init': 'shared',
  'ppo__samples': 128, 'ppo__batch_size': 32, 'ppo__minibatches': 1, 'ppo__pretrain_coef': 0.5,
  'ppo__normalise': 'running', 'ppo__no_end_score': -1.0, 'ppo__no_end_penalty': 0.5,
  'ppo__whiten_rewards': True, 'ppo__passes': 2, 'ppo__entropy_coef': 0.01, 'ppo__kl_target': 0.5,
  'ppo__kl_least': 0.5, 'ppo__kl_stop': 50.0, 'optimizer__warmup_samples': 32,
  'optimizer__halve_samples': 32,
  'optimizer__early_eps': True, 'data__documents': 300}


@pytest.fixture(scope='module')
def whole(pipeline, tmp_path_factory):
  """An uninterrupted run with all options: its config and its folder."""
  made, path = smoke(pipeline, 'train_ppo', **OPTIONS), tmp_path_factory.mktemp('options') / 'whole'
  made.ppo.value_clip = None
  train_ppo.run(made, path)
  return made, path


def test_all_options_at_once(whole):
  trained = rundir.read_metrics(whole[1], 'response_length', 'ratio_max', 'ratio_min', 'kl_coef',
                                'pretrain_loss', 'entropy_estimate', 'explained_variance')
  for name, column in trained.items():
    assert column.shape == (4,) and np.isfinite(column).all(), name
  assert (trained['response_length'] <= 5).all()
  assert (trained['ratio_max'] > 1).all() and (trained['ratio_min'] < 1).all()
  assert (np.diff(trained['kl_coef']) < 0).all()                       # far below the target


@pytest.mark.slow
def test_all_options_resumed(whole, tmp_path, monkeypatch):
  made, path = whole
  with monkeypatch.context() as patch:
    spied(patch, killed=3)
    with pytest.raises(KeyboardInterrupt):
      train_ppo.run(made, tmp_path / 'again')
  train_ppo.run(made, tmp_path / 'again')
  assert last_digest(path) == last_digest(tmp_path / 'again')


@pytest.mark.slow
@pytest.mark.parametrize('name', ['bai2022', 'bai2022_robustness', 'bai2022_online', 'openai2019'])
def test_the_papers_presets_run(pipeline, tmp_path, name):
  made = config.load(f'configs/train_ppo.py:{name}')
  parts, width = made.ppo.minibatches, made.ppo.answer_width
  configs.smoke(made)
  made.ppo.update({'minibatches': parts, 'answer_width': width})
  made.update({'policy': str(pipeline.path / 'policy'), 'preference_model': str(pipeline.path / 'pm')})
  train_ppo.run(made, tmp_path / 'run')
  assert rundir.is_done(tmp_path / 'run')
  assert np.isfinite(rundir.read_metrics(tmp_path / 'run', 'score', 'loss')['loss']).all()


@pytest.mark.slow
def test_a_learning_rate_that_breaks_stops_the_run_and_leaves_a_good_checkpoint(pipeline, tmp_path):
  made = smoke(pipeline, 'train_ppo', optimizer__learning_rate=10.0)
  with pytest.raises(Diverged, match='config.ppo.max_update_kl=0.16; the last good checkpoint is kept: '
                     'start another run with a lower config.optimizer.learning_rate than 10'):
    train_ppo.run(made, tmp_path / 'run')
  assert not rundir.is_done(tmp_path / 'run')
  assert last_digest(tmp_path / 'run')[0] == 0                      # the start: step 1 broke it
  metrics = (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()
  assert len(metrics) == 1 and 'eval/score' in metrics[0]
