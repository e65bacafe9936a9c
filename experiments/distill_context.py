"""Distils the HHH prompt into a language model: the initial policy of RLHF.

  python -m experiments.distill_context --config=configs/distill_context.py --workdir=runs/policy \\
    --config.teacher=runs/lm

Bai et al. 2022, appendix A.1: the teacher reads the prompt and then a text; for every token of the
text its 50 largest log-probs are kept; the student reads the text alone and learns them by a KL over
51 categories. Here the student starts from the teacher, and the targets are kept in memory.
"""
import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from rlhf_jax.algorithms import distillation
from rlhf_jax.core import mesh as meshes
from rlhf_jax.core import rundir, step
from rlhf_jax.core.types import DistillationBatch
from rlhf_jax.data import batches
from rlhf_jax.models import logp
from rlhf_jax.run import build, worlds
from rlhf_jax.run.config import main
from rlhf_jax.run.train import Clock, finish, open_runs, train


def run(config, workdir):
  """Trains one student; losses are 51-way KLs in nats per token on held-out text."""
  mesh = build.mesh(config, config.batch_size)
  step.check_parts(config.batch_size, config.microbatches)
  teacher, world = build.role(config.teacher, mesh), worlds.make(config.data)
  build.check_same_model(config, config.teacher)
  if not open_runs([config], [workdir]):
    return rundir.read_summary(workdir)
  clock, model, tokenizer = Clock(), teacher.model, teacher.tokenizer
  texts = [row[:config.length] for row in world.dialogues(tokenizer)]
  tokens_NT, valid_NT = batches.pad(texts, config.length, 'right', tokenizer.pad_id)
  usable = len(texts) // config.batch_size * config.batch_size
  tokens_NT, valid_NT = tokens_NT[:usable], valid_NT[:usable]
  top_logp, top_id = teacher_targets(teacher, world.context(tokenizer), tokens_NT, valid_NT,
                                     config.top_k, config.batch_size, mesh)
  held = config.batch_size * max(1, usable // config.batch_size // 20)

  def batch(index):
    weight_BT = valid_NT[index] * (np.arange(config.length) > 0)   # the first token has no context
    return DistillationBatch(tokens_NT[index], valid_NT[index], weight_BT, top_logp[index],
                             top_id[index], index.astype(np.int32))

  def host(config, i):
    return batch(held + batches.rows(usable - held, config.batch_size, i, config.seed))

  def logp_at(params, tokens_BT, valid_BT, id_BTK):
    return logp.logp_at(model, params, tokens_BT, valid_BT, id_BTK)

  loss = distillation.make_loss(logp_at)

  def evaluate(state, frozen):
    return {'kl': loss(state.params, frozen['held'].normalise(), state.key, {})[0]}

  optimizer = build.optimizer(config, config.steps, teacher.spec)
  train([config], [workdir], label='distillation', steps=config.steps, mesh=mesh, specs=teacher.spec,
        init=lambda c, key: teacher.params, optimizer=optimizer,
        update=step.update(loss, optimizer, config.microbatches), host=host,
        frozen={'held': jax.tree.map(jnp.asarray, batch(np.arange(held)))}, evaluate=evaluate,
        tokenizer=tokenizer)
  kl = rundir.read_metrics(workdir, 'eval/kl')['eval/kl']
  summary = {'kl_start': float(kl[0]), 'kl': float(kl[-1]), 'wall_seconds': clock()}
  finish(workdir, summary, f'KL to the prompted teacher {kl[0]:.4f} -> {kl[-1]:.4f} nats per token '
         f'({clock():.0f} s)')
  return summary


def teacher_targets(teacher, context, tokens_NT, valid_NT, k, batch_size, mesh):
  """(top_logp_NTK, top_id_NTK) of each token of the texts, the context standing before them."""
  width = len(context)
  k = min(k, teacher.tokenizer.vocab_size)

  @jax.jit
  def targets(params, tokens_BT, valid_BT):
    rows = tokens_BT.shape[0]
    before_BC = jnp.broadcast_to(jnp.asarray(context, jnp.int32), (rows, width))
    tokens = jnp.concatenate([before_BC, tokens_BT], axis=1)
    valid = jnp.concatenate([jnp.ones((rows, width)), valid_BT], axis=1)
    top_logp, top_id = logp.top_logp(teacher.model, params, tokens, valid, k, start=width)
    return top_logp[:, width:], top_id[:, width:]

  parts = []
  for at in tqdm(range(0, len(tokens_NT), batch_size), desc='       teacher', unit='batch'):
    rows = slice(at, at + batch_size)
    parts.append(jax.device_get(targets(
      teacher.params, *meshes.put_batch((tokens_NT[rows], valid_NT[rows]), mesh))))
  return tuple(np.concatenate(x) for x in zip(*parts, strict=True))


if __name__ == '__main__':
  main(run)
