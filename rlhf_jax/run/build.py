"""From checked configs to compiled, sharded functions. The inner layers never see a config."""
import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from rlhf_jax.algorithms import preference
from rlhf_jax.core import align, optim, rundir, spec, step
from rlhf_jax.core import mesh as meshes
from rlhf_jax.core.random import key_for
from rlhf_jax.data import tokenizer as tokenizers
from rlhf_jax.models import attention, decode, gpu, heads, logp, lora, sizes, splash, transformer
from rlhf_jax.rewards.preference_model import preference_model
from rlhf_jax.run import checkpoint
from rlhf_jax.run.config import check_ranges, flatten

MAY_VARY = ('seed', 'order', 'optimizer.learning_rate', 'harmful_weight', 'ppo.kl_coef',
            'ppo.kl_target', 'ppo.kl_least', 'ppo.kl_stop', 'ppo.helpful_share')    # inside one program


class Part(NamedTuple):
  """What is trained of a network. start(params, key) -> its first values; whole(part, base) -> the
  parameters of the network, base being those it started from."""
  spec: object
  start: Callable
  whole: Callable


class OnPolicy(NamedTuple):
  """What a batch goes through before it is trained on: run(state, frozen, batch, i) -> batch.
  at_once: of `across`."""
  name: str
  run: Callable
  at_once: bool = False


class Role(NamedTuple):
  """A network read from a run directory: what later stages start from or keep frozen."""
  model: object
  params: object
  tokenizer: object
  spec: object


def mesh(config, *batch_sizes):
  """The mesh of `config.mesh`; refuses batch sizes that do not divide over it."""
  made = meshes.make(**config.mesh.to_dict())
  for rows in batch_sizes:
    meshes.check_batch(rows, made)
  return made


def size(config, vocab_size):
  """The TransformerConfig of `config.model`; options None keep the size's own."""
  options = {k: v for k, v in config.model.items() if k not in ('name', 'vocab_size') and v is not None}
  return sizes.config(config.model.name, vocab_size=vocab_size, **options)


def computed(sized, platform=None):
  """The TransformerConfig as `platform` computes it, default this process: on CPU with float32 between
  the products of weights, where XLA emulates bfloat16."""
  if sized.activation_dtype or (platform or jax.default_backend()) != 'cpu':
    return sized
  return dataclasses.replace(sized, activation_dtype='float32')


def model(config, vocab_size, mesh=None, platform=None):
  """The Model of `config.model`, as of `decoder`."""
  return decoder(size(config, vocab_size), mesh, platform)


def decoder(sized, mesh=None, platform=None):
  """The Model of a TransformerConfig, its arrays kept to the rules of `mesh` if there is one, its
  attention the best there is on `platform`: 'cpu', 'gpu', 'cuda', 'tpu', default where this process
  computes."""
  here = jax.default_backend()
  platform = platform or here
  sized = computed(sized, platform)
  if mesh is None:
    return transformer.decoder(sized)
  attend, attend_past = attention.attention, attention.attend_cache
  if platform == 'tpu':
    attend = splash.attention(mesh)
  elif platform in ('gpu', 'cuda'):
    attend_past = gpu.attend_cache
    if here == 'gpu' and 'cuda' in jax.devices()[0].client.platform_version:
      attend = gpu.attention(mesh)                           # cannot be lowered without such a GPU
  return transformer.decoder(sized, meshes.pin(mesh), attend, attend_past)


def optimizer(config, steps, specs, samples=None):
  """The optimiser of `config.optimizer` for parameters of these specs, in `steps` optimiser steps
  over `samples` samples (default: config.batch_size a step), by which some schedules are counted."""
  o = config.optimizer
  samples = steps * config.batch_size if samples is None else samples
  warmup = o.warmup_samples / samples if o.warmup_samples else o.warmup
  factor = optim.schedule(steps, warmup, o.decay, o.halve_samples * steps / samples or None)
  if o.name == 'muon':
    return optim.muon(specs, factor, clip=o.clip, b2=o.b2)
  return optim.adam(factor, clip=o.clip, b2=o.b2, eps=o.eps, weight_decay=o.weight_decay,
                    early_eps=o.early_eps, specs=specs)


def check_settings(config):
  """Refuses what no training run can be run with, before anything is written: numbers out of range, and
  settings that `optimizer` does not know."""
  check_ranges(config)
  o = config.optimizer
  optim.schedule(1, decay=o.decay)
  if o.name not in ('adam', 'muon'):
    raise ValueError(f'config.optimizer.name={o.name!r} is unknown: use adam, muon')
  if o.clip == 0:
    raise ValueError('config.optimizer.clip=0 makes every gradient 0: use a number above 0, or None '
                     'for no clipping')
  for key, off in (('weight_decay', 0.0), ('early_eps', False), ('eps', 1e-8)):
    if o.name == 'muon' and o[key] != off:
      raise ValueError(f'config.optimizer.{key}={o[key]} is for adam only: set it to {off}')


