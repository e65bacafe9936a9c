"""Sampling: against the whole text read again, against softmax, and where it must stop."""
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import chisquare

from rlhf_jax.core import mesh as meshes
from rlhf_jax.models import decode, logp

NEW, EOS, PAD = 6, 3, 22
KEY = jax.random.key(5)


@pytest.fixture(scope='module')
def sampler(tiny):
  """generate, jitted with a traced temperature."""
  @partial(jax.jit, static_argnames=('samples', 'top_p', 'new'))
  def run(prompt_BP, prompt_valid_BP, key, temperature, samples=1, top_p=1.0, new=NEW):
    return decode.generate(tiny.model, tiny.params, prompt_BP, prompt_valid_BP, key,
                           max_new_tokens=new, temperature=temperature, top_p=top_p, eos_id=EOS,
                           pad_id=PAD, samples=samples)
  return run


@pytest.fixture(scope='module')
def sample(sampler, text):
  return sampler(*text, KEY, 1.3, samples=3)


def test_cache_equals_reading_the_whole_text_again(tiny, text, sample):
  slow = jax.jit(partial(decode.generate, tiny.model._replace(prefill=None), max_new_tokens=NEW,
                         eos_id=EOS, pad_id=PAD, samples=3))(tiny.params, *text, KEY,
                                                             temperature=1.3)
  np.testing.assert_array_equal(sample.tokens_BT, slow.tokens_BT)
  np.testing.assert_array_equal(sample.mask_BT, slow.mask_BT)
  np.testing.assert_allclose(sample.logp_BT, slow.logp_BT, atol=1e-5)


def test_layout(text, sample):
  tokens_BP, _ = text
  width = tokens_BP.shape[1]
  np.testing.assert_array_equal(sample.tokens_BT[:, :width], np.repeat(tokens_BP, 3, axis=0))
  assert sample.tokens_BT.shape == (15, width + NEW)
  assert not np.any(sample.mask_BT[:, :width]) and not np.any(sample.logp_BT[:, :width])


def test_rows_stop_after_their_end_token(text, sample):
  width, lengths = text[0].shape[1], []
  for tokens_T, mask_T, logp_T in zip(*(np.asarray(x)[:, width:] for x in (
      sample.tokens_BT, sample.mask_BT, sample.logp_BT)), strict=True):
    ends = np.flatnonzero(tokens_T == EOS)
    length = ends[0] + 1 if ends.size else NEW
    np.testing.assert_array_equal(mask_T, np.arange(NEW) < length)     # the end token counts
    np.testing.assert_array_equal(tokens_T[length:], PAD)
    np.testing.assert_array_equal(logp_T[length:], 0)
    assert (logp_T[:length] < 0).all()
    lengths.append(length)
  assert min(lengths) < NEW and max(lengths) == NEW                    # both kinds are there


def test_log_probs_are_those_of_token_logp(tiny, text, sample):
  valid_BT = np.concatenate([np.repeat(text[1], 3, axis=0), sample.mask_BT[:, 8:]], axis=1)
  again_BT = jax.jit(partial(logp.token_logp, tiny.model, start=8))(
    tiny.params, sample.tokens_BT, valid_BT, 1.3)
  np.testing.assert_allclose(sample.logp_BT, again_BT * sample.mask_BT, atol=1e-5)


def test_several_samples_equal_repeated_prompts(sampler, text, sample):
  repeated = sampler(*(np.repeat(x, 3, axis=0) for x in text), KEY, 1.3)
  np.testing.assert_array_equal(sample.tokens_BT, repeated.tokens_BT)
  # One prompt's rows differ, and so do the tokens of one row.
  assert len({tuple(row) for row in np.asarray(sample.tokens_BT)[:3, 8:]}) > 1


def test_padding_and_other_rows_change_nothing(sampler, text, sample):
  wide = [np.pad(x[:4], ((0, 0), (3, 0))) for x in text]
  padded = sampler(*wide, KEY, 1.3, samples=3)
  np.testing.assert_array_equal(padded.tokens_BT[:, 11:], sample.tokens_BT[:12, 8:])


