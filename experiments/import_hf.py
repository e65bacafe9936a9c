"""Turns a local Hugging Face folder into a run directory, from which every other main starts.

  python -m experiments.import_hf --config=configs/import_hf.py --workdir=runs/pythia \\
    --config.folder=pythia-70m
  python -m experiments.train_pm --config=configs/train_pm.py:hh --workdir=runs/pm \\
    --config.model.name=runs/pythia --config.init=runs/pythia

GPT-2, GPT-NeoX (Pythia), Llama and Qwen3; a reward model (`...ForSequenceClassification` with one
label) becomes a preference model's run, whose score is read on the last token. The end token is that of
config.json, under this package's name; pad and end of context are new tokens, in spare rows of the
table or in new ones, which start at its mean.
"""
import dataclasses
import pathlib

import jax
import optax
from ml_collections import ConfigDict

from rlhf_jax.core import rundir, step
from rlhf_jax.data import tokenizer as tokenizers
from rlhf_jax.models import huggingface
from rlhf_jax.run import checkpoint
from rlhf_jax.run.config import main, to_dict
from rlhf_jax.run.train import Clock, finish


def run(config, workdir):
  """What was imported; nothing is written before all of it is read."""
  clock, folder = Clock(), pathlib.Path(config.folder)
  size, params = huggingface.load(folder, config.options.param_dtype)
  stored = size.vocab_size
  tokenizer = tokenizers.adopt(folder / 'tokenizer.json', end_id(folder, config.end_token_id), stored,
                               config.multiple_of)
  size, params = huggingface.grow(size, params, tokenizer.vocab_size)
  size = dataclasses.replace(size, **config.options)
  config = ConfigDict(to_dict(config) | {'model': dataclasses.asdict(size)})
  if rundir.open_run(workdir, to_dict(config)) == 'done':
    return rundir.read_summary(workdir)
  tokenizer.save(f'{workdir}/tokenizer.json')
  state = step.create(params, optax.identity(), jax.random.key(0), 0.0)
  with checkpoint.manager(workdir) as manager:
    checkpoint.save(manager, 1, state)
  count = sum(x.size for x in jax.tree.leaves(params))
  summary = {'family': size.name, 'reward_model': 'head' in params, 'parameters': count,
             'new_rows': size.vocab_size - stored, 'wall_seconds': clock(),
             **{key: getattr(tokenizer, key) for key in ('pad_id', 'end_id', 'eoc_id')}}
  finish(workdir, summary, f'{size.name} of {count / 1e6:.1f}M parameters, {summary["new_rows"]} new '
         f'rows ({clock():.0f} s)')
  return summary


def end_id(folder, chosen):
  """The id that ends a text: the chosen one, or the first that config.json names."""
  said = huggingface.settings_of(folder).get('eos_token_id') if chosen is None else chosen
  said = said[0] if isinstance(said, list) else said
  if said is None:
    raise ValueError(f'{folder}/config.json has no eos_token_id: set config.end_token_id')
  return said


if __name__ == '__main__':
  main(run)
