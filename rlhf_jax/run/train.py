"""What every training main does around `fit`: open, restore, log, evaluate, save, finish.

One run or several in one program (a leading axis S on the state); `fit` does not know which.
"""
import contextlib
import math
import time

import jax

from rlhf_jax.core import mesh as meshes
from rlhf_jax.core import rundir
from rlhf_jax.run import build, checkpoint, hooks
from rlhf_jax.run.clock import Stopwatch
from rlhf_jax.run.config import to_dict
from rlhf_jax.run.fit import fit


def open_runs(configs, workdirs, tokenizer=None):
  """True when there is something to train; refuses a folder that holds another run. tokenizer: that of
  all runs, saved in each folder; None where it is there already, or there is none."""
  build.check_vary(configs)
  status = [rundir.open_run(w, to_dict(c)) for c, w in zip(configs, workdirs, strict=True)]
  for w, said in zip(workdirs, status, strict=True):
    if tokenizer is not None and said != 'done':
      tokenizer.save(f'{w}/tokenizer.json')
  return any(said != 'done' for said in status)


def train(configs, workdirs, state, shardings, update, *, label, steps, mesh, host, device=(),
          frozen=None, evaluate=None, show=('loss',), watch=lambda config, workdir: None):
  """The trained state (stacked when there are several configs), all files written but summary, DONE.

  state, shardings: of `build.initial_state`; the state is gone afterwards. host, device: of
  `build.source`. evaluate(state, frozen) -> dictionary of scalars, jitted here and written as
  `eval/...` every `config.eval_every` of the `steps` updates, or at those updates where it is a tuple.
  watch(config, workdir): as in `hooks.writer`. The start is saved too, so that a run that breaks early
  has a good checkpoint.
  """
  config, several = configs[0], len(configs) > 1
  frozen = build.everywhere({} if frozen is None else frozen, mesh)
  evaluated, saved = (_each(every, steps) for every in (config.eval_every, config.checkpoint_every))
  with contextlib.ExitStack() as opened:
    managers = [opened.enter_context(checkpoint.manager(w)) for w in workdirs]
    state, start = _restore(managers, workdirs, state, shardings)
    watched = Stopwatch(start)

    def save(step, state, metrics):
      del metrics
      for m, mine in zip(managers, build.unstack(state, len(managers)), strict=True):
        checkpoint.save(m, step, mine)

    writers = [hooks.writer(w, config.log_every, steps, {*evaluated, *saved}, watch(c, w), watched.of)
               for c, w in zip(configs, workdirs, strict=True)]
    run_hooks = [hooks.members(writers) if several else writers[0]]
    if evaluate is not None:
      write = _evaluation(evaluate, workdirs, frozen)
      run_hooks.append(hooks.at(evaluated, write))
      if start == 0:
        write(0, state, {})
    # A checkpoint comes last: a run killed before it evaluates that step again.
    run_hooks.append(hooks.at(saved, save))
    if start == 0:
      save(0, state, {})
    run_hooks.append(opened.enter_context(hooks.progress(label, start, steps, show)))
    update = watched.last('train', build.compiled_update(update, shardings, several))
    source = build.source(host, device, configs, mesh, watched.part)
    return fit(state, update, source, frozen, steps, run_hooks, start)


def finish(workdir, summary, line):
  """Writes the summary, marks the run done and prints its one line of numbers."""
  rundir.write_summary(workdir, summary)
  rundir.mark_done(workdir)
  print(f'{workdir}: {line}', flush=True)


def _restore(managers, workdirs, state, shardings):
  """(state, step) of the newest checkpoint that all runs have, the metrics cut to it and `state` freed;
  that state and 0 where they have none behind the start. Two states do not fit where one just does,
  so that of a single run is freed first."""
  parts = list(build.unstack(state, len(managers)))
  alone = len(managers) == 1 and checkpoint.trained(managers[0])      # restored, or refused
  if alone:
    parts = [checkpoint.abstract(state)]
    _free(state)
  step, positions = math.inf, ()
  while len(set(positions)) != 1:
    found = [checkpoint.restore(m, p, step) for m, p in zip(managers, parts, strict=True)]
    positions = [position for _, position in found]
    step = min(positions)
  for w in workdirs:
    rundir.truncate_metrics(w, step if step else -1)
  if not step and not alone:
    return state, 0
  _free(state)
  return meshes.put(build.stack([f[0] for f in found]), shardings), step


def _free(state):
  """Also where whoever made it holds it."""
  for leaf in jax.tree.leaves(state):
    leaf.delete()


def _each(every, last):
  """Every so many steps, or the steps themselves; and the last one."""
  steps = range(every, last, every) if isinstance(every, int) else every
  return [*steps, last]


def _evaluation(evaluate, workdirs, frozen):
  """The hook that writes evaluate(state, frozen) of each run."""
  several = len(workdirs) > 1
  run = jax.jit(build.across(evaluate, (0, None)) if several else evaluate)

  def write(step, state, metrics):
    del metrics
    values = jax.device_get(run(state, frozen))
    for s, w in enumerate(workdirs):
      rundir.append_metrics(w, step, {f'eval/{k}': v[s] if several else v
                                      for k, v in values.items()})
  return write


class Clock:
  """Wall seconds since it was made."""

  def __init__(self):
    self.start = time.monotonic()

  def __call__(self):
    return round(time.monotonic() - self.start, 1)
