"""Best-of-n sampling against a preference model: over-optimisation before any reinforcement learning.

  python -m experiments.best_of_n --config=configs/best_of_n.py --workdir=runs/best_of_n \\
    --config.policy=runs/policy --config.preference_model=runs/pm

For each held-out prompt K answers of the policy are sampled once; for every n the exact expectation
over all n-subsets of the answer that the preference model likes best (an unbiased estimate). The true
reward, where it is known, shows where choosing harder stops to pay.
"""
import jax
import numpy as np

from rlhf_jax.algorithms import best_of_n
from rlhf_jax.analysis import figures, report, tables
from rlhf_jax.core import rundir
from rlhf_jax.evals import best_of_n as evals
from rlhf_jax.run import build, sample, worlds
from rlhf_jax.run.config import main, to_dict
from rlhf_jax.run.train import Clock, finish


def run(config, workdir):
  """The table of `evals.best_of_n.table` for n = 1, 2, 4, ... K, and its figure."""
  mesh, world, clock = build.mesh(config), worlds.make(config.data), Clock()
  policy = build.policy(config.policy, mesh)
  ((judge, score),) = build.judges([config.preference_model], policy, mesh).values()
  if rundir.open_run(workdir, to_dict(config)) == 'done':
    return rundir.read_summary(workdir)
  prompts = world.prompts(policy.tokenizer, 'eval', config.prompts)
  made = sample.answers(policy, prompts, config.samples, world.answer_width, mesh,
                        key=jax.random.key(config.seed))
  score_NK = sample.scores(score, judge.params, prompts, made, mesh)
  reward_NK = (sample.true_rewards(world.reward(policy.tokenizer), prompts, made)
               if world.reward else None)
  sizes = [2 ** i for i in range(config.samples.bit_length()) if 2 ** i <= config.samples]
  table = evals.table(score_NK, reward_NK, sizes)
  rows = [{'n': n, 'KL (nats)': best_of_n.kl(int(n))} | row for n, row in table.items()]
  print(tables.text_table(rows))
  columns = {name: np.array([row[name] for row in rows]) for name in rows[0] if name != 'n'}
  figure = figures.reward_against_sqrt_kl(columns['KL (nats)'], columns['pm_score'],
                                          columns.get('true_reward'))
  report.write(workdir, 'Best of n', workdir, [report.Section(
    'Score and true reward', figures=[(figure, 'Against √KL of best-of-n, n = 1, 2, 4, ...')],
    table=rows)])
  summary = {'best_of_n': table, 'wall_seconds': clock()}
  finish(workdir, summary, f'{len(score_NK)} prompts x {config.samples} answers ({clock():.0f} s)')
  return summary


if __name__ == '__main__':
  main(run)
