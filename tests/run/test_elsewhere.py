"""The steps compiled by XLA for chips that are not here; `make elsewhere` installs what that takes."""
import importlib.util

import jax
import pytest

from configs import lower as ladder
from experiments import lower
from rlhf_jax.core import mesh as meshes
from rlhf_jax.run import elsewhere, lowering

TPU, H100 = ('v5e:2x2', 'tpu', 'libtpu'), (elsewhere.GPU, 'cuda', 'jax_cuda12_plugin')


def installed(module):
  return importlib.util.find_spec(module) is not None


def settings(**change):
  """Small widths and few rows, but 1,024 columns: XLA sums so many in several kernels."""
  made = ladder.get_config('smoke')
  made.model.update({'name': 'tiny', 'vocab_size': 512, 'dtype': 'bfloat16', 'unroll': False,
                     'remat': 'dots'})
  made.preference_model.update({'batch_size': 4, 'length': 1024, 'lm_weight': 0.0})
  made.ppo.update({'batch_size': 16, 'minibatches': 1, 'samples': 160})
  made.update({'prompt_width': 896, 'answer_width': 128})
  made.update_from_flattened_dict(change)
  return made


@pytest.mark.slow
@pytest.mark.parametrize('topology, platform, module', [TPU, H100])
@pytest.mark.parametrize('change', [
  {}, {'model.unroll': True}, {'preference_model.lm_weight': 1.0, 'ppo.value_init': 'shared'},
  {'ppo.packed': (0.5,)}])
def test_every_program_compiles(topology, platform, module, change):
  if not installed(module):
    pytest.skip(f'{module} is not installed')
  mesh = meshes.make(devices=elsewhere.devices(topology)[:1])
  for program in lowering.programs(settings(**change), mesh, platform).values():
    needed = lowering.compiled_bytes(lowering.lower(program, platform))
    assert program.bytes['parameters'] < needed < 2**34


@pytest.mark.slow
@pytest.mark.skipif(not installed('libtpu'), reason='libtpu is not installed')
def test_a_mesh_may_cut_the_axes_of_a_pod():
  devices = elsewhere.devices('v4:8x8x8')
  assert dict(meshes.make(16, 8, 4, devices).shape) == {'data': 16, 'fsdp': 8, 'tensor': 4}


@pytest.mark.slow
def test_what_xla_allots_stands_beside_what_is_counted(tmp_path, monkeypatch):
  """Eight fake CPU devices in the place of chips."""
  monkeypatch.setattr(elsewhere, 'devices', lambda topology: jax.devices())
  config = settings(**{'model.dtype': 'float32'})
  config.preference_model.update({'batch_size': 8, 'length': 64})
  config.update({'prompt_width': 32, 'answer_width': 16, 'topology': 'eight', 'platform': 'cpu',
                 'meshes': (('micro', 2, 2, 2),)})
  made = lower.run(config, tmp_path / 'run')['micro']
  for numbers in made.values():
    assert numbers['bytes']['parameters'] < numbers['compiled'] < 2 * numbers['total']
    assert numbers['fits'] and numbers['compiling'] > 0
  monkeypatch.setattr(elsewhere, 'devices', None)
  assert lower.run(config, tmp_path / 'run') == {'micro': made}           # finished: nothing to compile


def test_a_program_that_does_not_fit_has_no_bytes():
  class Lowered:
    def compile(self):
      raise jax.errors.JaxRuntimeError(self.line)
  lowered = Lowered()
  lowered.line = 'RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm'
  assert lowering.compiled_bytes(lowered) is None
  lowered.line = 'INTERNAL: something else'
  with pytest.raises(jax.errors.JaxRuntimeError, match='something else'):
    lowering.compiled_bytes(lowered)


def test_chips_of_another_platform_are_refused(tmp_path, monkeypatch):
  monkeypatch.setattr(elsewhere, 'devices', lambda topology: jax.devices())
  config = ladder.get_config('smoke')
  config.topology = 'eight'
  with pytest.raises(ValueError, match="no chips of config.platform='tpu': set that to 'cpu'"):
    lower.run(config, tmp_path / 'run')


def test_what_is_not_installed_is_refused(tmp_path, monkeypatch):
  config = ladder.get_config('smoke')
  config.topology = 'v4:8x8x8'
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(ValueError, match=r"'v4:8x8x8' needs what compiles for it: pip .*\.\[tpu\]"):
    lower.run(config, tmp_path / 'run')
  config.topology = elsewhere.GPU
  with pytest.raises(ValueError, match=r"'h100' needs what compiles for it: pip .*\.\[gpu\]"):
    lower.run(config, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()
