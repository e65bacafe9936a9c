"""Devices that are not here: XLA compiles for them on any machine, with the errors and the bytes that
it would have there, and runs nothing. On a GPU with plain attention: cuDNN's needs one to be lowered.

JAX knows TPU topologies by their names where libtpu is installed (`.[tpu]`), and one NVIDIA GPU by its
description where JAX's CUDA plugin is (`.[gpu]`); neither chips nor drivers have to be there.
"""
import importlib.util
import os

import jax
from jax.experimental import topologies

GPU = 'h100'
# What XLA asks of a GPU before it compiles for it: the data sheet of an H100 SXM.
_H100 = """
gpu_device_info {
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: 233472
  shared_memory_per_block_optin: 232448
  threads_per_core_limit: 2048
  core_count: 132
  fpus_per_core: 128
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  memory_bandwidth: 3352320000000
  l2_cache_size: 52428800
  clock_rate_ghz: 1.98
  device_memory_size: 85899345920
  cuda_compute_capability { major: 9 }
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 8 }
runtime_version { major: 12 minor: 8 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


def devices(topology):
  """The devices of a TPU topology such as 'v5e:2x2' or 'v4:8x8x8' (two cores of a v4 are one device),
  or of 'h100', one of them. Refused where what compiles for them is not installed, and names that JAX
  does not know."""
  if topology == GPU:
    return _gpu()
  _need(('libtpu',), topology, 'tpu')
  for variable in ('TPU_SKIP_MDS_QUERY', 'ALLOW_MULTIPLE_LIBTPU_LOAD'):      # no chips to share
    os.environ.setdefault(variable, '1')
  options = {'chip_config_name': 'megacore'} if topology.startswith('v4') else {}
  try:
    return list(topologies.get_topology_desc(topology, platform='tpu', **options).devices)
  except jax.errors.JaxRuntimeError as error:
    raise ValueError(f'config.topology={topology!r}: libtpu says {str(error).strip()!r}; names are '
                     f"such as 'v5e:4x4', 'v4:8x8x8' and 'v5p:8x8x8', and '{GPU}'") from None


def _gpu():
  _need(('jax_cuda12_plugin', 'jax_cuda13_plugin'), GPU, 'gpu')
  return list(topologies.get_topology_desc(GPU, platform='cuda', topology='1x1x1',
                                           target_config=_H100).devices)


def _need(modules, topology, extra):
  """One of these."""
  if not any(map(importlib.util.find_spec, modules)):
    raise ValueError(f"config.topology={topology!r} needs what compiles for it: pip install -c "
                     f"constraints.txt -e '.[{extra}]', or set it to '' to lower without compiling")
