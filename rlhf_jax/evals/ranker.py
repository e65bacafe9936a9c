"""A policy as a ranker of other answers (Bai et al. 2022, section 4.5, Fig. 34).

The policy is right about a comparison when the mean log-prob of a token of the chosen answer is above
that of the rejected one; a tie is half right. The preference model's accuracy on the same comparisons
is what reinforcement learning against it could teach at most. `pairs` is that of
`run.comparisons.ranked`: {kind: {'chosen', 'rejected': (tokens_BT, valid_BT)}}, the answer from
column `start` on.
"""
import jax.numpy as jnp
import numpy as np

from rlhf_jax.evals import baselines, preference
from rlhf_jax.models import logp

SIDES = 'chosen', 'rejected'


def mean_logp(model, params, tokens_BT, valid_BT, start):
  """Mean log-prob of a token of the answer, end token included, in nats -> [B]."""
  mask_BT = valid_BT[:, start:]
  logp_BT = logp.token_logp(model, params, tokens_BT, valid_BT, start=start)[:, start:]
  return (logp_BT * mask_BT).sum(1) / mask_BT.sum(1)


def rows(model, params, pairs, start):
  """Per-comparison arrays: 'rank_KIND', 1 where the policy is right; of all kinds 'rank_accuracy', and
  'rank_margin', the mean log-prob of the chosen answer minus that of the rejected one in nats per
  token. {} without comparisons."""
  if not pairs:
    return {}
  margin = {}
  for kind, sides in sorted(pairs.items()):              # a compiled program sorts dictionaries too
    chosen_B, rejected_B = (mean_logp(model, params, *sides[side], start) for side in SIDES)
    margin[kind] = chosen_B - rejected_B
  margin_N = jnp.concatenate([*margin.values()])
  return {'rank_margin': margin_N, 'rank_accuracy': (1 + jnp.sign(margin_N)) / 2,
          **{f'rank_{kind}': (1 + jnp.sign(margin_B)) / 2 for kind, margin_B in margin.items()}}


def ceiling(score, params, pairs):
  """The same arrays, without the margin, for a preference model's Score."""
  if not pairs:
    return {}
  right = {f'rank_{kind}': preference.correct(*(score(params, *sides[side], {}) for side in SIDES))
           for kind, sides in sorted(pairs.items())}
  return {'rank_accuracy': np.concatenate([*right.values()]), **right}


def summary(start, end, ceiling):
  """{'rank_...': accuracies and 95% intervals at start and end, gain and its standard error over the
  same comparisons, and the preference model's; 'rank_margin': means}: of the arrays above, {} when
  there are none."""
  result = {'rank_margin': {when: float(np.mean(made['rank_margin'])) for when, made in
                            (('start', start), ('end', end))}} if ceiling else {}
  for name, best_N in ceiling.items():
    row = {}
    for when, right_N in (('start', start[name]), ('end', end[name]), ('ceiling', best_N)):
      accuracy, *interval = baselines.accuracy_interval(right_N)
      row |= {when: accuracy, f'{when}_interval': interval}
    gain, error = baselines.paired_difference(end[name], start[name])
    result[name] = row | {'gain': gain, 'gain_stderr': error}
  return result
