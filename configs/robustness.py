"""Robustness of RLHF: policies of several sizes against preference models of several sizes.

  python -m experiments.robustness --config=configs/robustness.py --workdir=runs/robustness
  :smoke  a minute on a CPU;  :overoptimisation  no KL penalty, judges of 1,000 and 8,000 comparisons
--config.base=DIR takes language models and policies from another study's folder.
Expected on 2 cores: 90 to 100 minutes, --config.crossed=False 59; :overoptimisation, uncrossed, 36;
docs/results.md has the numbers.
"""
from ml_collections import ConfigDict

from configs import distill_context, presets, pretrain_lm, train_pm, train_ppo
from configs.quickstart import stage
from rlhf_jax.run.config import variant


def get_config(arg=''):
  def make(part):
    return ConfigDict({
      'main': 'experiments.robustness', 'mesh': presets.mesh(), 'seed': 0,
      'model': presets.model(presets.RUNG), 'data': presets.oracle_data(),
      'base': '', 'policies': ('micro', 'mini', 'tiny'), 'judges': ('micro', 'mini', 'tiny'),
      'sampler': 'tiny',
      'seeds': 3, 'comparisons': (28_000,), 'halves': ('a', 'b'),
      'crossed': True,            # each half is trained against in turn; False: the first alone
      'lm': stage(pretrain_lm, part), 'policy': stage(distill_context, part),
      'pm': stage(train_pm, part), 'ppo': stage(train_ppo, part)})
  return variant(arg, default=lambda: make(''), smoke=lambda: smoke(make('smoke')),
                 overoptimisation=lambda: overoptimisation(make('')))()


def smoke(config):
  config.data.update({'documents': 2000, 'dialogues': 256, 'validation_comparisons': 64,
                      'test_comparisons': 64})
  config.update({'policies': ('micro',), 'judges': ('micro',), 'sampler': 'micro', 'seeds': 2,
                 'comparisons': (256,)})
  return config


def overoptimisation(config):
  """One policy against judges of three sizes and two amounts of data, far past the best point: of 2,000
  and 16,000 comparisons a judge has half, and a model of the other half looks on."""
  config.update({'policies': ('mini',), 'comparisons': (2000, 16_000), 'sampler': 'mini'})
  config.ppo.update({'eval_every': 5})
  config.ppo.ppo.update({'kl_coef': 0.0, 'samples': 20_480})
  return config