def test_low_temperature_takes_the_likeliest_token(tiny, sampler, text):
  tokens_BP, valid_BP = text
  out_BT = np.asarray(sampler(tokens_BP, valid_BP, KEY, 1e-4, samples=3).tokens_BT)[::3, 8:]
  for b in range(5):
    tokens = list(tokens_BP[b][valid_BP[b] > 0])
    for t in range(NEW):
      row, valid = np.zeros((2, 1, 14)), len(tokens)
      row[0, 0, :valid], row[1, 0, :valid] = tokens, 1
      hidden_D = tiny.apply(tiny.params, row[0].astype(int), row[1])[0, valid - 1]
      tokens.append(int(np.argmax(tiny.params['embed'] @ hidden_D)))
      assert tokens[-1] == out_BT[b, t]
      if tokens[-1] == EOS:
        break


def test_stops_when_every_row_has_ended(tiny, text):
  steps = []
  def counted(params, token_B, cache):
    jax.debug.callback(lambda: steps.append(1))
    return tiny.model.decode(params, token_B, cache)
  model = tiny.model._replace(decode=counted, unembed=lambda params, hidden_ND: 50.0 * (
    jnp.arange(23)[None] == EOS) * jnp.ones((hidden_ND.shape[0], 1)))
  out = jax.jit(partial(decode.generate, model, max_new_tokens=NEW, eos_id=EOS, pad_id=PAD))(
    tiny.params, *text, KEY)
  jax.block_until_ready(out)
  jax.effects_barrier()
  np.testing.assert_array_equal(out.tokens_BT[:, 8:], [[EOS] + [PAD] * (NEW - 1)] * 5)
  assert len(steps) == 1


def _first_tokens(tiny, sampler, text, top_p):
  """(counts_V of 6,000 first tokens after one prompt, their softmax at temperature 1.3)."""
  tokens_1P, valid_1P = (x[1:2] for x in text)
  out = sampler(tokens_1P, valid_1P, KEY, 1.3, samples=6000, top_p=top_p, new=1)
  hidden_D = np.asarray(tiny.apply(tiny.params, *text))[1, 7]
  prob_V = softmax(np.asarray(tiny.params['embed'], np.float64) @ hidden_D / 1.3)
  np.testing.assert_allclose(out.logp_BT[:, 8], np.log(prob_V)[out.tokens_BT[:, 8]], atol=1e-4)
  return np.bincount(out.tokens_BT[:, 8], minlength=23), prob_V


def test_frequencies_are_those_of_softmax(tiny, sampler, text):
  count_V, prob_V = _first_tokens(tiny, sampler, text, 1.0)
  assert chisquare(count_V, 6000 * prob_V).pvalue > 0.01


def test_top_p_keeps_the_nucleus_and_the_log_probs(tiny, sampler, text):
  count_V, prob_V = _first_tokens(tiny, sampler, text, 0.6)
  kept, mass = [], 0.0
  for token in np.argsort(-prob_V):
    if mass < 0.6:
      kept.append(token)
      mass += prob_V[token]
  assert 2 < len(kept) < 20
  assert set(np.flatnonzero(count_V)) == set(kept)
  assert chisquare(count_V[kept], 6000 * prob_V[kept] / mass).pvalue > 0.01


def test_draw_inverts_the_distribution():
  # Sums 0, 0.25, 0.25, 0.75, 1.0: the first sum above the number names the token.
  logp_BV = jnp.log(jnp.array([[0.0, 0.25, 0.0, 0.5, 0.25]]))
  drawn = [int(decode.draw(logp_BV, jnp.array([u]))[0]) for u in (0.0, 0.2, 0.3, 0.7, 0.8, 0.999)]
  assert drawn == [1, 1, 3, 3, 4, 4]


