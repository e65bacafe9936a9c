"""A policy on held-out prompts: preference-model score, exact KL, true reward where it is known, and
all of it for helpful and harmful prompts apart (Bai et al. 2022, section 4.4, Fig. 14)."""
import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax.core import mesh as meshes
from rlhf_jax.evals import baselines, ranker
from rlhf_jax.models import logp

KINDS = {'score': ('score_helpful', 'score_harmful'),       # what is told apart by kind of prompt
         'true_reward': ('true_reward_helpful', 'true_reward_harmful'),
         'refusal': ('refusal_benign', 'refusal_harmful')}

def make(model, *, generate, score, truths, prompt_width, tests=None, harmful_B=None):
  """evaluate(params, frozen, key) -> per-prompt arrays [B], of one answer a prompt.

  frozen: 'reference', 'score' and 'held' = {'prompt', 'valid', 'extra', 'ranked'}. score: the
  preference model's Score; kl: nats per answer, sum_t KL(pi || reference) computed exactly at the
  sampled prefixes; length: tokens; one more for each Score of `truths`. tests: name -> Score of
  preference models that are not trained against (Bai et al. 2022, section 4.2), their parameters in
  frozen['tests'], reported as score_NAME. Where harmful_B tells which prompts ask for harm, the arrays
  of `KINDS` as well, shorter ones, none that would be empty; and per comparison those of
  `ranker.rows` on the comparisons 'ranked'.
  """
  def evaluate(params, frozen, key):
    held = frozen['held']
    sample = generate(params, held['prompt'], held['valid'], key)
    tokens_BT, mask_BT = sample.tokens_BT, sample.mask_BT
    valid_BT = jnp.concatenate([held['valid'], mask_BT[:, prompt_width:]], axis=1)
    kl_BT = logp.exact_kl(model, params, frozen['reference'], tokens_BT, valid_BT,
                          start=prompt_width)
    rows = {'score': score(frozen['score'], tokens_BT, valid_BT, {}),
            'kl': (kl_BT * mask_BT).sum(1), 'length': mask_BT.sum(1)}
    rows |= {f'score_{name}': test(frozen['tests'][name], tokens_BT, valid_BT, {})
             for name, test in (tests or {}).items()}
    for name, truth in truths.items():
      rows[name] = truth(None, tokens_BT, valid_BT, held['extra'])
    return (rows | by_kind(rows, harmful_B)
            | ranker.rows(model, params, held['ranked'], prompt_width))
  return evaluate


def by_kind(rows, harmful_B):
  """The arrays of `KINDS` from those of all prompts; {} where harmful_B is None."""
  if harmful_B is None:
    return {}
  return {name: rows[whole][np.flatnonzero(mask_B)] for whole, names in KINDS.items() if whole in rows
          for name, mask_B in zip(names, (~harmful_B, harmful_B), strict=True) if mask_B.any()}


def kinds(start, end):
  """{name of KINDS: {'start', 'end', 'low', 'high'}}: means of the first and the last policy, and the
  95% interval of the last (Wilson's for refusals)."""
  result = {}
  for name in (name for names in KINDS.values() for name in names if name in end):
    mean, error = np.mean(end[name]), np.std(end[name]) / np.sqrt(max(len(end[name]) - 1, 1))
    low, high = (baselines.wilson(mean, len(end[name])) if name.startswith('refusal')
                 else (mean - 1.96 * error, mean + 1.96 * error))
    result[name] = {k: float(v) for k, v in (('start', np.mean(start[name])), ('end', mean),
                                             ('low', low), ('high', high))}
  return result


def means(evaluate):
  """evaluate(...) as scalars: the mean of every array."""
  return lambda *args: {name: x.mean() for name, x in evaluate(*args).items()}


def gain(start, end, curve):
  """The summary of a run: per-prompt arrays of its first and last policy, and the evaluations along
  the way (`curve`, columns). `gain` and its standard error are paired over prompts."""
  result = {'pm_score_start': np.mean(start['score']), 'pm_score_end': np.mean(end['score']),
            'kl_end': np.mean(end['kl']), 'length_start': np.mean(start['length']),
            'length_end': np.mean(end['length']), 'pm_score_sd_start': np.std(start['score'])}
  difference = end['score'] - start['score']
  result['pm_gain'] = np.mean(difference)
  result['pm_gain_stderr'] = np.std(difference, ddof=1) / np.sqrt(len(difference))
  if 'true_reward' in end:
    difference = end['true_reward'] - start['true_reward']
    result |= {'true_reward_start': np.mean(start['true_reward']),
               'true_reward_end': np.mean(end['true_reward']),
               'true_reward_peak': np.max(curve['eval/true_reward']),
               'gain': np.mean(difference),
               'gain_stderr': np.std(difference, ddof=1) / np.sqrt(len(difference))}
  return {name: float(value) for name, value in result.items()}


def line(summary):
  """One line of numbers for the terminal."""
  truth = (f"true reward {summary['true_reward_start']:.3f} -> {summary['true_reward_end']:.3f} "
           f"(gain {summary['gain']:.3f} +- {summary['gain_stderr']:.3f}), "
           if 'gain' in summary else '')
  return truth + (f"score {summary['pm_score_start']:.2f} -> {summary['pm_score_end']:.2f}, "
                  f"KL {summary['kl_end']:.2f} nats")


def in_parts(function, rows, size):
  """function(part) over `rows` (a tree of host arrays), `size` rows at a time, one shape; results
  joined on the host. The last part is filled up by repeating and cut back."""
  n = len(jax.tree.leaves(rows)[0])
  out = []
  for at in range(0, n, size):
    index = np.resize(np.arange(at, min(at + size, n)), size)
    made = meshes.fetch(function(jax.tree.map(lambda x, index=index: x[index], rows)))
    out.append(jax.tree.map(lambda x: x[:min(size, n - at)], made))
  return jax.tree.map(lambda *x: np.concatenate(x), *out)
