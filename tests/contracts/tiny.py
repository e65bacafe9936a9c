"""PPO and preference training of toy size, put together as the mains do it, without any file."""
import functools
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from rlhf_jax.algorithms import ppo
from rlhf_jax.core import masked, optim, spec, step
from rlhf_jax.core import mesh as meshes
from rlhf_jax.core.random import key_for
from rlhf_jax.core.types import PreferenceBatch
from rlhf_jax.models import actor_critic, decode, heads, logp, sizes, transformer
from rlhf_jax.rewards.preference_model import preference_model
from rlhf_jax.rollout.episodes import Parts, episodes, sampled
from rlhf_jax.run import build

VOCAB, PROMPT, ANSWER, PAD, END, EOC = 24, 6, 9, 22, 1, 2
CONFIG = sizes.config('micro', width=16, heads=2, vocab_size=VOCAB, context=64, unroll=False)
MODEL = transformer.decoder(CONFIG)
JUDGE = heads.scalar(MODEL, heads.initial_normal(16))
RUN = SimpleNamespace(seed=0)
TEMPERATURE = 1.3
OPTIMIZER = optim.adam(optim.schedule(100))


@struct.dataclass
class Imitation:
  """The batch of a method that the library does not have."""
  tokens_BT: jax.Array
  valid_BT: jax.Array
  weight_BT: jax.Array
  score_B: jax.Array

  def normalise(self):
    return self.replace(weight_BT=masked.normalise(self.weight_BT))


@functools.cache
def _initial(judge):
  return jax.jit(partial(spec.init, (JUDGE if judge else MODEL).spec))


def parameters(seed, judge=False):
  """Initial parameters of MODEL, or of JUDGE, as host arrays."""
  return jax.device_get(_initial(judge)(jax.random.key(seed)))


def one_device():
  return meshes.make(devices=jax.devices()[:1])


MESHES = {'one device': one_device, 'eight devices': lambda: meshes.make(2, 2, 2)}


def prompts(i, rows=8, left=0):
  """PPO's batch i: prompts of batch i of 1 to PROMPT tokens, with `left` more columns of padding."""
  rng = np.random.default_rng(i)
  valid = (np.arange(PROMPT) >= rng.integers(0, PROMPT, (rows, 1))).astype(np.float32)
  tokens = rng.integers(3, 20, (rows, PROMPT)).astype(np.int32)
  return {'prompt': np.pad(tokens, ((0, 0), (left, 0)), constant_values=7),
          'valid': np.pad(valid, ((0, 0), (left, 0))), 'group': np.zeros(rows, np.int32),
          'index': np.arange(rows, dtype=np.int32)}


@functools.cache
def ppo_program(mesh, passes=1, minibatches=1, microbatches=1, rows=8, left=0, shared=False, runs=1):
  """loss, source and update of a toy PPO run, or of several in one program, compiled once for all tests
  that share them."""
  options = {'start': PROMPT + left, 'temperature': TEMPERATURE}
  generate = partial(decode.generate, MODEL, max_new_tokens=ANSWER, temperature=TEMPERATURE,
                     eos_id=END, pad_id=PAD)
  read = (actor_critic.shared(MODEL, **options) if shared
          else actor_critic.separate(MODEL, JUDGE, **options))
  parts = Parts(generate, read, partial(logp.token_logp, MODEL, **options),
                preference_model(JUDGE, EOC))

  def experience(state, frozen, batch, i):
    made = episodes(parts, state.params, frozen, sampled(
      parts, state.params, batch, key_for(state.key, 'rollout', i)), state.extra['kl_coef'])
    return ppo.experience(made, 1.0, 0.95, True)

  loss = ppo.make_loss(read, 0.2, 0.2, 0.5, 0.0)
  update = step.passes(step.update(loss, OPTIMIZER, microbatches), passes, minibatches)
  specs = {'policy': MODEL.spec, 'value': JUDGE.spec['head'] if shared else JUDGE.spec}
  states, several = [ppo_state(shared=shared)] * runs, runs > 1
  shardings = build.state_shardings(build.stack(states), specs, mesh, several)
  return SimpleNamespace(
    loss=loss, gradient=jax.jit(jax.value_and_grad(loss, has_aux=True)), shardings=shardings,
    source=build.source(lambda config, i: prompts(i, rows, left),
                        [build.OnPolicy('rollout', experience, at_once=True)], [RUN] * runs, mesh),
    update=build.compiled_update(ppo.reported(update, END), shardings, several))


def ppo_state(learning_rate=1e-2, shared=False, seed=5, kl_coef=0.1):
  value = parameters(1, True)
  return step.create({'policy': parameters(0), 'value': value['head'] if shared else value}, OPTIMIZER,
                     jax.random.key(seed), learning_rate, kl_coef=kl_coef)


def ppo_run(mesh=None, *, learning_rate=1e-2, reference=0, shared=False, **options):
  """A fresh state and frozen roles beside the program."""
  mesh = one_device() if mesh is None else mesh
  program = ppo_program(mesh, shared=shared, **options)
  return SimpleNamespace(
    **vars(program), state=meshes.put(ppo_state(learning_rate, shared), program.shardings),
    frozen={'reference': build.place(parameters(reference), MODEL.spec, mesh),
            'score': build.place(parameters(2, True), JUDGE.spec, mesh)})


def pairs(i, rows=8, width=10):
  """Comparisons of batch i: the chosen side holds more of token 4."""
  rng = np.random.default_rng([i, 1])
  tokens = rng.integers(3, 20, (2, rows, width)).astype(np.int32)
  tokens[0][rng.random((rows, width)) < 0.4] = 4
  valid = (np.arange(width) < rng.integers(3, width + 1, (2, rows, 1))).astype(np.float32)
  weight = np.r_[np.ones(rows - 1, np.float32), np.float32(0)]        # a row that only fills
  number = np.arange(rows, dtype=np.int32)
  return PreferenceBatch(tokens[0], valid[0], tokens[1], valid[1], np.ones(rows, np.float32), weight,
                         valid[0] * (np.arange(width) > 0) * weight[:, None], number, number)


def pm_run(mesh=None, *, microbatches=1, learning_rate=1e-2):
  """state, source, update (compiled), frozen and loss of one toy preference-model run."""
  mesh = one_device() if mesh is None else mesh
  loss = build.preference_loss(MODEL, lm_weight=1.0)
  state = step.create(parameters(1, True), OPTIMIZER, jax.random.key(5), learning_rate)
  shardings = build.state_shardings(state, JUDGE.spec, mesh, False)
  return SimpleNamespace(
    state=meshes.put(state, shardings), loss=loss, frozen={},
    source=build.source(lambda config, i: pairs(i), (), [RUN], mesh),
    update=build.compiled_update(step.update(loss, OPTIMIZER, microbatches), shardings, False))


def host(tree):
  """A tree as numpy arrays, keys of randomness as their numbers."""
  return jax.tree.map(lambda x: np.asarray(
    jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x), tree)


def assert_close(a, b, **tolerance):
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), host(a), host(b))
