"""The runs of a sweep, read from its folder alone."""
import functools
import operator
import pathlib
from typing import NamedTuple

from rlhf_jax.core import rundir


class Run(NamedTuple):
  """A finished run. value: of the setting that is swept; curve: the columns 'step' and, by their names
  without 'eval/', what its evaluations wrote."""
  value: object
  seed: int
  config: dict
  summary: dict
  curve: dict


def read(path, key):
  """The finished Runs in the folder `path`, by value of the setting `key` ('ppo.kl_coef') and seed.

  Refuses a folder without any, and one whose runs differ in more than the two: it holds two sweeps.
  """
  folders = [folder for folder in sorted(pathlib.Path(path).iterdir()) if rundir.is_done(folder)]
  if not folders:
    raise FileNotFoundError(f'{path} holds no finished run: run the sweep first')
  runs = [_read(folder, key) for folder in folders]
  for folder, run in zip(folders, runs, strict=True):
    for name, first, here in rundir.differences(runs[0].config, run.config):
      if name not in (key, 'seed'):
        raise ValueError(f'{folders[0]} and {folder} are of two sweeps: config.{name} is {first} and '
                         f'{here}; move one of them elsewhere')
  return sorted(runs, key=lambda run: (run.value, run.seed))


def said(path, runs):
  """'18 PPO runs', and how many more of the folder `path` have not finished."""
  others = len(list(pathlib.Path(path).glob('*/config.json'))) - len(runs)
  return f'{len(runs)} PPO runs' + (f', {others} more not finished' if others else '')


def by_value(runs):
  """{value: its Runs}."""
  found = {}
  for run in runs:
    found.setdefault(run.value, []).append(run)
  return found


def _read(folder, key):
  config = rundir.read_config(folder)
  names = [name for name in rundir.read_metrics(folder) if name.startswith('eval/')]
  columns = rundir.read_metrics(folder, *names)
  return Run(functools.reduce(operator.getitem, key.split('.'), config), config['seed'], config,
             rundir.read_summary(folder),
             {name.removeprefix('eval/'): values for name, values in columns.items()})
