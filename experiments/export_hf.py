"""Writes a policy, a language model or a preference model of a run as a Hugging Face folder.

  python -m experiments.export_hf --config=configs/export_hf.py --workdir=runs/export \\
    --config.run=runs/ppo

The folder is WORKDIR/huggingface: config.json, model.safetensors, tokenizer.json and
tokenizer_config.json, for `AutoModelForCausalLM`, or `AutoModelForSequenceClassification` where the run
has a scalar head. Models of the four imported families only. The format has no place for the bias of a
head, which moves all scores alike: it is left out and reported.
"""
import json
import shutil

import jax
import numpy as np
from ml_collections import ConfigDict

from rlhf_jax.core import rundir
from rlhf_jax.data import tokenizer as tokenizers
from rlhf_jax.models import families, heads, huggingface
from rlhf_jax.run import build, checkpoint
from rlhf_jax.run.config import main, to_dict
from rlhf_jax.run.train import Clock, finish


def run(config, workdir):
  """What was written."""
  clock, (folder, at, _), mesh = Clock(), config.run.partition('@'), build.mesh(config)
  trained, reward = ConfigDict(rundir.read_config(folder)), 'head' in checkpoint.stored(folder)
  if reward and at:
    raise ValueError(f'config.run={config.run}: a preference model is written as its newest '
                     'checkpoint says: leave out what follows @')
  role = build.role(folder, mesh, heads.scalar) if reward else build.policy(config.run, mesh)
  size, params = build.size(trained, role.tokenizer.vocab_size), jax.device_get(role.params)
  families.write(size)                              # refuses what has no family, before any file
  if rundir.open_run(workdir, to_dict(config)) == 'done':
    return rundir.read_summary(workdir)
  target = f'{workdir}/huggingface'
  shutil.rmtree(target, ignore_errors=True)                 # what an interrupted run has left
  summary = {'family': size.name, 'reward_model': reward}
  if reward:
    eoc = build.eoc_id({'end_of_context': True} | to_dict(trained), role.tokenizer)
    summary |= {'left_out_bias': float(params['head']['bias']),
                'score_on': 'the last token' if eoc is None else tokenizers.END_OF_CONTEXT}
    params['head']['bias'] = np.zeros((), np.float32)
  huggingface.save(target, size, params, {'eos_token_id': role.tokenizer.end_id,
                                          'pad_token_id': role.tokenizer.pad_id})
  role.tokenizer.save(f'{target}/tokenizer.json')
  rundir.write_text(f'{target}/tokenizer_config.json', json.dumps({
    'tokenizer_class': 'PreTrainedTokenizerFast', 'eos_token': tokenizers.END,
    'pad_token': tokenizers.PAD, 'model_max_length': size.context,
    'clean_up_tokenization_spaces': False}, indent=2) + '\n')
  summary['wall_seconds'] = clock()
  where = f", to be read on {summary['score_on']}" if reward else ''
  finish(workdir, summary, f'{size.name} in {target}{where} ({clock():.0f} s)')
  return summary


if __name__ == '__main__':
  main(run)
