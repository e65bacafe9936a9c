"""A whole PPO iteration, ours against TRL's PPOTrainer and Tunix's PPOLearner, on the same work.

  python -m experiments.benchmarks.ppo --workdir=runs/bench/ppo

The same Llama of 10.6M parameters outside its tables as policy and reference, reward and value models
of its size, the same prompts, numbers of tokens, passes and minibatches. Lengths are 'fixed' (no answer
ends before the cap) or 'geometric' (mean 32, cap 128). Rates are produced tokens a second; every
contender in its fastest documented setting. Those in float32 take turns, and those in bfloat16: all
together need more than 24 GiB. `--contenders` names others, who take turns with one another, and are
added to what the workdir has. Writes summary.json, table.txt and figure.png.
"""
import argparse
import json
import pathlib

import matplotlib.figure
import numpy as np

from experiments.benchmarks import contest, ppo_models
from rlhf_jax.analysis import tables
from rlhf_jax.core import rundir, step

SETTINGS = {                      # lengths, passes
  'fixed': ('fixed', 1), 'geometric': ('geometric', 1), 'four-passes': ('fixed', 4)}
MEAN = 32
SHARES = (0.5, 0.5625, 0.625, 0.6875)
CONTENDERS = {
  'ours f32': ('ours', {'dtype': 'float32', 'packed': ()}),
  'ours f32 packed': ('ours', {'dtype': 'float32', 'packed': SHARES}),
  'ours bf16': ('ours', {'dtype': 'bfloat16', 'packed': ()}),
  'ours bf16 packed': ('ours', {'dtype': 'bfloat16', 'packed': SHARES}),
  'trl f32': ('trl', {'stored': 'float32', 'autocast': False, 'attention': 'sdpa'}),
  'trl f32 eager': ('trl', {'stored': 'float32', 'autocast': False, 'attention': 'eager'}),
  'trl bf16 autocast': ('trl', {'stored': 'float32', 'autocast': True, 'attention': 'sdpa'}),
  'trl bf16': ('trl', {'stored': 'bfloat16', 'autocast': False, 'attention': 'sdpa'}),
  'tunix f32': ('tunix', {'stored': 'float32'}),
  'tunix bf16': ('tunix', {'stored': 'bfloat16'})}
DEFAULT = {               # groups that take turns, by lengths
  'fixed': (('ours f32', 'trl f32', 'tunix f32'), ('ours bf16', 'trl bf16')),
  'geometric': (('ours f32 packed', 'trl f32', 'tunix f32'), ('ours bf16 packed', 'trl bf16'))}


def worker(name, work):
  kind, options = CONTENDERS[name]
  settings = work | options
  if kind == 'ours':
    return contest.ours(name, 'ppo_worker', settings)
  if kind == 'trl':
    return contest.peer(name, 'trl-ppo', 'trl_ppo.py', settings)
  return contest.peer(name, 'tunix', 'tunix_ppo.py', settings)


