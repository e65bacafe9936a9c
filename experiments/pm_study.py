"""Preference models of several sizes under several settings: one study behind several figures.

  python -m experiments.pm_study --config=configs/pm_study.py:scaling --workdir=runs/scaling

Language models of all sizes, one distilled policy that answers, then preference models: every size,
every point of `config.points` (settings of train_pm), every seed, the seeds of a point in one program.
With `config.base` the language models and policies are those of another study's folder, as far as they
are there. Every stage is an ordinary run in a folder of its own, so an interrupted study resumes;
report.html and summary.json come from the folders alone, by `config.analysis`.
"""
import itertools
import pathlib

from experiments import distill_context, pretrain_lm, train_pm
from rlhf_jax.analysis import pm_study
from rlhf_jax.core import rundir
from rlhf_jax.run import worlds
from rlhf_jax.run.config import main, override, section, stage, to_dict


def run(config, workdir):
  """Runs what is not done yet; returns the summary."""
  folder, there = folders(workdir), folders(workdir, config.base)
  names, groups = (*config.sizes, config.sampler), {}
  for size, (name, changes) in itertools.product(config.sizes, config.points):
    groups[size, name] = made = [
      stage(config, 'pm', seed=seed, model=section(config, 'model', name=size), init=there('lm', size),
            policy=there('policy', config.sampler)) for seed in range(config.seeds)]
    for point, (key, value) in itertools.product(made, changes):
      override(point, key, value)
  if not rundir.is_done(workdir):                 # a bad setting must not leave a folder behind
    check(config, names, [point for made in groups.values() for point in made], there)
    pm_study.check(config.analysis)
  if rundir.open_run(workdir, to_dict(config)) == 'done':
    return rundir.read_summary(workdir)
  language_models(config, names, there)
  policies(config, (config.sampler,), there)
  for (size, name), made in groups.items():
    train_pm.run_group(made, [folder('pm', size, name, seed) for seed in range(config.seeds)])
  summary = pm_study.write(workdir, config.analysis)
  rundir.mark_done(workdir)
  return summary


def check(config, names, stages, there):
  """Refuses what a study over seeds cannot be run with, before its first model is trained. names: of
  the sizes; stages: configs of train_pm; there: of `folders`, stages done there are not looked at."""
  worlds.make(config.data)
  for name in dict.fromkeys(names):
    if not rundir.is_done(there('lm', name)):
      pretrain_lm.check(stage(config, 'lm', model=section(config, 'model', name=name)))
  if not rundir.is_done(there('policy', config.sampler)):
    distill_context.check(stage(config, 'policy'))
  for point in stages:
    train_pm.check(point)
  if config.seeds < 2:
    raise ValueError(f'config.seeds={config.seeds} gives no interval: use 2 or more')
  if config.base and not pathlib.Path(config.base).is_dir():
    raise FileNotFoundError(f'config.base={config.base} is no folder: name that of a study, or leave '
                            'it out to train its models here')


def folders(workdir, base=''):
  """folder(*name) -> path of a stage's run: in `base` where it has been finished there, else in
  `workdir`."""
  def folder(*name):
    name = '-'.join(str(part) for part in name if part != '')
    there = base and pathlib.Path(base) / name
    return str(there if base and rundir.is_done(there) else pathlib.Path(workdir) / name)
  return folder


def language_models(config, names, folder):
  """Pretrains a language model of each size that is not there yet."""
  for size in dict.fromkeys(names):
    if not rundir.is_done(folder('lm', size)):
      pretrain_lm.run(stage(config, 'lm', model=section(config, 'model', name=size)),
                      folder('lm', size))


def policies(config, names, folder):
  """Distils the context into the language model of each size that has no policy yet."""
  for size in dict.fromkeys(names):
    if not rundir.is_done(folder('policy', size)):
      distill_context.run(stage(config, 'policy', model=section(config, 'model', name=size),
                                teacher=folder('lm', size), init=folder('lm', size)),
                          folder('policy', size))


if __name__ == '__main__':
  main(run)
