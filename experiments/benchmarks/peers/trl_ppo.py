"""TRL's PPOTrainer as a contender: one line of standard input, one whole iteration.

Run in an environment of its own: `python trl_ppo.py SETTINGS`, SETTINGS being the JSON of
`experiments.benchmarks.ppo`. Its loop is its own; a callback waits for the next line when an iteration
has ended, so that all of it is timed: sampling, reference, values, scores, updates and its logging.
"""
import json
import os
import sys
import time

import numpy as np
import torch
import transformers
import trl
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, TrainerCallback
from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

settings = json.loads(sys.argv[1])
os.environ.setdefault('TOKENIZERS_PARALLELISM', 'false')
torch.manual_seed(0)
answered = sys.stdout                      # TRL prints: only our own lines go to standard output
sys.stdout = sys.stderr


def say(facts):
  print(json.dumps(facts), file=answered, flush=True)


def model(kind, folder):
  return kind.from_pretrained(folder, dtype=getattr(torch, settings['stored']),
                              attn_implementation=settings['attention'])


tokenizer = transformers.PreTrainedTokenizerFast(
  tokenizer_file=settings['tokenizer'], eos_token=settings['end'], pad_token=settings['pad'],
  padding_side='left')
policy, reference = (model(AutoModelForCausalLM, settings['policy']) for _ in range(2))
reward, value = (model(AutoModelForSequenceClassification, settings['reward']) for _ in range(2))
prompts = np.load(settings['prompts'])
rows, count = settings['batch_size'], {'answers': None}
args = PPOConfig(
  output_dir=settings['scratch'], report_to='none', use_cpu=True, seed=0, save_strategy='no',
  logging_steps=1, disable_tqdm=True, gradient_checkpointing=False, num_sample_generations=0,
  bf16=settings['autocast'], per_device_train_batch_size=rows, gradient_accumulation_steps=1,
  num_mini_batches=settings['minibatches'], num_ppo_epochs=settings['passes'],
  local_rollout_forward_batch_size=rows, total_episodes=10**9, learning_rate=settings['rate'],
  response_length=settings['answer_width'], stop_token_id=tokenizer.eos_token_id, temperature=1.0,
  kl_coef=0.05, vf_coef=0.5, lam=0.95)
started = [0.0]


class Wait(TrainerCallback):
  """Answers the line that asked for the iteration just ended, and waits for the next one."""

  def on_train_begin(self, args, state, control, **others):
    say({'trl': trl.__version__, 'torch': torch.__version__, 'transformers': transformers.__version__,
         'threads': torch.get_num_threads()})
    wait()

  def on_step_end(self, args, state, control, **others):
    seconds, mask = time.perf_counter() - started[0], count['answers']
    say({'seconds': seconds, 'tokens': int(mask.sum()), 'columns': mask.shape[1]})
    wait()


def wait():
  if not sys.stdin.readline():
    os._exit(0)                            # its loop has no end that can be asked for
  started[0] = time.perf_counter()


def counted(stop, pad, responses, plain=ppo_trainer.truncate_response):
  """Notes what was produced: all columns up to the first end token, that one included."""
  before = torch.cumsum(responses == stop, dim=1) - (responses == stop).long()
  count['answers'] = before == 0
  return plain(stop, pad, responses)


ppo_trainer.truncate_response = counted
PPOTrainer(args, tokenizer, policy, reference, reward, Dataset.from_dict({
  'input_ids': prompts.tolist(), 'attention_mask': np.ones_like(prompts).tolist()}), value,
  callbacks=[Wait()]).train()
