"""Pretrains a language model on a world's documents: the body of every later stage.

  python -m experiments.pretrain_lm --config=configs/pretrain_lm.py --workdir=runs/lm

Steps: train the tokenizer, pack the documents into rows, minimise the token loss, keep 2% of the
rows to report a held-out loss. Bai et al. 2022 start from such models (Askell et al. 2021, table 1).
"""
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax.algorithms import language_model
from rlhf_jax.core import rundir, spec, step
from rlhf_jax.core.masked import mean
from rlhf_jax.core.random import key_for
from rlhf_jax.data import batches
from rlhf_jax.models import logp, sizes, transformer
from rlhf_jax.run import build, documents, worlds
from rlhf_jax.run.config import main
from rlhf_jax.run.train import Clock, finish, open_runs, train


def check(config):
  """Refuses settings that do not fit one another or the devices, before anything is read."""
  build.check(config, config.batch_size, config.microbatches)
  transformer.check_length(build.size(config, config.model.vocab_size), config.length)


def run(config, workdir):
  """Trains one model; the held-out loss is in nats per token."""
  check(config)
  mesh, world = build.mesh(config), worlds.make(config.data)
  if not open_runs([config], [workdir]):
    return rundir.read_summary(workdir)
  clock = Clock()
  tokenizer = worlds.tokenizer(world, pathlib.Path(workdir) / 'tokenizer.json',
                               config.model.vocab_size)
  corpus = documents.pack(world, tokenizer, config.length)
  held = max(config.batch_size, len(corpus.index_B) // 50)
  order = np.random.default_rng(config.data.seed).permutation(len(corpus.index_B))
  held_rows, rows = order[:held][:config.eval_rows], order[held:]
  model = build.model(config, tokenizer.vocab_size, mesh)
  optimizer = build.optimizer(config, config.steps, model.spec)

  def token_logp(params, tokens_BT, valid_BT, segment_BT):
    return logp.token_logp(model, params, tokens_BT, valid_BT, segment_BT=segment_BT)

  def host(config, i):
    return documents.take(corpus, rows[batches.rows(len(rows), config.batch_size, i, config.seed)])

  def evaluate(state, frozen):
    held = frozen['held']
    logp_BT = token_logp(state.params, held.tokens_BT, held.valid_BT, held.segment_BT)
    return {'loss': -mean(logp_BT, held.weight_BT)}

  train(
    [config], [workdir], *build.initial_state(
      [config], mesh, model.spec, lambda c, key: build.fresh(model.spec, mesh, key_for(key, 'init')),
      optimizer),
    step.update(language_model.make_loss(token_logp), optimizer, config.microbatches),
    label='language model', steps=config.steps, mesh=mesh, host=host, evaluate=evaluate,
    frozen={'held': jax.tree.map(jnp.asarray, documents.take(corpus, held_rows))})
  loss = rundir.read_metrics(workdir, 'eval/loss')['eval/loss'][-1]
  tokens = config.steps * config.batch_size * config.length
  summary = {'loss': float(loss), 'tokens': tokens, 'tokens_in_corpus': int(corpus.valid_BT.sum()),
             'non_embedding_parameters': sizes.non_embedding_parameters(
               build.size(config, tokenizer.vocab_size)),
             'parameters': spec.count(model.spec), 'wall_seconds': clock()}
  finish(workdir, summary, f'loss {loss:.3f} nats per token after {tokens / 1e6:.1f}M tokens '
         f'({clock():.0f} s)')
  return summary


if __name__ == '__main__':
  main(run)
