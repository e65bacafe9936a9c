"""`transformers` answering prompts: `model.generate` on batches of a queue.

Started by `experiments.benchmarks.generation` in an environment of its own; imports nothing of ours.
settings: folder, prompts (.npy, [N, P]), new, batch, seed, hazard (probability of the end token at each
step, 0: never), end, variant ('dynamic', 'static', 'compiled'), dtype.
On a GPU, if there is one, `generate` itself compiles what has a static cache, and float32 products are
rounded to TF32, as torch recommends.
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


device = 'cuda' if torch.cuda.is_available() else 'cpu'
settings = json.loads(sys.argv[-1])
transformers.logging.set_verbosity_error()
torch.manual_seed(settings['seed'])
if device == 'cuda':
  torch.set_float32_matmul_precision('high')
model = transformers.AutoModelForCausalLM.from_pretrained(
  settings['folder'], dtype=getattr(torch, settings['dtype']),
  attn_implementation='sdpa').to(device).eval()
prompts = torch.from_numpy(np.load(settings['prompts'])).to(device)
end, hazard, width = settings['end'], settings['hazard'], prompts.shape[1]
with torch.inference_mode():
  logits = model(prompts[:1]).logits[0, -1].float().cpu().numpy()
options = {'max_new_tokens': settings['new'], 'do_sample': True, 'top_k': 0, 'top_p': 1.0,
           'temperature': 1.0, 'pad_token_id': 0, 'eos_token_id': end if hazard else None}
static, cache = settings['variant'] != 'dynamic', None
if static and device == 'cuda':                           # kept: a recorded graph belongs to its memory
  cache = transformers.StaticCache(config=model.config, max_cache_len=width + settings['new'])
elif static:
  options['cache_implementation'] = 'static'
if settings['variant'] == 'compiled':
  model.forward = torch.compile(model.forward)


def work():
  start, tokens = time.perf_counter(), 0
  for ids in prompts.split(settings['batch']):
    processors = transformers.LogitsProcessorList([Hazard(end, hazard)] if hazard else [])
    with torch.inference_mode():
      if cache is not None:
        cache.reset()
      made = model.generate(ids, attention_mask=torch.ones_like(ids), logits_processor=processors,
                            past_key_values=cache, **options)[:, width:]
    ends = (made == end).int() * bool(hazard)
    tokens += int((ends.cumsum(dim=1) - ends == 0).sum())                  # the end token counts
  return {'seconds': time.perf_counter() - start, 'tokens': tokens}


print(json.dumps({'logits': logits[:8].tolist(), 'torch': torch.__version__,
                  'transformers': transformers.__version__, 'device': device}), flush=True)
for _ in sys.stdin:
  print(json.dumps(work()), flush=True)
