"""Writes prompts for RL by a language model that is shown existing ones.

  python -m experiments.generate_prompts --config=configs/generate_prompts.py --workdir=runs/prompts \\
    --config.language_model=runs/lm

Bai et al. 2022, section 4.1. `config.shots` queries of the training prompts, drawn anew for each, stand
in the context; what is unfinished, empty, known or held out is left out and counted, and the overlap of
the rest with the training prompts is reported beside that of the held-out human prompts. prompts.jsonl
goes into PPO by `--config.ppo.generated=DIR/prompts.jsonl`.
"""
import json
from collections import Counter

import jax
import numpy as np
from tqdm import tqdm

from rlhf_jax.core import mesh as meshes
from rlhf_jax.core import rundir
from rlhf_jax.core.random import key_for
from rlhf_jax.data import batches, generated
from rlhf_jax.run import build, worlds
from rlhf_jax.run.config import main, to_dict
from rlhf_jax.run.train import Clock, finish


def run(config, workdir):
  """The counts of what was kept and left out; writes prompts.jsonl."""
  if config.count < 1 or config.shots < 0:
    raise ValueError(f'config.count={config.count}, config.shots={config.shots}: ask for at least one '
                     'prompt and no negative number of shots')
  build.check_temperature('temperature', config.temperature)
  mesh = build.mesh(config, config.batch_size)
  model, world = build.policy(config.language_model, mesh), worlds.make(config.data)
  human = {split: queries(world, model.tokenizer, split, count) for split, count in (
    ('ppo', config.known_prompts), ('eval', config.held_out_prompts))}
  if rundir.open_run(workdir, to_dict(config)) == 'done':
    return rundir.read_summary(workdir)
  clock, written, counts = Clock(), [], Counter()
  seen, held_out = ({*map(generated.normalised, human[split])} for split in ('ppo', 'eval'))
  write = writer(config, model, mesh)
  with tqdm(total=config.count, desc='       prompts', unit='prompt') as bar:
    for number in range(config.most_batches):
      kept, refused = generated.sieve(write(human['ppo'], number), seen, held_out)
      counts.update(refused | {'written': config.batch_size})
      written += kept[:config.count - len(written)]
      bar.update(len(written) - bar.n)
      if len(written) == config.count:
        break
  rundir.write_text(f'{workdir}/prompts.jsonl', ''.join(
    json.dumps({'prompt': generated.prompt(q)}) + '\n' for q in written))
  summary = {'kept': len(written), **counts, 'overlap': generated.overlap(written, human['ppo']),
             'overlap_human': generated.overlap(human['eval'], human['ppo']), 'wall_seconds': clock()}
  short = '' if len(written) == config.count else f' (fewer than the {config.count} asked for)'
  finish(workdir, summary, f"{len(written)} prompts{short} of {counts['written']} written; "
         + ', '.join(f'{n} {kind}' for kind, n in counts.items() if kind != 'written')
         + f"; 4-gram overlap {summary['overlap'] or 0:.2f}, held-out human prompts "
         f"{summary['overlap_human']:.2f} ({clock():.0f} s)")
  return summary


def queries(world, tokenizer, split, count):
  """What the human says first in `count` prompts of the split."""
  prompts = world.prompts(tokenizer, split, count)
  made = {generated.query(tokenizer.decode(row[valid > 0].tolist())): None
          for row, valid in zip(prompts.tokens_NP, prompts.valid_NP, strict=True)}
  return [q for q in made if q]


def writer(config, model, mesh):
  """write(queries, number) -> texts of batch `number`, one behind each draw of shots."""
  tokenizer = model.tokenizer
  sample = jax.jit(build.sampler(model, config.new_tokens, mesh, temperature=config.temperature,
                                 top_p=config.top_p))

  def write(known, number):
    rng = np.random.default_rng([config.seed, number])
    shots = [rng.choice(len(known), min(config.shots, len(known)), replace=False)
             for _ in range(config.batch_size)]
    rows = tokenizer.encode_batch([generated.few_shot([known[i] for i in row]) for row in shots])
    rows = [row[-config.context:] for row in rows]
    tokens, valid = batches.pad(rows, config.context, 'left', tokenizer.pad_id)
    made = jax.device_get(sample(model.params, *meshes.put_batch((tokens, valid), mesh),
                                 key_for(jax.random.key(config.seed), 'prompts', number)))
    return [tokenizer.decode(row[config.context:][keep[config.context:] > 0].tolist())
            for row, keep in zip(made.tokens_BT, made.mask_BT, strict=True)]
  return write


if __name__ == '__main__':
  main(run)
