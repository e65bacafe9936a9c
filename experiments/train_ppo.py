"""Trains a policy with PPO against a preference model, with a KL penalty to the initial policy.

  python -m experiments.train_ppo --config=configs/train_ppo.py --workdir=runs/ppo \\
    --config.policy=runs/policy --config.preference_model=runs/pm

Bai et al. 2022, section 4.1. An iteration: sample one answer to each prompt of the batch, recompute
its log-probs under policy and reference, score it, then `passes` x `minibatches` clipped updates.
Held-out prompts are evaluated along the way with the exact KL; in the oracle world also by the true
reward, which training never sees.
"""
import functools

import jax
import jax.numpy as jnp

from rlhf_jax.algorithms import ppo
from rlhf_jax.core import rundir, spec, step
from rlhf_jax.core.random import key_for
from rlhf_jax.data import batches
from rlhf_jax.evals import policy as evals
from rlhf_jax.evals import ranker
from rlhf_jax.models import heads, logp
from rlhf_jax.rewards.preference_model import preference_model
from rlhf_jax.rollout.episodes import episodes
from rlhf_jax.run import build, comparisons, worlds
from rlhf_jax.run.config import main
from rlhf_jax.run.train import Clock, finish, open_runs, train


def run(config, workdir):
  """Trains one policy; see `run_group`."""
  return run_group([config], [workdir])[0]


def run_group(configs, workdirs):
  """Trains one policy, or several in one program; returns their summaries."""
  config = configs[0]
  mesh = build.mesh(config, config.ppo.batch_size)
  step.check_parts(config.ppo.batch_size, config.ppo.minibatches * config.microbatches)
  initial, judge = build.role(config.policy, mesh), build.role(
    config.preference_model, mesh, lambda model: heads.scalar(model))
  build.check_same_model(config, config.policy)
  build.check_same_tokenizer(initial, judge, ('config.policy', 'config.preference_model'))
  world, tokenizer, model = worlds.make(config.data), initial.tokenizer, initial.model
  prompts_of = {c.ppo.helpful_share: worlds.training_prompts(
    world, tokenizer, config.ppo.prompts, c.ppo.helpful_share) for c in configs}
  if not open_runs(configs, workdirs):
    return [rundir.read_summary(w) for w in workdirs]
  clock, p = Clock(), config.ppo
  critic = judge.model if p.value_init == 'preference_model' else heads.scalar(initial.model)
  held = world.prompts(tokenizer, 'eval', config.eval_prompts)
  token_logp = functools.partial(logp.token_logp, model, start=world.prompt_width)
  generate = build.sampler(initial, world.answer_width, mesh, temperature=p.temperature)

  def value(params, tokens_BT, valid_BT):
    return heads.before(critic.apply(params, tokens_BT, valid_BT), valid_BT)

  score = preference_model(judge.model, tokenizer.eoc_id)
  logp_at_temperature = functools.partial(token_logp, temperature=p.temperature)
  sample = functools.partial(episodes, generate=generate, token_logp=logp_at_temperature,
                             value=value, score=score)

  def host(config, i):
    prompts = prompts_of[config.ppo.helpful_share]
    index = batches.rows(len(prompts.group_N), p.batch_size, i, config.seed)
    return {'prompt': prompts.tokens_NP[index], 'valid': prompts.valid_NP[index],
            'group': prompts.group_N[index], 'index': index.astype('int32')}

  def rollout(state, frozen, batch, i):
    made = sample(state.params, frozen, batch['prompt'], batch['valid'],
                  key_for(state.key, 'rollout', i), state.extra['kl_coef'],
                  group_B=batch['group'], index_B=batch['index'])
    return ppo.experience(made, p.discount, p.lam, p.whiten)

  def init(config, key):
    """The policy and a value network with the preference model's body; the value head is zero."""
    body = judge.params['body'] if critic is judge.model else initial.params
    head = spec.init(critic.spec['head'], key_for(key, 'head'))
    return {'policy': initial.params, 'value': {'body': body, 'head': head}}

  steps = p.samples // p.batch_size
  specs = {'policy': initial.spec, 'value': critic.spec}
  optimizer = build.optimizer(config, steps * p.passes * p.minibatches, specs)
  update = step.update(ppo.make_loss(logp_at_temperature, value, p.clip, p.value_clip,
                                     p.value_coef, p.entropy_coef), optimizer, config.microbatches)
  rows = evals.make(model, generate=functools.partial(generate, temperature=1.0), score=score,
                    truths=worlds.truths(world, tokenizer), prompt_width=world.prompt_width,
                    harmful_B=worlds.is_harmful(world, held))
  noise = key_for(jax.random.key(config.data.seed), 'evaluation')      # the same along every run
  frozen = {'reference': initial.params, 'score': judge.params, 'held': jax.tree.map(
    jnp.asarray, {'prompt': held.tokens_NP, 'valid': held.valid_NP, 'extra': held.extra,
                  'ranked': comparisons.ranked(config.eval_comparisons, initial, world, mesh)})}
  state = train(
    configs, workdirs, label='ppo', steps=steps, mesh=mesh,
    specs=specs, init=init, optimizer=optimizer,
    update=ppo.reported(step.passes(update, p.passes, p.minibatches, ppo.kl_controller(p.kl_horizon)),
                        tokenizer.end_id),
    host=host, device=rollout, frozen=frozen,
    extra=lambda c: {'kl_coef': c.ppo.kl_coef, 'kl_target': c.ppo.kl_target},
    evaluate=lambda state, frozen: evals.means(rows)(state.params['policy'], frozen, noise),
    tokenizer=tokenizer, show=('score', 'k1', 'response_length'))
  measure = jax.jit(rows)
  start, summaries = jax.device_get(measure(initial.params, frozen, noise)), []
  ceiling = ranker.ceiling(jax.jit(score), judge.params, frozen['held']['ranked'])
  for s, w in enumerate(workdirs):
    policy = state.params['policy']
    policy = policy if len(configs) == 1 else jax.tree.map(lambda x, s=s: x[s], policy)
    end = jax.device_get(measure(policy, frozen, noise))
    summary = evals.gain(start, end, rundir.read_metrics(w, *[f'eval/{k}' for k in end]))
    summary |= {'by_kind': evals.kinds(start, end), **ranker.summary(start, end, ceiling),
                'samples': steps * p.batch_size, 'wall_seconds': clock()}
    finish(w, summary, f'{evals.line(summary)} ({clock():.0f} s)')
    summaries.append(summary)
  return summaries


if __name__ == '__main__':
  main(run)
