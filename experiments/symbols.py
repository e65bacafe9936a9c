"""Why preference-model pretraining is binary: ranked scales must be unlearned.

  python -m experiments.symbols --config=configs/symbols.py --workdir=runs/symbols

Askell et al. 2021, appendix C.6, on the symbols of `data.symbols`: pretrain a preference model per
order and seed, fine-tune each, and a fresh one per seed, on the true order, and follow its accuracy on
held-out pairs. Each stage is one program for all orders and seeds. The paper starts from a 13B language
model; networks here are small, start from nothing and learn from the pairs alone.
"""
import functools

import jax.numpy as jnp
import numpy as np

from rlhf_jax.algorithms import preference
from rlhf_jax.analysis import figures, report, seeds, tables
from rlhf_jax.core import rundir, spec, step
from rlhf_jax.core.types import PreferenceBatch
from rlhf_jax.data import symbols
from rlhf_jax.models import heads
from rlhf_jax.run import build
from rlhf_jax.run.config import main, to_dict
from rlhf_jax.run.train import Clock, open_runs, train

COMPARED = (('T1', 'T4'), ('binary', 'T2'), ('binary', 'T3'), ('binary', 'none'), ('T4', 'none'))


def run(config, workdir):
  """The summary: accuracy by order at growing numbers of fine-tuning pairs, and differences."""
  mesh, clock = build.mesh(config, config.pretrain.batch_size, config.finetune.batch_size), Clock()
  for name in ('pretrain', 'finetune'):
    build.check_settings(config[name])
  symbols.lessons('none', config.seed, config.finetune.pairs, config.test_pairs)  # refuses too many
  if rundir.open_run(workdir, to_dict(config)) == 'done':
    return rundir.read_summary(workdir)
  grid = [(order, seed) for order in symbols.ORDERS
          for seed in range(config.seed, config.seed + config.seeds)]
  pretrained = stage(config, workdir, 'pretrain', [at for at in grid if at[0] != 'none'], {}, mesh)
  stage(config, workdir, 'finetune', grid, pretrained, mesh)
  rundir.write_summary(workdir, write(config, workdir) | {'wall_seconds': clock()})
  rundir.mark_done(workdir)
  print(f'report: {workdir}/report.html ({clock():.0f} s)')
  return rundir.read_summary(workdir)


def stage(config, workdir, name, grid, start, mesh):
  """The parameters of one model per (order, seed) of `grid`, trained in one program from
  start[order, seed], or from nothing where that is not there."""
  configs = [config[name].copy_and_resolve_references() for _ in grid]
  for each, (order, seed) in zip(configs, grid, strict=True):
    each.update({'order': order, 'seed': seed, 'model': config.model, 'test_pairs': config.test_pairs})
  workdirs = [f'{workdir}/{name}/{order}-{seed}' for order, seed in grid]
  open_runs(configs, workdirs)
  lessons = functools.cache(lambda c: symbols.lessons(*c, config.finetune.pairs, config.test_pairs))

  def host(c, i):
    pair_N2 = lessons((c.order, c.seed))[name]
    return batch(pair_N2[np.arange(i * c.batch_size, (i + 1) * c.batch_size) % len(pair_N2)])

  body = build.model(config, symbols.VOCAB_SIZE, mesh)
  model = heads.scalar(body, heads.initial_normal(heads.width(body)))
  every_NT = jnp.asarray(symbols.tokens(np.arange(symbols.SYMBOLS)))

  def evaluate(state, frozen):
    score_N = heads.last(model, state.params, every_NT, jnp.ones(every_NT.shape))
    pair_2N = state.extra['test'].astype(jnp.int32).T
    return {'accuracy': preference.statistics(*score_N[pair_2N], 1, 1 / config.test_pairs)['accuracy']}

  loss = build.preference_loss(body, lm_weight=0)
  steps = config[name].pairs // config[name].batch_size
  optimizer = build.optimizer(config[name], steps, model.spec)
  state = train(
    configs, workdirs, *build.initial_state(
      configs, mesh, model.spec,
      lambda c, key: start.get((c.order, c.seed)) or spec.init(model.spec, key), optimizer,
      lambda c: {'test': lessons((c.order, c.seed))['test']}),
    step.update(loss, optimizer), label=name, steps=steps, mesh=mesh, host=host, evaluate=evaluate,
    show=('loss', 'accuracy'))
  return dict(zip(grid, build.unstack(state.params, len(grid)), strict=True))


def batch(pair_B2):
  """The PreferenceBatch of pairs of symbols, the better one first."""
  sides = [symbols.tokens(symbol_B) for symbol_B in pair_B2.T]
  valid_BT, one_B = np.ones(sides[0].shape, np.float32), np.ones(len(pair_B2), np.float32)
  index_B = np.arange(len(pair_B2), dtype=np.int32)
  return PreferenceBatch(sides[0], valid_BT, sides[1], valid_BT, one_B, one_B, valid_BT, index_B,
                         index_B)


def write(config, workdir):
  """Prints the tables and writes the report, from the run directories; their numbers."""
  runs = {order: [rundir.read_metrics(f'{workdir}/finetune/{order}-{seed}', 'eval/accuracy')
                  for seed in range(config.seed, config.seed + config.seeds)]
          for order in symbols.ORDERS}
  pairs = runs['none'][0]['step'] * config.finetune.batch_size
  accuracy = {order: np.stack([m['eval/accuracy'] for m in made]) for order, made in runs.items()}
  curves = {order: seeds.interval(value_SN) for order, value_SN in accuracy.items()}
  gaps = {f'{a} - {b}': seeds.interval(accuracy[a] - accuracy[b]) for a, b in COMPARED}
  shown = np.unique([0, *2 ** np.arange((len(pairs) - 1).bit_length()), len(pairs) - 1])
  means, differences = ([{'pairs': int(pairs[i])} | {k: text(v, i) for k, v in table.items()}
                         for i in shown] for table, text in (
    (curves, lambda v, i: v.mean[i]),
    (gaps, lambda v, i: f'{v.mean[i]:+.3f} ± {v.high[i] - v.mean[i]:.3f}')))
  print(tables.text_table(means), tables.text_table(differences), sep='\n\n')
  figure = figures.learning_curves(pairs, curves, 'pairs of the true order',
                                   'accuracy on held-out pairs')
  report.write(
    workdir, 'Ranked scales must be unlearned', f'{config.seeds} seeds, {workdir}', [report.Section(
      'Accuracy after pretraining on another order', table=means, figures=[(
        figure, 'Mean over seeds and 95% interval. Pretrained on the true order after 10 (T1), 40, '
        '160 or 640 (T4) random transpositions, on its top half against the rest, or not at all.')]),
      report.Section('Differences, paired by seed, with 95% intervals', table=differences)])
  return {'pairs': pairs[shown]} | {k: {name: x[shown] for name, x in v._asdict().items()}
                                    for k, v in (curves | gaps).items()}


if __name__ == '__main__':
  main(run)
