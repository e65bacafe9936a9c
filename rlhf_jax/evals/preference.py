"""How well scores order comparisons: overall and by subset, beside the baselines of the same run; by
turn of the dialogue, by height of the scores, and with the length of the answers controlled.

Shapes: N comparisons. correct_N is what `correct` gives: 1 right, 0 wrong, 1/2 undecided.
"""
import numpy as np

from rlhf_jax.evals import baselines


def correct(chosen_score_N, rejected_score_N):
  """1 where the chosen answer scores higher, 0 where lower, 1/2 for a tie."""
  return 0.5 + 0.5 * np.sign(np.asarray(chosen_score_N, np.float64)
                             - np.asarray(rejected_score_N, np.float64))


def excess(accuracy, ceiling):
  """(accuracy - 1/2) / (ceiling - 1/2): the share of what can be known that is known."""
  return (accuracy - 0.5) / (ceiling - 0.5)


def rate(correct_N):
  """{'accuracy', 'interval' (Wilson 95%), 'count'} of some comparisons."""
  accuracy, low, high = baselines.accuracy_interval(correct_N)
  return {'accuracy': accuracy, 'interval': [low, high], 'count': len(correct_N)}


def by_turn(correct_N, turn_N, last=5):
  """[{'turn', 'accuracy', 'interval', 'count'}] by the number of the assistant's turn that is
  compared, from 1; all from `last` on count as `last` (Bai et al. 2022, figure 8)."""
  turn_N = np.minimum(turn_N, last)
  return [{'turn': int(t)} | rate(correct_N[turn_N == t]) for t in np.unique(turn_N)]


def by_threshold(chosen_N, rejected_N, mean, levels=6):
  """[{'threshold', 'accuracy', 'interval', 'count'}] of the comparisons in which both scores, minus
  `mean`, reach a threshold.

  Bai et al. 2022, figure 25: `mean` is that of the same model's scores on held-out comparisons, so
  that models can be laid side by side. Thresholds are `levels` even steps from where all but 2% of
  the comparisons are left to where 10% are.
  """
  lower_N = np.minimum(chosen_N, rejected_N) - mean
  correct_N = correct(chosen_N, rejected_N)
  return [{'threshold': float(level)} | rate(correct_N[lower_N >= level])
          for level in np.linspace(*np.quantile(lower_N, [0.02, 0.9]), levels)]


def length_controlled(correct_N, chosen_length_N, rejected_length_N, bins=5):
  """Accuracy where knowing lengths is worth nothing: {'accuracy', 'stderr', 'covered',
  'longer_chosen', 'accuracy_longer', 'accuracy_shorter'}.

  Comparisons are put into `bins` strata of equal count by |log(length ratio)|. In each the mean of
  two accuracies is taken, that where the longer answer was chosen and that where the shorter was;
  the strata count by their size (answers of one length: a stratum of its own). Whatever follows from
  the two lengths by a rule without favour for either side is right on one half of a stratum and
  wrong on the other, and so scores 1/2. Direct standardisation: Cochran 1968, who finds five strata
  to remove nine tenths of a bias; strata of length for rewards: Singhal et al. 2023. The other way,
  a regression with a length term (Dubois et al. 2024), assumes how length acts, which differs in
  sign between the helpful and the harmless subset. covered: the share of the comparisons in strata
  that have both halves; the others are not counted.
  """
  correct_N = np.asarray(correct_N, np.float64)
  ratio_N = np.log(np.maximum(chosen_length_N, 1) / np.maximum(rejected_length_N, 1))
  order = np.argsort(np.abs(ratio_N), kind='stable')
  order = order[ratio_N[order] != 0]
  strata = [[np.flatnonzero(ratio_N == 0)], *([part[ratio_N[part] > 0], part[ratio_N[part] < 0]]
                                              for part in np.array_split(order, bins))]
  strata = [halves for halves in strata if all(map(len, halves))]
  if not strata:
    return None
  count_S = np.array([sum(map(len, halves)) for halves in strata])
  mean_S = np.array([np.mean([correct_N[half].mean() for half in halves]) for halves in strata])
  variance_S = np.array([sum(correct_N[half].var() / len(half) for half in halves) / len(halves) ** 2
                         for halves in strata])
  share_S = count_S / count_S.sum()
  sides = {'longer': correct_N[ratio_N > 0], 'shorter': correct_N[ratio_N < 0]}
  return {'accuracy': float(share_S @ mean_S), 'stderr': float(np.sqrt(share_S ** 2 @ variance_S)),
          'covered': float(count_S.sum() / len(correct_N)),
          'longer_chosen': float(np.mean(ratio_N > 0)),
          **{f'accuracy_{k}': float(v.mean()) if len(v) else None for k, v in sides.items()}}


def summary(scores, data, groups, harmful_N, with_baselines=True):
  """Accuracy with its 95% interval, the baselines and their paired differences, and all by subset and
  by side: helpful or harmful requests, as far as there are any.

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
              model_N, v), strict=True)) for k, v in compared.items()},
            'sides': {side: rate(model_N[here]) for side, here in (
              ('helpful', ~harmful_N), ('harmful', harmful_N)) if here.any()}, 'subsets': {}}
  for g in np.unique(test.group_N):
    here = test.group_N == g
    result['subsets'][groups[g]] = rate(model_N[here]) | {
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
