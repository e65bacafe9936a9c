"""What a run is made with: the code, the libraries, the machine. Kept beside its numbers."""
import datetime
import functools
import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIBRARIES = 'jax', 'flax', 'optax', 'numpy'


def describe():
  """{name: text} of this process, now: time (UTC), command, code, Python and libraries, machine and
  devices."""
  import jax  # at work already where a run starts, and not elsewhere
  kinds = [device.device_kind for device in jax.devices()]
  return {'time': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
          'command': shlex.join(['python', *sys.orig_argv[1:]]), 'code': code(),
          'python': platform.python_version(),
          **{name: importlib.metadata.version(name) for name in LIBRARIES},
          'machine': f'{processor()}, {os.cpu_count()} cores',
          'devices': ', '.join(f'{kinds.count(kind)} x {kind}' for kind in dict.fromkeys(kinds))}


@functools.cache
def code():
  """'commit ...' of the checkout that runs, '-dirty' where its files are changed; the version of an
  installed package."""
  if (ROOT / '.git').exists():
    try:
      return 'commit ' + subprocess.run(
        ['git', '-C', ROOT, 'describe', '--always', '--dirty', '--exclude=*'], check=True, text=True,
        capture_output=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):         # no git, or another user's checkout
      pass
  try:
    return 'version ' + importlib.metadata.version('rlhf_jax')
  except importlib.metadata.PackageNotFoundError:            # a copy that was never installed
    return 'version unknown'


@functools.cache
def processor():
  """The name of the processor, as well as it is told."""
  name = platform.processor() or platform.machine()
  try:
    with open('/proc/cpuinfo') as file:
      name = next(line.split(':')[1].strip() for line in file if line.startswith('model name'))
  except (OSError, StopIteration):
    pass
  return name
