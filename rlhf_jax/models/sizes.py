"""The sizes of decoders: the paper's ladder, and laptop rungs below it.

Askell et al. 2021, table 1 (the models of Bai et al. 2022): width = 128 layers, MLP four times as
wide, vocabulary 2^16, context 8192. Neither paper states the rest; chosen here: heads of 128 (the
width is 128 layers, so heads = layers), RMSNorm before each part (stable without tuning, cheaper
than LayerNorm), rotary positions (no length-bound table; left padding costs nothing), GELU (as
GPT-3), tied embeddings (at small widths the table is most of the parameters), no biases.
Laptop rungs keep the shape at a quarter of the aspect ratio, width = 32 layers with heads of 32: a
declared departure that makes two cores enough. Families are what other people's checkpoints are made
of: their choices are known by name, their sizes are given.
"""
import dataclasses

CHOICES = {'positions': ('rotary', 'learned'), 'norm': ('rms', 'layer'),
           'activation': ('gelu_tanh', 'gelu', 'silu', 'relu'), 'remat': (False, True, 'dots')}


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
  """Sizes and choices of one decoder. dtype: of what is multiplied by weights; activation_dtype: of all
  between those products; param_dtype: of what is stored. unroll: the layer loop written out (faster on
  CPU, longer to compile)."""
  name: str
  layers: int
  width: int
  heads: int
  vocab_size: int
  context: int
  mlp_ratio: float = 4
  rope_base: float = 10000.0
  tie_embeddings: bool = True
  dtype: str = 'float32'
  activation_dtype: str | None = None   # None: as dtype
  param_dtype: str = 'float32'
  remat: bool | str = False             # True: of each layer its input is kept; 'dots': products too
  unroll: bool = True
  kv_heads: int | None = None           # heads of keys and values; None: as many as of queries
  attention_width: int | None = None    # of all heads together; None: width
  positions: str = 'rotary'             # 'learned': a table of `context` rows, added to the embeddings
  rope_share: float = 1.0               # of each head, its first part, that is turned
  rope_scaling: tuple = ()              # of Llama 3, see `attention.frequencies`; (): none
  norm: str = 'rms'                     # 'layer': LayerNorm, which has biases
  norm_eps: float = 1e-6
  attention_bias: bool = False
  mlp_bias: bool = False
  gated_mlp: bool = False               # activation(gate) * up instead of activation(up)
  activation: str = 'gelu_tanh'
  parallel: bool = False                # attention and MLP read the same residual stream
  qk_norm: bool = False                 # of each head's queries and keys

  def __post_init__(self):
    object.__setattr__(self, 'rope_scaling', tuple(self.rope_scaling))      # JSON has lists
    for field, known in CHOICES.items():
      if getattr(self, field) not in known:
        raise ValueError(f'model {self.name}: {field} {getattr(self, field)!r} is unknown: use one of '
                         f'{", ".join(map(str, known))}')
    width = self.attention_width or self.width
    if width % self.heads:
      raise ValueError(f'model {self.name}: width {width} does not divide over {self.heads} heads')
    if self.kv_heads and self.heads % self.kv_heads:
      raise ValueError(f'model {self.name}: {self.heads} heads do not divide over {self.kv_heads} of '
                       'keys and values')
    if self.positions == 'rotary' and (self.rope_size % 2 or not self.rope_size):
      raise ValueError(f'model {self.name}: width {width} over {self.heads} heads with a share of '
                       f'{self.rope_share} has a rotary dimension of {self.rope_size}: rotary '
                       'positions need pairs')

  @property
  def between(self):
    """The type of all between the products of weights."""
    return self.activation_dtype or self.dtype

  @property
  def head_size(self):
    return (self.attention_width or self.width) // self.heads

  @property
  def rope_size(self):
    """The part of a head that is turned."""
    return int(self.head_size * self.rope_share)

  @property
  def queries_per_key(self):
    """Heads of queries that share one of keys and values."""
    return self.heads // (self.kv_heads or self.heads)

  @property
  def mlp_width(self):
    return round(self.mlp_ratio * self.width)


PAPER_LAYERS = {'13M': 4, '42M': 6, '197M': 10, '810M': 16, '2.7B': 24, '13B': 40, '52B': 64}
LAPTOP_LAYERS = {'micro': 2, 'mini': 3, 'tiny': 4, 'small': 6}
_BIASED = {'norm': 'layer', 'norm_eps': 1e-5, 'attention_bias': True, 'mlp_bias': True}
_GATED = {'gated_mlp': True, 'activation': 'silu', 'tie_embeddings': False}
FAMILIES = {
  'gpt2': {'positions': 'learned', **_BIASED},
  'gpt_neox': {'rope_share': 0.25, 'activation': 'gelu', 'parallel': True, 'tie_embeddings': False,
               **_BIASED},
  'llama': _GATED,
  'qwen3': {'qk_norm': True, **_GATED}}
NAMES = *LAPTOP_LAYERS, *PAPER_LAYERS, *FAMILIES


def config(name, **overrides):
  """The TransformerConfig called `name`, with fields replaced by `overrides`; those of a family must
  hold its sizes."""
  base = _named(name)
  fields = dataclasses.fields(TransformerConfig)
  unknown = overrides.keys() - {field.name for field in fields}
  if unknown:
    raise ValueError(f'model size {name}: no field {", ".join(sorted(unknown))}: use one of '
                     f'{", ".join(field.name for field in fields)}')
  given = base | overrides
  missing = [f.name for f in fields if f.default is dataclasses.MISSING and f.name not in given]
  if missing:
    raise ValueError(f'model size {name} is a family: give {", ".join(missing)} too')
  return TransformerConfig(**given)


def _named(name):
  """The fields that a name stands for."""
  if name in PAPER_LAYERS:
    layers = PAPER_LAYERS[name]
    return {'name': name, 'layers': layers, 'width': 128 * layers, 'heads': layers, 'vocab_size': 2**16,
            'context': 8192, 'dtype': 'bfloat16', 'remat': True, 'unroll': False}
  if name in LAPTOP_LAYERS:
    layers = LAPTOP_LAYERS[name]
    return {'name': name, 'layers': layers, 'width': 32 * layers, 'heads': layers, 'vocab_size': 512,
            'context': 1024}
  if name in FAMILIES:
    return {'name': name, **FAMILIES[name]}
  raise ValueError(f'model size {name!r} is unknown: use one of {", ".join(NAMES)}')


def non_embedding_parameters(config):
  """Parameters of the matrices inside the layers: 12 L D^2 at the paper's MLP ratio of 4."""
  attention = 2 * config.head_size * (config.heads + config.heads // config.queries_per_key)
  return config.layers * config.width * (attention + (2 + config.gated_mlp) * config.mlp_width)
