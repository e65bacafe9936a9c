"""What PPO needs around its maths: its networks from saved roles, what is refused before a run is
opened, and the watch over its metrics."""
import functools
import math
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlhf_jax.algorithms import ppo
from rlhf_jax.core import mesh as meshes
from rlhf_jax.core import step
from rlhf_jax.core.random import key_for
from rlhf_jax.evals.policy import KINDS
from rlhf_jax.models import actor_critic, heads, logp, packed
from rlhf_jax.rollout.episodes import episodes, sampled
from rlhf_jax.run import build, worlds
from rlhf_jax.run.hooks import Diverged

CHOICES = {'value_init': ('preference_model', 'policy', 'shared'),
           'value_head': ('copied', 'zero'), 'normalise': ('none', 'start', 'running')}
FROZEN = '', 'bfloat16', 'float32'


def check_settings(config):
  """Refuses settings of `config.ppo` and its neighbours that are unknown or do not fit one another."""
  p = config.ppo
  if config.frozen_dtype not in FROZEN:
    raise ValueError(f'config.frozen_dtype={config.frozen_dtype!r} is unknown: use '
                     f'{", ".join(map(repr, FROZEN))}')
  if config.frozen_dtype and config.lora.rank:
    raise ValueError(f'config.frozen_dtype={config.frozen_dtype!r} would round the weights that the '
                     f'adapters of config.lora.rank={config.lora.rank} are added to: set one of them '
                     "to '' or 0")
  for key, known in CHOICES.items():
    if p[key] not in known:
      raise ValueError(f'config.ppo.{key}={p[key]!r} is unknown: use {", ".join(known)}')
  if _copies_head(p) and (p.normalise != 'none' or p.whiten_rewards):
    raise ValueError("config.ppo.value_head='copied' starts values at raw scores, and config.ppo."
                     f'normalise={p.normalise!r}, whiten_rewards={p.whiten_rewards} pay in other '
                     "units: set value_head to 'zero'")
  if p.kl_target > 0 == p.kl_coef:
    raise ValueError(f'config.ppo.kl_target={p.kl_target} is held by a factor on config.ppo.kl_coef, '
                     'and that is 0: start from a coefficient above 0')
  if p.kl_target > 0 and 2 * p.kl_horizon < p.batch_size:
    raise ValueError(f'config.ppo.kl_horizon={p.kl_horizon} lets the coefficient change by more than '
                     f'two fifths at an update of config.ppo.batch_size={p.batch_size}: use '
                     f'{-(-p.batch_size // 2)} or more')
  if p.max_update_kl and p.passes * p.minibatches == 1:
    raise ValueError(f'config.ppo.max_update_kl={p.max_update_kl} is seen by later parts of an update, '
                     'and config.ppo.passes=1, minibatches=1 has one: set it to 0 or use more parts')
  if p.generated and p.helpful_share is not None:
    raise ValueError(f'config.ppo.generated={p.generated} adds prompts of unknown kind to a share of '
                     f'config.ppo.helpful_share={p.helpful_share}: set one of them')
  for name in (pathlib.Path(workdir).name for workdir in config.test_models):
    if f'score_{name}' in KINDS['score']:
      raise ValueError(f'config.test_models names a folder {name}, and score_{name} is the score of '
                       'prompts of that kind: rename the folder')
  build.check_temperature('ppo.temperature', p.temperature)
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


def check_room(prompt_width, answer_width, context):
  """Refuses texts that the policy's context does not hold."""
  if prompt_width + answer_width > context:
    remedy = (f'lower config.ppo.answer_width to {context - prompt_width} or fewer'
              if prompt_width < context else 'lower config.data.prompt_width')
    raise ValueError(f'prompts of {prompt_width} and answers of {answer_width} tokens do not fit into '
                     f'the {context} that the policy reads: {remedy}, or use one that reads more')


class Networks(NamedTuple):
  """Policy and value. reader(fit) -> a reader of `models.actor_critic`, of all parameters of both, by
  the Models that fit(model) makes; whole(params, frozen) -> those parameters, from what is trained;
  specs: of what is trained, {'policy', 'value'}; init(config, key) -> its first values."""
  reader: Callable
  whole: Callable
  specs: dict
  init: Callable


