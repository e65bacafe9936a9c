"""What every training main does around `fit`: open, restore, log, evaluate, save, finish.

One run or several in one program (a leading axis S on the state); `fit` does not know which.
"""
import math
import time

import jax

from rlhf_jax.core import mesh as meshes
from rlhf_jax.core import rundir, step
from rlhf_jax.run import build, checkpoint, hooks
from rlhf_jax.run.clock import Stopwatch
from rlhf_jax.run.config import to_dict
from rlhf_jax.run.fit import fit


def open_runs(configs, workdirs):
  """True when there is something to train; refuses a folder that holds another run."""
  build.check_vary(configs)
  status = [rundir.open_run(w, to_dict(c)) for c, w in zip(configs, workdirs, strict=True)]
  return any(s != 'done' for s in status)


def train(configs, workdirs, *, label, steps, mesh, specs, init, optimizer, update, host, device=(),
          frozen=None, extra=lambda config: {}, evaluate=None, tokenizer=None, show=('loss',),
          watch=lambda config, workdir: None):
  """The trained state (stacked when there are several configs), all files written but summary, DONE.

  init(config, key) -> params; host and device as in `build.source`; evaluate(state, frozen) ->
  dictionary of scalars, jitted here and written as `eval/...` every `config.eval_every` of the
  `steps` updates, or at those updates where it is a tuple. watch(config, workdir): as in
  `hooks.writer`. The start is saved too, so that a run that breaks early has a good checkpoint.
  """
  config, several = configs[0], len(configs) > 1
  frozen = build.everywhere({} if frozen is None else frozen, mesh)
  states = []
  for c in configs:
    key = jax.random.key(c.seed)
    states.append(step.create(init(c, key), optimizer, key, c.optimizer.learning_rate, **extra(c)))
  state = build.stack(states)
  shardings = build.state_shardings(state, specs, mesh, several)
  state = meshes.put(state, shardings)
  managers = [checkpoint.manager(w) for w in workdirs]
  state, start = _restore(managers, workdirs, state, shardings, several)
  if tokenizer is not None:
    for w in workdirs:
      tokenizer.save(f'{w}/tokenizer.json')

  last, every, watched = steps, config.log_every, Stopwatch(start)
  def each_run(make):
    made = [make(*run) for run in zip(configs, workdirs, managers, strict=True)]
    return hooks.members([[hook] for hook in made]) if several else made[0]
  stops = {*_each(config.eval_every, last), *_each(config.checkpoint_every, last)}
  run_hooks = [each_run(lambda c, w, m: hooks.writer(
    w, every, last, stops, watch(c, w), watched.of))]
  if evaluate is not None:
    run_hooks.append(_evaluator(evaluate, configs, workdirs, frozen, state, start, last))
  # A checkpoint comes last: a run killed before it evaluates that step again.
  save = each_run(lambda c, w, m: hooks.at(
    [0, *_each(config.checkpoint_every, last)],
    lambda step, state, _: checkpoint.save(m, step, state)))
  run_hooks.append(save)
  if start == 0:
    save(0, state, {})
  update = watched.last('train', build.compiled_update(update, shardings, several))
  source = build.source(host, device, configs, mesh, watched.part)
  with hooks.progress(label, start, last, show) as bar:
    state = fit(state, update, source, frozen, last, [*run_hooks, bar], start)
  for m in managers:
    m.close()
  return state


def finish(workdir, summary, line):
  """Writes the summary, marks the run done and prints its one line of numbers."""
  rundir.write_summary(workdir, summary)
  rundir.mark_done(workdir)
  print(f'{workdir}: {line}', flush=True)


def _restore(managers, workdirs, state, shardings, several):
  if not several:
    state, start = checkpoint.restore(managers[0], state)
  else:
    parts = [jax.tree.map(lambda x, s=s: x[s], state) for s in range(len(managers))]
    start, positions = math.inf, ()
    while len(set(positions)) != 1:                         # the newest step that all have
      found = [checkpoint.restore(m, p, start) for m, p in zip(managers, parts, strict=True)]
      positions = [position for _, position in found]
      start = min(positions)
    state = meshes.put(build.stack([f[0] for f in found]), shardings) if start else state
  for w in workdirs:
    rundir.truncate_metrics(w, start if start else -1)
  return state, start


def _each(every, last):
  """Every so many steps, or the steps themselves; and the last one."""
  steps = range(every, last, every) if isinstance(every, int) else every
  return [*steps, last]


def _evaluator(evaluate, configs, workdirs, frozen, state, start, last):
  every, several = configs[0].eval_every, len(configs) > 1
  run = jax.jit(build.across(evaluate, (0, None)) if several else evaluate)
  def write(step, state, metrics):
    del metrics
    values = jax.device_get(run(state, frozen))
    for s, w in enumerate(workdirs):
      rundir.append_metrics(w, step, {f'eval/{k}': v[s] if several else v
                                      for k, v in values.items()})
  if start == 0:
    write(0, state, None)
  return hooks.at(_each(every, last), write)


class Clock:
  """Wall seconds since it was made."""

  def __init__(self):
    self.start = time.monotonic()

  def __call__(self):
    return round(time.monotonic() - self.start, 1)
