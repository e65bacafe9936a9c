"""The report of one pipeline run, read from its run directories alone."""
import pathlib

import numpy as np

from rlhf_jax.algorithms import best_of_n
from rlhf_jax.analysis import calibration, figures, fits, report
from rlhf_jax.core import rundir


def write(path):
  """Writes report.html into `path`, a folder with the runs lm, policy, pm and ppo."""
  path = pathlib.Path(path)
  summary = rundir.read_summary(path)
  sections = [_headline(summary), _losses(path), _preferences(path, summary),
              _ppo(path, summary), _samples(path)]
  report.write(
    path, 'Training a helpful and harmless assistant', _subtitle(path, summary), sections)


def _subtitle(path, summary):
  config = rundir.read_config(path)
  where = {'oracle': 'the oracle world (made dialogues, true reward known)',
           'hh': 'the published HH comparisons'}[config['data']['source']]
  return (f"{config['model']['name']} models on {where}, seed {config['seed']}, "
          f"{summary['wall_seconds']['total'] / 60:.1f} minutes on {summary['versions']['backend']}")


def _headline(summary):
  pm, ppo, law = summary['pm'], summary['ppo'], summary['sqrt_kl']
  numbers = {'PM accuracy': pm['accuracy']}
  if 'ceiling' in pm:
    numbers |= {'noise ceiling': pm['ceiling']}
  if 'gain' in ppo:
    numbers |= {'true reward, start': ppo['true_reward_start'],
                'true reward, end': ppo['true_reward_end'],
                'gain / standard error': ppo['gain'] / ppo['gain_stderr']}
  else:
    numbers |= {'PM score, start': ppo['pm_score_start'], 'PM score, end': ppo['pm_score_end']}
  numbers |= {'KL at the end (nats)': ppo['kl_end']}
  if law['r2'] is not None:
    numbers |= {'R² in √KL': law['r2']}
  return report.Section('In numbers', numbers=numbers)


def _losses(path):
  curves = {}
  for name, title in (('lm', 'Language model'), ('policy', 'Context distillation'),
                      ('pm', 'Preference model')):
    metrics = rundir.read_metrics(path / name, 'loss')
    curves[title] = metrics['step'], _smooth(metrics['loss'])
  return report.Section(
    'Training losses', figures=[(figures.loss_curves(curves), 'Language model: nats per token. '
    'Distillation: 51-way KL to the prompted teacher. Preference model: pair loss plus language-model '
    'loss on the chosen side. Running means.')])


def _smooth(values, width=9):
  width = min(width, len(values))
  return np.convolve(np.pad(values, (width // 2, width - 1 - width // 2), 'edge'),
                     np.ones(width) / width, 'valid')


def _preferences(path, summary):
  pm, seen = summary['pm'], rundir.read_metrics(path / 'pm', 'eval/accuracy')
  config = rundir.read_config(path / 'pm')
  per_batch, epochs = config['batch_size'], config['epochs']
  scores = np.load(path / 'pm' / 'test_scores.npz')
  gap = scores['chosen'] - scores['rejected']
  curve = calibration.curve(gap, gap > 0, 10)
  by_subset = {name: (s['accuracy'], *s['interval']) for name, s in pm['subsets'].items()}
  rows = [{'subset': name, 'comparisons': s['count'], 'accuracy': s['accuracy'], **s['baselines']}
          for name, s in pm['subsets'].items()]
  error = calibration.expected_calibration_error(1 / (1 + np.exp(-np.abs(gap))), gap > 0, 10)
  return report.Section(
    'Preference model', paragraphs=[
      'The score is read on an end-of-context token behind the dialogue; comparisons are seen '
      + ('once. ' if epochs == 1 else f'{epochs} times. ')
      + ('The noise ceiling is the accuracy of the true reward itself against the noisy labels.'
         if 'ceiling' in pm else 'Baselines are computed in the same run on the same records.')],
    figures=[
      (figures.preference_accuracy(seen['step'] * per_batch, seen['eval/accuracy'], pm.get('ceiling'),
                                   pm.get('agreement'), pm['baselines']),
       'Accuracy on validation comparisons while training; the lines are measured on the test set.'),
      (figures.accuracy_bars(by_subset, {n: s['baselines'] for n, s in pm['subsets'].items()}),
       'Test accuracy by subset with 95% intervals, and the baselines.'),
      (figures.calibration(curve),
       f'Calibration on the test set; expected calibration error {error:.3f}.')],
    table=rows)


def _ppo(path, summary):
  metrics = rundir.read_metrics(path / 'ppo', 'score', 'k1', 'response_length', 'entropy_per_token',
                                'clip_fraction', 'explained_variance')
  curve = rundir.read_metrics(path / 'ppo', *(['eval/kl', 'eval/score'] + (
    ['eval/true_reward'] if 'gain' in summary['ppo'] else [])))
  per_step = rundir.read_config(path / 'ppo')['ppo']['batch_size']
  best = {int(n): (float(best_of_n.kl(int(n))), row['pm_score'], row.get('true_reward'))
          for n, row in summary['best_of_n'].items() if int(n) > 1}
  rows = [{'n': int(n), 'KL (nats)': float(best_of_n.kl(int(n))), **row}
          for n, row in summary['best_of_n'].items()]
  return report.Section(
    'Reinforcement learning', paragraphs=[
      'PPO against the preference model with a KL penalty to the start policy. Each point is one '
      'evaluation on held-out prompts, with the KL computed exactly at the sampled prefixes. The line '
      'is fitted to the points up to half of the total gain in score (solid) and carried on (dashed).'],
    figures=[
      (figures.reward_against_sqrt_kl(curve['eval/kl'], curve['eval/score'],
                                      curve.get('eval/true_reward'),
                                      fits.early_part(curve['eval/score']), best),
       'Score and true reward against √KL, with best-of-n samples of the start policy.'
       if 'gain' in summary['ppo'] else 'Score against √KL, with best-of-n of the start policy.'),
      (figures.training(metrics['step'] * per_step, {
        'score': metrics['score'], 'KL, sampled (nats)': metrics['k1'],
        'answer length (tokens)': metrics['response_length'],
        'entropy per token (nats)': metrics['entropy_per_token'],
        'clip fraction': metrics['clip_fraction'],
        'explained variance': metrics['explained_variance']}), 'Along training, per rollout batch.')],
    table=rows)


def _samples(path):
  rows = rundir.read_json(path / 'ppo' / 'samples.json', 'evaluate the run again')
  def badges(row, side):
    known = {'score': row['score'][side]}
    return known if row['reward'] is None else known | {'true reward': row['reward'][side]}
  return report.Section('Samples before and after', paragraphs=[
    'The first held-out prompts, one sample each at temperature 1, neither chosen nor edited.'],
    dialogues=[report.Dialogue(row['prompt'].strip(), row['before'].strip() or '(empty)',
                               row['after'].strip() or '(empty)', badges(row, 0), badges(row, 1))
               for row in rows])
