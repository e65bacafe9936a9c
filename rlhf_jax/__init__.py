"""Training a helpful and harmless assistant with RLHF (Bai et al. 2022), in JAX."""

__version__ = '0.1.0'
