"""What PPO needs around its maths: its networks from saved roles, what is refused before a run is
opened, and the watch over its metrics."""
import math

import jax
import jax.numpy as jnp

from rlhf_jax.algorithms import ppo
from rlhf_jax.core import step
from rlhf_jax.models import actor_critic, heads, logp
from rlhf_jax.run import worlds
from rlhf_jax.run.hooks import Diverged

CHOICES = {'value_init': ('preference_model', 'policy', 'shared'),
           'value_head': ('zero', 'preference_model'), 'normalise': ('none', 'start', 'running')}


def check_settings(p):
  """Refuses settings of `config.ppo` that are unknown or do not fit one another."""
  for key, known in CHOICES.items():
    if p[key] not in known:
      raise ValueError(f'config.ppo.{key}={p[key]!r} is unknown: use {", ".join(known)}')
  if p.value_head == 'preference_model' != p.value_init:
    raise ValueError(f"config.ppo.value_head='preference_model' reads that body, and config.ppo."
                     f"value_init is {p.value_init!r}: set it to 'preference_model', or the head to "
                     "'zero'")
  if p.samples < p.batch_size:
    raise ValueError(f'config.ppo.samples={p.samples} is less than one batch: use at least '
                     f'config.ppo.batch_size={p.batch_size}')


def prompts(configs, world, tokenizer):
  """({`ppo.helpful_share`: prompts to train on}, prompts held out) of the world, for runs that share
  all else; refuses an empty set."""
  config, shares = configs[0], {c.ppo.helpful_share for c in configs}

  def some(key, n, make):
    made = make(n) if n > 0 else None
    if made is None or not len(made.group_N):
      raise ValueError(f'config.{key}={n} gives no prompts: ask for some, or look at config.data')
    return made
  file = config.ppo.generated
  train = {share: some('ppo.prompts', config.ppo.prompts, lambda n, share=share:
                       worlds.training_prompts(world, tokenizer, n, share)) for share in shares}
  if file:
    more = worlds.written_prompts(world, tokenizer, file)
    train = {share: worlds.together(known, more) for share, known in train.items()}
  return train, some('eval_prompts', config.eval_prompts,
                     lambda n: world.prompts(tokenizer, 'eval', n))


def check_score(score, params, rows, columns):
  """Refuses a Score that gives anything but one real number a row; nothing is computed."""
  tokens, valid = (jax.ShapeDtypeStruct((rows, columns), kind) for kind in (jnp.int32, jnp.float32))
  made = jax.eval_shape(score, params, tokens, valid, {})
  if made.shape != (rows,) or not jnp.issubdtype(made.dtype, jnp.floating):
    raise ValueError(f'the score of {rows} dialogues is {made.dtype} of shape {made.shape}: PPO needs '
                     f'one real number each, shape ({rows},); mend the Score or '
                     'config.preference_model')


def networks(p, policy, judge, start):
  """(read, specs, init) of policy and value: the reader of `models.actor_critic`, the specs of
  {'policy', 'value'}, and init(config, key) -> params.

  The value network has the body of the preference model or of the policy, or shares the policy's
  ('shared'); its head is zero, or the preference model's. policy, judge: Roles.
  """
  options = {'temperature': p.temperature, 'start': start}
  critic = judge.model if p.value_init == 'preference_model' else heads.scalar(policy.model)
  body = {'preference_model': judge.params['body'], 'policy': policy.params,
          'shared': None}[p.value_init]
  if body is None:
    read, value_spec = actor_critic.shared(policy.model, **options), critic.spec['head']
  else:
    read, value_spec = actor_critic.separate(policy.model, critic, **options), critic.spec

  def init(config, key):
    head = judge.params['head'] if p.value_head == 'preference_model' else {
      name: jnp.zeros(s.shape, s.dtype) for name, s in critic.spec['head'].items()}
    value = head if body is None else {'body': body, 'head': head}
    return {'policy': policy.params, 'value': value}
  return read, {'policy': policy.spec, 'value': value_spec}, init


def update(config, policy, read, optimizer, end_id):
  """PPO's Update of one rollout: all passes over it. policy: the Model, for the loss on documents;
  read: of `networks`."""
  p = config.ppo

  def text_logp(params, tokens_BT, valid_BT, segment_BT):
    return logp.token_logp(policy, params, tokens_BT, valid_BT, segment_BT=segment_BT)

  loss = ppo.make_loss(read, p.clip, p.value_clip, p.value_coef, p.entropy_coef)
  if p.pretrain_coef:
    loss = ppo.with_pretraining(loss, text_logp, p.pretrain_coef)
  return ppo.reported(step.passes(
    step.update(loss, optimizer, config.microbatches), p.passes, p.minibatches,
    ppo.after(p.kl_horizon, p.normalise == 'running')), end_id)


def watch(config, workdir):
  """check(step, metrics): stops a run that is broken, and says once what will not work.

  Broken: a score that is not a number, or one update that moves the policy by more than
  `ppo.max_update_kl` nats per token (k3 of old against new, the mean over its minibatches).
  """
  p, told = config.ppo, set()

  def warn(setting, text):
    if setting not in told:
      told.add(setting)
      print(f'{workdir}: {text}', flush=True)

  def check(step, metrics):
    score, moved, k1, length, cut = (float(metrics[name]) for name in (
      'score', 'approx_kl', 'k1', 'response_length', 'truncated'))
    at, kept = f'step {step} (batch {step - 1})', 'the last good checkpoint is kept'
    if not math.isfinite(score):
      raise Diverged(f'{workdir}: the score is {score} at {at}, from config.preference_model='
                     f'{config.preference_model}; {kept}: score that batch by hand and mend the Score')
    if p.max_update_kl and not moved <= p.max_update_kl:
      raise Diverged(
        f'{workdir}: one update moved the policy by {moved:.3g} nats per token at {at}, more than '
        f'config.ppo.max_update_kl={p.max_update_kl}; {kept}: start another run with a lower '
        f'config.optimizer.learning_rate than {config.optimizer.learning_rate:.3g}')
    if cut == 1:
      warn('truncated', f'every answer of {at} was cut after {length:.0f} tokens without an end token: '
           'raise config.ppo.answer_width, or set config.ppo.no_end_penalty')
    for key in ('kl_target', 'kl_stop'):
      if 0 < p[key] < moved * length:
        warn(key, f'one update moves the policy by {moved * length:.3g} nats per answer ({at}), more '
             f'than config.ppo.{key}={p[key]}: it cannot be kept; lower '
             'config.optimizer.learning_rate')
    if 0 < p.kl_stop <= k1:
      warn('stopped', f'{k1:.3g} nats per answer at {at} reach config.ppo.kl_stop={p.kl_stop}: the '
           'policy stays as it is from here on')
  return check
