"""Making the teacher's file: which texts, which tokens, whose log-probs; and not twice."""
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import presets
from rlhf_jax.core import mesh as meshes
from rlhf_jax.core import spec
from rlhf_jax.data import dialogue, oracle_tokens, teacher_file, tokenizer
from rlhf_jax.models import sizes, transformer
from rlhf_jax.run import teacher, worlds

LENGTH, K = 45, 7


@pytest.fixture(scope='module')
def world():
  data = presets.oracle_data()
  data.update({'dialogues': 40})
  return worlds.make(data)


@pytest.fixture(scope='module')
def bpe(world):
  return tokenizer.train(world.texts(), 512)


@pytest.fixture(scope='module')
def role(bpe):
  model = transformer.decoder(sizes.config('micro', vocab_size=bpe.vocab_size))
  params = jax.tree.map(lambda x: 3 * x, spec.init(model.spec, jax.random.key(0)))
  return SimpleNamespace(model=model, params=params, tokenizer=bpe, spec=model.spec)


def prepare(path, role, world, **changes):
  config = ConfigDict({'teacher': 'runs/lm', 'top_k': K, 'generic_share': 0.5, 'length': LENGTH,
                       'batch_size': 16, 'data': {'seed': 0}})
  config.update(changes)
  return teacher.prepare(config, path, role, world, meshes.make(data=-1))


@pytest.fixture(scope='module')
def made(tmp_path_factory, role, world):
  return prepare(tmp_path_factory.mktemp('made') / 'x', role, world)


def test_half_is_generic_text_and_all_open_with_the_cue_that_is_not_distilled(world, bpe):
  texts = teacher.texts(world, bpe, 0.5, LENGTH, 0)
  assert len(texts.generic_N) == 80 and texts.generic_N.sum() == 40
  assert 10 < texts.generic_N[:40].sum() < 30                              # shuffled
  dialogues = {tuple(int(t) for t in row) for row in world.dialogues(bpe)}
  cue = len(bpe.encode(dialogue.HUMAN_CUE))
  for tokens, valid, distilled, generic in zip(*texts, strict=True):
    text = bpe.decode(tokens[valid > 0].tolist())
    assert text.startswith(dialogue.HUMAN_CUE)
    assert (tuple(tokens[valid > 0].tolist()) in dialogues) == (not generic)
    assert (dialogue.ASSISTANT_CUE in text) == (not generic)
    np.testing.assert_array_equal(distilled, valid * (np.arange(LENGTH) >= cue))
  assert teacher.texts(world, bpe, 0.2, LENGTH, 0).generic_N.sum() == 10       # a fifth of 50
  assert teacher.texts(world, bpe, 0.0, LENGTH, 0).generic_N.sum() == 0
  assert teacher.texts(world, bpe, 0.5, 12, 0).valid_NT.sum(1).max() == 12


def test_the_file_holds_the_teacher_with_the_prompt_before_every_text(made, role, world, bpe):
  assert made.size == 80 and made.header.tokenizer == bpe.digest and made.header.teacher == 'runs/lm'
  rows = teacher_file.read(made, np.arange(5), LENGTH, bpe.pad_id)
  texts = teacher.texts(world, bpe, 0.5, LENGTH, 0)
  np.testing.assert_array_equal(rows.tokens_BT, texts.tokens_NT[:5])
  np.testing.assert_array_equal(rows.weight_BT, texts.distilled_NT[:5])
  context = oracle_tokens.codec(bpe).context
  whole_BT = np.concatenate([np.tile(context, (5, 1)), rows.tokens_BT], 1)
  hidden_BTD = role.model.apply(role.params, whole_BT, np.ones_like(whole_BT, np.float32))
  logp_BTV = np.stack([jax.nn.log_softmax(role.model.unembed(role.params, x)) for x in hidden_BTD])
  close = {'rtol': 2**-11, 'atol': 1e-3}                                   # float16
  for b, t in zip(*np.nonzero(rows.weight_BT), strict=True):
    logp_V = logp_BTV[b, len(context) + t - 1]
    np.testing.assert_allclose(rows.top_logp_BTK[b, t], np.sort(logp_V)[::-1][:K], **close)
    np.testing.assert_allclose(logp_V[rows.top_id_BTK[b, t]], rows.top_logp_BTK[b, t], **close)


def test_a_file_is_made_once_and_one_from_something_else_is_refused(made, role, world):
  before = (made.path, teacher_file.Path(made.path).stat().st_mtime_ns)
  assert prepare(made.path, role, world).header == made.header
  other = SimpleNamespace(**vars(role) | {'params': jax.tree.map(lambda x: x + 1, role.params)})
  for changes in ({'top_k': K + 1}, {'data': {'seed': 1}}, {'generic_share': 0.2}, {'length': 30}):
    with pytest.raises(ValueError, match='made from another teacher, prompt or text: remove it'):
      prepare(made.path, role, world, **changes)
  with pytest.raises(ValueError, match='made from another teacher, prompt or text: remove it'):
    prepare(made.path, other, world)
  elsewhere = world._replace(context=lambda tokenizer: world.context(tokenizer)[1:])
  with pytest.raises(ValueError, match='made from another teacher, prompt or text: remove it'):
    prepare(made.path, role, elsewhere)
  assert before == (made.path, teacher_file.Path(made.path).stat().st_mtime_ns)


@pytest.mark.parametrize('share', [-0.1, 1.0])
def test_an_impossible_share_is_refused(share):
  teacher.check_share(0.0)
  with pytest.raises(ValueError, match=f'config.generic_share={share} is no share'):
    teacher.check_share(share)
