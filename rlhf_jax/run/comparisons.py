"""Comparisons as batches of a preference model: where they come from, how rows are laid out.

A text is prompt + answer + end-of-context token; with eoc_id None there is no such token, and the score
is read on the last one of the answer. Two layouts: a row for each text of a pair, padded on the right
to one of `config.widths`; or, for training, whole pairs packed into rows of `config.pack`, the prompt
once, where that names widths.
"""
import functools
import zlib

import jax
import numpy as np
from tqdm import tqdm

from rlhf_jax.core import mesh as meshes
from rlhf_jax.core.types import PackedPairs, PreferenceBatch
from rlhf_jax.data import batches
from rlhf_jax.rollout import candidates
from rlhf_jax.run import build, worlds


def load(config, base, world, mesh):
  """({'train', 'validation', 'test'}, facts). `config.policy` names the run whose samples are
  compared with the tokenizer of `base`, the Role that is trained; '' leaves it to the world.
  Of the training comparisons `config.half` 'a' or 'b' keeps one half, `config.kinds` those of some
  groups of the world; then they are mixed, see `mix`."""
  sampler = None
  if config.policy:
    policy = build.role(config.policy, mesh)
    build.check_same_tokenizer(policy, base, ('config.policy', 'config.init'))
    judge = build.judge(config.judge, mesh) if config.best_of > 1 else None
    if judge:
      build.check_same_tokenizer(policy, judge[0], ('config.policy', 'config.judge'))
    sampler = pair_sampler(policy, world.answer_width, config.sample_batch, mesh, judge,
                           config.best_of)
  data, facts = world.comparisons(base.tokenizer, sampler)
  if config.half:
    data['train'] = half(data['train'], config.half)
  data['train'] = of_kinds(data['train'], config.kinds, world.groups)
  data['train'] = mix(data['train'], worlds.is_harmful(world, data['train']), config.harmful_share,
                      config.take)
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
  if config.harmful_weight < 0:
    raise ValueError(f'config.harmful_weight={config.harmful_weight}: a weight is 0 or more')


def of_kinds(data, kinds, groups):
  """The comparisons whose group is one of `kinds`, all of them for (): what makes a specialist."""
  if unknown := set(kinds) - set(groups):
    raise ValueError(f'config.kinds names {", ".join(sorted(unknown))}, and the data have '
                     f'{", ".join(groups)}')
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
    out, root, params = [], jax.random.key(seed), (policy.params, role and role.params)
    for at in tqdm(range(0, n, batch_size), desc='        sampling', unit='batch'):
      index = np.resize(np.arange(at, min(at + batch_size, n)), batch_size)   # one shape
      rows = meshes.put_batch((tokens_NP[index], valid_NP[index]), mesh)
      made = meshes.fetch(two(params, *rows, jax.random.fold_in(root, at)))
      out.append([x[:min(batch_size, n - at), :, width:] for x in (made.tokens_BKT, made.mask_BKT)])
    return tuple(np.concatenate(x) for x in zip(*out, strict=True))
  return sampler


def _lengths(data):
  return np.array([len(p) + max(len(a), len(b)) + 1 for p, a, b in
                   zip(data.prompt, data.chosen, data.rejected, strict=True)])


def batch(data, bucket, eoc_id, pad_id):
  """The PreferenceBatch of one bucket of `data`."""
  def side(answers):
    end = [] if eoc_id is None else [eoc_id]
    rows = [[*data.prompt[i], *answers[i], *end] for i in bucket.index_B]
    return batches.pad(rows, bucket.width, 'right', pad_id)
  chosen, rejected = side(data.chosen), side(data.rejected)
  weight_B = bucket.weight_B
  first_BT = np.arange(bucket.width) > 0                       # nothing predicts the first token
  return PreferenceBatch(
    *chosen, *rejected, label_B=np.ones(len(weight_B), np.float32), weight_B=weight_B,
    lm_weight_BT=chosen[1] * weight_B[:, None] * first_BT, group_B=data.group_N[bucket.index_B],
    index_B=bucket.index_B.astype(np.int32))


def sizes(data, eoc_id):
  """[N, 3] of each pair in a packed row: columns, tokens that the language-model term predicts, 1."""
  end = eoc_id is not None
  stem, chosen, rejected = (np.array([len(x) for x in side], np.int64)
                            for side in (data.prompt, data.chosen, data.rejected))
  whole = stem + chosen + end
  return np.stack([whole + rejected + end, whole - 1, np.ones_like(stem)], axis=1)


