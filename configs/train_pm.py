"""Preference-model training.

  python -m experiments.train_pm --config=configs/train_pm.py --workdir=runs/pm \\
    --config.init=runs/lm --config.policy=runs/policy
  :smoke  seconds on a CPU;  :hh  published comparisons
  :pmp  ranked texts of RLHF_DATA_DIR, to start another run from: --config.init=runs/pmp
Expected: accuracy 0.73 where the noise ceiling is 0.76, 52 seconds on 2 cores.
"""
from ml_collections import ConfigDict

from configs import presets
from rlhf_jax.run.config import variant


def get_config(arg=''):
  config = ConfigDict({
    'main': 'experiments.train_pm', 'seed': 0, 'mesh': presets.mesh(),
    'model': presets.model(presets.RUNG), 'data': presets.oracle_data(),
    'init': 'runs/lm', 'policy': 'runs/policy', 'half': '', 'sample_batch': 1024,
    # the two answers that are compared are each the best of so many samples by this preference model
    'best_of': 1, 'judge': '',
    'optimizer': presets.optimizer(presets.rate('pm'), decay='linear'),
    # kinds: training comparisons of these groups only, () for all;
    # harmful_share of the `take` training comparisons that are used (None: as they come; take 0: all);
    # harmful_weight: of their pair loss, the lambda of Bai et al. figure 27
    'kinds': (), 'harmful_share': None, 'take': 0, 'harmful_weight': 1.0,
    'end_of_context': True, 'head': 'normal', 'lora': presets.lora(), 'lm_weight': 1.0, 'epochs': 1,
    # widths of a row for each text; pack: of rows into which whole pairs are packed for training
    'batch_size': 32, 'widths': (32, 46), 'pack': (), 'microbatches': 1,
    'baselines': True, 'eval_pairs': 512, 'log_every': 10, 'eval_every': 100,
    'checkpoint_every': 500})
  return variant(arg, default=lambda: config, smoke=lambda: smoke(config), hh=lambda: hh(config),
                 pmp=lambda: pmp(config))()


def smoke(config):
  config.model = presets.model('micro')
  config.data.update({'comparisons': 128, 'validation_comparisons': 64, 'test_comparisons': 64})
  config.update({'sample_batch': 64, 'log_every': 1, 'eval_every': 2, 'eval_pairs': 64})
  return config


def hh(config):
  config.data = presets.hh_data()
  config.model = presets.model('mini', vocab_size=2048)
  config.update({'policy': '', 'widths': (64, 96, 128, 192, 256, 384), 'eval_every': 100,
                 'pack': (128, 192, 256, 384, 512, 768), 'eval_pairs': 256,
                 'epochs': presets.laptop('hh.epochs')})
  return config


def pmp(config):
  """Bai et al. section 3.1, first stage: one epoch, a constant 0.1 of the pretraining rate."""
  config = hh(config)
  config.data, config.epochs = presets.pmp_data(), 1
  config.widths, config.pack = (*config.widths, 512), (*config.pack, 1024)
  config.optimizer = presets.optimizer(0.1 * presets.LEARNING_RATE, decay='constant')
  return config


def sweep_data():
  """Accuracy against the number of comparisons."""
  return [{'data.comparisons': n} for n in (1000, 4000, 16_000)]
