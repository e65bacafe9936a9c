"""Makes the teacher's file of context distillation from a teacher, a world's prompt and its texts.

Bai et al. 2022, appendix A.1, and Askell et al. 2021, appendix B.5: half of the texts are generic,
half dialogues; the prompt and the human's cue stand before both. The cue is text to the student too
and is not distilled: whoever talks to the policy writes it. (Nor could its two newlines be learnt
without the prompt: with relative positions and no start token one of them looks like two.)
"""
import hashlib
import json
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from rlhf_jax.core import mesh as meshes
from rlhf_jax.data import batches, dialogue, teacher_file
from rlhf_jax.models import logp
from rlhf_jax.run import checkpoint


class Texts(NamedTuple):
  """N shuffled texts padded on the right; distilled_NT is 1 behind the first cue."""
  tokens_NT: np.ndarray
  valid_NT: np.ndarray
  distilled_NT: np.ndarray
  generic_N: np.ndarray

  def __getitem__(self, rows):
    return Texts(*(x[rows] for x in tuple(self)))


def texts(world, tokenizer, generic_share, length, seed):
  """The world's dialogues, and generic texts to make up `generic_share` of all, cut to `length`."""
  cue = tokenizer.encode(dialogue.HUMAN_CUE)
  talks = [row[:length] for row in world.dialogues(tokenizer)]
  wanted = round(len(talks) * generic_share / (1 - generic_share))
  plain = world.generic(tokenizer, wanted, length - len(cue))
  if len(plain) < wanted:
    print(f'{len(plain)} generic texts of {length} tokens, fewer than the {wanted} asked for')
  tokens, valid = batches.pad(talks + [[*cue, *row] for row in plain], length, 'right',
                              tokenizer.pad_id)
  generic = np.repeat([0, 1], [len(talks), len(plain)])
  made = Texts(tokens, valid, valid * (np.arange(length) >= len(cue)), generic)
  return made[np.random.default_rng([seed, 5]).permutation(len(generic))]


def check_share(generic_share):
  if not 0 <= generic_share < 1:
    raise ValueError(f'config.generic_share={generic_share} is no share of texts beside dialogues: '
                     'use a number from 0 to less than 1')


def prepare(config, path, role, world, mesh):
  """The teacher file at `path`, made by the network `role` unless it is there, in whole batches of
  `config.batch_size`; one made from other weights, texts or prompt is refused."""
  tokenizer, rows = role.tokenizer, config.batch_size
  context = np.asarray(world.context(tokenizer), np.int32)
  chosen = texts(world, tokenizer, config.generic_share, config.length, config.data.seed)
  chosen = chosen[:len(chosen.generic_N) // rows * rows]
  header = teacher_file.Header(
    tokenizer.digest, tokenizer.vocab_size, min(config.top_k, tokenizer.vocab_size),
    int(chosen.valid_NT.sum(1).max(initial=0)), config.teacher, _source(role.params, context, chosen))
  if not Path(path).exists():
    teacher_file.write(path, header, _sequences(role, context, chosen, header.k, rows, mesh))
  file = teacher_file.load(path)
  if file.header != header:
    raise ValueError(f'{path} was made from another teacher, prompt or text: remove it, and it is '
                     'made again')
  return file


def _source(params, context, chosen):
  """sha256 of everything that the file is a function of."""
  made = hashlib.sha256(json.dumps(checkpoint.digest(params), sort_keys=True).encode())
  for array in (context, *chosen):
    made.update(np.ascontiguousarray(array).tobytes())
  return made.hexdigest()


def _sequences(role, context, chosen, k, batch_size, mesh):
  """What `teacher_file.write` takes, from one pass of the teacher over the texts."""
  width = len(context)

  @jax.jit
  def targets(params, tokens_BT, valid_BT):
    rows = tokens_BT.shape[0]
    before_BC = jnp.broadcast_to(jnp.asarray(context), (rows, width))
    tokens = jnp.concatenate([before_BC, tokens_BT], axis=1)
    valid = jnp.concatenate([jnp.ones((rows, width)), valid_BT], axis=1)
    top_logp, top_id = logp.top_logp(role.model, params, tokens, valid, k, start=width)
    return top_logp[:, width:], top_id[:, width:]

  for at in tqdm(range(0, len(chosen.generic_N), batch_size), desc='       teacher', unit='batch'):
    part = chosen[at:at + batch_size]
    top_logp, top_id = jax.device_get(targets(
      role.params, *meshes.put_batch((part.tokens_NT, part.valid_NT), mesh)))
    for b, (tokens_T, valid_T, distilled_T, generic) in enumerate(zip(*part, strict=True)):
      real, on = valid_T > 0, distilled_T > 0
      yield tokens_T[real], distilled_T[real], generic, top_logp[b, on], top_id[b, on]
