"""Comparisons for a preference model: where they come from, which of them, batch by batch."""
import functools
import zlib

import jax
import numpy as np
from tqdm import tqdm

from rlhf_jax.core import mesh as meshes
from rlhf_jax.data import batches, layouts
from rlhf_jax.rollout import candidates
from rlhf_jax.run import build, scoring, worlds


def sampler(config, base, world, mesh):
  """The sampler of the two answers that are compared, with the tokenizer of `base`, the Role that is
  trained: by the policy of the run `config.policy`; None leaves answers to the world."""
  if not config.policy:
    return None
  policy = build.policy(config.policy, mesh)
  build.check_same_tokenizer(policy, base, ('config.policy', 'config.init'))
  judge = build.judge(config.judge, mesh) if config.best_of > 1 else None
  if judge:
    build.check_same_tokenizer(policy, judge[0], ('config.policy', 'config.judge'))
  return pair_sampler(policy, world.answer_width, config.sample_batch, mesh, judge, config.best_of)


def load(config, tokenizer, world, sampler, sizes=None):
  """({'train', 'validation', 'test'}, facts) of the world, or the splits of sizes = {split: count}.
  Of the training comparisons `config.half` 'a' or 'b' keeps one half, `config.kinds` those of some
  groups of the world; then they are mixed, see `mix`."""
  data, facts = world.comparisons(tokenizer, sampler, sizes)
  if 'train' not in data:
    return data, facts
  if config.half:
    data['train'] = half(data['train'], config.half)
  data['train'] = of_kinds(data['train'], config.kinds, world.groups)
  data['train'] = mix(data['train'], worlds.is_harmful(world, data['train']), config.harmful_share,
                      config.take)
  if not data['train'].prompt:
    raise ValueError('no training comparisons are left: look at config.kinds, config.half and '
                     'config.data')
  return data, facts


def check(config):
  """Refuses settings of the comparisons that cannot be met, before anything is written."""
  check_half(config.half)
  if config.harmful_share is not None and not (0 <= config.harmful_share <= 1 and config.take > 0):
    raise ValueError(f'config.harmful_share={config.harmful_share} of config.take={config.take} '
                     'training comparisons: use a share from 0 to 1 and how many in all')
  if config.best_of < 1 or (config.best_of > 1 and not (config.policy and config.judge)):
    raise ValueError(f'config.best_of={config.best_of} takes config.policy, whose samples they are, '
                     'and config.judge, the preference model that chooses: name both, or set it to 1')
  if config.take and 0 < config.data.comparisons < config.take:
    raise ValueError(f'config.take={config.take} of config.data.comparisons={config.data.comparisons} '
                     'training comparisons: take less, or ask for more')
  if config.eval_pairs < config.batch_size:
    raise ValueError(f'config.eval_pairs={config.eval_pairs} does not fill a batch of '
                     f'config.batch_size={config.batch_size}: raise one or lower the other')
  if config.harmful_weight < 0:
    raise ValueError(f'config.harmful_weight={config.harmful_weight}: a weight is 0 or more')


def check_kinds(kinds, groups):
  """Refuses kinds of comparisons that the world has not got."""
  if unknown := set(kinds) - set(groups):
    raise ValueError(f'config.kinds names {", ".join(sorted(unknown))}, and the data have '
                     f'{", ".join(groups)}')


def of_kinds(data, kinds, groups):
  """The comparisons whose group is one of `kinds`, all of them for (): what makes a specialist."""
  keep_N = np.isin(data.group_N, [groups.index(kind) for kind in kinds or groups])
  return data[np.flatnonzero(keep_N)]


