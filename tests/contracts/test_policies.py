"""What is measured of policies, end to end on the smoke run: Elo, ranking, the helpful share."""
import json

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import elo as elo_config
from experiments import elo as elo_main
from experiments import sweep
from rlhf_jax.core import mesh as meshes
from rlhf_jax.core import rundir
from rlhf_jax.data import tokenizer as tokenizers
from rlhf_jax.feedback import elo
from rlhf_jax.run import build, comparisons, rl, sample, worlds
from rlhf_jax.run import config as configs
from tests.contracts.conftest import ROOT, command


def test_elo_of_run_directories_and_checkpoints(pipeline, tmp_path):
  config = elo_config.get_config('smoke')
  config.data.update(rundir.read_config(pipeline.path)['data'])
  runs = [f'{pipeline.path}/policy', f'{pipeline.path}/ppo@2', f'{pipeline.path}/ppo']
  config.update({'policies': ','.join(runs), 'preference_model': f'{pipeline.path}/pm', 'anchor': 1})
  summary = elo_main.run(config, str(tmp_path / 'elo'))
  assert rundir.read_summary(tmp_path / 'elo')['policies'] == summary['policies']
  for by, kept in (('preference model', 8), ('simulated worker', 6)):      # a quarter is not kept
    wins = np.asarray(summary['wins'][by])
    total = (wins + wins.T)[np.triu_indices(3, 1)]
    np.testing.assert_allclose(total if kept == 8 else total.sum() / 3, kept)
    for row, score in zip(summary['policies'], elo.fit(wins, 1)[0], strict=True):
      assert row[f'Elo, {by}'] == pytest.approx(score)
      assert (row[f'stderr, {by}'] > 0) == (row is not summary['policies'][1])
  rows = summary['policies']
  assert [row['policy'] for row in rows] == runs and rows[1]['Elo of the mean'] == 0
  assert rows[2]['Elo of the mean'] == pytest.approx(
    400 / np.log(10) * (rows[2]['mean score'] - rows[1]['mean score']))
  assert len({row['mean score'] for row in rows}) == 3          # three sets of weights, three of noise


@pytest.mark.parametrize('policies, anchor, says', [
  ('{0}/ppo,{0}/ppo@3', 0, 'has no checkpoint 3: it keeps 2, 4'),
  ('{0}/ppo,{0}/ppo@last', 0, 'write DIR@STEP'),
  ('{0}/ppo,{0}/policy', 2, 'config.anchor=2 is none of the 2 policies: use 0 to 1'),
  ('{0}/ppo,{0}/gone', 0, 'does not exist'), ('{0}/ppo,', 0, 'two policies or more')])
def test_elo_refuses_what_is_not_there(pipeline, tmp_path, policies, anchor, says):
  config = elo_config.get_config('smoke')
  config.update({'policies': policies.format(pipeline.path), 'anchor': anchor,
                 'preference_model': f'{pipeline.path}/pm'})
  with pytest.raises((ValueError, FileNotFoundError), match=says):
    elo_main.run(config, str(tmp_path / 'elo'))
  assert not (tmp_path / 'elo').exists()


@pytest.mark.slow
def test_a_sweep_over_the_helpful_share_in_one_program(pipeline, tmp_path, monkeypatch):
  """Two shares side by side: what is measured agrees with itself, and the prompts differ."""
  points = [{'group': 'one', 'variant': 'smoke', 'ppo.helpful_share': share} for share in (0.25, 1.0)]
  module = configs.module(ROOT / 'configs' / 'train_ppo.py')
  monkeypatch.setattr(module, 'sweep_tension', lambda: points)
  monkeypatch.setattr(configs, 'module', lambda path: module)
  data = {f'data.{k}': v for k, v in rundir.read_config(pipeline.path)['data'].items()}
  sweep.run('configs/train_ppo.py', 'tension', tmp_path, [
    *data.items(), ('policy', f'{pipeline.path}/policy'), ('eval_comparisons', 24),
    ('preference_model', f'{pipeline.path}/pm'), ('eval_prompts', 40)])
  module.report_tension(tmp_path)
  assert 'data:image/' in (tmp_path / 'report.html').read_text()
  folders = [path for path in tmp_path.iterdir() if rundir.is_done(path)]
  assert len(folders) == 2
  scores = []
  for folder in folders:
    summary, curve = rundir.read_summary(folder), rundir.read_metrics(
      folder, 'eval/score', 'eval/score_helpful', 'eval/score_harmful', 'eval/refusal',
      'eval/refusal_benign', 'eval/refusal_harmful', 'eval/rank_accuracy')
    # the two kinds make up the whole: 40 prompts, h of them harmful
    h = (curve['eval/score_helpful'] - curve['eval/score'])[0] / (
      curve['eval/score_helpful'] - curve['eval/score_harmful'])[0] * 40
    assert abs(h - round(h)) < 1e-2 and 1 <= round(h) <= 12
    for name, sides in (('score', ('helpful', 'harmful')), ('refusal', ('benign', 'harmful'))):
      parts = [curve[f'eval/{name}_{side}'] for side in sides]
      np.testing.assert_allclose(curve[f'eval/{name}'], atol=1e-5, desired=(
        parts[0] + round(h) / 40 * (parts[1] - parts[0])))
      for side, part in zip(sides, parts, strict=True):
        made = summary['by_kind'][f'{name}_{side}']
        assert made['end'] == pytest.approx(part[-1], abs=1e-5) and made['low'] <= made['end']
    rank = summary['rank_accuracy']
    assert rank['start'] == pytest.approx(curve['eval/rank_accuracy'][0])
    assert rank['end'] == pytest.approx(curve['eval/rank_accuracy'][-1]) and 0 <= rank['ceiling'] <= 1
    scores.append(rundir.read_metrics(folder, 'score')['score'][0])
  assert scores[0] != scores[1]                       # the same policy and seed, other prompts


