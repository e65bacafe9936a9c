"""Packaging. Tested versions of every dependency stand in constraints.txt."""
from setuptools import find_packages, setup

setup(
  name='rlhf_jax',
  version='0.1.0',
  description='Training a helpful and harmless assistant with RLHF, end to end, in JAX',
  packages=find_packages(include=['rlhf_jax*', 'experiments*', 'configs*']),
  python_requires='>=3.11',
  install_requires=[
    'jax', 'flax', 'optax', 'orbax-checkpoint', 'tensorflow-datasets', 'ml-collections',
    'array_record',    # the teacher's file of context distillation
    'tokenizers',      # byte-level BPE
    'safetensors',     # weights of Hugging Face folders
    'scipy',           # fits and baselines
    'tqdm',            # progress bars with time left
    'matplotlib',      # figures of the reports
  ],
  extras_require={
    'gpu': ['jax[cuda12]'],
    'tpu': ['jax[tpu]'],
    'test': ['pytest', 'pytest-xdist', 'ruff', 'scikit-learn'],
    'huggingface': ['torch', 'transformers'],    # only to compare with, in the tests
  },
)
