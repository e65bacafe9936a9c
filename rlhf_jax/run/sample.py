"""Many answers of a policy on the host side: candidates with their scores, in parts of one shape."""
import functools

import jax
import numpy as np
from tqdm import tqdm

from rlhf_jax.core import mesh as meshes
from rlhf_jax.core.random import key_for
from rlhf_jax.evals import policy as evals
from rlhf_jax.rollout.candidates import Candidates, candidates
from rlhf_jax.run import build, scoring


def answers(policy, prompts, samples, answer_width, mesh, *, key, score=None, score_params=None,
            rows=2048):
  """Candidates [N, K] of K = samples answers to each prompt, as host arrays.

  policy: a `build.Role`. score: a Score, None for zeros. rows: answers sampled at once, which
  bounds the memory of the cache; the noise depends on it.
  """
  parts = meshes.batch_shards(mesh)
  generate = build.sampler(policy, answer_width, mesh, samples=samples)
  run = jax.jit(functools.partial(candidates, generate=generate, score=score))
  n = len(prompts.tokens_NP)
  size = min(max(parts, rows // samples // parts * parts), -(-n // parts) * parts)
  out = []
  for at in tqdm(range(0, n, size), desc='       answers', unit='batch', disable=n <= size):
    index = np.resize(np.arange(at, min(at + size, n)), size)
    placed = meshes.put_batch((prompts.tokens_NP[index], prompts.valid_NP[index]), mesh)
    made = meshes.fetch(run(policy.params, score_params, *placed, key_for(key, 'answers', at)))
    out.append(jax.tree.map(lambda x, at=at: x[:min(size, n - at)], made))
  return Candidates(*(np.concatenate([getattr(part, name) for part in out])
                      for name in ('tokens_BKT', 'mask_BKT', 'score_BK')))


def scores(score, params, prompts, made, mesh, rows=1024):
  """[N, K]: the Score of every candidate; refused where one is not a finite number."""
  n, k, width = made.tokens_BKT.shape
  tokens, mask = (x.reshape(n * k, width) for x in (made.tokens_BKT, made.mask_BKT))
  prompt_valid = np.repeat(prompts.valid_NP, k, axis=0)
  valid = np.concatenate([prompt_valid, mask[:, prompt_valid.shape[1]:]], axis=1)
  run = jax.jit(lambda params, tokens, valid: score(params, tokens, valid, {}))
  parts = meshes.batch_shards(mesh)
  made = evals.in_parts(lambda part: run(params, *meshes.put_batch(part, mesh)), (tokens, valid),
                        -(-min(rows, n * k) // parts) * parts)
  return scoring.finite(np.asarray(made).reshape(n, k))


def true_rewards(truth, prompts, made):
  """[N, K]: the Score `truth` of every candidate."""
  n, k, width = made.tokens_BKT.shape
  prompt_valid = np.repeat(prompts.valid_NP, k, axis=0)
  answer = made.mask_BKT.reshape(n * k, width)[:, prompt_valid.shape[1]:]
  extra = {name: np.repeat(x, k, axis=0) for name, x in prompts.extra.items()}
  valid = np.concatenate([prompt_valid, answer], axis=1)
  reward = jax.jit(truth)(None, made.tokens_BKT.reshape(n * k, width), valid, extra)
  return np.asarray(reward).reshape(n, k)


def texts(tokenizer, made, prompt_width):
  """The candidates' answers as text, a list of K for each prompt."""
  return [[tokenizer.decode(row[prompt_width:][keep[prompt_width:] > 0].tolist())
           for row, keep in zip(tokens, mask, strict=True)]
          for tokens, mask in zip(made.tokens_BKT, made.mask_BKT, strict=True)]
