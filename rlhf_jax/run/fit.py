"""The one training loop: every method is a loss, a source and hooks given to `fit`."""


def fit(state, update, source, frozen, steps, hooks=(), start=0):
  """The state after positions `start`..`steps` - 1.

  source(state, frozen, i) -> batch, a function of its arguments alone: `i` is the data position, so
  a resumed run needs no iterator. update(state, batch, frozen) -> (state, metrics). Hooks are called
  as hook(i + 1, state, metrics) after position i; metrics are device arrays, and a hook that reads
  them waits for the device, so reading hooks say how often.
  """
  for i in range(start, steps):
    state, metrics = update(state, source(state, frozen, i), frozen)
    for hook in hooks:
      hook(i + 1, state, metrics)
  return state
