"""Our side of `experiments.benchmarks.ppo`: one line of standard input, one whole iteration.

The programs are those of `experiments.train_ppo`: source, update and the waiting for metrics; only the
networks come from Hugging Face folders and the prompts from a file. 'split' is what a run logs as
`time/...`.
"""
import dataclasses
import functools
import json
import sys
import time

import jax
import numpy as np
from ml_collections import ConfigDict

from configs import presets
from experiments.benchmarks import ppo_models
from experiments.benchmarks.contest import serve
from rlhf_jax.core import mesh as meshes
from rlhf_jax.data import batches
from rlhf_jax.models import decode, heads, huggingface, logp, transformer
from rlhf_jax.rewards.preference_model import preference_model
from rlhf_jax.rollout.episodes import Parts
from rlhf_jax.run import build, rl
from rlhf_jax.run.clock import Stopwatch


def settings_of(rate, seed=0, kl_coef=0.05, **changes):
  """The config of one run, as `experiments.train_ppo` reads it."""
  config = ConfigDict({'seed': seed, 'ppo': presets.ppo(), 'lora': presets.lora(), 'microbatches': 1,
                       'optimizer': presets.optimizer(rate, warmup=0.0, decay='constant')})
  config.ppo.update({'kl_coef': kl_coef, **changes})
  return config


def program(configs, policy, judge, prompts, answer_width, mesh, watch):
  """(state, source, update, frozen) of one run, or of several in one program. judge's score is read on
  the last token, as the peers do."""
  config, width, several = configs[0], prompts.shape[1], len(configs) > 1
  packing = rl.packing(config, mesh, several)
  networks = rl.networks(config, policy, judge, width, packing.blocks)
  parts = Parts(
    functools.partial(decode.generate, policy.model, max_new_tokens=answer_width, eos_id=ppo_models.END,
                      pad_id=ppo_models.PAD),
    networks.reader(packing.fit), functools.partial(
      logp.token_logp, packing.fit(policy.model), start=width, blocks=packing.blocks),
    preference_model(packing.fit(judge.model), None))
  optimizer = build.optimizer(config, 10**6, networks.specs, 10**8)
  state, shardings = build.initial_state(
    configs, mesh, networks.specs, networks.init, optimizer, rl.memory)
  update = watch.last('train', build.compiled_update(
    rl.update(config, policy.model, networks, optimizer, ppo_models.END, packing), shardings, several))

  def host(config, i):
    index = batches.rows(len(prompts), config.ppo.batch_size, i, 0)
    return {'prompt': prompts[index], 'valid': np.ones((len(index), width), np.float32),
            'group': index.astype('int32'), 'index': index.astype('int32'), 'text': None}
  source = build.source(host, rl.rollout(config, parts, networks.whole, ppo_models.END), configs, mesh,
                        watch.part)
  return (state, source, update, {'reference': policy.params, 'score': judge.params})


def role(network, params, mesh):
  return build.Role(network, build.place(params, network.spec, mesh), None, network.spec)


def read(settings, mesh):
  """(policy, judge) of the folders."""
  def one(folder, wrap):
    size, params = huggingface.load(folder)
    model = transformer.decoder(build.computed(dataclasses.replace(size, dtype=settings['dtype'])))
    return role(wrap(model), params, mesh)
  return one(settings['policy'], lambda model: model), one(settings['reward'], heads.scalar)


def iterations(settings):
  """What each iteration took."""
  mesh, watch = meshes.make(data=-1), Stopwatch()
  config = settings_of(settings['rate'], **{
    key: settings[key] for key in ('batch_size', 'minibatches', 'passes')})
  config.ppo.packed = tuple(settings['packed'])
  yield from measured(*program(
    [config], *read(settings, mesh), np.load(settings['prompts']), settings['answer_width'], mesh,
    watch), watch)


def measured(state, source, update, frozen, watch):
  """What each iteration of a `program` of one run took."""
  i = 0
  while True:
    began = time.perf_counter()
    state, metrics = update(state, source(state, frozen, i), frozen)
    metrics, i = {k: float(v) for k, v in metrics.items()}, i + 1
    seconds, split = time.perf_counter() - began, watch.of(i)
    split['time/host'] = seconds - sum(s for part, s in split.items() if part != 'time/host')
    yield {'seconds': seconds, 'tokens': metrics['tokens/produced'], 'split': split,
           'loss': metrics['loss'], 'logp_gap': metrics['logp_gap']}


if __name__ == '__main__':
  run = iterations(json.loads(sys.argv[1]))
  serve(lambda: next(run), jax=jax.__version__)
