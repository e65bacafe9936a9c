"""Studies of preference models: one pass over size, data, mixture or settings.

  python -m experiments.pm_study --config=configs/pm_study.py --workdir=runs/scaling
  :scaling (default), :ceiling, :fractions, :weights, :skills, :ablations;  :smoke  seconds on a CPU
--config.base=DIR takes language models and the distilled policy from another study's folder.
Expected: the numbers of docs/results.md; on one core 8 minutes for :ablations, 16 for :weights,
11 for :skills, 7 for :ceiling.
"""
from ml_collections import ConfigDict

from configs import distill_context, presets, pretrain_lm, train_pm
from configs.quickstart import stage
from rlhf_jax.data.oracle import FAMILIES
from rlhf_jax.run.config import variant

SHARES = 0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0
SKILL = 'sort'
STEADY_RATE = presets.rate('pm') / 3
LAMBDAS = 1.0, 2.0, 3.0, 4.0, 10.0


def get_config(arg=''):
  def make(part=''):
    config = ConfigDict({
      'main': 'experiments.pm_study', 'title': '', 'analysis': 'ablations', 'base': '',
      'mesh': presets.mesh(), 'seed': 0, 'model': presets.model(presets.RUNG),
      'data': presets.oracle_data(), 'sizes': ('micro', 'mini', 'tiny'), 'sampler': presets.RUNG,
      'seeds': 3, 'points': (('', ()),), 'lm': stage(pretrain_lm, part),
      'policy': stage(distill_context, part), 'pm': stage(train_pm, part)})
    config.pm.baselines = False
    return config
  return variant(
    arg, default=lambda: scaling(make()), scaling=lambda: scaling(make()),
    ceiling=lambda: ceiling(make()), fractions=lambda: fractions(make()),
    weights=lambda: weights(make()), skills=lambda: skills(make()), ablations=lambda: ablations(make()),
    smoke=lambda: smoke(make('smoke')))()


def scaling(config):
  """Bai et al. 2022, figure 7: a fixed learning rate and one pass, so that every point of a learning
  curve is a number of comparisons; on 4,096 validation comparisons. The rate is a third of the
  default, which without decay leaves noise of 0.03 in the curves."""
  config.update({'title': 'Accuracy of preference models against size and data', 'analysis': 'scaling'})
  config.data.update({'comparisons': 8192, 'validation_comparisons': 4096})
  config.pm.optimizer.update({'learning_rate': STEADY_RATE, 'decay': 'constant'})
  config.pm.eval_pairs = 4096
  with config.pm.ignore_type():
    config.pm.eval_every = (8, 16, 32, 64, 128)      # batches of 32 pairs: 256 comparisons and up
  return config


def ceiling(config):
  """The largest of the three sizes on all comparisons: how near it comes to the noise ceiling. A third
  of the default rate, as for `scaling`."""
  config.update({'title': 'A preference model near the noise ceiling', 'analysis': 'ablations',
                 'sizes': ('tiny',)})
  config.pm.optimizer.learning_rate = STEADY_RATE
  return config


def fractions(config):
  """Bai et al. 2022, figures 19 and 26: the share of harmful comparisons at a fixed total."""
  config.update({'title': 'Helpful and harmful comparisons in one preference model',
                 'analysis': 'fractions', 'sizes': ('micro', 'mini'), 'points': tuple(
                   (f'share-{share}', (('harmful_share', share),)) for share in SHARES)})
  config.pm.take = 3000                   # of 28,000 comparisons a ninth are harmful
  return config


def weights(config):
  """Bai et al. 2022, figure 27: L_helpful + lambda L_harmless."""
  config.update({'title': 'The weight of harmful comparisons', 'analysis': 'weights',
                 'sizes': ('micro', 'mini'), 'points': tuple(
                   (f'weight-{weight}', (('harmful_weight', weight),)) for weight in LAMBDAS)})
  config.pm.take = 8000
  return config


def skills(config):
  """Bai et al. 2022, figure 20: a specialised skill (theirs: summaries) beside everything else; do the
  two together cost either of them anything?"""
  rest = tuple(kind for kind in (*FAMILIES, 'harmful') if kind != SKILL)
  config.update({'title': 'A specialised skill in the mixture', 'analysis': 'skills',
                 'sizes': ('micro', 'mini'), 'points': (
                   ('both', ()), (f'{SKILL}-only', (('kinds', (SKILL,)),)),
                   (f'without-{SKILL}', (('kinds', rest),)))})
  return config


def ablations(config):
  """Each switch of the paper's fine-tuning on its own; the first point is the default."""
  config.update({'title': 'What fine-tuning needs', 'sizes': (presets.RUNG,), 'points': (
    ('default', ()), ('no-end-of-context', (('end_of_context', False),)),
    ('no-lm-loss', (('lm_weight', 0.0),)), ('zero-head', (('head', 'zero'),)),
    ('two-epochs', (('epochs', 2),)))})
  config.pm.take = 8000
  return config


def smoke(config):
  config.data.update({'documents': 2000, 'dialogues': 256, 'comparisons': 256,
                      'validation_comparisons': 64, 'test_comparisons': 128})
  config.update({'title': 'Smoke', 'analysis': 'fractions', 'sizes': ('micro',), 'sampler': 'micro',
                 'seeds': 2, 'points': (('share-0.0', (('harmful_share', 0.0),)),
                                        ('share-0.5', (('harmful_share', 0.5),)))})
  config.pm.take = 32
  return config