def check(config, rows, parts, *batch_sizes):
  """Refuses what no training run of `rows` a batch in `parts` can be run with, before anything is read;
  batch_sizes: of other batches that go over the mesh."""
  check_settings(config)
  mesh(config, rows, *batch_sizes)
  step.check_parts(rows, parts)


def head_init(config, width):
  """The initialiser of a fresh scalar head; refuses a name that it does not know."""
  known = {'normal': heads.initial_normal(width), 'zero': spec.zeros}
  if config.head not in known:
    raise ValueError(f'config.head={config.head!r} is unknown: use {", ".join(known)}')
  return known[config.head]


def trained_part(config, specs):
  """The Part of a network with these specs: all of it, or low-rank adapters where `config.lora.rank` is
  above 0."""
  options = config.get('lora')                               # runs older than the switch have none
  if options is None or not options.rank:
    return Part(specs, lambda params, key: params, lambda part, base: part)
  pairs = lora.adapter(specs, options.rank, options.targets)
  return Part(pairs, lambda params, key: spec.init(pairs, key_for(key, 'lora')),
              lambda part, base: lora.merge(base, part, options.scale))


def preference_loss(body, lm_weight, packed=False):
  """The Loss of preference-model training, of a PreferenceBatch or of PackedPairs: `body` and a scalar
  head, read in one pass."""
  def hidden(params, *text, at=None):
    return body.apply(params['body'], *text, at_BN=at)

  def score(params, hidden):
    return heads.read(params['head'], hidden)
  if packed:
    return preference.make_packed_loss(
      hidden, score,
      token_logp=lambda params, hidden, ids: logp.of_next(body, params['body'], hidden, ids),
      lm_weight=lm_weight)
  return preference.make_loss(
    hidden, score,
    token_logp=lambda params, hidden, tokens, valid: logp.of_hidden(
      body, params['body'], align.take_columns(hidden, align.before(valid)), tokens, valid),
    lm_weight=lm_weight)


def kept(role, dtype):
  """(the Role, its parameters in `dtype`), the Role's own on the host so that no device holds both;
  dtype '': the same arrays, as they are stored."""
  if not dtype:
    return role, role.params
  params = jax.tree.map(lambda x: x.astype(dtype), role.params)
  return role._replace(params=meshes.fetch(role.params)), params


def place(tree, specs, mesh):
  """Parameters on the mesh, by the training rules."""
  return meshes.put(tree, spec.shardings(specs, mesh, meshes.TRAIN_RULES))


def everywhere(tree, mesh):
  """The tree with what is not on the mesh yet put on every device of it."""
  devices = set(mesh.devices.flat)
  return jax.tree.map(lambda x: x if getattr(x, 'sharding', None) and x.sharding.device_set == devices
                      else meshes.put(x, meshes.replicated(mesh)), tree)


def role(workdir, mesh, wrap=lambda model: model, part=None, step=None):
  """The Role saved in a run directory. wrap(model) adds the heads it was trained with; part names
  one entry of the parameters, 'policy' in a PPO run; step None is the newest checkpoint. Adapters are
  merged into the network they started from, `config.init` of a preference model and `config.policy` of
  a PPO run, which must still be there."""
  config = ConfigDict(rundir.read_config(workdir))
  if step is None and not rundir.is_done(workdir):
    print(f'{workdir} is not finished: its newest checkpoint is used', flush=True)
  tokenizer = tokenizers.load(f'{workdir}/tokenizer.json')
  network = wrap(model(config, tokenizer.vocab_size, mesh))
  adapters = trained_part(config, _body(network.spec))
  specs = _with_body(network.spec, adapters.spec)
  shardings = spec.shardings(specs, mesh, meshes.TRAIN_RULES)
  abstract = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
                          spec.abstract(specs), shardings)
  params = checkpoint.load_params(workdir, abstract, part, meshes.replicated(mesh), step)
  if 'lora' in config and config.lora.rank:
    base = policy(config.policy, mesh) if 'ppo' in config else body_and_head(config.init, mesh)[0]
    params = _with_body(params, adapters.whole(_body(params), base.params))
  return Role(network, params, tokenizer, network.spec)


def _body(tree):
  """The network under a head, or the network itself."""
  return tree.get('body', tree)


def _with_body(tree, body):
  return tree | {'body': body} if 'body' in tree else body


