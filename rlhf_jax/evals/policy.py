"""A policy on held-out prompts: preference-model score, exact KL, true reward where it is known."""
import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax.models import logp


def make(model, *, generate, score, truth, prompt_width, tests=None):
  """evaluate(params, frozen, key) -> per-prompt arrays [B], of one answer a prompt.

  frozen: 'reference', 'score' and 'held' = {'prompt', 'valid', 'extra'}. score: the preference
  model's Score; kl: nats per answer, sum_t KL(pi || reference) computed exactly at the sampled
  prefixes; true_reward: by the Score `truth`, absent when that is None; length: tokens. tests:
  name -> Score of preference models that are not trained against (Bai et al. 2022, section 4.2),
  their parameters in frozen['tests'], reported as score_NAME.
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
    if truth is not None:
      rows['true_reward'] = truth(None, tokens_BT, valid_BT, held['extra'])
    return rows
  return evaluate


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
    made = jax.device_get(function(jax.tree.map(lambda x, index=index: x[index], rows)))
    out.append(jax.tree.map(lambda x: x[:min(size, n - at)], made))
  return jax.tree.map(lambda *x: np.concatenate(x), *out)
