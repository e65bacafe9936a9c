"""The sizes of decoders: the paper's ladder, and laptop rungs below it.

Askell et al. 2021, table 1 (the models of Bai et al. 2022): width = 128 layers, MLP four times as
wide, vocabulary 2^16, context 8192. Neither paper states the rest; chosen here: heads of 128 (the
width is 128 layers, so heads = layers), RMSNorm before each part (stable without tuning, cheaper
than LayerNorm), rotary positions (no length-bound table; left padding costs nothing), GELU (as
GPT-3), tied embeddings (at small widths the table is most of the parameters), no biases.
Laptop rungs keep the shape at a quarter of the aspect ratio, width = 32 layers with heads of 32: a
declared departure that makes two cores enough.
"""
import dataclasses


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
  """Sizes and choices of one decoder. dtype: of the computation; param_dtype: of what is stored.
  unroll: the layer loop written out (faster on CPU, longer to compile)."""
  name: str
  layers: int
  width: int
  heads: int
  vocab_size: int
  context: int
  mlp_ratio: int = 4
  rope_base: float = 10000.0
  tie_embeddings: bool = True
  dtype: str = 'float32'
  param_dtype: str = 'float32'
  remat: bool = False
  unroll: bool = True

  def __post_init__(self):
    if self.width % (2 * self.heads):
      raise ValueError(f'model {self.name}: width {self.width} over {self.heads} heads is not an '
                       'even whole number: rotary positions need pairs')

  @property
  def head_size(self):
    return self.width // self.heads


PAPER_LAYERS = {'13M': 4, '42M': 6, '197M': 10, '810M': 16, '2.7B': 24, '13B': 40, '52B': 64}
LAPTOP_LAYERS = {'micro': 2, 'mini': 3, 'tiny': 4, 'small': 6}


def config(name, **overrides):
  """The TransformerConfig called `name`, with fields replaced by `overrides`."""
  if name in PAPER_LAYERS:
    layers = PAPER_LAYERS[name]
    base = TransformerConfig(name, layers, 128 * layers, layers, vocab_size=2**16, context=8192,
                             dtype='bfloat16', remat=True, unroll=False)
  elif name in LAPTOP_LAYERS:
    layers = LAPTOP_LAYERS[name]
    base = TransformerConfig(name, layers, 32 * layers, layers, vocab_size=512, context=1024)
  else:
    raise ValueError(f'model size {name!r} is unknown: use one of '
                     f'{", ".join([*LAPTOP_LAYERS, *PAPER_LAYERS])}')
  unknown = overrides.keys() - {field.name for field in dataclasses.fields(base)}
  if unknown:
    raise ValueError(f'model size {name}: no field {", ".join(sorted(unknown))}: use one of '
                     f'{", ".join(field.name for field in dataclasses.fields(base))}')
  return dataclasses.replace(base, **overrides)


def non_embedding_parameters(config):
  """Parameters of the matrices inside the layers: 12 L D^2 at the paper's MLP ratio of 4."""
  return config.layers * config.width**2 * (4 + 2 * config.mlp_ratio)
