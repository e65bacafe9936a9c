"""Distils the HHH prompt into a language model: the initial policy of RLHF.

  python -m experiments.distill_context --config=configs/distill_context.py --workdir=runs/policy \\
    --config.teacher=runs/lm

Bai et al. 2022, appendix A.1: the teacher reads the prompt and then a text; of every token of the
text its 50 largest log-probs go into a file. The student reads the text alone and learns them by a
KL over 51 categories. `config.init` names the student's language model, '' the teacher itself.
`config.teacher_file` names the file of an earlier run, for students of other sizes; else it is made
here, as WORKDIR/teacher.array_record.
"""
import os

import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax.algorithms import distillation
from rlhf_jax.core import rundir, step
from rlhf_jax.core.types import DistillationBatch
from rlhf_jax.data import batches, teacher_file
from rlhf_jax.models import logp
from rlhf_jax.run import build, teacher, worlds
from rlhf_jax.run.config import main
from rlhf_jax.run.train import Clock, finish, open_runs, train

KINDS = ('dialogue', 'generic')


def check(config):
  """Refuses settings that do not fit one another or the devices, before anything is read."""
  build.check(config, config.batch_size, config.microbatches)
  teacher.check_share(config.generic_share)
  if config.eval_rows < 1:
    raise ValueError(f'config.eval_rows={config.eval_rows}: the held-out loss needs 1 or more')


def run(config, workdir):
  """Trains one student; losses are 51-way KLs in nats per token on held-out text."""
  check(config)
  mesh = build.mesh(config)
  start = config.init or config.teacher
  student = build.role(start, mesh)
  build.check_same_model(config, start)
  open_file = opener(config, workdir, student, mesh)
  if not open_runs([config], [workdir], student.tokenizer):
    return rundir.read_summary(workdir)
  clock, model, tokenizer = Clock(), student.model, student.tokenizer
  file = open_file()
  prepared = clock()
  held = config.eval_rows
  if file.size <= held:
    raise ValueError(f'{file.path} has {file.size} sequences, none beside config.eval_rows={held}: '
                     'set that to less')

  def batch(index):
    rows = teacher_file.read(file, index, config.length, tokenizer.pad_id)
    return DistillationBatch(*rows[:-1], index.astype(np.int32)), rows.generic_B

  def host(config, i):
    return batch(held + batches.rows(file.size - held, config.batch_size, i, config.seed))[0]

  def logp_at(params, tokens_BT, valid_BT, id_BTK):
    return logp.logp_at(model, params, tokens_BT, valid_BT, id_BTK)

  loss = distillation.make_loss(logp_at)

  def evaluate(state, frozen):
    total = {kind: loss(state.params, part, state.key, {})[0] for kind, part in frozen.items()}
    tokens = {kind: part.weight_BT.sum() for kind, part in frozen.items()}
    return {'kl': sum(total.values()) / sum(tokens.values())} | {
      f'kl_{kind}': total[kind] / tokens[kind] for kind in frozen}

  held_out, generic_N = batch(np.arange(held))
  kept = {kind: jax.tree.map(lambda x: jnp.asarray(x[generic_N == number]), held_out)
          for number, kind in enumerate(KINDS) if (generic_N == number).any()}
  optimizer = build.optimizer(config, config.steps, student.spec)
  train(
    [config], [workdir], *build.initial_state(
      [config], mesh, student.spec, lambda c, key: student.params, optimizer),
    step.update(loss, optimizer, config.microbatches), label='distillation', steps=config.steps,
    mesh=mesh, host=host, frozen=kept, evaluate=evaluate)
  summary = report(workdir, kept) | {
    'tokens': int(config.steps * config.batch_size * held_out.weight_BT.sum() / held),
    'file_bytes_per_token': os.path.getsize(file.path) / (held_out.weight_BT.sum() / held * file.size),
    'teacher_seconds': prepared, 'wall_seconds': clock()}
  finish(workdir, summary, f'KL to the prompted teacher {summary["kl_start"]:.4f} -> '
         f'{summary["kl_end"]:.4f} nats per token ({clock():.0f} s)')
  return summary


def opener(config, workdir, student, mesh):
  """A function that opens the teacher's file, made where none was named; what is wrong with either
  is said now, before the run has a folder."""
  if config.teacher_file:
    file = teacher_file.load(config.teacher_file)
    teacher_file.check(file, student.tokenizer, config.top_k, config.length)
    return lambda: file
  same, world = config.init in ('', config.teacher), worlds.make(config.data)
  role = student if same else build.role(config.teacher, mesh)
  build.check_same_tokenizer(role, student, (config.teacher, config.init))
  return lambda: teacher.prepare(config, f'{workdir}/teacher.array_record', role, world, mesh)


def report(workdir, kinds):
  """kl_start, kl_end and how many times smaller it became, on all held-out text and by its kind."""
  made = {}
  for name in ('kl', *(f'kl_{kind}' for kind in kinds)):
    values = rundir.read_metrics(workdir, f'eval/{name}')[f'eval/{name}']
    made |= {f'{name}_start': float(values[0]), f'{name}_end': float(values[-1]),
             f'{name}_ratio': float(values[0] / values[-1])}
  return made


if __name__ == '__main__':
  main(run)
