"""Randomness is addressed: a key is a function of the root key and of where it is used."""
import zlib

import jax


def key_for(root, stream, *address):
  """The key of `stream` (a name) at `address` (integers, traced or not), folded into `root`.

  The same address gives the same key, on any host and after any resume. `root` is never consumed.
  """
  key = jax.random.fold_in(root, zlib.crc32(stream.encode()) & 0x7FFFFFFF)
  for number in address:
    key = jax.random.fold_in(key, number)
  return key
