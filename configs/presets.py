"""What configs share, and the one table of laptop settings.

The paper's numbers assume pretrained bodies and 10^5 to 10^6 samples. LAPTOP replaces some of them
for runs of less than 50,000 samples: key -> (value, what it replaces, why). No other place does.
"""
from ml_collections import ConfigDict

LAPTOP = {
  'pm.learning_rate_factor': (0.21, '0.01 of the pretraining rate (Bai et al. section 3.1)',
                              '10^4 comparisons instead of 1.6 * 10^5, and a small body'),
  'ppo.learning_rate_factor': (0.025, '0.01 of the pretraining rate (Bai et al. section 4.1)',
                               '10^4 samples instead of 10^5 to 10^6'),
  'ppo.kl_coef': (0.02, '0.001 (Bai et al. eq. 4.1)',
                  'at 0.001 a small preference model is over-optimised within 10^4 samples; chosen '
                  'on prompts of the ppo split'),
  'ppo.kl_horizon': (500, '10,000 samples (Ziegler et al. 2019)',
                     '10^4 samples in all; used only where a KL budget is set'),
  'lm.optimizer': ('muon', 'Adam, the common choice; the papers name none',
                   'the same loss on the oracle world in half of the tokens (docs/results.md)'),
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
  later stages are factors of it."""
  return ConfigDict({'name': name, 'learning_rate': learning_rate, 'warmup': warmup, 'decay': decay,
                     'clip': 1.0, 'b2': b2, 'weight_decay': weight_decay})


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


def ppo():
  """Bai et al. section 4.1 and appendix B.1; where the paper is silent (lam, value function,
  batches, whitening) Stiennon et al. 2020."""
  return ConfigDict({
    'samples': 10_240, 'batch_size': 128, 'passes': 1, 'minibatches': 2, 'prompts': 10_240,
    'temperature': 1.0, 'kl_coef': laptop('ppo.kl_coef'),
    'kl_target': 0.0, 'kl_horizon': laptop('ppo.kl_horizon'), 'clip': 0.2, 'value_clip': 0.2,
    'value_coef': 0.5, 'entropy_coef': 0.0, 'discount': 1.0, 'lam': 0.95, 'whiten': True,
    'value_init': 'preference_model'})