def mix(data, harmful_N, share, take):
  """The first `take` comparisons, 0 for all; with a share, round(take * share) of them on harmful
  requests. Bai et al. 2022, figure 19: the total is fixed, so that only the mixture changes."""
  if share is None:
    wanted = {'comparisons': (np.arange(len(data.prompt)), take or len(data.prompt))}
  else:
    harmful = round(take * share)
    wanted = {'harmful comparisons': (np.flatnonzero(harmful_N), harmful),
              'helpful comparisons': (np.flatnonzero(~harmful_N), take - harmful)}
  for kind, (rows, count) in wanted.items():
    if len(rows) < count:
      raise ValueError(f'{count} {kind} are asked for and there are {len(rows)}: lower config.take or '
                       'raise config.data.comparisons')
  return data[np.sort(np.concatenate([rows[:count] for rows, count in wanted.values()]))]


def check_half(name):
  """Refuses a half that `half` does not know, before anything is written."""
  if name not in ('', 'a', 'b'):
    raise ValueError(f"config.half={name!r} is unknown: use a, b, or '' for all comparisons")


def half(data, name):
  """Half 'a' or 'b' of the comparisons: the two share no prompt. Train and test preference models of
  Bai et al. 2022, section 4.2, come from such halves."""
  digest_N = np.array([zlib.crc32(np.asarray(ids, np.int32).tobytes()) for ids in data.prompt])
  return data[np.flatnonzero(digest_N % 2 == 'ab'.index(name))]


def pair_sampler(policy, answer_width, batch_size, mesh, judge=None, best_of=1):
  """sampler(tokens_NP, valid_NP, seed) -> (answer tokens_NKT, mask_NKT) with K = 2.

  Each of the two is the best of `best_of` samples by the (Role, Score) `judge`, as in the second
  tranche of Bai et al. 2022, section 2.3.
  """
  role, score = judge or (None, None)
  generate = build.sampler(policy, answer_width, mesh, samples=2 * best_of)
  @jax.jit
  def two(params, tokens_BP, valid_BP, key):
    return candidates.best_of(candidates.candidates(
      *params, tokens_BP, valid_BP, key, generate=generate, score=score), best_of)

  def sampler(tokens_NP, valid_NP, seed):
    n, width = tokens_NP.shape
    out, root = [], jax.random.key(seed)
    params = tuple(each and build.place(each.params, each.spec, mesh) for each in (policy, role))
    for at in tqdm(range(0, n, batch_size), desc='        sampling', unit='batch'):
      index = np.resize(np.arange(at, min(at + batch_size, n)), batch_size)   # one shape
      rows = meshes.put_batch((tokens_NP[index], valid_NP[index]), mesh)
      made = meshes.fetch(two(params, *rows, jax.random.fold_in(root, at)))
      scoring.finite(made.score_BK)
      out.append([x[:min(batch_size, n - at), :, width:] for x in (made.tokens_BKT, made.mask_BKT)])
    return tuple(np.concatenate(x) for x in zip(*out, strict=True))
  return sampler


def layout(data, config, eoc_id, pad_id):
  """The Layout that `config` asks for in training: pairs packed where it names widths for it."""
  made, widths = (layouts.packed, config.pack) if config.pack else (layouts.separate, config.widths)
  return made(data, widths, eoc_id, pad_id)


