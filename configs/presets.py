"""What configs share, and the one table of laptop settings.

The paper's numbers assume pretrained bodies and 10^5 to 10^6 samples. LAPTOP replaces some of them
for runs of less than 50,000 samples: key -> (value, what it replaces, why). No other place does; that
`ppo` has one pass and the cap of its world where the robustness study of the paper has two passes and
32 tokens follows from it (`bai2022('robustness')` has those).
"""
from ml_collections import ConfigDict

LAPTOP = {
  'pm.learning_rate_factor': (0.21, '0.01 of the pretraining rate (Bai et al. section 3.1)',
                              '10^4 comparisons instead of 1.6 * 10^5, and a small body'),
  'pmp.binarise': (False, 'two GOOD/BAD pairs of each ranked one (Askell et al. 2021, appendix C.1)',
                   'of 6,000 such pairs a small model learns nothing (accuracy 0.50)'),
  'hh.epochs': (3, '1 (Bai et al. section 3.1)',
                '2 * 10^4 comparisons, a body that has read 4M tokens: on validation 0.557 in the '
                'first epoch, 0.593 in the third (means of six evaluations)'),
  'ppo.learning_rate_factor': (0.025, '0.01 of the pretraining rate (Bai et al. section 4.1)',
                               '10^4 samples instead of 10^5 to 10^6'),
  'ppo.warmup': (0.3, '0, and 25,000 samples in the robustness study (Bai et al. section 4.2)',
                 'the share of a run of 80 updates; set together with the rate'),
  'ppo.decay': ('linear', 'constant (Bai et al. name none)', 'as warmup'),
  'ppo.kl_coef': (0.05, '0.001 (Bai et al. eq. 4.1)',
                  'at 0.001, and with one seed of five at 0.02, a small preference model was '
                  'over-optimised within 10^4 samples (value head of zeros); chosen on prompts of '
                  'another draw'),
  'hh.kl_coef': (0.1, '0.001 (Bai et al. eq. 4.1)',
                 'at 0.02 a small policy leaves its start by 46 nats within 10^4 samples, with every '
                 'answer at its cap; chosen on the held-out prompts of docs/results.md'),
  'ppo.kl_horizon': (125, '10,000 samples (Ziegler et al. 2019)',
                     '10^4 samples in all; used only where a KL budget is set'),
  'ppo.kl_least': (1.0, '0 (Ziegler et al. 2019)',
                   'of the first coefficient: without a floor it falls to nothing while the KL is '
                   'below its budget, and 80 updates are too few to raise it again'),
  'lm.optimizer': ('muon', 'Adam, the common choice; the papers name none',
                   'a lower loss on the oracle world after as many tokens, 1.02 nats against 1.14 '
                   '(docs/results.md)'),
}


RUNG = 'mini'          # of the quickstart and of the default configs
LEARNING_RATE = 1e-2   # of pretraining; the later stages take factors of it


def laptop(key):
  return LAPTOP[key][0]


def rate(stage):
  """The learning rate of a stage after pretraining."""
  return LEARNING_RATE * laptop(f'{stage}.learning_rate_factor')


def mesh():
  return ConfigDict({'data': -1, 'fsdp': 1, 'tensor': 1})


def model(name, vocab_size=512):
  """A rung of the ladder; None keeps the rung's own choice."""
  return ConfigDict({'name': name, 'vocab_size': vocab_size, 'dtype': 'float32', 'remat': None,
                     'unroll': None})


def optimizer(learning_rate, warmup=0.02, decay='cosine', weight_decay=0.0, name='adam', b2=0.95):
  """learning_rate: absolute; neither paper gives one, so the pretraining rate is our choice and the
  later stages are factors of it. warmup: a share of the run, unless warmup_samples is above 0.
  halve_samples: the rate is halved every so many samples, 0 for never. eps: Adam's; early_eps: added
  before bias correction."""
  return ConfigDict({'name': name, 'learning_rate': learning_rate, 'warmup': warmup,
                     'warmup_samples': 0, 'decay': decay, 'halve_samples': 0, 'clip': 1.0, 'b2': b2,
                     'eps': 1e-8, 'early_eps': False, 'weight_decay': weight_decay})


def lora():
  """Adapters of this rank instead of all weights of the body, 0 for all weights; scale: of what they
  add; targets: the matrices that have one (Hu et al. 2021)."""
  return ConfigDict({'rank': 0, 'scale': 1.0,
                     'targets': ('query', 'key', 'value', 'output', 'up', 'down')})


def oracle_data():
  """The oracle world. beta: the worker's sharpness, set once so that two workers agree on 63-70% of
  the kept pairs; least_skill: of the world's own answerers, used where no policy is named."""
  return ConfigDict({'source': 'oracle', 'seed': 0, 'documents': 300_000, 'dialogues': 6_000,
                     'comparisons': 28_000, 'validation_comparisons': 2_000,
                     'test_comparisons': 4_000, 'beta': 2.0, 'least_skill': 0.5})


def hh_data():
  """The published HH comparisons; dir '' means $RLHF_DATA_DIR, else a download."""
  return ConfigDict({'source': 'hh', 'seed': 0, 'dir': '', 'cache_dir': '', 'on_error': 'raise',
                     'validation_share': 0.05, 'dialogues': 2_000, 'context': 384,
                     'long_answers': 'drop',
                     'prompt_width': 96, 'answer_width': 64, 'comparisons': 0,
                     'validation_comparisons': 0, 'test_comparisons': 0})


