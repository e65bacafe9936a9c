"""Runs the points of a sweep in this process, one after another or several in one program.

  python -m experiments.sweep --config=configs/train_ppo.py --sweep=kl --workdir=runs/kl

`sweep_NAME()` of the config file returns the points: dictionaries of overrides, `variant` naming the
base config and `group` the points that share one compiled program. Each point is an ordinary run in a
folder named by the hash of its resolved config; finished points are passed over. Where a guard stops a
point of a group the others go on one by one; the table at the end says which was stopped and why.
`report_NAME`, where there is one beside it, is called with the folder of the sweep then.
"""
import functools
import importlib
import operator
import pathlib
import sys

from rlhf_jax.analysis import tables
from rlhf_jax.core import rundir
from rlhf_jax.run import config as configs
from rlhf_jax.run.hooks import Diverged


def points(path, name):
  """[(group, shown overrides, resolved config)] of `sweep_NAME()` in the config file `path`."""
  file, _, variant = path.partition(':')
  module = configs.module(file)
  made = getattr(module, f'sweep_{name}', None)
  if made is None:
    known = [n[len('sweep_'):] for n in dir(module) if n.startswith('sweep_')]
    raise ValueError(f'{file} has no sweep {name!r}; it has: {", ".join(known) or "none"}')
  out = []
  for number, point in enumerate(made()):
    point = dict(point)
    group, base = point.pop('group', f'point {number}'), point.pop('variant', variant)
    config = module.get_config(base)
    for key, value in point.items():
      configs.override(config, key, value)
    out.append((group, point, config))
  return out


def run(path, name, workdir, overrides=()):
  """Runs what is not done; returns one row a point: its overrides and its summary, or why it was
  'stopped'."""
  todo = points(path, name)
  for _, _, config in todo:
    for key, value in overrides:
      configs.override(config, key, value)
    configs.check_ranges(config)
  folders = [str(pathlib.Path(workdir) / rundir.config_hash(configs.to_dict(c))) for _, _, c in todo]
  check_folder(workdir, folders, todo)
  summaries, stopped = {}, {}
  for group in dict.fromkeys(group for group, _, _ in todo):
    mine = [i for i, point in enumerate(todo) if point[0] == group
            and not rundir.is_done(folders[i])]
    if mine:
      main = importlib.import_module(todo[mine[0]][2].main)
      if not hasattr(main, 'run_group') and len(mine) > 1:
        raise ValueError(f'{main.__name__} runs one point at a time: leave out group={group!r}')
      made, broken = attempt(main, [todo[i][2] for i in mine], [folders[i] for i in mine])
      summaries, stopped = summaries | made, stopped | broken
  return [{**point, 'run': pathlib.Path(folder).name} | (
            {'stopped': stopped[folder]} if folder in stopped else
            numbers(summaries.get(folder) or rundir.read_summary(folder)))
          for (_, point, _), folder in zip(todo, folders, strict=True)]


def attempt(main, chosen, folders):
  """({folder: summary}, {folder: why a guard stopped it}) of the runs `chosen`, in one program; where
  one of several is stopped, the others go on from their checkpoints, each alone."""
  try:
    with configs.naming(*chosen):
      made = main.run_group(chosen, folders) if hasattr(main, 'run_group') else [
        main.run(chosen[0], folders[0])]
    return dict(zip(folders, made, strict=True)), {}
  except Diverged as error:
    print(f'stopped: {error}', flush=True)
    if len(folders) == 1:
      return {}, {folders[0]: str(error).removeprefix(f'{folders[0]}: ').partition(';')[0]}
  print(f'the {len(folders)} runs of its group go on one by one', flush=True)
  each = [attempt(main, [config], [folder]) for config, folder in zip(chosen, folders, strict=True)]
  return tuple(functools.reduce(operator.or_, part) for part in zip(*each, strict=True))


def check_folder(workdir, folders, todo):
  """Refuses a folder with runs that differ from these in more than the points and the seed: one report
  could not be of both."""
  free = {'seed'}.union(*(point for _, point, _ in todo))
  mine = configs.to_dict(todo[0][2])
  there = {str(path.parent) for path in pathlib.Path(workdir).glob('*/config.json')}
  for folder in sorted(there - set(folders)):
    for name, old, new in rundir.differences(rundir.read_config(folder), mine):
      if name not in free:
        raise FileExistsError(f'{folder} is of another sweep: config.{name} is {old} there and {new} '
                              'here; name another --workdir=, or move it elsewhere')


def numbers(summary):
  """The plain numbers at the top of a summary."""
  return {k: v for k, v in summary.items() if isinstance(v, (int, float)) and k != 'wall_seconds'}


def main(argv):
  options, overrides = configs.arguments(argv, ('config', 'sweep', 'workdir'))
  configs.prepare_backend()
  with configs.told_once():
    rows = run(options['config'], options['sweep'], options['workdir'], overrides)
    print(tables.text_table(rows))
    file = configs.module(options['config'].partition(':')[0])
    report = getattr(file, f"report_{options['sweep']}", None)
    stopped = sum('stopped' in row for row in rows)
    if report and rundir.writes() and stopped < len(rows):
      report(options['workdir'])
    if stopped:
      raise Diverged(f'{stopped} of {len(rows)} points were stopped by a guard: the table above says '
                     'why; their last good checkpoints are kept')


if __name__ == '__main__':
  configs.reported(main, sys.argv[1:])
