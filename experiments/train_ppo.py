"""Trains a policy with PPO against a preference model, with a KL penalty to the initial policy.

  python -m experiments.train_ppo --config=configs/train_ppo.py --workdir=runs/ppo \\
    --config.policy=runs/policy --config.preference_model=runs/pm

Bai et al. 2022, section 4.1. An iteration: sample one answer to each prompt of the batch, recompute
its log-probs under policy and reference, score it, then `passes` x `minibatches` clipped updates.
Held-out prompts are evaluated along the way with the exact KL; in the oracle world also by the true
reward, which training never sees. docs/ppo.md explains the options.
"""
import functools

import jax
import jax.numpy as jnp

from rlhf_jax.core import mesh as meshes
from rlhf_jax.core import rundir
from rlhf_jax.core.random import key_for
from rlhf_jax.data import batches
from rlhf_jax.evals import policy as evals
from rlhf_jax.evals import ranker
from rlhf_jax.models import logp
from rlhf_jax.rollout.episodes import Parts
from rlhf_jax.run import build, comparisons, documents, rl, worlds
from rlhf_jax.run.config import main
from rlhf_jax.run.train import Clock, finish, open_runs, train


def run(config, workdir):
  """Trains one policy; see `run_group`."""
  return run_group([config], [workdir])[0]


def check(config):
  """Refuses settings that do not fit one another or the devices, before anything is read."""
  rl.check_settings(config)
  build.check(config, config.ppo.batch_size, config.ppo.minibatches * config.microbatches)
  rl.packing(config, build.mesh(config))


def run_group(configs, workdirs):
  """Trains one policy, or several in one program; returns their summaries."""
  config, p = configs[0], configs[0].ppo
  for each in configs:
    check(each)
  mesh = build.mesh(config)
  packing = rl.packing(config, mesh, len(configs) > 1)
  initial = build.policy(config.policy, mesh)
  build.check_same_model(config, config.policy)
  initial, reference = build.kept(initial, config.frozen_dtype)
  ((judge, score),) = build.judges([config.preference_model], initial, mesh).values()
  judge, scorer = build.kept(judge, config.frozen_dtype)
  tests = {name: (build.kept(role, config.frozen_dtype)[1], test) for name, (role, test) in
           build.judges(config.test_models, initial, mesh).items()}
  world, tokenizer, model = worlds.make(config.data), initial.tokenizer, initial.model
  width, answer_width = world.prompt_width, p.answer_width or world.answer_width
  prompts_of, held = rl.prompts(configs, world, tokenizer)
  rl.check_room(width, answer_width, build.size(config, tokenizer.vocab_size).context)
  for params, each in ((judge.params, score), *tests.values()):
    rl.check_score(each, params, p.batch_size, width + answer_width)
  networks = rl.networks(config, initial, judge, width, packing.blocks)
  if not open_runs(configs, workdirs, tokenizer):
    return [rundir.read_summary(w) for w in workdirs]
  clock = Clock()
  generate = build.sampler(initial, answer_width, mesh, temperature=p.temperature)
  parts = Parts(
    generate, networks.reader(packing.fit),
    functools.partial(logp.token_logp, packing.fit(model), temperature=p.temperature, start=width,
                      blocks=packing.blocks),
    build.score(config.preference_model, judge, packing.fit))
  corpus = documents.pack(world, tokenizer, width + answer_width) if p.pretrain_coef else None

  def host(config, i):
    prompts = prompts_of[config.ppo.helpful_share]
    index = batches.rows(len(prompts.group_N), p.batch_size, i, config.seed)
    text = None if corpus is None else documents.take(
      corpus, batches.rows(len(corpus.index_B), p.batch_size, i, config.seed))
    return {'prompt': prompts.tokens_NP[index], 'valid': prompts.valid_NP[index],
            'group': prompts.group_N[index], 'index': index.astype('int32'), 'text': text}

  steps = p.samples // p.batch_size
  optimizer = build.optimizer(config, steps * p.passes * p.minibatches, networks.specs,
                              steps * p.batch_size)
  update = rl.update(config, model, networks, optimizer, tokenizer.end_id, packing)
  rows = evals.make(model, generate=functools.partial(generate, temperature=1.0), score=score,
                    truths=worlds.truths(world, tokenizer), prompt_width=width,
                    tests={name: test for name, (_, test) in tests.items()},
                    harmful_B=worlds.is_harmful(world, held))
  noise = key_for(jax.random.key(config.data.seed), 'evaluation')      # the same along every run
  frozen = {'reference': reference, 'score': scorer, 'held': jax.tree.map(
    jnp.asarray, {'prompt': held.tokens_NP, 'valid': held.valid_NP, 'extra': held.extra,
                  'ranked': comparisons.ranked(config.eval_comparisons, initial, world, mesh)}),
            'tests': {name: params for name, (params, _) in tests.items()}}
  state = train(
    configs, workdirs, *build.initial_state(
      configs, mesh, networks.specs, networks.init, optimizer, rl.memory),
    update, label='ppo', steps=steps, mesh=mesh, host=host, frozen=frozen,
    device=rl.rollout(config, parts, networks.whole, tokenizer.end_id),
    evaluate=lambda state, frozen: evals.means(rows)(
      networks.whole(state.params, frozen)['policy'], frozen, noise),
    show=('score', 'k1', 'response_length'), watch=rl.watch)
  measure = jax.jit(rows)
  start, summaries = meshes.fetch(measure(initial.params, frozen, noise)), []
  ceiling = ranker.ceiling(jax.jit(score), judge.params, frozen['held']['ranked'])
  for w, params in zip(workdirs, build.unstack(state.params, len(workdirs)), strict=True):
    end = meshes.fetch(measure(networks.whole(params, frozen)['policy'], frozen, noise))
    summary = evals.gain(start, end, rundir.read_metrics(w, *[f'eval/{k}' for k in end]))
    summary |= {'by_kind': evals.kinds(start, end), **ranker.summary(start, end, ceiling),
                'samples': steps * p.batch_size, 'wall_seconds': clock()}
    finish(w, summary, f'{evals.line(summary)} ({clock():.0f} s)')
    summaries.append(summary)
  return summaries


if __name__ == '__main__':
  main(run)
