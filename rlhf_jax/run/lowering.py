"""The steps of the mains without memory: lowered for a mesh that is not there, with the bytes that each
of its chips would hold.

All comes from Specs. Parameters, optimiser, frozen roles and cache are counted exactly, leaf by leaf,
as their shardings cut them. Activations are an estimate, since XLA decides what lives at the same time:
per token of a chip's rows, with D the width, F the MLP's, H heads, T columns, t the size of 'tensor',

  one layer     2 * (4 D + (4 D + 4 F + 3 H T) / t) numbers: what its backward pass reads (norms and
                residual stream; q, k, v and the heads' output; the MLP before, inside and after its
                GELU; float32 scores and weights of the attention), and as much for gradients
  with remat    D numbers for each layer, its input, and one layer; with 'dots' also the products of its
                weights, 2 D + (3 D + F, or 2 F with a gate) / t
  without       each layer
  sampling      one layer, for the prompt
  on TPU        without 3 H T: its attention keeps no scores (nor does a GPU's in bfloat16, which only a
                process that has one can lower: here it is counted with plain attention)

tests/run/test_lowering.py compares with what XLA allots on eight devices: what a further layer
costs is right to 2%, the whole step takes 0.5 to 1 of the estimate.
"""
import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from rlhf_jax.algorithms import ppo
from rlhf_jax.core import mesh as meshes
from rlhf_jax.core import spec, step
from rlhf_jax.core.types import Experience, PreferenceBatch, Rollout
from rlhf_jax.models import decode, heads, sizes
from rlhf_jax.run import build, rl

EOS, PAD = 1, 0                   # any two ids: the program is the same


class Program(NamedTuple):
  """A jitted function, the shapes of its arguments, and bytes a chip: kind -> number."""
  function: Callable
  arguments: tuple
  bytes: dict


def programs(config, mesh, platform):
  """{'preference model', 'ppo', 'generation'} -> Program for `config.model` on a mesh, real or not, of
  'cpu', 'cuda' or 'tpu'.

  config: 'model', 'optimizer', 'preference_model' (batch_size, length, microbatches, lm_weight), 'ppo'
  as of `presets.ppo`, 'prompt_width', 'answer_width', 'microbatches'. Rows that do not divide over the
  mesh are refused, and so are parameters.
  """
  sized = sizes.config(config.model.name, **{
    k: v for k, v in config.model.items() if k != 'name' and v is not None})
  body = build.model(config, sized.vocab_size, mesh, platform)
  layer = functools.partial(_layer, sized, mesh=mesh, scores=platform != 'tpu')
  return {'preference model': preference_update(config, sized, body, mesh, layer),
          'ppo': ppo_update(config, sized, body, mesh, layer),
          'generation': generation(config, sized, body, mesh, layer)}


def compiled_bytes(lowered):
  """Bytes of a chip that XLA allots the program, as of `allotted`; None where they do not fit."""
  try:
    return allotted(lowered.compile())
  except jax.errors.JaxRuntimeError as error:
    if 'RESOURCE_EXHAUSTED' not in str(error):
      raise
    return None


def allotted(compiled):
  """Bytes of a device that a compiled program needs, donated ones once; nan where XLA does not tell."""
  memory = compiled.memory_analysis()
  if not memory:
    return float('nan')
  return (memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
          + memory.temp_size_in_bytes)


def lower(program, platform):
  """The program lowered for the platform it was made for: nothing is compiled, no device is needed."""
  return program.function.trace(*program.arguments).lower(lowering_platforms=(platform,))


def preference_update(config, sized, body, mesh, layer):
  """The update of `experiments.train_pm` on pairs of `length` columns. layer(rows, columns): bytes of
  its activations."""
  c, model = config.preference_model, heads.scalar(body)
  optimizer = build.optimizer(config, 1000, model.spec, 1000 * c.batch_size)
  update = step.update(build.preference_loss(body, c.lm_weight), optimizer, c.microbatches)
  pair_BT, ids_BT, pair_B, ids_B = _arrays(c.batch_size, c.length, mesh)
  batch = PreferenceBatch(ids_BT, pair_BT, ids_BT, pair_BT, pair_B, pair_B, pair_BT, ids_B, ids_B)
  return _update(update, optimizer, model.spec, {}, batch, {}, mesh, _activations(
    sized, 2 * _rows(c.batch_size, c.microbatches, mesh), c.length, mesh, layer)
    | _gathered(sized, mesh))


def ppo_update(config, sized, body, mesh, layer):
  """The update of `experiments.train_ppo`, all passes over one rollout; a preference model of the same
  size beside the policy. 'frozen' are reference and preference model."""
  p, width = config.ppo, config.prompt_width
  policy, judge = (build.Role(m, spec.abstract(m.spec), None, m.spec)
                   for m in (body, heads.scalar(body)))
  packing = rl.packing(config, mesh)
  networks = rl.networks(config, policy, judge, width, packing.blocks)
  steps = p.samples // p.batch_size
  optimizer = build.optimizer(config, steps * p.passes * p.minibatches, networks.specs, p.samples)
  update = rl.update(config, body, networks, optimizer, EOS, packing)
  real_BT, ids_BT, real_B, ids_B = _arrays(p.batch_size, width + config.answer_width, mesh)
  rollout = Rollout(ids_BT, *[real_BT] * 6, *[real_B] * 3, ids_B, ids_B)
  batch = Experience(rollout, real_BT, real_BT, real_BT)
  frozen = {'reference': policy.spec, 'score': judge.spec}
  rows = _rows(p.batch_size, p.minibatches * config.microbatches, mesh)
  one = _activations(sized, rows, width + config.answer_width, mesh, layer)
  bodies = 1 if p.value_init == 'shared' else 2
  return _update(update, optimizer, networks.specs, ppo.memory(p.kl_coef), batch, frozen, mesh,
                 {kind: bodies * size for kind, size in one.items()} | _gathered(sized, mesh))