def room(width):
  """What a packed row of `width` columns holds, as `sizes`: two in three of all tokens of published
  pairs are predicted, and the shortest of ten of them have 38 tokens and more."""
  return np.array([width, width * 3 // 4, max(1, width // 32)])


def pack(data, bucket, rows, eoc_id, pad_id):
  """The PackedPairs of one bucket of `data` in so many rows, those left over empty."""
  end = [] if eoc_id is None else [eoc_id]
  _, targets, most = room(bucket.width)
  row_B = batches.fit(sizes(data, eoc_id)[bucket.index_B], room(bucket.width))
  ids, kinds, segments, lm, lm_weight = ([[] for _ in range(rows)] for _ in range(5))
  at, place = np.zeros((rows, 2, most), np.int32), np.full((rows, most), -1)
  for b, (row, i) in enumerate(zip(row_B.tolist(), bucket.index_B.tolist(), strict=True)):
    parts = data.prompt[i], [*data.chosen[i], *end], [*data.rejected[i], *end]
    start, slot = len(ids[row]), segments[row][-1] if segments[row] else 0
    for branch, part in enumerate(parts):
      ids[row] += part
      kinds[row] += [branch] * len(part)
      segments[row] += [slot + 1] * len(part)
    stop = start + len(parts[0]) + len(parts[1])
    lm[row] += range(start, stop - 1)
    lm_weight[row] += [bucket.weight_B[b]] * (stop - 1 - start)
    at[row, :, slot], place[row, slot] = (stop - 1, len(ids[row]) - 1), b
  (tokens_NT, valid_NT), (branch_NT, _), (segment_NT, _) = (
    batches.pad(x, bucket.width, 'right', fill)
    for x, fill in ((ids, pad_id), (kinds, 0), (segments, 0)))
  lm_at_NM, real_NM = batches.pad(lm, targets, 'right', 0)
  lm_weight_NM = np.zeros(real_NM.shape, np.float32)
  lm_weight_NM[real_NM > 0] = [w for row in lm_weight for w in row]
  used_NP = place >= 0
  def slots(x_B):
    return np.where(used_NP, np.asarray(x_B)[place], 0).astype(np.asarray(x_B).dtype)
  return PackedPairs(
    tokens_NT, valid_NT, segment_NT, branch_NT, lm_at_NM, lm_weight_NM, at[:, 0], at[:, 1],
    label_NP=used_NP.astype(np.float32), weight_NP=slots(bucket.weight_B),
    group_NP=slots(data.group_N[bucket.index_B]), index_NP=slots(bucket.index_B.astype(np.int32)))


def source(data, harmful_N, config, eoc_id, pad_id, seeds=(), parts=1):
  """(host(config, i) -> batch, batches an epoch): every comparison once an epoch.

  `config.harmful_weight` is lambda in L_helpful + lambda L_harmless of Bai et al. 2022, figure 27, for
  the pair loss; the step divides by the sum of weights, so the size of an update stays. Packed batches
  have one of at most 8 numbers of rows in each width, all of them multiples of `parts`, and the same
  for all `seeds`, whose runs are in one program.
  """
  size_NK = sizes(data, eoc_id) if config.pack else None
  length_N = _packed_width(size_NK) if config.pack else _lengths(data)

  @functools.lru_cache(maxsize=64)
  def plan(seed, epoch):
    widths = list(config.pack or config.widths)
    return batches.buckets(length_N, config.batch_size, widths, (seed, epoch))

  @functools.lru_cache(maxsize=64)
  def needed(seed, epoch):
    return np.array([1 + batches.fit(size_NK[b.index_B], room(b.width)).max()
                     for b in plan(seed, epoch)])

  def rows(epoch, at):
    most = max(needed(seed, epoch)[at] for seed in {config.seed, *seeds})
    width_I = np.array([b.width for b in plan(config.seed, 0)])
    largest = needed(config.seed, 0)[width_I == plan(config.seed, epoch)[at].width].max()
    step = parts * -(-largest // (8 * parts))
    return -(-most // step) * step

  per_epoch = len(plan(config.seed, 0))
  def host(config, i):
    epoch, at = divmod(i, per_epoch)
    bucket = plan(config.seed, epoch)[at]
    if config.pack:
      made = pack(data, bucket, rows(epoch, at), eoc_id, pad_id)
      return made.replace(weight_NP=made.weight_NP * factor(made.index_NP))
    made = batch(data, bucket, eoc_id, pad_id)
    return made.replace(weight_B=made.weight_B * factor(made.index_B))
  def factor(index):
    return np.where(harmful_N[index], config.harmful_weight, 1).astype(np.float32)
  return host, per_epoch


def _packed_width(size_NK):
  """The narrowest row that holds each pair alone."""
  return np.maximum(size_NK[:, 0], -(-4 * size_NK[:, 1] // 3))


def held_out(data, config, eoc_id, pad_id, parts=1):
  """The first `config.eval_pairs` comparisons as batches stacked on a leading axis, weights adding
  up to 1 over all of them."""
  count = min(config.eval_pairs, len(data.prompt))
  index = np.arange(count // config.batch_size * config.batch_size)
  if not len(index):
    raise ValueError(f'{count} validation comparisons do not fill a batch of {config.batch_size}: '
                     'lower config.batch_size or raise the number of comparisons')
  length_N = _packed_width(sizes(data, eoc_id)) if config.pack else _lengths(data)
  width = min(w for w in sorted(config.pack or config.widths) if w >= length_N[index].max())
  plan = [batches.Bucket(width, rows, np.ones(len(rows), np.float32))
          for rows in index.reshape(-1, config.batch_size)]
  if config.pack:
    most = max(1 + batches.fit(sizes(data, eoc_id)[b.index_B], room(width)).max() for b in plan)
    held = [pack(data, b, -(-most // parts) * parts, eoc_id, pad_id) for b in plan]
  else:
    held = [batch(data, b, eoc_id, pad_id) for b in plan]
  held = jax.tree.map(lambda *x: np.stack(x), *held)
  if config.pack:
    return held.replace(weight_NP=held.weight_NP / held.weight_NP.sum(),
                        lm_weight_NM=held.lm_weight_NM / held.lm_weight_NM.sum())
  return held.replace(weight_B=held.weight_B / held.weight_B.sum(),
                      lm_weight_BT=held.lm_weight_BT / held.lm_weight_BT.sum())


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
  plan = batches.buckets(_lengths(data), config.batch_size, list(config.widths), 0)
  for bucket in tqdm(plan, desc='         scoring', unit='batch'):
    b = batch(data, bucket, eoc_id, pad_id)
    for side, rows in enumerate(((b.chosen_BT, b.chosen_valid_BT),
                                 (b.rejected_BT, b.rejected_valid_BT))):
      out[side, bucket.index_B] = meshes.fetch(score(params, *meshes.put_batch(rows, mesh)))
  return out
