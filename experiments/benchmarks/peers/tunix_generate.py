"""Tunix's sampler answering prompts, batch by batch of a queue.

Started by `experiments.benchmarks.generation` in an environment of its own; imports nothing of ours.
settings as of `torch_generate.py`. It has no hook on logits: where answers are to end, its `eos_tokens`
are as many as make one in 1 / hazard of the vocabulary, which random weights draw about equally often.
variant: 'greedy' (no random numbers, no sorting) or 'sampled' (top_p 1).
"""
import json
import os
import sys
import time

os.environ.setdefault('JAX_PLATFORMS', 'cpu')

import jax
import jax.numpy as jnp
import numpy as np
from tunix.generate import sampler as samplers
from tunix.models.llama3 import model as llama
from tunix.models.llama3 import params as loader


class Numbers:
  """A tokenizer of texts that are ids already."""

  def encode(self, text):
    return [int(word) for word in text.split()]

  def decode(self, ids):
    return ''

  def bos_id(self):
    return None

  def eos_id(self):
    return VOCABULARY + 1                 # never drawn

  def pad_id(self):
    return 0


settings = json.loads(sys.argv[-1])
with open(os.path.join(settings['folder'], 'config.json')) as file:
  c = json.load(file)
VOCABULARY = c['vocab_size']
config = llama.ModelConfig(
  num_layers=c['num_hidden_layers'], vocab_size=c['vocab_size'], embed_dim=c['hidden_size'],
  hidden_dim=c['intermediate_size'], num_heads=c['num_attention_heads'], head_dim=c['head_dim'],
  num_kv_heads=c['num_key_value_heads'], rope_theta=c['rope_theta'], norm_eps=c['rms_norm_eps'],
  weight_tying=c['tie_word_embeddings'])
mesh = jax.make_mesh((1, 1), ('fsdp', 'tp'), axis_types=(jax.sharding.AxisType.Auto,) * 2)
model = loader.create_model_from_safe_tensors(settings['folder'], config, mesh,
                                              getattr(jnp, settings['dtype']))
prompts, new = np.load(settings['prompts']), settings['new']
width = prompts.shape[1]
sampler = samplers.Sampler(model, Numbers(), samplers.CacheConfig(
  cache_size=width + new, num_layers=config.num_layers, num_kv_heads=config.num_kv_heads,
  head_dim=config.head_dim))
ids, positions = jnp.array(prompts[:1]), jnp.arange(width)[None]
causal = jnp.tril(jnp.ones((1, width, width), bool))
logits, _ = model(ids, positions, None, causal)
texts = [' '.join(map(str, prompt)) for prompt in prompts]
ends = list(range(4, 4 + round(VOCABULARY * settings['hazard']))) if settings['hazard'] else None
options = {'greedy': {}, 'sampled': {'temperature': 1.0, 'top_p': 1.0}}[settings['variant']]
calls = 0


def work():
  global calls
  start, tokens = time.perf_counter(), 0
  for i in range(0, len(texts), settings['batch']):
    calls += 1
    made = sampler(texts[i:i + settings['batch']], new, width, eos_tokens=ends, seed=calls, **options)
    # The end token is cut off, and produced all the same.
    tokens += sum(min(len(answer) + 1, new) for answer in made.tokens)
  return {'seconds': time.perf_counter() - start, 'tokens': tokens}


print(json.dumps({'logits': np.asarray(logits[0, -1, :8], np.float32).tolist(),
                  'jax': jax.__version__}), flush=True)
for _ in sys.stdin:
  print(json.dumps(work()), flush=True)
