"""`transformers` answering prompts: `model.generate` on batches of a queue.

Started by `experiments.benchmarks.generation` in an environment of its own; imports nothing of ours.
settings: folder, prompts (.npy, [N, P]), new, batch, seed, hazard (probability of the end token at each
step, 0: never), end, variant ('dynamic', 'static', 'compiled'), dtype.
"""
import json
import sys
import time

import numpy as np
import torch
import transformers


class Hazard(transformers.LogitsProcessor):
  """Gives the end token one probability at every step, the others the rest of it."""

  def __init__(self, end, hazard):
    self.end, self.log_odds = end, float(np.log(hazard / (1 - hazard)))

  def __call__(self, input_ids, scores):
    scores[:, self.end] = -torch.inf
    scores[:, self.end] = self.log_odds + torch.logsumexp(scores, dim=-1)
    return scores


settings = json.loads(sys.argv[-1])
transformers.logging.set_verbosity_error()
torch.manual_seed(settings['seed'])
model = transformers.AutoModelForCausalLM.from_pretrained(
  settings['folder'], dtype=getattr(torch, settings['dtype'])).eval()
prompts = torch.from_numpy(np.load(settings['prompts']))
end, hazard, width = settings['end'], settings['hazard'], prompts.shape[1]
with torch.inference_mode():
  logits = model(prompts[:1]).logits[0, -1].float().numpy()
options = {'max_new_tokens': settings['new'], 'do_sample': True, 'top_k': 0, 'top_p': 1.0,
           'temperature': 1.0, 'pad_token_id': 0, 'eos_token_id': end if hazard else None}
if settings['variant'] != 'dynamic':
  options['cache_implementation'] = 'static'
if settings['variant'] == 'compiled':
  model.forward = torch.compile(model.forward)


def work():
  start, tokens = time.perf_counter(), 0
  for ids in prompts.split(settings['batch']):
    processors = transformers.LogitsProcessorList([Hazard(end, hazard)] if hazard else [])
    with torch.inference_mode():
      made = model.generate(ids, attention_mask=torch.ones_like(ids), logits_processor=processors,
                            **options)[:, width:]
    ends = (made == end).int() * bool(hazard)
    tokens += int((ends.cumsum(dim=1) - ends == 0).sum())                  # the end token counts
  return {'seconds': time.perf_counter() - start, 'tokens': tokens}


print(json.dumps({'logits': logits[:8].tolist(), 'torch': torch.__version__,
                  'transformers': transformers.__version__}), flush=True)
for _ in sys.stdin:
  print(json.dumps(work()), flush=True)
