"""Tunix's PPOLearner as a contender: one line of standard input, one whole iteration.

Run in an environment of its own: `python tunix_ppo.py SETTINGS`, SETTINGS being the JSON of
`experiments.benchmarks.ppo`. Its loop is its own; the data set that it reads prompts from waits for the
next line and answers the one before, when all that was trained is there. A minibatch of Tunix is a
rollout of its own, so that more than one makes its rollouts smaller.
"""
import json
import os
import sys
import time

os.environ.setdefault('JAX_PLATFORMS', 'cpu')

import jax
import numpy as np
import optax
import transformers
import tunix
from flax import nnx
from tunix.models.llama3 import model as llama
from tunix.models.llama3 import params as weights
from tunix.rl import rl_cluster, utils
from tunix.rl.ppo import ppo_learner
from tunix.rl.rollout import base_rollout

settings = json.loads(sys.argv[1])
answered = sys.stdout
sys.stdout = sys.stderr
rows, width = settings['batch_size'], settings['answer_width']


def say(facts):
  print(json.dumps(facts), file=answered, flush=True)


mesh = jax.make_mesh((1, 1), ('fsdp', 'tp'), axis_types=(jax.sharding.AxisType.Auto,) * 2)
sizes = llama.ModelConfig(**settings['sizes'])


def without_segments(self, *args, segment_ids=None, plain=llama.Llama3.__call__, **options):
  """Critic and reward models are called with numbers of packed texts, which this Llama does not take;
  without packing they say what the attention mask says."""
  return plain(self, *args, **options)


llama.Llama3.__call__ = without_segments


def model():
  return weights.create_model_from_safe_tensors(settings['policy'], sizes, mesh,
                                                jax.numpy.dtype(settings['stored']))


tokenizer = transformers.PreTrainedTokenizerFast(
  tokenizer_file=settings['tokenizer'], eos_token=settings['end'], pad_token=settings['pad'])
prompts = np.load(settings['prompts'])
texts = np.array([' '.join(f't{token}' for token in row) for row in prompts])
minibatch = rows // settings['minibatches']


def adam():
  return optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(settings['rate'], weight_decay=0.0))


cluster_config = rl_cluster.ClusterConfig(
  role_to_mesh=dict.fromkeys(rl_cluster.Role, mesh), rollout_engine='vanilla',
  training_config=rl_cluster.RLTrainingConfig(
    actor_optimizer=adam(), critic_optimizer=adam(), eval_every_n_steps=10**9, max_steps=10**9,
    mini_batch_size=minibatch, train_micro_batch_size=minibatch),
  rollout_config=base_rollout.RolloutConfig(
    max_tokens_to_generate=width, max_prompt_length=prompts.shape[1],
    kv_cache_size=prompts.shape[1] + width, temperature=1.0, top_p=1.0, top_k=None))
with mesh:
  cluster = rl_cluster.RLCluster(
    actor=model(), reference=model(), critic=utils.create_critic_model(model(), seed=1),
    reward=utils.create_critic_model(model(), seed=2), tokenizer=tokenizer,
    cluster_config=cluster_config)
  learner = ppo_learner.PPOLearner(
    cluster, ppo_learner.PPOConfig(num_iterations=settings['passes'], beta=0.05, kl_method='kl'))
  plain, produced = cluster.generate, []

  def generate(*args, **options):
    made = plain(*args, **options)                 # the end token is cut off, and produced all the same
    produced.extend(min(len(tokens) + 1, width) for tokens in made.tokens)
    return made
  cluster.generate = generate

  def batches():
    """A batch of prompts for each line."""
    chosen = np.random.default_rng(0)
    while sys.stdin.readline():
      produced.clear()
      started = time.perf_counter()
      yield {'prompts': texts[chosen.choice(len(texts), rows, replace=False)]}
      jax.block_until_ready(nnx.state((cluster.actor_trainer.model, cluster.critic_trainer.model)))
      say({'seconds': time.perf_counter() - started, 'tokens': int(sum(produced)),
           'columns': int(max(produced))})

  say({'tunix': getattr(tunix, '__version__', ''), 'jax': jax.__version__})
  learner.train(batches())