def networks(config, policy, judge, start, blocks=None):
  """The Networks of `config.ppo`. policy, judge: Roles. start, blocks: as in `models.logp.token_logp`.

  The value network has the body of the preference model or of the policy, or shares the policy's
  ('shared'); its head is copied with the preference model's body unless it is to be zero, and zero with
  another. With `config.lora.rank` adapters of the policy and of the value's body are trained, and the
  head in full; they are added to the frozen roles.
  """
  p = config.ppo
  options = {'temperature': p.temperature, 'start': start, 'blocks': blocks}
  critic = judge.model if p.value_init == 'preference_model' else heads.scalar(policy.model)
  part = build.trained_part(config, policy.spec)
  if p.value_init == 'shared':
    def reader(fit):
      return actor_critic.shared(fit(policy.model), **options)
    value = build.Part(critic.spec['head'], lambda head, key: head, lambda value, frozen: value)
  else:
    def reader(fit):
      return actor_critic.separate(fit(policy.model), fit(critic), **options)
    value = _critic(config, critic, *{
      'preference_model': (judge.params['body'], lambda frozen: frozen['score']['body']),
      'policy': (policy.params, lambda frozen: frozen['reference'])}[p.value_init])

  def init(config, key):
    head = judge.params['head'] if _copies_head(p) else {
      name: jnp.zeros(s.shape, s.dtype) for name, s in critic.spec['head'].items()}
    return {'policy': part.start(policy.params, key_for(key, 'policy')),
            'value': value.start(head, key_for(key, 'value'))}

  def whole(params, frozen):
    return {'policy': part.whole(params['policy'], frozen['reference']),
            'value': value.whole(params['value'], frozen)}
  return Networks(reader, whole, {'policy': part.spec, 'value': value.spec}, init)


def _copies_head(p):
  """Whether values start as the whole preference model, head included."""
  return p.value_head == 'copied' and p.value_init == 'preference_model'


def _critic(config, critic, params, base):
  """The Part of a value network whose body starts from `params`, which are base(frozen) too."""
  body = build.trained_part(config, critic.spec['body'])
  return build.Part(
    {'body': body.spec, 'head': critic.spec['head']},
    lambda head, key: {'body': body.start(params, key), 'head': head},
    lambda value, frozen: value | {'body': body.whole(value['body'], base(frozen))})


def memory(config):
  """What PPO of this config remembers as it starts: of `ppo.memory`."""
  p = config.ppo
  return ppo.memory(p.kl_coef, p.kl_target, p.kl_least * p.kl_coef, p.kl_stop)


def rollout(config, parts, whole, end_id):
  """The on-policy parts of a step, for `build.source`: 'decode' samples an answer to each prompt,
  'score' reads it by all roles and makes the Experience. parts: `Parts` of episodes; whole: of
  `networks`."""
  p, running = config.ppo, config.ppo.normalise == 'running'

  def decode(state, frozen, batch, i):
    return sampled(parts, whole(state.params, frozen), batch, key_for(state.key, 'rollout', i))

  def score(state, frozen, batch, i):
    made = episodes(parts, whole(state.params, frozen), frozen, batch, state.extra['kl_coef'])
    moments = None if p.normalise == 'none' else ppo.score_moments(state.extra, made, running)
    paid_B = ppo.paid_score(made, end_id, moments, p.no_end_score, p.no_end_penalty)
    return ppo.experience(made, p.discount, p.lam, p.whiten, paid_B,
                          p.whiten_rewards).replace(text=batch['text'])
  return build.OnPolicy('decode', decode, at_once=True), build.OnPolicy('score', score)


class Packing(NamedTuple):
  """Texts in fewer rows than they are, by `models.packed`. shares: of the rows, ascending; (): texts as
  they come, and blocks None. fit(model) -> the Model that packs what is read without a gradient."""
  shares: tuple = ()
  blocks: int | None = None

  def fit(self, model):
    return packed.fitted(model, self.shares, self.blocks)


