"""The ladder of sizes against the paper's table, and its refusals."""
import pytest

from rlhf_jax.core import spec
from rlhf_jax.models import sizes, transformer

# Askell et al. 2021, table 1, with N = 12 L D^2 worked out by hand: 12 * 4 * 512^2 = 12,582,912.
TABLE = {'13M': (4, 512, 12.58e6), '42M': (6, 768, 42.5e6), '197M': (10, 1280, 196.6e6),
         '810M': (16, 2048, 805e6), '2.7B': (24, 3072, 2.72e9), '13B': (40, 5120, 12.6e9),
         '52B': (64, 8192, 51.5e9)}


@pytest.mark.parametrize('name', TABLE)
def test_the_paper_ladder(name):
  config = sizes.config(name)
  layers, width, parameters = TABLE[name]
  assert (config.layers, config.width, config.vocab_size) == (layers, width, 65536)
  assert abs(sizes.non_embedding_parameters(config) / parameters - 1) < 0.005
  # Two norms a layer and one at the end, and the tied table, come on top.
  assert spec.count(transformer.decoder(config).spec) == (
    12 * layers * width**2 + 65536 * width + (2 * layers + 1) * width)


def test_laptop_rungs_and_overrides():
  config = sizes.config('micro', tie_embeddings=False, mlp_ratio=2)
  assert (config.layers, config.width, config.head_size, config.vocab_size) == (2, 64, 32, 512)
  # Attention 4 D^2 and an MLP of 2 * 2 D^2; two tables of 512 x 64; five norms.
  assert sizes.non_embedding_parameters(config) == 2 * 8 * 64**2
  assert spec.count(transformer.decoder(config).spec) == 2 * 8 * 64**2 + 2 * 512 * 64 + 5 * 64


def test_families_count_grouped_heads_and_gates():
  config = sizes.config('qwen3', layers=3, width=10, heads=4, kv_heads=2, attention_width=24,
                        mlp_ratio=1.5, vocab_size=7, context=9)
  # Queries and output 2 * 10 * 24, keys and values 2 * 10 * 12, three matrices of 10 x 15.
  assert (config.head_size, config.queries_per_key, config.mlp_width) == (6, 2, 15)
  matrices = 3 * (2 * 10 * 24 + 2 * 10 * 12 + 3 * 10 * 15)
  assert sizes.non_embedding_parameters(config) == matrices
  # Two norms of 10 and two of 6 in each layer, one at the end, two tables.
  assert spec.count(transformer.decoder(config).spec) == matrices + 3 * 32 + 10 + 2 * 7 * 10


def test_refusals():
  with pytest.raises(ValueError, match="'7B' is unknown: use one of micro, mini, tiny, small, 13M"):
    sizes.config('7B')
  with pytest.raises(ValueError, match='size micro: no field depth: use one of name, layers'):
    sizes.config('micro', depth=3)
  with pytest.raises(ValueError, match='width 66 over 2 heads'):
    sizes.config('micro', width=66)
  with pytest.raises(ValueError, match='width 65 does not divide over 2 heads'):
    sizes.config('micro', width=65)
  with pytest.raises(ValueError, match='2 heads do not divide over 4 of keys and values'):
    sizes.config('micro', kv_heads=4)
  with pytest.raises(ValueError, match="norm 'batch' is unknown: use one of rms, layer"):
    sizes.config('micro', norm='batch')
