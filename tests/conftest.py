"""Every test runs on 8 fake CPU devices; the flags must be set before jax starts its backend."""
import os

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
_FLAG = '--xla_force_host_platform_device_count=8'
if _FLAG not in os.environ.get('XLA_FLAGS', ''):
  os.environ['XLA_FLAGS'] = (os.environ.get('XLA_FLAGS', '') + ' ' + _FLAG).strip()

import jax  # noqa: E402

jax.config.update('jax_numpy_rank_promotion', 'raise')