def body_and_head(workdir, mesh):
  """(the Role of a language model, the parameters of its scalar head or None) of a run directory.

  A preference model's run holds both, so that one goes on from another; a language model's has no
  head yet.
  """
  config, stored = ConfigDict(rundir.read_config(workdir)), checkpoint.stored(workdir)
  if 'policy' in stored:
    raise ValueError(f'{workdir} is a run of experiments.train_ppo: name one of pretrain_lm, '
                     'distill_context or train_pm')
  if 'head' not in stored:
    return role(workdir, mesh), None
  whole = role(workdir, mesh, heads.scalar)
  body = model(config, whole.tokenizer.vocab_size, mesh)
  return Role(body, whole.params['body'], whole.tokenizer, body.spec), whole.params['head']


def eoc_id(config, tokenizer):
  """The end-of-context token that a preference model of this config reads its score on, or None."""
  return tokenizer.eoc_id if config['end_of_context'] else None


def judge(workdir, mesh):
  """(Role, Score) of a preference model's run."""
  if 'head' not in checkpoint.stored(workdir):
    raise ValueError(f'{workdir} gives no scores: name a run of experiments.train_pm')
  made = role(workdir, mesh, heads.scalar)
  return made, score(workdir, made)


def score(workdir, judge, fit=lambda model: model):
  """The Score of a preference model's run and its Role, read by fit(model) where that run learnt it."""
  config = {'end_of_context': True} | rundir.read_config(workdir)      # runs older than the switch
  return preference_model(fit(judge.model), eoc_id(config, judge.tokenizer))


def judges(workdirs, policy, mesh):
  """{folder name: (Role, Score)} of the preference models in these runs, which must all read the
  policy's tokens."""
  made = {}
  for workdir in workdirs:
    name = pathlib.Path(workdir).name
    if name in made:
      raise ValueError(f'two preference models are named {name}: rename the folder {workdir}')
    made[name] = judge(workdir, mesh)
    check_same_tokenizer(policy, made[name][0], ('the policy', workdir))
  return made


def policy(name, mesh):
  """The Role of the policy in a run directory, of any stage; 'DIR@STEP' is an earlier checkpoint."""
  workdir, at, step = name.partition('@')
  if at and not step.isdigit():
    raise ValueError(f'{name}: write DIR@STEP with the number of a checkpoint, or DIR for the newest')
  config = rundir.read_config(workdir)
  if 'head' in checkpoint.stored(workdir):
    raise ValueError(f'{workdir} is a preference model: name a run of experiments.pretrain_lm, '
                     'distill_context or train_ppo')
  part = 'policy' if 'ppo' in config else None
  return role(workdir, mesh, part=part, step=int(step) if at else None)


def sampler(role, answer_width, mesh, **options):
  """`decode.generate` for this network and its tokenizer; each device seats and leaves behind rows of
  its own."""
  return functools.partial(
    decode.generate, role.model, max_new_tokens=answer_width, eos_id=role.tokenizer.end_id,
    pad_id=role.tokenizer.pad_id, blocks=meshes.batch_shards(mesh), **options)


def check_temperature(key, value):
  """Refuses a temperature that nothing can be sampled at; key: where the config has it."""
  if value <= 0:
    raise ValueError(f'config.{key}={value} divides the logits: use one above 0')


def check_same_model(config, workdir):
  """Refuses to continue from a run of another model: the network is the one that was saved. workdir:
  also DIR@STEP, as of `policy`."""
  for key, there in rundir.read_config(workdir.partition('@')[0])['model'].items():
    if key not in config.model:
      raise ValueError(f'{workdir} holds a model of its own sizes: use --config.model.name={workdir}')
    if there != config.model[key]:
      raise ValueError(f'{workdir} holds a model with {key} {there} and config.model.{key} is '
                       f'{config.model[key]}: set it to {there} or train that model first')


def check_same_tokenizer(a, b, names):
  if a.tokenizer.digest != b.tokenizer.digest:
    raise ValueError(f'{names[0]} and {names[1]} were trained with different tokenizers: train both '
                     'from the same language model')


def check_vary(configs):
  """Refuses a group of runs that differ in what one compiled program cannot vary, or that compute by a
  kernel which takes one run."""
  first, *others = (dict(flatten(config)) for config in configs)
  dtype = first.get('model.dtype', 'float32')
  if others and jax.default_backend() == 'gpu' and dtype != 'float32':
    raise ValueError(f'on a GPU several runs share a program in float32 only: give each run a group of '
                     f'its own, or set config.model.dtype={dtype!r} to float32')
  for other in others:
    wrong = [k for k in first if first[k] != other.get(k) and k not in MAY_VARY]
    if wrong:
      raise ValueError(f'runs of one group may differ in {", ".join(MAY_VARY)} only, not in '
                       f'config.{wrong[0]}: give them other groups')


# ------------------------------------------------------------- one program for one or several runs

