"""Preference-model training in torch, for `experiments.benchmarks.preference`: one contender a process.

Settings (JSON, the only argument): folder (a Hugging Face reward model), batches (a JSON file: of each
batch a list of [prompt, chosen, rejected] ids), kind: 'trl' (RewardTrainer), 'eager' or 'compiled' (a
plain loop), dtype, learning_rate, b2, pad_id. Every line of standard input is one pass over all
batches from the parameters of the folder; the answer is seconds, valid tokens, the loss of every step
and peak memory.
bfloat16 is autocast over float32 weights, as both recommend. On a GPU, if there is one, float32
products are rounded to TF32, as torch recommends and XLA does by itself.
"""
import contextlib
import json
import os
import resource
import sys
import tempfile
import time

import torch
import transformers
from transformers import AutoModelForSequenceClassification

DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
SETTINGS = json.loads(sys.argv[1])
with open(SETTINGS['batches'], encoding='utf-8') as file:
  BATCHES = json.load(file)


def now():
  """Seconds, once the device has done all that it was given."""
  if DEVICE == 'cuda':
    torch.cuda.synchronize()
  return time.perf_counter()


def model():
  made = AutoModelForSequenceClassification.from_pretrained(
    SETTINGS['folder'], num_labels=1, dtype=torch.float32, attn_implementation='sdpa')
  made.config.pad_token_id = SETTINGS['pad_id']
  made.config.use_cache = False
  return made


def padded(pairs):
  """All chosen texts, then all rejected ones, padded to the longest, as TRL's collator does."""
  rows = [p + a for p, a, _ in pairs] + [p + b for p, _, b in pairs]
  width = max(map(len, rows))
  ids = torch.full((len(rows), width), SETTINGS['pad_id'])
  mask = torch.zeros((len(rows), width), dtype=torch.long)
  for i, row in enumerate(rows):
    ids[i, :len(row)], mask[i, :len(row)] = torch.tensor(row), 1
  return ids, mask


class Loop:
  """The same steps written out: one forward pass, gradients clipped to 1, Adam as one fused kernel."""

  def __init__(self):
    self.model = model().train()
    self.start = {k: v.clone() for k, v in self.model.state_dict().items()}
    self.model.to(DEVICE)
    varied = len({padded(batch)[0].shape for batch in BATCHES}) > 1
    self.forward = self.model if SETTINGS['kind'] == 'eager' else torch.compile(
      self.model, dynamic=varied or None)

  def __call__(self):
    self.model.load_state_dict(self.start)
    optimizer = torch.optim.Adam(self.model.parameters(), SETTINGS['learning_rate'],
                                 (0.9, SETTINGS['b2']), 1e-8, fused=True)
    losses, start = [], now()
    for pairs in BATCHES:
      ids, mask = padded(pairs)
      plain = DEVICE == 'cuda' and bool(mask.all())         # flash attention takes no mask
      ids, mask = ids.to(DEVICE), None if plain else mask.to(DEVICE)
      low = SETTINGS['dtype'] == 'bfloat16'
      with torch.autocast(DEVICE, torch.bfloat16) if low else contextlib.nullcontext():
        score = self.forward(input_ids=ids, attention_mask=mask).logits.float().squeeze(-1)
      chosen, rejected = score.chunk(2)
      loss = -torch.nn.functional.logsigmoid(chosen - rejected).mean()
      loss.backward()
      torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
      optimizer.step()
      optimizer.zero_grad(set_to_none=True)
      losses.append(loss.detach())
    return now() - start, [loss.item() for loss in losses]


class Trl:
  """`trl.RewardTrainer` as documented, its own collator; recomputation, which is its default, is off,
  and so are logging to services and saving. Seconds are from its first step to its last."""

  def __init__(self):
    import datasets
    import tokenizers
    vocab = {f't{i}': i for i in range(model().config.vocab_size)}
    self.tokenizer = transformers.PreTrainedTokenizerFast(
      tokenizer_object=tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab, 't0')),
      pad_token=f't{SETTINGS["pad_id"]}', eos_token=f't{SETTINGS["pad_id"]}')
    pairs = [pair for batch in BATCHES for pair in batch]
    self.data = datasets.Dataset.from_dict({'chosen_ids': [p + a for p, a, _ in pairs],
                                            'rejected_ids': [p + b for p, _, b in pairs]})

  def __call__(self):
    import trl

    class Watch(transformers.TrainerCallback):
      start, end, losses = None, None, []

      def on_step_begin(self, *args, **kwargs):
        self.start = self.start or now()

      def on_step_end(self, *args, **kwargs):
        self.end = now()

      def on_log(self, args, state, control, logs=None, **kwargs):
        if 'loss' in logs:
          self.losses.append(float(logs['loss']))

    watch = Watch()
    watch.losses = []
    with tempfile.TemporaryDirectory() as folder:
      trainer = trl.RewardTrainer(
        model(), trl.RewardConfig(
          output_dir=folder, per_device_train_batch_size=len(BATCHES[0]), max_steps=len(BATCHES),
          learning_rate=SETTINGS['learning_rate'], adam_beta2=SETTINGS['b2'], weight_decay=0.0,
          max_grad_norm=1.0, lr_scheduler_type='constant', warmup_steps=0, logging_steps=1,
          bf16=SETTINGS['dtype'] == 'bfloat16', fp16=False, use_cpu=DEVICE == 'cpu',
          gradient_checkpointing=False,
          train_sampling_strategy='sequential', max_length=None, save_strategy='no', report_to=[],
          disable_tqdm=True),
        train_dataset=self.data, processing_class=self.tokenizer, callbacks=[watch])
      with contextlib.redirect_stdout(sys.stderr):
        trainer.train()
    return watch.end - watch.start, watch.losses


def main():
  torch.set_num_threads(os.cpu_count())
  torch.manual_seed(0)
  if DEVICE == 'cuda':
    torch.set_float32_matmul_precision('high')
  work = Trl() if SETTINGS['kind'] == 'trl' else Loop()
  tokens = sum(2 * len(p) + len(a) + len(b) for batch in BATCHES for p, a, b in batch)
  print(json.dumps({'torch': torch.__version__, 'transformers': transformers.__version__,
                    'device': DEVICE}), flush=True)
  for _ in sys.stdin:
    seconds, losses = work()
    peak = (torch.cuda.max_memory_allocated() if DEVICE == 'cuda' else
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    print(json.dumps({'seconds': seconds, 'tokens': tokens, 'steps': len(BATCHES), 'losses': losses,
                      'peak_bytes': peak}), flush=True)


if __name__ == '__main__':
  main()
