"""Robustness of RLHF: what happens to a policy when another preference model, or the truth, looks on.

  python -m experiments.robustness --config=configs/robustness.py --workdir=runs/robustness

Bai et al. 2022, sections 4.2 and 4.3: the comparisons are cut into two halves; preference models of
several sizes are trained on each; policies of several sizes are trained against those of one half and
scored along the way by those of the other. With `config.crossed` every half has its turn (the paper
trains against one): if one of two models scores higher along a run whichever is trained against, that
adds to the gap of one run and lowers that of the other, and cancels in the mean of the two. Every
stage is an ordinary run in a folder of its own, so an interrupted study resumes; report.html and
summary.json come from the folders alone.
"""
import itertools

from experiments import pm_study, train_pm, train_ppo
from rlhf_jax.analysis import robustness
from rlhf_jax.core import rundir
from rlhf_jax.run.config import main, section, stage, to_dict


def run(config, workdir):
  """Runs what is not done yet; returns the summary."""
  seeds = range(config.seeds)
  trained_against = config.halves if config.crossed else config.halves[:1]
  folder, there = pm_study.folders(workdir), pm_study.folders(workdir, config.base)
  names, groups = (*config.policies, *config.judges, config.sampler), {}
  judges = list(itertools.product(config.judges, config.comparisons))
  for (size, count), half in itertools.product(judges, config.halves):
    data = section(config, 'data', comparisons=count)
    groups[size, count, half] = [
      stage(config, 'pm', seed=seed, model=section(config, 'model', name=size), data=data, half=half,
            init=there('lm', size), policy=there('policy', config.sampler)) for seed in seeds]
  if not rundir.is_done(workdir):                 # a bad setting must not leave a folder behind
    pm_study.check(config, names, [point for made in groups.values() for point in made], there)
    train_ppo.check(stage(config, 'ppo'))
  if rundir.open_run(workdir, to_dict(config)) == 'done':
    return rundir.read_summary(workdir)

  pm_study.language_models(config, names, there)
  pm_study.policies(config, (*config.policies, config.sampler), there)
  for name, made in groups.items():
    train_pm.run_group(made, [folder('pm', *name, seed) for seed in seeds])
  for policy, (size, count), half, seed in itertools.product(config.policies, judges, trained_against,
                                                             seeds):
    others = [other for other in config.halves if other != half]
    tests = tuple(folder('pm', tested, count, other, seed)         # of as many comparisons
                  for tested in config.judges for other in others)
    train_ppo.run(
      stage(config, 'ppo', seed=seed, model=section(config, 'model', name=policy),
            policy=there('policy', policy), test_models=tests,
            preference_model=folder('pm', size, count, half, seed)),
      folder('ppo', policy, size, count, half, seed))
  summary = robustness.write(workdir)
  rundir.mark_done(workdir)
  return summary


if __name__ == '__main__':
  main(run)