def test_prompts_that_a_model_wrote_go_into_ppo(pipeline, tmp_path):
  arguments = f'--config.language_model={pipeline.path}/lm', '--config.most_batches=1'
  done = command('experiments.generate_prompts', '--config=configs/generate_prompts.py:smoke',
                 f'--workdir={tmp_path}/prompts', *arguments)
  assert done.returncode == 0, done.stderr[-3000:]
  summary = rundir.read_summary(tmp_path / 'prompts')
  assert summary['written'] == 16 == summary['kept'] + sum(
    summary[kind] for kind in ('unfinished', 'empty', 'held_out', 'repeated'))
  # an untrained model closes no query, so the file for PPO is written by hand
  file = tmp_path / 'prompts.jsonl'
  file.write_text(''.join(json.dumps({'prompt': f'\n\nHuman: sort{" red" * k}\n\nAssistant:'}) + '\n'
                          for k in range(1, 4)))
  made = configs.load(f'{ROOT}/configs/train_ppo.py:smoke')
  made.data.update(rundir.read_config(pipeline.path)['data'])
  made.ppo.update({'prompts': 16, 'generated': str(file)})
  tokenizer = tokenizers.load(f'{pipeline.path}/lm/tokenizer.json')
  world = worlds.make(made.data)
  train, _ = rl.prompts([made], world, tokenizer)
  assert train[None].group_N[16:].tolist() == [-1] * 3
  own = world.prompts(tokenizer, 'ppo', 16)
  np.testing.assert_array_equal(train[None].tokens_NP[:16], own.tokens_NP)
  assert 'sort red red' in tokenizer.decode(train[None].tokens_NP[17].tolist())


@pytest.mark.slow
def test_pairs_of_best_answers_score_higher_under_their_judge(pipeline):
  mesh = meshes.make(data=-1)
  policy, (role, score) = build.policy(f'{pipeline.path}/policy', mesh), build.judge(
    f'{pipeline.path}/pm', mesh)
  world = worlds.make(ConfigDict(rundir.read_config(pipeline.path)['data']))
  prompts = world.prompts(policy.tokenizer, 'eval', 32)
  mean = {}
  for n in (1, 4):
    sampler = comparisons.pair_sampler(policy, world.answer_width, 16, mesh, (role, score), n)
    tokens, mask = sampler(prompts.tokens_NP, prompts.valid_NP, 0)
    assert tokens.shape == mask.shape == (32, 2, world.answer_width)
    rows, valid = (np.concatenate([np.repeat(x, 2, axis=0), y.reshape(64, -1)], axis=1) for x, y in (
      (prompts.tokens_NP, tokens), (prompts.valid_NP, mask)))
    mean[n] = np.asarray(score(role.params, rows, valid, {})).reshape(32, 2).mean(axis=0)
  # best of 4 of equal draws is one standard deviation up; either side of a pair has it
  assert (mean[4] > mean[1]).all()
  # a score that is no number would be the best of all
  def spoilt(params, *text):
    return score(params, *text).at[3].set(np.nan)
  sampler = comparisons.pair_sampler(policy, world.answer_width, 16, mesh, (role, spoilt), 4)
  with pytest.raises(ValueError, match='^1 of 32 scores are not finite'):
    sampler(prompts.tokens_NP, prompts.valid_NP, 0)
  made = sample.answers(policy, prompts, 2, world.answer_width, mesh, key=jax.random.key(0))
  with pytest.raises(ValueError, match='^1 of 64 scores are not finite'):
    sample.scores(spoilt, role.params, prompts, made, mesh)
