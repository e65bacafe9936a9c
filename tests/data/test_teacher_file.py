"""The teacher's file: what is written comes back, rounded and whole; what is not whole is refused."""
import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import log_softmax, rel_entr

from rlhf_jax.data import teacher_file

V, K, SHORT, LONG = 40, 6, 5, 9
HEADER = teacher_file.Header(tokenizer='abc', vocab_size=V, k=K, length=LONG, teacher='runs/lm',
                             source='0123')


def sequence(time, cue, generic, seed, scale=3.0):
  """(a sequence of `time` tokens of which the first `cue` are not distilled, its logp_DV)."""
  rng = np.random.default_rng(seed)
  logp_DV = np.float32(log_softmax(scale * rng.normal(size=(time - cue, V)), axis=-1))
  top_id = np.argsort(-logp_DV, axis=-1)[:, :K]
  return (rng.integers(3, V, time), (np.arange(time) >= cue).astype(np.float32), generic,
          np.take_along_axis(logp_DV, top_id, -1), top_id), logp_DV


@pytest.fixture(scope='module')
def written(tmp_path_factory):
  path = tmp_path_factory.mktemp('teacher') / 'x.array_record'
  made = [sequence(SHORT, 2, 1, 0)[0], sequence(LONG, 3, 0, 1)[0], sequence(LONG, 1, 1, 2)[0]]
  teacher_file.write(path, HEADER, iter(made))
  return path, made


def test_what_was_written_is_read_by_its_number(written):
  path, made = written
  file = teacher_file.load(path)
  assert file.header == HEADER and file.size == 3
  rows = teacher_file.read(file, np.array([2, 0, 0, 1]), LONG + 2, pad_id=77)
  np.testing.assert_array_equal(rows.generic_B, [1, 1, 1, 0])
  for b, i in enumerate([2, 0, 0, 1]):
    tokens, distilled, _, top_logp, top_id = made[i]
    time, on = len(tokens), np.flatnonzero(distilled)
    np.testing.assert_array_equal(rows.tokens_BT[b], [*tokens, *[77] * (LONG + 2 - time)])
    np.testing.assert_array_equal(rows.valid_BT[b], np.arange(LONG + 2) < time)
    np.testing.assert_array_equal(np.flatnonzero(rows.weight_BT[b]), on)
    np.testing.assert_array_equal(rows.top_id_BTK[b, on], top_id)
    np.testing.assert_allclose(rows.top_logp_BTK[b, on], top_logp, rtol=1e-3, atol=1e-3)
    off = rows.weight_BT[b] == 0
    assert not rows.top_logp_BTK[b, off].any() and not rows.top_id_BTK[b, off].any()


def kl(top_logp_DK, student_DK):
  """51-way KL per token, in float64."""
  teacher, student = (np.exp(np.float64(teacher_file.with_rest(x))) for x in (top_logp_DK, student_DK))
  return rel_entr(teacher, student).sum(-1)


@pytest.mark.parametrize('scale', [0.5, 3.0, 8.0])
def test_rounding_moves_the_kl_by_less_than_a_hundredth_of_it(tmp_path, scale):
  """Students as near as a KL of 1e-3: without the sum of 1 the error alone is about that much."""
  made, logp_DV = sequence(400, 0, 0, 3, scale)
  path = tmp_path / 'x.array_record'
  teacher_file.write(path, HEADER, [made])
  rows = teacher_file.read(teacher_file.load(path), np.array([0]), 400, 0)
  noise = 0.05 * np.random.default_rng(4).normal(size=logp_DV.shape)
  student_DK = np.take_along_axis(log_softmax(logp_DV + noise, axis=-1), made[4], -1)
  exact_D, read_D = kl(made[3], student_DK), kl(rows.top_logp_BTK[0], student_DK)
  assert 1e-5 < exact_D.mean() < 5e-3
  np.testing.assert_allclose(np.exp(teacher_file.with_rest(rows.top_logp_BTK[0])).sum(-1), 1, atol=1e-6)
  assert abs(read_D.mean() - exact_D.mean()) < 1e-2 * exact_D.mean()
  assert np.abs(read_D - exact_D).max() < 5e-5


