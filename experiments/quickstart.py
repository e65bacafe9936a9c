"""The whole pipeline in one command: text -> preference model -> PPO policy -> report.

  python -m experiments.quickstart --config=configs/quickstart.py --workdir=runs/quickstart

Runs the other mains in order, each in a folder of its own: pretrain -> distil the HHH prompt -> train
the preference model on comparisons of the distilled policy -> PPO -> best-of-n, samples, summary.json,
report.html. An interrupted run resumes where it was; a finished one prints its summary.
"""
import json
import pathlib
import platform

import jax
import numpy as np

from experiments import distill_context, pretrain_lm, train_pm, train_ppo
from rlhf_jax.analysis import fits, pipeline_report, tables
from rlhf_jax.core import rundir
from rlhf_jax.evals import best_of_n as evals
from rlhf_jax.evals import world_checks
from rlhf_jax.run import build, sample, worlds
from rlhf_jax.run.config import main, stage, to_dict
from rlhf_jax.run.train import Clock

SIZES = (1, 4, 16, 64)
MAINS = {'lm': pretrain_lm, 'policy': distill_context, 'pm': train_pm, 'ppo': train_ppo}


def run(config, workdir):
  """Runs what is not done yet; returns the summary."""
  if not rundir.is_done(workdir):                 # a bad setting must not leave a folder behind
    worlds.make(config.data)
    for name, module in MAINS.items():
      module.check(stage(config, name))
  if rundir.open_run(workdir, to_dict(config)) == 'done':
    return rundir.read_summary(workdir)
  path, seconds = pathlib.Path(workdir), {}
  folder = {name: str(path / name) for name in MAINS}
  comes_from = {'lm': {}, 'policy': {'teacher': 'lm', 'init': 'lm'},
                'pm': {'init': 'lm', **({'policy': 'policy'} if config.pm.policy else {})},
                'ppo': {'policy': 'policy', 'preference_model': 'pm'}}
  done = {}
  for name, module in MAINS.items():
    inputs = {key: folder[source] for key, source in comes_from[name].items()}
    done[name] = module.run(stage(config, name, **inputs), folder[name])
    seconds[name] = done[name]['wall_seconds']
    if name == 'policy':
      clock = Clock()
      found = candidates(config, folder)
      seconds['candidates'] = clock()
    if name == 'pm' and config.checks and 'ceiling' in done['pm']:
      world_checks.comparisons(done['pm']['baselines'], done['pm']['ceiling'], done['pm']['agreement'])
  clock = Clock()
  summary = evaluate(config, folder, done, found)
  seconds['evaluate'] = clock()
  summary |= {'wall_seconds': seconds | {'total': round(sum(seconds.values()), 1)},
              'versions': {'python': platform.python_version(), 'jax': jax.__version__,
                           'backend': jax.default_backend()}}
  rundir.write_summary(workdir, summary)
  pipeline_report.write(path)
  rundir.mark_done(workdir)
  shown = {k: v for k, v in summary.items() if k in ('ppo', 'sqrt_kl')}
  print(tables.key_values({f'{a}.{b}': v for a, part in shown.items() for b, v in part.items()}))
  print(f'report: {path / "report.html"}')
  return summary


def candidates(config, folder):
  """Answers of the start policy to held-out prompts, and the checks of a made world on them."""
  mesh, world = build.mesh(config), worlds.make(config.data)
  policy = build.role(folder['policy'], mesh)
  prompts = world.prompts(policy.tokenizer, 'eval', config.best_of_n_prompts)
  made = sample.answers(policy, prompts, max(SIZES), world.answer_width, mesh,
                        key=jax.random.key(config.seed))
  reward = None
  if world.reward:
    reward = sample.true_rewards(world.reward(policy.tokenizer), prompts, made)
    if config.checks:
      world_checks.policy(world_checks.ended(made.tokens_BKT, made.mask_BKT,
                                             policy.tokenizer.end_id), reward)
  return prompts, made, reward


def evaluate(config, folder, done, found):
  """The summary: preference model, PPO, the sqrt(KL) law, best-of-n; samples.json for the report."""
  mesh, world = build.mesh(config), worlds.make(config.data)
  prompts, made, reward_NK = found
  judge, score = build.judge(folder['pm'], mesh)
  score_NK = sample.scores(score, judge.params, prompts, made, mesh)
  table = evals.table(score_NK, reward_NK, SIZES)
  curve = rundir.read_metrics(folder['ppo'], 'eval/kl', 'eval/score')
  early = fits.early_part(curve['eval/score'])
  law = fits.sqrt_kl_report(curve['eval/kl'][early], curve['eval/score'][early])
  after = build.role(folder['ppo'], mesh, part='policy')
  shown = prompts[np.arange(config.samples_shown)]
  answered = sample.answers(after, shown, 1, world.answer_width, mesh,
                            key=jax.random.key(config.seed), score=score, score_params=judge.params)
  texts = sample.texts(judge.tokenizer, made, world.prompt_width)
  new = sample.texts(judge.tokenizer, answered, world.prompt_width)
  truth = sample.true_rewards(world.reward(judge.tokenizer), shown, answered) if world.reward else None
  rows = [{'prompt': judge.tokenizer.decode(shown.tokens_NP[i][shown.valid_NP[i] > 0].tolist()),
           'group': world.groups[shown.group_N[i]], 'before': texts[i][0], 'after': new[i][0],
           'score': [float(score_NK[i, 0]), float(answered.score_BK[i, 0])],
           'reward': None if truth is None else [float(reward_NK[i, 0]), float(truth[i, 0])]}
          for i in range(len(shown.group_N))]
  rundir.write_text(f"{folder['ppo']}/samples.json", json.dumps(rows, indent=1, ensure_ascii=False))
  keys = ('accuracy', 'accuracy_interval', 'ceiling', 'agreement', 'baselines', 'advantage', 'subsets')
  return {'pm': {k: done['pm'][k] for k in keys if k in done['pm']},
          'ppo': {k: v for k, v in done['ppo'].items() if k not in (
            'wall_seconds', 'samples', 'by_kind')},
          'sqrt_kl': law, 'best_of_n': table}


if __name__ == '__main__':
  main(run)
