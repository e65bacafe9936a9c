"""PPO against a preference model.

  python -m experiments.train_ppo --config=configs/train_ppo.py --workdir=runs/ppo \\
    --config.policy=runs/policy --config.preference_model=runs/pm
  :smoke  seconds on a CPU;  :hh  published prompts
  :bai2022, :bai2022_robustness, :bai2022_online, :openai2019  the papers' settings, 200,000 samples
Expected: the true reward on held-out prompts rises from 0.40 to 0.89-0.97 (five seeds of all models),
above best-of-4; 60 seconds on 2 cores.
"""
from ml_collections import ConfigDict

from configs import presets
from rlhf_jax.analysis import frontier, seeds_report, tension_report
from rlhf_jax.run.config import variant


def get_config(arg=''):
  config = ConfigDict({
    'main': 'experiments.train_ppo', 'seed': 0, 'mesh': presets.mesh(),
    'model': presets.model(presets.RUNG), 'data': presets.oracle_data(),
    'policy': 'runs/policy', 'preference_model': 'runs/pm', 'test_models': (),
    'optimizer': presets.optimizer(presets.rate('ppo'), presets.laptop('ppo.warmup'),
                                   presets.laptop('ppo.decay')),
    'ppo': presets.ppo(), 'microbatches': 1, 'lora': presets.lora(),
    'frozen_dtype': '',                  # of reference and preference models; '': as they are stored
    'eval_prompts': 512,
    'eval_comparisons': 0,               # test comparisons that the policy ranks along the way; 0: none
    'eval_every': 3, 'log_every': 1, 'checkpoint_every': 32})
  def paper(table):
    config.update(table)
    return config
  return variant(
    arg, default=lambda: config, smoke=lambda: smoke(config), hh=lambda: hh(config),
    bai2022=lambda: paper(presets.bai2022()),
    bai2022_robustness=lambda: paper(presets.bai2022('robustness')),
    bai2022_online=lambda: paper(presets.bai2022('online')),
    openai2019=lambda: paper(presets.openai2019()))()


def smoke(config):
  config.model = presets.model('micro')
  config.ppo.update({'samples': 64, 'batch_size': 16, 'minibatches': 2, 'prompts': 64})
  config.update({'eval_prompts': 16, 'checkpoint_every': 2})
  return config


def hh(config):
  config.data = presets.hh_data()
  config.model = presets.model('mini', vocab_size=2048)
  config.ppo.update({'samples': 10_240, 'batch_size': 128, 'kl_coef': presets.laptop('hh.kl_coef')})
  config.eval_every = 2                       # half of the gain comes early
  return config


def sweep_kl():
  """KL coefficients in one compiled program: the frontier of true reward against KL."""
  return [{'group': 'kl', 'ppo.kl_coef': coef} for coef in (0.0, 0.01, 0.03, 0.1, 0.3)]


def report_kl(path):
  frontier.write(path, 'kl_coef')


def sweep_budget():
  """KL budgets in nats that an adaptive coefficient steers towards, in one compiled program."""
  return [{'group': 'budget', 'ppo.kl_target': nats} for nats in (0.25, 0.5, 1.0, 2.0)]


def report_budget(path):
  frontier.write(path, 'kl_target')


def sweep_rates():
  """Learning rates 3 times apart, one after another: a guard stops those that break."""
  return [{'optimizer.learning_rate': presets.rate('ppo') * 3.0 ** k} for k in range(6)]


def sweep_tension():
  """Helpful shares of the training prompts, three seeds each, in one compiled program: with more
  helpful prompts fewer benign requests are refused, and a few more harmful ones are met."""
  return [{'group': 'tension', 'ppo.helpful_share': share, 'seed': seed}
          for share in (0.25, 0.5, 0.75) for seed in range(3)]


report_tension = tension_report.write


def sweep_seeds():
  """Ten seeds in one compiled program: none may diverge."""
  return [{'group': 'seeds', 'seed': seed} for seed in range(10)]


report_seeds = seeds_report.write
