"""Reads a preference model with every instrument: accuracy, calibration, length, other people's sets.

  python -m experiments.evaluate_pm --config=configs/evaluate_pm.py --workdir=runs/pm_report \\
    --config.preference_model=runs/pm

The comparisons are those of the model's own run, made again from its config: validation gives the
mean score, test everything else. Sets named in `config.sets` are read where their files are found.
Bai et al. 2022, figures 8, 9, 10 and 25.
"""
import functools

import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from rlhf_jax.analysis import preference_report, report, tables
from rlhf_jax.core import rundir
from rlhf_jax.data import comparison_sets, sources
from rlhf_jax.data.pairs import tokenise
from rlhf_jax.run import build, comparisons, scoring, worlds
from rlhf_jax.run.config import main, to_dict
from rlhf_jax.run.train import Clock, finish


def run(config, workdir):
  """The numbers of `preference_report.measure` for the test set and each set from elsewhere."""
  trained = recorded(config)
  folder = sources.data_dir(config.data_dir or None) if config.sets else None
  mesh = build.mesh(config, config.batch_size, trained.sample_batch)
  judge, score = build.judge(config.preference_model, mesh)
  world = worlds.make(trained.data)
  sampler = comparisons.sampler(trained, judge, world, mesh)
  if rundir.open_run(workdir, to_dict(config)) == 'done':
    return rundir.read_summary(workdir)
  clock, score = Clock(), scoring.scorer(judge, score, trained.widths, config.batch_size, mesh)
  made, facts = comparisons.load(trained, judge.tokenizer, world, sampler, {
    split: trained.data[f'{split}_comparisons'] for split in ('validation', 'test')})
  data, groups = {'test': made['test']}, {'test': world.groups}
  for name in config.sets if folder else ():
    pairs = comparison_sets.load(name, folder, config.on_error)
    if pairs is not None:
      data[name], groups[name] = encoded(judge.tokenizer, pairs, max(trained.widths))

  def scores(name, compared):
    rows = scoring.comparison_rows(compared)
    with tqdm(total=len(rows), desc=f'{name:>14}', unit='answer') as bar:
      return score(rows, bar.update).reshape(2, -1)
  mean = float(scores('validation', made['validation']).mean())
  found = {name: scores(name, compared) for name, compared in data.items()}
  np.savez(f'{workdir}/scores.npz', **{f'{name}_{side}': both[i] for name, both in found.items()
                                       for i, side in enumerate(('chosen', 'rejected'))})
  measured = {name: preference_report.measure(*found[name], data[name], groups[name], mean)
              for name in data}
  ceiling = facts['ceiling'] if 'ceiling' in facts else None
  print(tables.text_table(preference_report.rows(measured)))
  report.write(
    workdir, 'Instruments of a preference model', config.preference_model,
    preference_report.sections(measured, found, data, groups, ceiling))
  summary = {'mean_score': mean, 'ceiling': ceiling, **measured, 'wall_seconds': clock()}
  cal = measured['test']['calibration']
  flags = ', '.join(f'{k} {v["verdict"]}' for k, v in measured['test']['scaled'].items())
  finish(workdir, summary, f"accuracy {measured['test']['accuracy']:.3f}, calibration error "
         f"{cal['error']:.3f}, {cal['verdict']} ({flags}) ({clock():.0f} s)")
  return summary


def recorded(config):
  """The config of the model's run."""
  older = {'best_of': 1, 'judge': '', 'kinds': ()}          # what runs before these settings did
  trained = ConfigDict(older | rundir.read_config(config.preference_model))
  if 'sample_batch' not in trained:
    raise ValueError(f'config.preference_model={config.preference_model} says nothing of comparisons: '
                     'name a run of experiments.train_pm')
  if config.policy:
    trained.policy = config.policy
  if config.data_dir and 'dir' in trained.data:
    trained.data.dir = config.data_dir
  return trained


def encoded(tokenizer, pairs, context):
  """(`pairs.Comparisons`, names of its groups) of a set, what is left out said in a line."""
  names = sorted(set(pairs.subset))
  every = np.arange(len(pairs.prompt))
  made, *_ = tokenise(tokenizer, pairs, every, functools.partial(
    worlds.encode_dialogues, tokenizer, closed=False), names, context)
  too_long = len(every) - len(made.prompt)
  left_out = [f'{n} {kind} (as {where})' for kind, (n, where) in pairs.dropped.items()]
  left_out += [f'{too_long} with an answer longer than {context} tokens'] if too_long else []
  print(f'{pairs.split[0]}: {len(made.prompt)} comparisons'
        + (f', left out: {", ".join(left_out)}' if left_out else ''))
  return made, names


if __name__ == '__main__':
  main(run)