NOT_PACKED = Packing()


def packing(config, mesh, several=False):
  """The Packing of `config.ppo.packed`, rows staying on their devices."""
  shares, parts = tuple(config.ppo.packed), config.ppo.minibatches * config.microbatches
  if not shares:
    return NOT_PACKED
  if list(shares) != sorted({share for share in shares if 0 < share < 1}):
    raise ValueError(f'config.ppo.packed={shares} does not ascend between 0 and 1: use such shares of '
                     'the rows, or () for texts as they come')
  if several:
    raise ValueError(f'config.ppo.packed={shares}: several runs in one program, computed at once, '
                     'would compute every share: set it to (), or run them one after another')
  rows, blocks = config.ppo.batch_size // parts, meshes.batch_shards(mesh)
  if rows % blocks or not packed.numbers(shares, rows // blocks):
    raise ValueError(
      f'config.ppo.packed={shares}: {rows} texts of a part of the batch (config.ppo.batch_size over '
      f'config.ppo.minibatches and config.microbatches) on {blocks} devices (data * fsdp) cannot be in '
      f'fewer rows: use a multiple of {blocks}, {2 * blocks} or more, smaller shares, or ()')
  return Packing(shares, blocks)


def update(config, policy, networks, optimizer, end_id, packing=NOT_PACKED):
  """PPO's Update of one rollout: all passes over it. policy: the Model, for the loss on documents."""
  p = config.ppo

  def text_logp(params, tokens_BT, valid_BT, segment_BT):
    return logp.token_logp(policy, params, tokens_BT, valid_BT, segment_BT=segment_BT)

  def loss_in(layout):
    read = networks.reader(functools.partial(packed.packed, layout=layout))
    loss = ppo.make_loss(read, p.clip, p.value_clip, p.value_coef, p.entropy_coef)
    if p.pretrain_coef:
      loss = ppo.with_pretraining(loss, text_logp, p.pretrain_coef)
    return lambda params, batch, key, frozen: loss(networks.whole(params, frozen), batch, key, frozen)

  def gradient(params, batch, key, frozen):
    """Differentiated inside the choice: outside, what each share keeps for it would be kept for all."""
    return packed.in_rows(
      lambda layout: step.gradient_of(loss_in(layout))(params, batch, key, frozen),
      packing.shares, batch.rollout.valid_BT, packing.blocks)
  return ppo.reported(step.passes(
    step.by_gradient(gradient, optimizer, config.microbatches),
    p.passes, p.minibatches, ppo.after(p.kl_horizon, p.normalise == 'running')), end_id, p.passes)


def watch(config, workdir):
  """check(step, metrics): stops a run that is broken, and says once what will not work.

  Broken: a score that is not a number, or one update that moves the policy by more than
  `ppo.max_update_kl` nats per token, see `ppo.whole_update`.
  """
  p, told = config.ppo, set()
  parts = p.passes * p.minibatches

  def warn(setting, text):
    if setting not in told:
      told.add(setting)
      print(f'{workdir}: {text}', flush=True)

  def check(step, metrics):
    score, seen, k1, length, cut = (float(metrics[name]) for name in (
      'score', 'approx_kl', 'k1', 'response_length', 'truncated'))
    moved = ppo.whole_update(seen, parts)
    at, kept = f'step {step} (batch {step - 1})', 'the last good checkpoint is kept'
    if not math.isfinite(score):
      raise Diverged(f'{workdir}: the score is {score} at {at}, from config.preference_model='
                     f'{config.preference_model}; {kept}: score that batch by hand and mend the Score')
    if p.max_update_kl and not moved <= p.max_update_kl:
      raise Diverged(
        f'{workdir}: one update moved the policy by {moved:.3g} nats per token at {at}, more than '
        f'config.ppo.max_update_kl={p.max_update_kl}; {kept}: start another run with a lower '
        f'config.optimizer.learning_rate than {config.optimizer.learning_rate:.3g}')
    if cut > 1 - 0.5 / p.batch_size:                          # all of them; a mean of ones rounds
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
