"""The loop: order, positions, and a resume that asks for the same batches."""
from rlhf_jax.run.fit import fit


def test_order_of_calls_and_positions():
  calls = []
  def source(state, frozen, i):
    calls.append(('source', state, frozen, i))
    return 10 * i
  def update(state, batch, frozen):
    calls.append(('update', state, batch, frozen))
    return state + batch, {'loss': batch}
  def hook(step, state, metrics):
    calls.append(('hook', step, state, metrics['loss']))
  assert fit(1, update, source, 'frozen', 3, [hook], start=1) == 1 + 10 + 20
  assert calls == [('source', 1, 'frozen', 1), ('update', 1, 10, 'frozen'), ('hook', 2, 11, 10),
                   ('source', 11, 'frozen', 2), ('update', 11, 20, 'frozen'), ('hook', 3, 31, 20)]


def test_nothing_left_to_do():
  assert fit('state', None, None, None, 4, start=4) == 'state'
