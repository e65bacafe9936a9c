"""Elo scores of policies and of checkpoints along training, from answers to the same held-out prompts.

  python -m experiments.elo --config=configs/elo.py --workdir=runs/elo \\
    --config.policies=runs/policy,runs/ppo@64,runs/ppo --config.preference_model=runs/pm

Bai et al. 2022, eq. B.1 and Fig. 15. Each policy answers each prompt once; each pair of policies is
compared on each prompt, by the preference model (win probabilities from score differences,
eq. 4.2) and, in the oracle world, by the simulated worker of the true reward. The Elo that the worker
gives beside the one that the preference model predicts shows how much of a gain is over-optimisation.
"""
import jax
import numpy as np

from rlhf_jax.analysis import figures, report, tables
from rlhf_jax.core import rundir
from rlhf_jax.core.random import key_for
from rlhf_jax.feedback import elo
from rlhf_jax.run import build, sample, worlds
from rlhf_jax.run.config import main, several, to_dict
from rlhf_jax.run.train import Clock, finish


def run(config, workdir):
  """The scores by each judge, their table and figure."""
  mesh, world, clock = build.mesh(config), worlds.make(config.data), Clock()
  names = several(config.policies)
  if len(names) < 2:
    raise ValueError(f'config.policies={config.policies}: Elo compares two policies or more, a comma '
                     'between')
  policies = [build.policy(name, mesh) for name in names]
  judge, score = build.judge(config.preference_model, mesh)
  for name, policy in zip(names, policies, strict=True):
    build.check_same_tokenizer(policy, judge, (name, 'config.preference_model'))
  if not 0 <= config.anchor < len(names):
    raise ValueError(f'config.anchor={config.anchor} is none of the {len(names)} policies: use 0 to '
                     f'{len(names) - 1}')
  if rundir.open_run(workdir, to_dict(config)) == 'done':
    return rundir.read_summary(workdir)
  tokenizer = judge.tokenizer
  prompts = world.prompts(tokenizer, 'eval', config.prompts)
  score_NP, reward_NP = [], []
  for i, policy in enumerate(policies):
    made = sample.answers(policy, prompts, 1, world.answer_width, mesh,
                          key=key_for(jax.random.key(config.seed), 'answers', i))
    score_NP.append(sample.scores(score, judge.params, prompts, made, mesh)[:, 0])
    if world.reward:
      reward_NP.append(sample.true_rewards(world.reward(tokenizer), prompts, made)[:, 0])
  games = {'preference model': elo.games(score_NP)}
  if world.reward:
    rng = np.random.default_rng([config.seed, 30])
    games['simulated worker'] = elo.games(reward_NP, config.data.beta, rng)
  fits = {by: elo.fit_games(wins_PNN, config.anchor) for by, wins_PNN in games.items()}
  mean_N = np.mean(score_NP, axis=1)
  columns = {'policy': names, 'mean score': mean_N,
             'Elo of the mean': elo.from_score(mean_N - mean_N[config.anchor])}
  for by, (elo_N, stderr_N) in fits.items():
    columns |= {f'Elo, {by}': elo_N, f'stderr, {by}': stderr_N}
  if world.reward:
    columns['mean true reward'] = np.mean(reward_NP, axis=1)
  rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
  print(tables.text_table(rows))
  report.write(workdir, 'Elo', workdir, [report.Section(
    'Scores', figures=[(figures.elo(names, fits), f'Elo relative to {names[config.anchor]}, with 95% '
                        f'intervals over {len(prompts.group_N)} prompts, drawn again.')], table=rows)])
  summary = {'policies': rows, 'wins': {by: wins_PNN.sum(0) for by, wins_PNN in games.items()},
             'wall_seconds': clock()}
  finish(workdir, summary, f'{len(names)} policies on {len(prompts.group_N)} prompts ({clock():.0f} s)')
  return summary


if __name__ == '__main__':
  main(run)