def test_draw_gives_each_token_its_share_of_the_unit_interval():
  """Over 300 tokens, three parts of the vocabulary, one of them of probability 0."""
  rng = np.random.default_rng(1)
  logit_V = np.where(np.arange(300) // 128 == 1, -np.inf, rng.normal(size=300)).astype(np.float32)
  uniform_B = (np.arange(20000, dtype=np.float32) + 0.5) / 20000
  drawn_B = np.asarray(jax.jit(decode.draw)(np.tile(logit_V, (20000, 1)), uniform_B))
  assert (np.diff(drawn_B) >= 0).all()
  assert np.abs(np.bincount(drawn_B, minlength=300) - 20000 * softmax(logit_V)).max() < 1.1


def test_a_token_of_probability_0_is_never_drawn():
  # Float32 sums taken as a tree are not quite monotone: thresholds on every sum, and beside it.
  rng = np.random.default_rng(0)
  prob_V = np.where(rng.random(501) < 0.5, rng.random(501), 0.0).astype(np.float32)
  sum_V = np.asarray(jnp.cumsum(prob_V))
  uniform_B = np.concatenate([np.nextafter(sum_V / sum_V.max(), side) for side in (0, 1, 2)])
  uniform_B = np.clip(uniform_B, 0, 1 - 2.0**-23).astype(np.float32)
  logp_BV = np.broadcast_to(np.log(prob_V, where=prob_V > 0, out=np.full(501, -np.inf)),
                            (len(uniform_B), 501)).astype(np.float32)
  drawn_B = jax.jit(decode.draw)(logp_BV, uniform_B)
  assert prob_V[drawn_B].min() > 0


def test_every_column_has_noise_of_its_own(sampler, text):
  # All tokens are equally likely, so equal noise would repeat one token along a row.
  out = sampler(*text, KEY, 1e6, samples=3)
  rows = [set(row[mask > 0]) for row, mask in zip(np.asarray(out.tokens_BT), out.mask_BT,
                                                 strict=True) if mask.sum() > 3]
  assert len(rows) > 5 and min(map(len, rows)) > 1


def test_noise_depends_on_key_and_row_only():
  every = decode.noise(KEY, jnp.arange(9))
  np.testing.assert_array_equal(decode.noise(KEY, jnp.array([7, 2])), every[jnp.array([7, 2])])
  assert len(set(np.asarray(every))) == 9


MANY = {'max_new_tokens': 12, 'eos_id': EOS, 'pad_id': PAD, 'samples': 4}


@pytest.fixture(scope='module')
def many(tiny, text):
  """(a model whose answers end early and late, 64 prompts, 256 answers all carried on to the end).
  Every other prompt fills its columns, so that a cache that goes round too early loses a token."""
  prompt = [np.resize(np.asarray(x), (64, x.shape[1])) for x in text]
  prompt[1][::2] = 1
  ends_soon = 3.0 * (np.arange(23) == EOS)[None]
  model = tiny.model._replace(unembed=lambda *x: tiny.model.unembed(*x) + ends_soon)
  with pytest.MonkeyPatch.context() as here:
    here.setattr(decode, 'SHARES', ())
    plain = jax.jit(partial(decode.generate, model, **MANY))(tiny.params, *prompt, KEY)
  length_B = np.asarray(plain.mask_BT).sum(1)
  assert (length_B > np.sort(length_B)[-16]).any() and np.median(length_B) < length_B.max() / 2
  return model, prompt, plain


def _same(ours, plain):
  np.testing.assert_array_equal(ours.tokens_BT, plain.tokens_BT)
  np.testing.assert_array_equal(ours.mask_BT, plain.mask_BT)
  np.testing.assert_allclose(ours.logp_BT, plain.logp_BT, atol=1e-5)


@pytest.mark.parametrize('blocks, quarters, shares, read', [(1, 64, (4, 16), 64), (4, 12, (), 2)])
def test_unfinished_rows_alone_are_carried_on_and_nothing_changes(tiny, many, blocks, quarters, shares,
                                                                  read, monkeypatch):
  """With the cache whole from the start; and grown by quarters, all rows carried on into the last, the
  prompts having been read two of each block at a time."""
  model, prompt, plain = many
  for name, value in ('QUARTERS', quarters), ('SHARES', shares), ('READ', read * prompt[0].shape[1]):
    monkeypatch.setattr(decode, name, value)
  ours = jax.jit(partial(decode.generate, model, blocks=blocks, **MANY))
  _same(ours(tiny.params, *prompt, KEY), plain)


@pytest.mark.parametrize('rows, most, at_once', [(24, 9, 8), (24, 24, 24), (23, 9, 23), (22, 8, 2)])
def test_prompts_are_read_some_at_a_time_where_they_divide(rows, most, at_once, monkeypatch):
  monkeypatch.setattr(decode, 'READ', most * 5 + 4)
  seen = []
  def prefill(params, tokens_BP, valid_BP, room):
    seen.append((*tokens_BP.shape, room))
    return tokens_BP[:, -1:] * 1.0, (2 * tokens_BP, jnp.int32(5))
  tokens = np.arange(rows * 5).reshape(rows, 5)
  last_BD, (twice, column) = decode.read_prompts(
    SimpleNamespace(prefill=prefill), None, jnp.asarray(tokens), jnp.ones((rows, 5)))
  np.testing.assert_array_equal(last_BD[:, 0], tokens[:, -1])
  np.testing.assert_array_equal(twice, 2 * tokens)
  assert column == 5 and set(seen) == {(at_once, 5, 0)}


def test_slots_take_the_rows_that_wait_and_nothing_changes(tiny, many):
  """24 slots for 256 rows: the ring of 20 columns goes round more than once."""
  model, prompt, plain = many
  steps = []
  def counted(params, token_B, cache):
    jax.debug.callback(lambda rows: steps.append(int(rows)), token_B.shape[0])
    return tiny.model.decode(params, token_B, cache)
  ours = jax.jit(partial(decode.generate, model._replace(decode=counted), slots=24, **MANY))(
    tiny.params, *prompt, KEY)
  _same(jax.block_until_ready(ours), plain)
  jax.effects_barrier()
  assert len(steps) > 2 * 12
  assert sum(steps) < 2 * np.asarray(plain.mask_BT).sum() < 256 * 12


def test_slots_of_eight_devices_give_the_same(tiny, many, monkeypatch):
  model, prompt, plain = many
  monkeypatch.setattr(decode, 'READ', 4 * prompt[0].shape[1])
  prompt = meshes.put_batch(prompt, meshes.make(data=8))
  _same(jax.jit(partial(decode.generate, model, blocks=8, slots=24, **MANY))(
    tiny.params, *prompt, KEY), plain)


def test_several_runs_in_one_program_equal_each_alone(tiny, many):
  """The one between makes the others' loops longer."""
  model, prompt, plain = many
  run = partial(decode.generate, model, tiny.params, *prompt, slots=24, **MANY)
  out = jax.jit(jax.vmap(run))(jnp.stack([KEY, jax.random.key(9), KEY]))
  for i in (0, 2):
    _same(jax.tree.map(lambda x, i=i: x[i], out), plain)
  assert not np.array_equal(out.tokens_BT[1], plain.tokens_BT)


def test_keys_and_temperatures_share_one_program(tiny, text):
  run = jax.jit(partial(decode.generate, tiny.model, max_new_tokens=2, eos_id=EOS, pad_id=PAD, slots=2))
  for i in range(3):
    run(tiny.params, *text, jax.random.key(i), temperature=jnp.float32(1 + i))
  assert run._cache_size() == 1


def test_refusals(tiny, text):
  run = partial(decode.generate, tiny.model, tiny.params, eos_id=EOS, pad_id=PAD)
  with pytest.raises(ValueError, match='prompts of 0 columns: use sizes >= 1'):
    run(np.zeros((2, 0), np.int32), np.zeros((2, 0)), KEY, max_new_tokens=2)
  with pytest.raises(ValueError, match='top_p 0.0'):
    run(*text, KEY, max_new_tokens=2, top_p=0.0)
  with pytest.raises(ValueError, match='68 columns do not fit model micro: its context is 64'):
    run(*text, KEY, max_new_tokens=60)