def source(layout, harmful_N, config, seeds=(), parts=1):
  """(host(config, i) -> batch, batches an epoch): every comparison once an epoch.

  `config.harmful_weight` is lambda in L_helpful + lambda L_harmless of Bai et al. 2022, figure 27, for
  the pair loss; the step divides by the sum of weights, so the size of an update stays. Packed batches
  have one of about 8 numbers of rows in each width, all of them multiples of `parts`, and the same
  for all `seeds`, whose runs are in one program.
  """
  @functools.lru_cache(maxsize=64)
  def plan(seed, epoch):
    return batches.buckets(layout.width_N, config.batch_size, layout.widths, (seed, epoch))

  @functools.lru_cache(maxsize=64)
  def needed(seed, epoch):
    return np.array([layout.rows(bucket) for bucket in plan(seed, epoch)])

  def rows(epoch, at):
    most = max(needed(seed, epoch)[at] for seed in {config.seed, *seeds})
    width_I = np.array([b.width for b in plan(config.seed, 0)])
    largest = needed(config.seed, 0)[width_I == plan(config.seed, epoch)[at].width].max()
    step = parts * -(-largest // (8 * parts))
    return -(-most // step) * step

  per_epoch = len(plan(config.seed, 0))
  def host(config, i):
    epoch, at = divmod(i, per_epoch)
    made = layout.lay(plan(config.seed, epoch)[at], rows(epoch, at))
    factor = np.where(harmful_N[getattr(made, layout.index)], config.harmful_weight, 1)
    return made.replace(**{layout.weight: getattr(made, layout.weight) * factor.astype(np.float32)})
  return host, per_epoch


def held_out(layout, config, parts=1):
  """The first `config.eval_pairs` comparisons as batches stacked on a leading axis, weights adding
  up to 1 over all of them."""
  count = min(config.eval_pairs, len(layout.width_N))
  index = np.arange(count // config.batch_size * config.batch_size)
  if not len(index):
    raise ValueError(f'{count} validation comparisons do not fill a batch of {config.batch_size}: '
                     'lower config.batch_size or raise the number of comparisons')
  width = min(w for w in layout.widths if w >= layout.width_N[index].max())
  plan = [batches.Bucket(width, rows, np.ones(len(rows), np.float32))
          for rows in index.reshape(-1, config.batch_size)]
  rows = -(-max(map(layout.rows, plan)) // parts) * parts
  held = jax.tree.map(lambda *x: np.stack(x), *(layout.lay(bucket, rows) for bucket in plan))
  return held.replace(**{name: getattr(held, name) / getattr(held, name).sum()
                         for name in (layout.weight, layout.lm_weight)})


def ranked(count, policy, world, mesh):
  """`count` test comparisons for `evals.ranker`: {'helpful', 'harmful'} -> {'chosen', 'rejected'} ->
  (tokens_BT, valid_BT); {} for count 0, and no kind without comparisons.

  The prompt's columns come first, padded on the left and cut to the width of the policy's prompts.
  In the oracle world the answers are samples of `policy`, as those that preference models learn from.
  """
  if not count:
    return {}
  tokenizer, width = policy.tokenizer, world.prompt_width
  sampler = pair_sampler(policy, world.answer_width, 128 * meshes.batch_shards(mesh), mesh)
  data = world.comparisons(tokenizer, sampler, {'test': count})[0]['test']
  longest = max(map(len, [*data.chosen, *data.rejected]))
  prompts = batches.pad([p[-width:] for p in data.prompt], width, 'left', tokenizer.pad_id)
  harmful_N, made = worlds.is_harmful(world, data), {}
  for kind, index in (('helpful', ~harmful_N), ('harmful', harmful_N)):
    if index.any():
      made[kind] = {side: tuple(np.concatenate([p, a], 1)[index] for p, a in zip(
        prompts, batches.pad(getattr(data, side), longest, 'right', tokenizer.pad_id), strict=True))
        for side in ('chosen', 'rejected')}
  return made


def scores(score, params, data, config, eoc_id, pad_id, mesh):
  """(chosen_N, rejected_N): score(params, tokens_BT, valid_BT) of both sides of all comparisons."""
  out = np.zeros((2, len(data.prompt)), np.float32)
  layout = layouts.separate(data, config.widths, eoc_id, pad_id)
  plan = batches.buckets(layout.width_N, config.batch_size, layout.widths, 0)
  for bucket in tqdm(plan, desc='         scoring', unit='batch'):
    b = layout.lay(bucket, config.batch_size)
    for side, rows in enumerate(((b.chosen_BT, b.chosen_valid_BT),
                                 (b.rejected_BT, b.rejected_valid_BT))):
      out[side, bucket.index_B] = meshes.fetch(score(params, *meshes.put_batch(rows, mesh)))
  return out