def pmp_data():
  """Ranked texts: the sources named in `subsets`, () for all that are there; subreddits () for all."""
  return ConfigDict({'source': 'pmp', 'seed': 0, 'dir': '', 'cache_dir': '', 'on_error': 'raise',
                     'subsets': (), 'subreddits': (), 'binarise': laptop('pmp.binarise'),
                     'validation_share': 0.05, 'context': 512, 'long_answers': 'drop', 'comparisons': 0,
                     'validation_comparisons': 0, 'test_comparisons': 0})


def ppo():
  """Bai et al. section 4.1 and appendix B.1; where the paper is silent (lam, value function,
  batches, whitening) Stiennon et al. 2020. docs/ppo.md explains each key.

  value_head: that of the preference model comes with its body, as in Stiennon et al. 2020. From zero it
  learns next to nothing within 10^4 samples at our rate: values explained 1% of the variance of returns
  instead of 80%, and two seeds of five ended far below what they reach this way (docs/results.md).
  max_update_kl: nats per token that one update may move the policy, as `algorithms.ppo.whole_update`
  reads it from its parts; 0 for no limit. Measured on the oracle world: 0.0016, 0.014 and 0.13 at most
  at 1, 3 and 9 times our learning rate, all of which learn; at 27 times 0.16 is passed in update 8.
  """
  return ConfigDict({
    'samples': 10_240, 'batch_size': 128, 'passes': 1, 'minibatches': 2, 'prompts': 10_240,
    'helpful_share': None,      # of the training prompts; None: as the data are; Bai et al. section 4.4
    'generated': '',            # prompts.jsonl of experiments.generate_prompts, beside them
    'answer_width': None, 'packed': (), 'temperature': 1.0, 'kl_coef': laptop('ppo.kl_coef'),
    'kl_target': 0.0, 'kl_horizon': laptop('ppo.kl_horizon'), 'kl_least': laptop('ppo.kl_least'),
    'kl_stop': 0.0, 'clip': 0.2, 'value_clip': 0.2, 'value_coef': 0.5, 'entropy_coef': 0.0,
    'pretrain_coef': 0.0, 'discount': 1.0,
    'lam': 0.95, 'whiten': True, 'whiten_rewards': False, 'normalise': 'none', 'no_end_score': None,
    'no_end_penalty': 0.0, 'value_init': 'preference_model', 'value_head': 'copied',
    'max_update_kl': 0.16})


STUDIES = {                # passes, cap of an answer in tokens, warm-up and halving in samples
  'static': (1, 128, 0, 0), 'robustness': (2, 32, 25_000, 0), 'online': (4, 128, 0, 100_000)}


def bai2022(study='static'):
  """PPO as in Bai et al. 2022, sections 4.1, 4.2 (robustness) and 4.5 (online), appendix B.1.

  Theirs: a fixed KL coefficient of 0.001, clip 0.2, discount 1, no entropy bonus, 0.01 of the
  pretraining learning rate, and STUDIES. Not stated there, chosen here: 200,000 samples (their
  figure 33 is taken there), batches of 512 in 4 minibatches (Stiennon et al. 2020: 512), temperature
  1, and what `ppo` says.
  """
  passes, answer_width, warmup, halve = STUDIES[study]
  table = ConfigDict({'ppo': ppo(), 'optimizer': optimizer(0.01 * LEARNING_RATE, warmup=0.0,
                                                           decay='constant')})
  table.ppo.update({'samples': 200_000, 'prompts': 200_000, 'batch_size': 512, 'minibatches': 4,
                    'passes': passes, 'answer_width': answer_width, 'kl_coef': 0.001,
                    'kl_horizon': 10_000, 'kl_least': 0.0})
  table.optimizer.update({'warmup_samples': warmup, 'halve_samples': halve})
  return table


def openai2019():
  """PPO as in Ziegler et al. 2019 and the code released with it, as listed by Huang et al. 2023.

  An adaptive KL coefficient from 0.15 to a target of 6 nats with horizon 10,000; scores brought to
  mean 0 and variance 1 on the start policy, -1 where an answer does not end; rewards whitened with
  their mean kept; 4 passes of one minibatch of 512; value coefficient 0.1; temperature 0.7; rate 1e-5
  falling to 0; Adam with epsilon 1e-5 before bias correction, b2 0.999, no clipping of gradients.
  Different here: the moments are those of the first batch, the value network starts from the
  preference model with a zero head; 200,000 samples.
  """
  table = ConfigDict({'ppo': ppo(), 'optimizer': optimizer(1e-5, warmup=0.0, decay='linear', b2=0.999)})
  table.ppo.update({'samples': 200_000, 'prompts': 200_000, 'batch_size': 512, 'minibatches': 1,
                    'passes': 4, 'temperature': 0.7, 'kl_coef': 0.15, 'kl_target': 6.0,
                    'kl_horizon': 10_000, 'kl_least': 0.0, 'value_coef': 0.1, 'normalise': 'start',
                    'no_end_score': -1.0, 'whiten_rewards': True, 'value_head': 'zero'})
  table.optimizer.update({'clip': None, 'eps': 1e-5, 'early_eps': True})
  return table