def generation(config, sized, body, mesh, layer):
  """`decode.generate` of one answer to each prompt of PPO's batch; the cache is counted with rows over
  'data' and 'fsdp' and heads over 'tensor', which is where XLA keeps it; 'layers apart': the copy of
  the parameters that decoding reads."""
  width, answer_width, rows = config.prompt_width, config.answer_width, config.ppo.batch_size
  prompt_valid, prompt, *_ = _arrays(rows, width, mesh)
  places = spec.shardings(body.spec, mesh, meshes.TRAIN_RULES)
  params = _shaped(spec.abstract(body.spec), places)
  generate = jax.jit(functools.partial(
    decode.generate, body, max_new_tokens=answer_width, eos_id=EOS, pad_id=PAD,
    blocks=meshes.batch_shards(mesh)))
  _, cache = jax.eval_shape(functools.partial(body.prefill, room=answer_width), params, prompt,
                            prompt_valid)
  by_head = NamedSharding(mesh, PartitionSpec(('data', 'fsdp'), 'tensor'))
  kept = _shaped((cache.keys, cache.values), by_head)
  key = jax.eval_shape(lambda: jax.random.key(0))
  cast = jnp.dtype(sized.dtype).itemsize / jnp.dtype(sized.param_dtype).itemsize
  return Program(generate, (params, prompt, prompt_valid, key), {
    'parameters': per_chip(params), 'layers apart': round(cast * per_chip(params)),
    'cache': per_chip(kept), 'activations': layer(_rows(rows, 1, mesh), width),
    **_gathered(sized, mesh)})


def per_chip(tree):
  """Bytes that each chip holds of ShapeDtypeStructs with shardings."""
  return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize
             for x in jax.tree.leaves(tree) if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key))


def _update(update, optimizer, specs, extra, batch, frozen, mesh, more):
  """The Program of an update, its state made from specs; frozen: specs of what lies beside it."""
  state = jax.eval_shape(lambda key: step.create(
    spec.init(specs, key), optimizer, key, 0.1, **extra), jax.eval_shape(lambda: jax.random.key(0)))
  shardings = build.state_shardings(state, specs, mesh, False)
  state = _shaped(state, shardings)
  beside = _shaped(spec.abstract(frozen), spec.shardings(frozen, mesh, meshes.TRAIN_RULES))
  parameters = per_chip(state.params)
  return Program(build.compiled_update(update, shardings, False), (state, batch, beside), {
    'parameters': parameters, 'optimiser': per_chip(state.opt_state), 'gradients': parameters,
    'frozen': per_chip(beside), **more})


def _shaped(tree, shardings):
  """ShapeDtypeStructs on their shardings; one sharding serves all leaves."""
  if isinstance(shardings, NamedSharding):
    shardings = jax.tree.map(lambda _: shardings, tree)
  return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, shardings)


def _arrays(rows, columns, mesh):
  """Shapes of a batch: float and int of [rows, columns], then of [rows]."""
  meshes.check_batch(rows, mesh)
  return [jax.ShapeDtypeStruct(shape, kind, sharding=meshes.batch_sharding(mesh))
          for shape in ((rows, columns), (rows,)) for kind in (jnp.float32, jnp.int32)]


def _rows(rows, parts, mesh):
  """A chip's rows of one part of a batch, which must divide over the mesh."""
  step.check_parts(rows, parts)
  meshes.check_batch(rows // parts, mesh)
  return rows // parts // meshes.batch_shards(mesh)


def _layer(sized, rows, columns, mesh, scores):
  t, D = mesh.shape['tensor'], sized.width
  cut = 4 * D + 4 * sized.mlp_ratio * D + (3 * sized.heads * columns if scores else 0)
  return 2 * rows * columns * (4 * D + cut // t) * jnp.dtype(sized.dtype).itemsize


def _activations(sized, rows, columns, mesh, layer):
  layer = layer(rows, columns)
  if not sized.remat:
    return {'activations': sized.layers * layer}
  D, F, t = sized.width, sized.mlp_width, mesh.shape['tensor']
  products = 2 * D + (3 * D + (1 + sized.gated_mlp) * F) // t if sized.remat == 'dots' else 0
  return {'activations': layer + sized.layers * rows * columns * (D + products)
          * jnp.dtype(sized.dtype).itemsize}


def _gathered(sized, mesh):
  """One layer's matrices and the embedding, whole along 'fsdp'; nothing where they always are."""
  numbers = sizes.non_embedding_parameters(sized) // sized.layers + sized.vocab_size * sized.width
  whole = numbers // mesh.shape['tensor'] * jnp.dtype(sized.dtype).itemsize
  return {'gathered': whole if mesh.shape['fsdp'] > 1 else 0}
