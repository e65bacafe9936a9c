"""Trains a preference model on comparisons and measures it against the baselines.

  python -m experiments.train_pm --config=configs/train_pm.py --workdir=runs/pm \\
    --config.init=runs/lm --config.policy=runs/policy

Bai et al. 2022, section 3.1: it starts from the plain language model, reads its score on an
end-of-context token, adds the language-model loss on the chosen sequence, sees each comparison once.
Two such runs are the paper's pipeline: the first on ranked texts (PMP, the variant :pmp), the second
on human comparisons with `config.init` naming the first, whose body and head go on.
In the oracle world the comparisons are pairs of the policy's samples judged by a simulated worker
(policy '': the world's own answerers). Test comparisons are read once, at the end.
"""
import functools

import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax.core import mesh as meshes
from rlhf_jax.core import rundir, step
from rlhf_jax.core.random import key_for
from rlhf_jax.evals import preference as evals
from rlhf_jax.models import heads
from rlhf_jax.run import build, comparisons, worlds
from rlhf_jax.run.config import main
from rlhf_jax.run.train import Clock, finish, open_runs, train


def run(config, workdir):
  """Trains one preference model; see `run_group`."""
  return run_group([config], [workdir])[0]


def check(config):
  """Refuses settings that do not fit one another or the devices, before anything is read."""
  build.check(config, config.batch_size, config.microbatches, config.sample_batch)
  comparisons.check(config)
  comparisons.check_kinds(config.kinds, worlds.make(config.data).groups)


def run_group(configs, workdirs):
  """Trains one model, or several in one program; returns their summaries."""
  config = configs[0]
  for each in configs:
    check(each)
  mesh, world = build.mesh(config), worlds.make(config.data)
  base, trained_head = build.body_and_head(config.init, mesh)
  build.check_same_model(config, config.init)
  body, tokenizer = base.model, base.tokenizer
  model = heads.scalar(body, build.head_init(config, heads.width(body)))
  part = build.trained_part(config, body.spec)
  specs = {'body': part.spec, 'head': model.spec['head']}
  sampler = comparisons.sampler(config, base, world, mesh)
  if not open_runs(configs, workdirs, tokenizer):
    return [rundir.read_summary(w) for w in workdirs]
  clock, ids = Clock(), (build.eoc_id(config, tokenizer), tokenizer.pad_id)
  data, facts = comparisons.load(config, tokenizer, world, sampler)
  del sampler                                        # and the policy that it samples from
  harmful_N = worlds.is_harmful(world, data['train'])
  parts = meshes.batch_shards(mesh) * config.microbatches
  host, per_epoch = comparisons.source(comparisons.layout(data['train'], config, *ids), harmful_N,
                                       config, [c.seed for c in configs], parts)
  held = comparisons.held_out(comparisons.layout(data['validation'], config, *ids), config, parts)
  steps = per_epoch * config.epochs

  whole_loss = build.preference_loss(body, config.lm_weight, bool(config.pack))

  def whole(params, frozen):
    return params | {'body': part.whole(params['body'], frozen['base'])}

  def loss(params, batch, key, frozen):
    return whole_loss(whole(params, frozen), batch, key, frozen)

  def init(config, key):
    fresh = {name: s.init(key_for(key, 'head', i), s.shape, s.dtype)
             for i, (name, s) in enumerate(sorted(model.spec['head'].items()))}
    return {'body': part.start(base.params, key), 'head': trained_head or fresh}

  def evaluate(state, frozen):
    parts = jax.lax.map(lambda held: loss(state.params, held, state.key, frozen)[1], frozen['held'])
    return {'accuracy': parts['accuracy'].sum(), 'loss': parts['preference_loss'].sum()}

  optimizer = build.optimizer(config, steps, specs)
  frozen = {'held': jax.tree.map(jnp.asarray, held),
            'base': base.params if config.lora.rank else None}     # else they are what is trained
  start = build.initial_state(configs, mesh, specs, init, optimizer)
  base = base._replace(params=None)                  # they are in the state, or frozen
  state = train(
    configs, workdirs, *start, step.update(loss, optimizer, config.microbatches),
    label='preferences', steps=steps, mesh=mesh, host=host, frozen=frozen,
    evaluate=evaluate, show=('loss', 'accuracy'))
  score = jax.jit(functools.partial(heads.last, model))
  summaries = []
  for c, w, params in zip(configs, workdirs, build.unstack(state.params, len(configs)), strict=True):
    scores = comparisons.scores(score, whole(params, frozen), data['test'], c, *ids, mesh)
    if rundir.writes():
      np.savez(f'{w}/test_scores.npz', chosen=scores[0], rejected=scores[1],
               group=data['test'].group_N)
    summary = evals.summary(scores, data, world.groups, worlds.is_harmful(
      world, data['test']), c.baselines) | facts | {
      'comparisons': len(data['train'].prompt), 'wall_seconds': clock()}
    low, high = summary['accuracy_interval']
    ceiling = f", ceiling {facts['ceiling']:.3f}" if 'ceiling' in facts else ''
    finish(w, summary, f"accuracy {summary['accuracy']:.3f} [{low:.3f}, {high:.3f}]{ceiling}"
           + ''.join(f', {k} {v:.3f}' for k, v in summary['baselines'].items())
           + f' ({clock():.0f} s)')
    summaries.append(summary)
  return summaries


if __name__ == '__main__':
  main(run)