def work(setting, folder, args):
  """What is asked of every contender."""
  lengths, passes = SETTINGS[setting]
  config = ppo_models.make(folder, None if lengths == 'fixed' else MEAN, args.tiny)
  return {
    **{name: str(folder / name) for name in ('policy', 'reward', 'scratch')},
    'tokenizer': str(folder / 'tokenizer.json'), 'end': ppo_models.SPECIAL[0],
    'pad': ppo_models.SPECIAL[1],
    'prompts': str(ppo_models.prompts(folder, config, 8 * args.rows, args.prompt_width)),
    'sizes': ppo_models.peer_sizes(config), 'batch_size': args.rows, 'answer_width': args.answer_width,
    'minibatches': args.minibatches, 'passes': passes, 'rate': 1e-6}


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--workdir', required=True)
  parser.add_argument('--settings', nargs='+', default=list(SETTINGS), choices=SETTINGS)
  parser.add_argument('--contenders', nargs='+', choices=CONTENDERS, help='in turn, instead of those')
  parser.add_argument('--repeats', type=int, default=5)
  parser.add_argument('--rows', type=int, default=32)
  parser.add_argument('--prompt-width', type=int, default=64)
  parser.add_argument('--answer-width', type=int, default=128)
  parser.add_argument('--minibatches', type=int, default=1)
  parser.add_argument('--tiny', action='store_true', help='a model of no size, to see that all run')
  args = parser.parse_args()
  step.check_parts(args.rows, args.minibatches)
  path = pathlib.Path(args.workdir)
  path.mkdir(parents=True, exist_ok=True)
  for setting in args.settings:
    asked, file = work(setting, (path / setting).absolute(), args), path / f'{setting}.json'
    here = {'setting': setting, 'work': asked, 'machine': contest.machine()}
    before = json.loads(file.read_text()) if file.exists() else here
    if any(before[key] != each for key, each in here.items()):
      parser.error(f'{file} was measured on other work or another machine: name another --workdir')
    groups, facts, thrown = before.get('rounds', []), before.get('facts', {}), before.get('thrown', 0)
    for names in [args.contenders] if args.contenders else DEFAULT[SETTINGS[setting][0]]:
      workers = [worker(name, asked) for name in names]
      said, again = contest.rounds(workers, args.repeats, label=setting)
      groups = [*(g for g in groups if set(g) != set(said)), said]
      thrown += again
      facts |= {w.name: w.facts for w in workers}
      for each in workers:
        each.close()
      print(tables.text_table(rows([said])), flush=True)
      rundir.write_text(file, json.dumps(here | {
        'thrown': thrown, 'facts': facts, 'rounds': groups}) + '\n')
  report(path)


def rows(groups):
  """One row a contender: produced tokens a second, seconds, and how many times ours is faster than it
  in the same rounds. groups: for each, {name: what was said of each round}."""
  made = []
  for said, name in ((group, name) for group in groups for name in group):
    results = said[name]
    seconds = [r['seconds'] for r in results]
    made.append({
      'contender': name, 'tokens/s': round(_median(results), 1),
      'seconds': f'{np.median(seconds):.2f} [{min(seconds):.2f}, {max(seconds):.2f}]',
      'tokens': round(float(np.mean([r['tokens'] for r in results])))})
    for ours in (n for n in said if CONTENDERS[n][0] == 'ours'):
      r = contest.ratio(said, ours, name, contest.per_second())
      made[-1][f'{ours} is faster'] = f'{r.median:.2f} [{r.low:.2f}, {r.high:.2f}]'
  return made


def _all(result):
  """{name: its rounds} of all groups."""
  return {name: each for said in result['rounds'] for name, each in said.items()}


def _median(results):
  return float(np.median([r['tokens'] / r['seconds'] for r in results]))


def report(path):
  """table.txt, summary.json and figure.png of all settings measured in `path`."""
  found = {s: rundir.read_json(path / f'{s}.json', 'measure it first') for s in SETTINGS
           if (path / f'{s}.json').exists()}
  text = ''
  for setting, result in found.items():
    text += f'{setting}\n{tables.text_table(rows(result["rounds"]))}\n'
    for name, results in _all(result).items():
      if 'split' in results[0]:
        parts = {k: np.median([r['split'][k] for r in results]) for k in results[0]['split']}
        text += f'{name}: ' + ', '.join(f'{k} {v:.2f} s' for k, v in parts.items()) + '\n'
    text += '\n'
  rundir.write_text(path / 'table.txt', text)
  rundir.write_summary(path, {s: {'rows': rows(r['rounds'])} | {k: r[k] for k in (
    'machine', 'thrown', 'facts')} for s, r in found.items()})
  figure = matplotlib.figure.Figure(figsize=(4 * max(len(found), 1), 3), layout='constrained')
  for axes, (setting, result) in zip(figure.subplots(1, max(len(found), 1), squeeze=False)[0],
                                     found.items(), strict=True):
    said = _all(result)
    axes.barh(list(said), [_median(results) for results in said.values()],
              color=['C0' if name.startswith('ours') else 'C7' for name in said])
    axes.invert_yaxis()
    axes.set_title(setting)
    axes.set_xlabel('produced tokens a second')
  figure.savefig(path / 'figure.png', dpi=150)
  print(text)


if __name__ == '__main__':
  contest.command(main)
