"""Steps without memory: what is lowered for chips that are not there, the bytes of each chip by hand,
and both against what XLA makes of a small model on eight devices."""
import re

import jax
import pytest

from configs import lower as ladder
from experiments import lower
from rlhf_jax.core import mesh as meshes
from rlhf_jax.core import rundir
from rlhf_jax.models import sizes
from rlhf_jax.run import lowering

FLOAT = 4


def settings(**model):
  """The ladder's config with a small model and small batches: 8 rows, prompts of 8, answers of 4."""
  made = ladder.get_config('smoke')
  made.model.update({'name': 'micro', 'vocab_size': 512, 'dtype': 'float32', 'remat': True,
                     'unroll': False})
  with made.unlocked():
    made.model.update(model)
  made.preference_model.update({'batch_size': 8, 'length': 16})
  made.ppo.update({'batch_size': 8, 'minibatches': 2, 'samples': 80})
  made.update({'prompt_width': 8, 'answer_width': 4})
  return made


@pytest.fixture(scope='module')
def smoke(tmp_path_factory):
  """Both rungs of the smoke variant, micro on 512 chips and 13M on 64x4x2."""
  path = tmp_path_factory.mktemp('lower') / 'run'
  return path, lower.run(ladder.get_config('smoke'), path)


def test_two_rungs_lower_for_512_chips(smoke):
  path, made = smoke
  assert {name: set(programs) for name, programs in made.items()} == dict.fromkeys(
    ('micro', '13M'), {'preference model', 'ppo', 'generation'})
  assert rundir.read_summary(path) == made
  for programs in made.values():
    for numbers in programs.values():
      assert numbers['total'] == sum(numbers['bytes'].values()) and numbers['fits']
  # 13M on fsdp 4, tensor 2: 4 layers of width 512, F = 2048 and the table, in float32, cut by 8, and
  # norms of the width cut by 4; the value network has a head of 512 / 4 + 1 beside them.
  cut = (4 * 12 * 512**2 + 2**16 * 512) // 8 + 9 * 512 // 4
  assert made['13M']['generation']['bytes']['parameters'] == FLOAT * cut
  assert made['13M']['ppo']['bytes']['parameters'] == FLOAT * (2 * cut + 512 // 4 + 1)


@pytest.mark.parametrize('platform', ['tpu', 'cuda'])
def test_an_update_of_packed_rows_lowers(platform):
  """4 texts of 12 columns on each of 32 devices, in 2 rows of them or as they come."""
  config = settings()
  config.preference_model.batch_size = 32
  config.ppo.update({'batch_size': 512, 'minibatches': 4, 'packed': (0.5,)})
  program = lowering.programs(config, meshes.abstract(16, 2, 2), platform)['ppo']
  text = lowering.lower(program, platform).as_text()
  assert 'tensor<64x12xi32>' in text and 'tensor<128x12xi32>' in text


@pytest.mark.parametrize('platform', ['tpu', 'cuda'])
def test_the_lowered_text_says_where_arrays_are(platform):
  mesh = meshes.abstract(16, 2, 2)
  config = settings()
  config.preference_model.batch_size = 32
  config.ppo.update({'batch_size': 128, 'minibatches': 4})
  for name, program in lowering.programs(config, mesh, platform).items():
    text = lowering.lower(program, platform).as_text()
    assert 'mhlo.num_partitions = 64' in text
    # w_up [layers 2, D 64, F 256]: the width over 'fsdp', hidden units over 'tensor'
    up = re.findall(r'%arg\d+: tensor<2x64x256xf32> {sdy.sharding = #sdy.sharding<@mesh, (.*?)>', text)
    copies = {'preference model': 3, 'ppo': 6, 'generation': 1}[name]        # Adam holds two more
    assert up == ['[{}, {"fsdp"}, {"tensor"}]'] * copies
    rows = {'preference model': 2 * 32 * 16, 'ppo': 32 * 12, 'generation': 128 * 8}[name]
    kept = rf'sharding_constraint .* <@mesh, \[{{"data", "fsdp"}}, {{}}\]> : tensor<{rows}x64xf32>'
    assert re.search(kept, text)
    assert (text.count('tf.aliasing_output') > 20) == (name != 'generation')     # the state is donated
    assert ('tpu_custom_call' in text) == (platform == 'tpu')                    # its attention


def test_bytes_of_a_chip_by_hand():
  made = lowering.programs(settings(), meshes.abstract(2, 2, 2), 'cpu')
  # width 64 cut by 2, heads 2 of 32, F 256 and V 512 cut by 2; 2 layers
  matrices = 2 * 12 * 64**2 // 4 + 512 * 64 // 4
  body = matrices + 5 * 64 // 2
  judge = body + 64 // 2 + 1
  layer = 2 * (12 * 64 ** 2 // 2) // 2
  assert made['preference model'].bytes == {
    'parameters': FLOAT * judge, 'optimiser': FLOAT * (2 * judge + 2),           # and two counters
    'gradients': FLOAT * judge, 'frozen': 0,
    # 16 rows / 4 of 16 tokens: the inputs of 2 layers, and one layer
    'activations': FLOAT * 4 * 16 * (2 * 64 + 2 * (4 * 64 + (4 * 64 + 4 * 256 + 3 * 2 * 16) // 2)),
    'gathered': FLOAT * (layer + 512 * 64 // 2)}
  ppo = made['ppo'].bytes
  assert ppo['parameters'] == FLOAT * (body + judge) and ppo['frozen'] == FLOAT * (body + judge)
  # 8 rows / 2 minibatches / 4 of 12 tokens, two networks
  assert ppo['activations'] == 2 * FLOAT * 12 * (
    2 * 64 + 2 * (4 * 64 + (4 * 64 + 4 * 256 + 3 * 2 * 12) // 2))
  # keys and values, 2 layers, 8 / 4 rows, 2 / 2 heads, 8 + 4 columns of 32
  assert made['generation'].bytes['cache'] == FLOAT * 2 * 2 * 2 * 1 * 12 * 32
  config = settings(remat=False)
  each = 2 * (4 * 64 + (4 * 64 + 4 * 256 + 3 * 2 * 16) // 2)
  assert lowering.programs(config, meshes.abstract(2, 2, 2), 'cpu')['preference model'].bytes[
    'activations'] == FLOAT * 4 * 16 * 2 * each
  assert lowering.programs(settings(), meshes.abstract(4, 1, 2), 'cpu')['ppo'].bytes['gathered'] == 0
  on_tpu = lowering.programs(settings(), meshes.abstract(2, 2, 2), 'tpu')['preference model'].bytes
  assert on_tpu['activations'] == made['preference model'].bytes['activations'] - (
    FLOAT * 4 * 16 * 2 * 3 * 2 * 16 // 2)                # no scores of 2 heads and 16 columns


def compiled(name, length, layers=2):
  """A Program on eight devices, and what XLA makes of it; 2 * 8 * length tokens in a batch."""
  config = settings(width=256, heads=8, vocab_size=1024, layers=layers)
  config.preference_model.length = length
  program = lowering.programs(config, meshes.make(2, 2, 2), 'cpu')[name]
  return program, program.function.lower(*program.arguments).compile()


def gathered(text):
  """Shapes that are gathered from other devices."""
  return set(re.findall(r'= \w+\[([\d,]*)\]\S* all-gather\(', text))


def test_weights_travel_and_rows_stay():
  """On eight devices, fsdp 2, tensor 2: each weight is gathered along the width, no hidden state is."""
  _, made = compiled('preference model', 20)
  # q, k, v [D, H K / 2]; output [H K / 2, D]; up [D, F / 2], down [F / 2, D]; the table [V / 2, D]
  assert {'256,128', '128,256', '256,512', '512,256'} <= gathered(made.as_text())
  assert not [shape for shape in gathered(made.as_text()) if shape.split(',')[0] in ('320', '160')]


@pytest.mark.slow
@pytest.mark.parametrize('length', [64, 128])
def test_activations_are_what_xla_allots(length):
  def step(layers):
    program, made = compiled('preference model', length, layers)
    return program.bytes, made.memory_analysis().temp_size_in_bytes
  (two, temp_two), (six, temp_six) = step(2), step(6)
  estimate = {kind: six[kind] - two[kind] for kind in six}
  assert temp_six - temp_two == pytest.approx(estimate['gradients'] + estimate['activations'], rel=0.02)
  whole = six['gradients'] + six['activations'] + six['gathered']
  assert 0.5 * whole < temp_six < whole


def test_the_cache_is_cut_by_rows_and_heads():
  mesh = meshes.make(2, 2, 2)
  program = lowering.programs(settings(), mesh, 'cpu')['generation']
  params, *prompts, _ = program.arguments
  body = lowering.build.model(settings(), 512, mesh)
  made = jax.jit(lambda *args: body.prefill(*args, 4)[1]).lower(params, *prompts).compile()
  shard = {s.shard_shape((8, 2, 12, 32)) for s in jax.tree.leaves(made.output_shardings.keys)}
  assert shard == {(2, 1, 12, 32)}


@pytest.mark.parametrize('mesh, line', [
  ((1, 1, 4), "dimension 2 .'heads'. of size 2 does not divide over mesh axis 'tensor' of size 4"),
  ((16, 1, 1), '8 rows does not divide over data . fsdp = 16: use 16'),
  ((8, 1, 1), '4 rows does not divide over data . fsdp = 8: use 8')])       # a minibatch of PPO
def test_what_cannot_be_cut_is_refused(mesh, line):
  with pytest.raises(ValueError, match=line):
    lowering.programs(settings(), meshes.abstract(*mesh), 'cpu')


@pytest.mark.slow
def test_every_rung_lowers_for_512_chips(tmp_path):
  config = ladder.get_config()
  made = lower.run(config, tmp_path / 'run')
  assert set(made) == {*sizes.LAPTOP_LAYERS, *sizes.PAPER_LAYERS}
  assert all(data * fsdp * tensor == 512 for _, data, fsdp, tensor in config.meshes)
  big = made['52B']
  # 64 layers, width 8192: 12 L D^2 and the table over 16 * 8 chips, norms over 16
  count = (64 * 12 * 8192**2 + 2**16 * 8192) // 128 + 129 * 8192 // 16
  assert big['generation']['bytes']['parameters'] == FLOAT * count
  # 2,048 rows / 64 of 1,024 columns, 64 / 8 heads of 128, bfloat16
  assert big['generation']['bytes']['cache'] == 2 * 2 * 64 * 32 * 8 * 1024 * 128
  assert [p['fits'] for p in big.values()] == [True, False, True]