def test_all_ids_leave_no_rest_and_an_impossible_one_stays_impossible(tmp_path):
  top = np.array([[np.log(0.75), np.log(0.25), -np.inf]], np.float32)
  impossible, rest = teacher_file.with_rest(top)[0, 2:]
  assert impossible == -np.inf and rest < np.log(1e-6)
  path = tmp_path / 'x.array_record'
  teacher_file.write(path, HEADER._replace(vocab_size=3, k=3), [([1], [1], 0, top, [[2, 0, 1]])])
  rows = teacher_file.read(teacher_file.load(path), np.array([0]), 1, 0)
  np.testing.assert_allclose(np.exp(rows.top_logp_BTK[0, 0]), [0.75, 0.25, 0], atol=2e-4)


@pytest.mark.parametrize('vocabulary, bytes_of_ids', [(2**16, 2), (2**16 + 1, 4)])
def test_ids_of_the_paper_take_two_bytes_and_larger_ones_survive(tmp_path, vocabulary, bytes_of_ids):
  path, ids = tmp_path / 'x.array_record', np.array([[vocabulary - 1, 0]])
  header = HEADER._replace(vocab_size=vocabulary, k=2)
  assert teacher_file._layout(header, 0, 1)['id'].itemsize == 2 * bytes_of_ids
  teacher_file.write(path, header, [([vocabulary - 1], [1], 0, np.log([[0.5, 0.25]]), ids)])
  rows = teacher_file.read(teacher_file.load(path), np.array([0]), 1, 0)
  np.testing.assert_array_equal(rows.top_id_BTK[0], ids)
  assert rows.tokens_BT[0, 0] == vocabulary - 1


def test_a_killed_writing_leaves_what_was_there(tmp_path, written):
  path = tmp_path / 'x.array_record'
  good = [sequence(SHORT, 2, 0, 5)[0]] * 3

  def killed():
    yield from good[:2]
    raise KeyboardInterrupt

  for size in (None, 3):
    with pytest.raises(KeyboardInterrupt):
      teacher_file.write(path, HEADER, killed())
    if size is None:
      with pytest.raises(FileNotFoundError, match='x.array_record: no teacher file here'):
        teacher_file.load(path)
      teacher_file.write(path, HEADER, good)
    else:
      assert teacher_file.load(path).size == size


def test_files_that_are_not_whole_are_refused(tmp_path, written):
  content = written[0].read_bytes()
  for name, bad in (('torn', content[:-100]), ('empty', b''), ('text', b'{}' * 99)):
    path = tmp_path / name
    path.write_bytes(bad)
    with pytest.raises(ValueError, match=f'{name} is not a whole teacher file .*: make it again'):
      teacher_file.load(path)
  other = tmp_path / 'other'
  writer = teacher_file.ArrayRecordWriter(str(other), 'group_size:1')
  writer.write(b'{"format": "of tomorrow"}')
  writer.close()
  with pytest.raises(ValueError, match='not a whole teacher file .another format'):
    teacher_file.load(other)


def test_a_flipped_byte_is_an_error(tmp_path):
  path = tmp_path / 'x.array_record'
  teacher_file.write(path, HEADER, [sequence(400, 0, 0, 6)[0]] * 30)
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)
  with pytest.raises(ValueError, match='is damaged .*hash mismatch.*: make it again'):
    teacher_file.read(teacher_file.load(path), np.arange(30), 400, 0)


def test_a_file_for_others_is_refused(written):
  file = teacher_file.load(written[0])
  mine = SimpleNamespace(digest='abc')
  for k, length in itertools.product((K,), (LONG, LONG + 1)):
    teacher_file.check(file, mine, k, length)
  with pytest.raises(ValueError, match='made with another tokenizer than the student has: take'):
    teacher_file.check(file, SimpleNamespace(digest='abd'), K, LONG)
  with pytest.raises(ValueError, match='keeps 6 log-probs a token and config.top_k is 50: set it to 6'):
    teacher_file.check(file, mine, 50, LONG)
  with pytest.raises(ValueError, match='sequences of 9 tokens and config.length is 8: set it to 9'):
    teacher_file.check(file, mine, K, LONG - 1)
