"""Does every rung of the ladder fit a pod? Lowers its steps for a mesh that is not there.

  python -m experiments.lower --config=configs/lower.py --workdir=runs/lower

For each rung: the whole update of preference-model training, that of PPO with its separate value
network, and sampling with a cache, lowered with the shardings that a run would have, in seconds and
without memory. Prints and writes the bytes that each chip would hold, by kind, and whether they fit.
With `--config.topology=v4:8x8x8` (libtpu is needed, no TPU) XLA compiles them for such chips too, in
minutes, and says what they really take.
"""
import time

from tqdm import tqdm

from rlhf_jax.analysis import tables
from rlhf_jax.core import mesh as meshes
from rlhf_jax.core import rundir
from rlhf_jax.run import elsewhere, lowering
from rlhf_jax.run.config import main, to_dict
from rlhf_jax.run.train import finish

GIB = 2**30


def run(config, workdir):
  """Lowers all programs of all rungs; returns {rung: {program: numbers}}."""
  ladder = {} if rundir.is_done(workdir) else laid_out(config)
  chips = {mesh.size for mesh in ladder.values()}
  if rundir.open_run(workdir, to_dict(config)) == 'done':
    return rundir.read_summary(workdir)
  rungs = {rung: one_rung(config, rung, mesh)
           for rung, mesh in tqdm(ladder.items(), desc='rungs', disable=not config.topology)}
  print(tables.text_table([
    {'rung': rung, 'mesh': 'x'.join(map(str, ladder[rung].axis_sizes)), 'program': name,
     'seconds': numbers['seconds'],
     **{f'{kind}, GiB': size / GIB for kind, size in numbers['bytes'].items()},
     'all, GiB': numbers['total'] / GIB,
     **({'compiling, s': numbers['compiling'], 'compiled, GiB': (
       float('nan') if numbers['compiled'] is None else numbers['compiled'] / GIB)}
        if config.topology else {}),
     'fits': 'yes' if numbers['fits'] else 'no'}
    for rung, made in rungs.items() for name, numbers in made.items()]), flush=True)
  fit = sum(numbers['fits'] for made in rungs.values() for numbers in made.values())
  count = sum(map(len, rungs.values()))
  finish(workdir, rungs, f'{count} programs of {len(rungs)} rungs lowered for '
         f'{", ".join(map(str, sorted(chips)))} {config.platform} chips, {fit} fit in '
         f'{config.chip_gib} GiB a chip')
  return rungs


def laid_out(config):
  """{rung: its mesh}, of the chips of `config.topology` or of none."""
  if not config.meshes or any(len(each) != 4 for each in config.meshes):
    raise ValueError(f'config.meshes={config.meshes}: name for each rung (rung, data, fsdp, tensor)')
  if not config.topology:
    return {rung: meshes.abstract(*sizes) for rung, *sizes in config.meshes}
  devices = elsewhere.devices(config.topology)
  kind = {'gpu': 'cuda'}.get(devices[0].platform, devices[0].platform)
  if kind != config.platform:
    raise ValueError(f'config.topology={config.topology!r} has no chips of config.platform='
                     f'{config.platform!r}: set that to {kind!r}')
  return {rung: meshes.make(*sizes, devices=devices) for rung, *sizes in config.meshes}


def one_rung(config, rung, mesh):
  """{program: {'seconds' to trace and lower, 'bytes' a chip by kind, their 'total', 'fits'}}, and with
  `config.topology` seconds of 'compiling' and the bytes that XLA 'compiled' it to, None if too many."""
  sized = config.copy_and_resolve_references()
  sized.model.name = rung
  made = {}
  for name, program in lowering.programs(sized, mesh, config.platform).items():
    start = time.monotonic()
    lowered, total = lowering.lower(program, config.platform), sum(program.bytes.values())
    took = time.monotonic() - start
    made[name] = {'seconds': round(took, 2), 'bytes': program.bytes, 'total': total,
                  'fits': total <= config.chip_gib * GIB}
    if config.topology:
      needed = lowering.compiled_bytes(lowered)
      made[name] |= {'compiling': round(time.monotonic() - start - took, 1), 'compiled': needed,
                     'fits': needed is not None and needed <= config.chip_gib * GIB}
  return made


if __name__ == '__main__':
  main(run)
