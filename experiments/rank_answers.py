"""Policies as rankers of other people's answers: is the better one more likely, and by how much?

  python -m experiments.rank_answers --config=configs/rank_answers.py --workdir=runs/ranks \\
    --config.policies=runs/policy,runs/ppo

Bai et al. 2022, section 6 and figure 34: the mean log-prob of a token of highly voted answers to
questions of StackExchange, minus that of lowly voted ones, and the share of pairs above 0, before and
after RL; the same on HHH, WebGPT and LLMBar. Differences between policies are paired.
"""
import numpy as np
from tqdm import tqdm

from experiments.evaluate_pm import encoded
from rlhf_jax.analysis import tables
from rlhf_jax.core import rundir
from rlhf_jax.data import comparison_sets, sources
from rlhf_jax.evals import baselines
from rlhf_jax.evals.preference import correct, rate
from rlhf_jax.models import logp
from rlhf_jax.run import build, scoring
from rlhf_jax.run.config import main, several, to_dict
from rlhf_jax.run.train import Clock, finish


def run(config, workdir):
  """{set: {policy: numbers of `measure`}}; the first policy is what the others are compared with."""
  folder = sources.data_dir(config.data_dir or None)
  if folder is None:
    raise FileNotFoundError(f'no folder of answers: name one in {sources.DATA_VARIABLE} or '
                            'config.data_dir')
  mesh = build.mesh(config, config.batch_size)
  names = several(config.policies)
  if not names:
    raise ValueError('config.policies is empty: name one or more run directories, a comma between')
  policies = [build.policy(name, mesh) for name in names]
  found = {name: comparison_sets.load(name, folder, config.on_error) for name in config.sets}
  if not any(pairs is not None for pairs in found.values()):
    raise FileNotFoundError(f'{folder} holds none of the sets {", ".join(config.sets)}')
  if rundir.open_run(workdir, to_dict(config)) == 'done':
    return rundir.read_summary(workdir)
  clock, summary, rows = Clock(), {}, []
  for name, pairs in ((n, p) for n, p in found.items() if p is not None):
    summary[name], first = {}, None
    for where, policy in zip(names, policies, strict=True):
      data, _ = encoded(policy.tokenizer, pairs, max(config.widths))
      good_N, bad_N = mean_logp(policy, data, config, mesh)
      first = (good_N, bad_N) if first is None else first
      summary[name][where] = measure(good_N, bad_N, *first)
      rows.append({'set': name, 'policy': where, **shown(summary[name][where])})
  print(tables.text_table(rows))
  finish(workdir, summary | {'wall_seconds': clock()},
         f'{len(names)} policies on {len(summary)} sets ({clock():.0f} s)')
  return summary


def mean_logp(policy, data, config, mesh):
  """(good_N, bad_N): the mean log-prob in nats of a token of each answer, its end included. The prompt
  is read on its own as well: what it adds to the sum over a whole row is taken off."""
  def total(params, tokens_BT, valid_BT):
    return logp.token_logp(policy.model, params, tokens_BT, valid_BT).sum(axis=1)
  score = scoring.scorer(policy, total, config.widths, config.batch_size, mesh)
  rows = [*scoring.comparison_rows(data), *data.prompt]
  with tqdm(total=len(rows), desc='        reading', unit='row') as bar:
    good_N, bad_N, prompt_N = score(rows, bar.update).reshape(3, -1)
  return tuple((sum_N - prompt_N) / [len(answer) for answer in answers] for sum_N, answers in (
    (good_N, data.chosen), (bad_N, data.rejected)))


def measure(good_N, bad_N, first_good_N, first_bad_N):
  """Accuracy with its interval, mean log-probs in nats per token, their difference with its standard
  error, and how much larger that is than the first policy's, with the paired error."""
  margin_N, before_N = good_N - bad_N, first_good_N - first_bad_N
  more, error = baselines.paired_difference(margin_N, before_N)
  return rate(correct(good_N, bad_N)) | {
    'good': float(good_N.mean()), 'bad': float(bad_N.mean()), 'margin': float(margin_N.mean()),
    'stderr': float(margin_N.std(ddof=1) / np.sqrt(len(margin_N))), 'more': more, 'more_stderr': error}


def shown(found):
  """A row of the table."""
  low, high = found['interval']
  return {'pairs': found['count'], 'accuracy': f"{found['accuracy']:.3f} [{low:.3f}, {high:.3f}]",
          'good': found['good'], 'good - bad': f"{found['margin']:.3f} +- {found['stderr']:.3f}",
          'against the first': f"{found['more']:.3f} +- {found['more_stderr']:.3f}"}


if __name__ == '__main__':
  main(run)
