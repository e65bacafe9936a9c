"""How well scores order comparisons, beside the baselines of the same run."""
import numpy as np

from rlhf_jax.evals import baselines


def correct(chosen_score_N, rejected_score_N):
  """1 where the chosen answer scores higher, 0 where lower, 1/2 for a tie."""
  return 0.5 + 0.5 * np.sign(np.asarray(chosen_score_N, np.float64)
                             - np.asarray(rejected_score_N, np.float64))


def excess(accuracy, ceiling):
  """(accuracy - 1/2) / (ceiling - 1/2): the share of what can be known that is known."""
  return (accuracy - 0.5) / (ceiling - 0.5)


def summary(scores, data, groups, with_baselines=True):
  """Accuracy with its 95% interval, the baselines and their paired differences, and all by subset.

  scores: (chosen_N, rejected_N) on data['test']. data: 'train', 'validation', 'test', each with
  chosen_text, rejected_text and group_N. Test is read once, here; choices use validation.
  """
  test = data['test']
  model_N = correct(*scores)
  compared = _baselines(data) if with_baselines else {}
  accuracy, low, high = baselines.accuracy_interval(model_N)
  result = {'accuracy': accuracy, 'accuracy_interval': [low, high],
            'baselines': {k: float(v.mean()) for k, v in compared.items()},
            'advantage': {k: dict(zip(('difference', 'stderr'), baselines.paired_difference(
              model_N, v), strict=True)) for k, v in compared.items()}, 'subsets': {}}
  for g in np.unique(test.group_N):
    here = test.group_N == g
    accuracy, low, high = baselines.accuracy_interval(model_N[here])
    result['subsets'][groups[g]] = {
      'accuracy': accuracy, 'interval': [low, high], 'count': int(here.sum()),
      'baselines': {k: float(v[here].mean()) for k, v in compared.items()}}
  return result


def _baselines(data):
  """Per-comparison correctness on test of the three baselines, learnt on train."""
  train, test = data['train'], data['test']
  pairs = {k: (v.chosen_text, v.rejected_text) for k, v in data.items()}
  signed = baselines.longer_signed(baselines.longer(*pairs['train']), train.group_N,
                                   baselines.longer(*pairs['test']), test.group_N)
  return {'longer': baselines.longer(*pairs['test']), 'longer_signed': signed,
          'ngram': baselines.ngram(pairs['train'], pairs['validation'], pairs['test'])}