def _lead(sharding):
  """The sharding of S stacked arrays: the leading axis whole, the rest as before."""
  return NamedSharding(sharding.mesh, PartitionSpec(None, *sharding.spec))


def state_shardings(state, specs, mesh, several):
  """Shardings of a TrainState: optimiser moments follow their parameters, scalars are replicated."""
  whole = meshes.replicated(mesh)
  params = spec.shardings(specs, mesh, meshes.TRAIN_RULES)
  if several:
    whole, params = _lead(whole), jax.tree.map(_lead, params)
  by_path = dict(jax.tree_util.tree_leaves_with_path(params))
  def follow(path, leaf):          # a moment stands in the state at the path of its parameter
    tails = (by_path.get(path[i:]) for i in range(len(path)))
    return next((s for s in tails if s is not None and len(s.spec) == leaf.ndim), whole)
  opt_state = jax.tree_util.tree_map_with_path(follow, state.opt_state)
  return state.replace(step=whole, params=params, opt_state=opt_state, key=whole,
                       extra=jax.tree.map(lambda _: whole, state.extra))


def stack(trees):
  """One tree, or several stacked on a leading axis S."""
  return trees[0] if len(trees) == 1 else jax.tree.map(lambda *x: jax.numpy.stack(x), *trees)


def unstack(tree, count):
  """The trees that `stack` made one of, each when it is asked for."""
  return (tree if count == 1 else jax.tree.map(lambda x, s=s: x[s], tree) for s in range(count))


def fresh(specs, mesh, key):
  """Initial parameters, each device making its own part."""
  return jax.jit(functools.partial(spec.init, specs), out_shardings=spec.shardings(
    specs, mesh, meshes.TRAIN_RULES))(key)


def initial_state(configs, mesh, specs, init, optimizer, extra=lambda config: {}):
  """(TrainState of one run, or of several stacked, before the first update; its shardings).

  init(config, key) -> params, of `specs`; extra(config) -> what else is remembered, by name. What
  lies on the host goes to the mesh before it is copied.
  """
  states = []
  for c in configs:
    key = jax.random.key(c.seed)
    params = place(init(c, key), specs, mesh)
    states.append(step.create(params, optimizer, key, c.optimizer.learning_rate, **extra(c)))
  state = stack(states)
  shardings = state_shardings(state, specs, mesh, len(configs) > 1)
  return meshes.put(state, shardings), shardings


def put(batches, mesh):
  """The host batch of one run, or of S runs stacked, on the mesh."""
  if len(batches) == 1:
    return meshes.put_batch(batches[0], mesh)
  batch = jax.tree.map(lambda *x: np.stack(x), *batches)
  for each in batches:
    meshes.check_batch(jax.tree.leaves(each)[0].shape[0], mesh)
  return meshes.put(batch, _lead(meshes.batch_sharding(mesh)))


def across(function, in_axes, at_once=False):
  """`function` of one run for S runs in one program, the arguments of axis 0 stacked and those of None
  shared -> its results, stacked: by `vmap`. On CPU one run after another inside the program, since the
  arrays of all runs do not fit the caches and those of one do (docs/performance.md), unless `at_once`:
  for many small steps, whose cost is not in their arrays."""
  if at_once or jax.default_backend() != 'cpu':
    return jax.vmap(function, in_axes)

  def in_turn(*args):
    def one(s):
      return function(*(x if axis is None else jax.tree.map(lambda leaf: leaf[s], x)
                        for x, axis in zip(args, in_axes, strict=True)))
    runs = len(jax.tree.leaves(args[in_axes.index(0)])[0])
    return jax.lax.map(one, jax.numpy.arange(runs))
  return in_turn


def compiled_update(update, shardings, several):
  """The update, jitted once: shardings pinned on both sides, the state donated."""
  if several:
    update = across(update, (0, 0, None))
  return jax.jit(update, in_shardings=(shardings, None, None), out_shardings=(shardings, None),
                 donate_argnums=0)


def source(host, device, configs, mesh, part=lambda name, run: run):
  """(state, frozen, i) -> batch on the mesh: a pure function of its arguments.

  host(config, i) -> numpy batch at data position i. device: the `OnPolicy` parts in turn, each a
  jitted program; (): the host's batch is what is trained on. part(name, program) -> program, to look
  on.
  """
  rows, several = meshes.batch_sharding(mesh), len(configs) > 1
  def compiled(run, at_once):
    return jax.jit(across(run, (0, None, 0, None), at_once) if several else run,
                   out_shardings=_lead(rows) if several else rows)
  parts = [part(name, compiled(run, at_once)) for name, run, at_once in device]
  def batch(state, frozen, i):
    made = put([host(config, i) for config in configs], mesh)
    for run in parts:
      made = run(state, frozen, made, np.int32(i))
    return made
  return batch
