"""The machine's own limits: its rate for matrix products of given shapes, and its copy bandwidth.

A product's rate is the best of 5 of the same shapes alone in one jitted loop; bandwidth is the best of
5 of 10 copies in a row into a buffer that exists, bytes read and written. What a program reaches is
quoted as a share of the time that these two allow.
"""
import functools
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp

BEST_OF = 5
COPIES = 10
LEAST_SECONDS = 0.2


class Product(NamedTuple):
  """`count` products [rows, inner] @ [inner, columns]."""
  rows: int
  inner: int
  columns: int
  count: int = 1

  @property
  def flops(self):
    return 2 * self.rows * self.weights

  @property
  def weights(self):
    """Numbers of what is read from memory once a product."""
    return self.inner * self.columns * self.count


def seconds_of(products, dtype='float32'):
  """The least seconds that all these products take, each at its own measured rate."""
  return sum(p.flops / matmul_rate(p.rows, p.inner, p.columns, dtype) for p in products)


def step_products(config, rows):
  """The products of `rows` tokens with a model's matrices and with its table, which is last."""
  c, keys = config, _keys(config)
  return [Product(rows, c.width, c.heads * c.head_size, c.layers),
          Product(rows, c.width, keys, 2 * c.layers),
          Product(rows, c.heads * c.head_size, c.width, c.layers),
          Product(rows, c.width, c.mlp_width, (1 + c.gated_mlp) * c.layers),
          Product(rows, c.mlp_width, c.width, c.layers), Product(rows, c.width, c.vocab_size)]


def _keys(config):
  """Numbers of a token's keys in a layer, and of its values."""
  return config.head_size * config.heads // config.queries_per_key


def decode_bytes(config, rows, filled, size=4):
  """(bytes of the weights, bytes of the `filled` columns of the cache) that one token in each of `rows`
  rows reads, `size` a number."""
  weights = sum(p.weights for p in step_products(config, rows))
  return size * weights, size * rows * filled * 2 * config.layers * _keys(config)


def training_products(config, tokens, last=None):
  """(the products of a training step on `tokens`, without the table: forwards, and for the gradients of
  inputs and of weights; FLOP a column of its attention, halved by causality). last: tokens that come
  out of the last layer, where only keys and values are computed of the others; None: all."""
  query, keys, *others = step_products(config, tokens)[:-1]
  forward, attended = [query, keys, *others], config.layers * tokens
  if last is not None:
    before = [p._replace(count=p.count - p.count // config.layers) for p in (query, *others)]
    forward = [keys, *before, *(p._replace(rows=last, count=p.count // config.layers)
                                for p in (query, *others))]
    attended += 2 * last - tokens                     # a text's last token attends to all of it
  products = [p for rows, inner, columns, count in forward for p in (
    Product(rows, inner, columns, count), Product(rows, columns, inner, count),
    Product(inner, rows, columns, count)) if count]
  return products, 12 * config.heads * config.head_size * attended / 2


@functools.cache
def matmul_rate(rows, inner, columns, dtype='float32', out='float32'):
  """FLOP a second of [rows, inner] @ [inner, columns], written as `out`, with 4 weights in turn, so
  that one that fits into a cache is not timed from there while the model's would not be."""
  weights = [jax.random.normal(key, (inner, columns), dtype)
             for key in jax.random.split(jax.random.key(0), 4)]
  x = jax.random.normal(jax.random.key(1), (rows, inner), dtype)
  loop = jax.jit(functools.partial(in_turn, out))

  def timed(times):
    start = time.perf_counter()
    jax.block_until_ready(loop(x, weights, times))
    return time.perf_counter() - start
  times = 1
  timed(times)
  while (took := timed(times)) < LEAST_SECONDS:
    times = max(2 * times, int(times * LEAST_SECONDS / max(took, 1e-4)))
  return 2 * rows * inner * columns * 4 * times / min(timed(times) for _ in range(BEST_OF))


def in_turn(out, x, weights, times):
  """(x, products of x with each of the weights, written as `out`), made `times` times in a row:
  a number of each product goes into x before the next, so that the compiler can leave out none."""
  def once(i, carry):
    x, made = carry[0], []
    for w in weights:
      made.append(jax.lax.dot(x, w, preferred_element_type=out))
      x = jax.lax.dynamic_update_slice(x, made[-1][:1, :1].astype(x.dtype), (0, 0))
    return x, made
  zeros = jnp.zeros((x.shape[0], weights[0].shape[1]), out)
  return jax.lax.fori_loop(0, times, once, (x, [zeros] * len(weights)))


@functools.cache
def bandwidth():
  """Bytes a second, read and written, of copying 256 MiB, on accelerators 1 GiB."""
  size = (2**28 if jax.default_backend() == 'cpu' else 2**30) // 4
  # A factor of 1 that the compiler does not know: a plain copy would be a new buffer, and new pages.
  copy = jax.jit(lambda old, x, one: x * one, donate_argnums=0, keep_unused=True)
  old, x, one = jnp.zeros(size, jnp.float32), jnp.ones(size, jnp.float32), jnp.float32(1)
  best = float('inf')
  for _ in range(BEST_OF + 1):
    start = time.perf_counter()
    for _ in range(COPIES):              # the host gives the next while the device copies
      old = copy(old, x, one)
    jax.block_until_ready(old)
    best = min(best, (time.perf_counter() - start) / COPIES)
  return 2 * 4 * size / best
