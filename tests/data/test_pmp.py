"""Ranked texts: what each source says is better, in which words, and what is left out and why."""
import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from rlhf_jax.data import pmp, sources


def write(path, lines):
  """Lines may be objects or text."""
  path.parent.mkdir(parents=True, exist_ok=True)
  text = '\n'.join(line if isinstance(line, str) else json.dumps(line) for line in lines)
  path.write_bytes(gzip.compress(text.encode(), mtime=0) if path.suffix == '.gz' else text.encode())
  return path


def read(made):
  """(pairs as (prompt, chosen, rejected), {kind: [where]}) of a reader."""
  pairs, dropped = [], {}
  for found in made:
    if isinstance(found, pmp.Dropped):
      dropped.setdefault(found.kind, []).append(found.where)
    else:
      pairs.append((found.prompt, found.chosen, found.rejected))
  return pairs, dropped


# --------------------------------------------------------------------------------- StackExchange

def question(*answers, title='T', accepted=None, body='why?\n'):
  return {'title': title, 'body': body, 'accepted': accepted,
          'answers': [{'id': str(i), 'score': score, 'body': text}
                      for i, (score, text) in enumerate(answers)]}


@pytest.mark.parametrize('votes, accepted, score', [
  (0, False, 0), (1, False, 1), (2, False, 2), (4, False, 2), (5, False, 3), (7, False, 3),
  (1000, False, 10), (-1, False, -1), (-30, False, -1), (0, True, 1), (7, True, 4), (-3, True, 0)])
def test_score_of_an_answer(votes, accepted, score):
  assert pmp.answer_score(votes, accepted) == score


def test_the_answer_with_the_higher_score_is_chosen(tmp_path):
  path = write(tmp_path / 'stackexchange' / 'train.jsonl.gz', [
    question((3, 'low \n'), (9, ' high')), question((9, 'high'), (-3, 'below zero')),
    question((2, 'kept'), (4, 'more votes'), accepted='0'),
    question((5, 'a'), (5, 'b'), (0, 'c'), title='three')])
  pairs, dropped = read(pmp.stackexchange([path]))
  start = 'Question: T\n\nwhy?\n\nAnswer:'
  assert pairs[:3] == [(start, ' high', ' low'), (start, ' high', ' below zero'),
                       (start, ' kept', ' more votes')]
  assert pairs[3] in [('Question: three\n\nwhy?\n\nAnswer:', best, ' c') for best in (' a', ' b')]
  assert dropped == {}


def test_every_two_answers_of_different_score_can_be_drawn_and_no_others(tmp_path):
  texts = {'a': 0, 'b': 0, 'c': 1, 'd': 3}
  path = write(tmp_path / 'x.jsonl', [
    question(*((votes, text) for text, votes in texts.items()), title=str(n)) for n in range(200)])
  pairs, _ = read(pmp.stackexchange([path]))
  drawn = {(chosen.strip(), rejected.strip()) for _, chosen, rejected in pairs}
  assert drawn == {(x, y) for x in texts for y in texts if texts[x] > texts[y]}
  assert read(pmp.stackexchange([path]))[0] == pairs


def test_questions_that_rank_nothing_are_counted_by_kind(tmp_path):
  path = write(tmp_path / 'se' / 'train.jsonl', [
    question((2, 'a'), (4, 'b')), question((1, 'a')), question(),
    question((None, 'a'), (True, 'b'), ('3', 'c'), (1, ' '), (1, 'd')),
    question((1, 'the same'), (9, 'the  same ')), '{"title": "x", "body": "y"}',
    '{"title": "x", "body": "y", "answers": ["z"]}', '{"title": ', question((9, 'a'), (0, 'b'))])
  pairs, dropped = read(pmp.stackexchange([path]))
  assert [pair[1:] for pair in pairs] == [(' a', ' b')]
  line = 'se/train.jsonl, line {}'.format
  assert dropped.pop('unreadable')[0].startswith(f'{path}, line 8: ')
  assert dropped == {
    'tie': [line(1)], 'fewer_than_two_answers': [line(2), line(4)],
    'no_answers': [line(n) for n in (3, 6, 7)],
    'no_score': [line(4)] * 3, 'empty': [line(4)], 'identical': [line(5)]}


POSTS = '''\ufeff<?xml version="1.0" encoding="utf-8"?>
<posts>
  <row Id="1" PostTypeId="1" AcceptedAnswerId="4" Title="T" Body="&lt;p&gt;why&lt;b&gt;?&lt;/b&gt;" />
  <row Id="2" PostTypeId="2" ParentId="1" Score="9" Body="1 &amp;lt; 2&lt;br&gt;&#xA;&#xA;x" />
  <row Id="3" PostTypeId="1" Title="U" Body="no accepted" />
  <row Id="4" PostTypeId="2" ParentId="1" Score="2" Body="&lt;pre&gt;two&lt;/pre&gt;" />
  <row Id="5" PostTypeId="2" ParentId="9" Score="2" Body="of another" />
  <row Id="6" PostTypeId="2" ParentId="3" Body="no votes" />
  <row Id="7" PostTypeId="4" Body="a tag wiki" />
  <row Id="3" PostTypeId="1" Title="V" />
  <row PostTypeId="1" Title="W" />
</posts>'''


def test_a_dump_gives_what_the_prepared_questions_give(tmp_path):
  dump = tmp_path / 'beer' / 'Posts.xml'
  write(dump, [POSTS])
  pairs, dropped = read(pmp.stackexchange([dump]))
  # log2(10) = 3.3 against log2(3) = 1.6 and accepted: 3 against 3 is a tie
  assert pairs == []
  assert dropped == {'tie': ['beer/Posts.xml, line 3'], 'no_question': ['beer/Posts.xml, line 7'],
                     'no_score': ['beer/Posts.xml, line 8'],
                     'no_id_of_its_own': [f'beer/Posts.xml, line {n}' for n in (10, 11)],
                     'fewer_than_two_answers': ['beer/Posts.xml, line 5']}
  write(dump, [POSTS.replace('Score="9"', 'Score="12"')])      # log2(13) = 3.7
  prepared = write(tmp_path / 'x.jsonl', [
    {'title': 'T', 'body': 'why?', 'accepted': '4', 'answers': [
      {'id': '2', 'score': 12, 'body': '1 < 2\n\nx'}, {'id': '4', 'score': 2, 'body': 'two'}]}])
  pairs, _ = read(pmp.stackexchange([dump]))
  assert pairs == read(pmp.stackexchange([prepared]))[0] == [
    ('Question: T\n\nwhy?\n\nAnswer:', ' 1 < 2\n\nx', ' two')]


def test_a_dump_cut_off_keeps_the_questions_before(tmp_path):
  lines = POSTS.replace('Score="9"', 'Score="12"').split('\n')
  path = write(tmp_path / 'beer' / 'Posts.xml', [*lines[:6], lines[6][:30]])
  pairs, dropped = read(pmp.stackexchange([path]))
  assert len(pairs) == 1
  assert dropped['unreadable'][0].startswith(f'{path}, line 7: the rest is unreadable (')


# ---------------------------------------------------------------------------------------- Reddit

def post(id, text='', author='ann', subreddit='books', title='A title'):
  return {'id': id, 'subreddit': subreddit, 'author': author, 'title': title, 'selftext': text,
          'score': 3}


def comment(id, parent, score, text, author='bob', link='p'):
  return {'id': id, 'parent_id': parent, 'link_id': f't3_{link}', 'author': author, 'body': text,
          'score': score}


def reddit(tmp_path, posts, comments, **options):
  files = [write(tmp_path / 'reddit' / 'submissions.jsonl', posts),
           write(tmp_path / 'reddit' / 'comments.jsonl', comments)]
  return read(pmp.reddit(files, **options))


def test_two_chains_differ_in_their_last_comment(tmp_path):
  pairs, dropped = reddit(tmp_path, [post('p', 'The text.')], [
    comment('2', 't1_1', 5, 'worse', 'dan'), comment('1', 't3_p', 8, ' only one \n', 'cat'),
    comment('3', 't1_1', 6, 'better', 'eve')])
  assert pairs == [('SUBMISSION by ann: A title\n\nThe text.\n\nCOMMENT by cat: only one\n\nCOMMENT by',
                    ' eve: better', ' dan: worse')]
  assert dropped == {}


def test_one_pair_a_post_from_any_of_its_comments(tmp_path):
  def thread(link):
    return [comment(f'{link}a', f't3_{link}', 1, 'a', link=link),
            comment(f'{link}b', f't3_{link}', -4, 'b', link=link),
            comment(f'{link}c', f't1_{link}a', 2, 'c', link=link),
            comment(f'{link}d', f't1_{link}a', 3, 'd', link=link)]
  names = [f'n{i}' for i in range(40)]
  pairs, _ = reddit(tmp_path, [post(n, title=n) for n in names],
                    [c for n in reversed(names) for c in thread(n)])
  assert [pair[0].split()[3] for pair in pairs] == names
  assert {pair[1:] for pair in pairs} == {(' bob: a', ' bob: b'), (' bob: d', ' bob: c')}


def test_deleted_texts_bots_and_other_subreddits_are_left_out(tmp_path):
  posts = [post('p'), post('q', '[removed]'), post('r', author='[deleted]'),
           post('s', author='AutoModerator'), post('t', subreddit='AmItheAsshole'), post('u'), '{',
           post('p')]
  comments = [
    comment('1', 't3_p', 2, 'good'), comment('2', 't3_p', 1, 'bad'),
    comment('3', 't3_p', 9, '[deleted]'), comment('4', 't3_p', 9, 'x', '[deleted]'),
    comment('5', 't3_p', 9, 'beep', 'sumBot'), comment('6', 't3_p', 9, ' '),
    comment('7', 't3_p', None, 'x'), comment('8', 't1_3', 9, 'below a deleted one'),
    comment('9', 't1_8', 8, 'and below that'), comment('10', 't3_q', 9, 'x', link='q'),
    comment('11', 't3_u', 2, 'x', link='u'), comment('12', 't3_u', 2, 'y', link='u'), '[]']
  pairs, dropped = reddit(tmp_path, posts, comments, subreddits=('books',))
  assert pairs == [('SUBMISSION by ann: A title\n\nCOMMENT by', ' bob: good', ' bob: bad')]
  p, c = ([f'reddit/{name}.jsonl, line {n}' for n in range(14)] for name in ('submissions', 'comments'))
  assert [where.split(': ')[0] for where in dropped.pop('unreadable')] == [
    f'{tmp_path}/{p[7]}', f'{tmp_path}/{c[13]}']
  assert dropped == {
    'deleted': [p[2], p[3], c[3], c[4]], 'bot': [p[4], c[5]], 'other_subreddit': [p[5]],
    'empty': [c[6]], 'no_score': [c[7]], 'post_left_out': [c[10]], 'parent_left_out': [c[8], c[9]],
    'tie': [p[6]], 'no_id_of_its_own': [p[8]]}
  assert 'other_subreddit' not in reddit(tmp_path, posts, comments)[1]


# ------------------------------------------------------------------------------ Wikipedia, edits

WIKITEXT = """<!-- no
show -->'''''Rome''''' is{{cite|{{a}} b}} a [[city]] of [[Italy|the Italians]].<ref name="x" /><ref>A
book</ref>
[[File:Rome.jpg|thumb|A [[dome]] of it]]

{| class="wikitable"
| 1 || 2
|}


See [https://example.org the map] and [https://example.org].<br />"""


def test_wikitext_is_read_without_its_markup():
  assert pmp.plain_wikitext(WIKITEXT) == 'Rome is a city of the Italians.\n\nSee the map and .'


@pytest.mark.parametrize('comment, kept', [
  ('Reverted edits by X; vandalism', True), ('rvv', True), ('rv vandal', True),
  ('Undid vandalizing', True),
  ('restored section, vandalised before', True), ('reverted, no source', False),
  ('report of vandalism', False), ('overt vandalism noted', False), ('', False)])
def test_only_edits_that_revert_vandalism_rank(tmp_path, comment, kept):
  edit = {'title': 'Rome', 'section': 'History', 'before': "lol [[x]]", 'after': "Old '''Rome'''",
          'comment': comment}
  pairs, dropped = read(pmp.wikipedia([write(tmp_path / 'w.jsonl', [edit])]))
  assert pairs == [('PAGE TITLE: Rome\n\nSECTION TITLE: History\n\nSECTION BODY:', ' Old Rome',
                    ' lol x')] * kept
  assert list(dropped) == ['no_vandalism_reverted'] * (not kept)


def test_the_text_after_an_edit_is_chosen(tmp_path):
  path = write(tmp_path / 'edits' / 'test.jsonl.gz', [
    {'before': ' teh  cat', 'after': 'the cat '}, {'before': 'a b', 'after': ' a  b'},
    {'before': 'a', 'after': ''}, {'before': '', 'after': 'a'}, {'before': 3, 'after': ''}])
  pairs, dropped = read(pmp.edits([path]))
  assert pairs == [('SECTION BODY:', ' the cat', ' teh cat')]
  assert {k: v for k, v in dropped.items() if k != 'unreadable'} == {
    'identical': ['edits/test.jsonl.gz, line 2'],
    'empty': [f'edits/test.jsonl.gz, line {n}' for n in (3, 4)]}


# -------------------------------------------------------------------------------- cache, columns

def edit(i, **more):
  return {'before': f'before {i}', 'after': f'after {i}', **more}


def load(tmp_path, **options):
  return pmp.load_pairs(tmp_path / 'data', tmp_path / 'cache', **options)


def test_columns_are_the_pairs_of_all_sources_and_what_was_dropped(tmp_path):
  root = tmp_path / 'data' / 'pmp'
  write(root / 'edits' / 'train.jsonl.gz', [edit(0), edit(1), edit(2) | {'after': ''}])
  write(root / 'edits' / 'test.jsonl.gz', [edit(3), edit(4) | {'after': ' '}])
  write(root / 'stackexchange' / 'train.jsonl.gz', [question((9, 'high'), (0, 'low'))])
  write(root / 'stackexchange' / 'notes.txt', ['not read'])
  for _ in range(2):                                                  # the second time from the cache
    pairs = load(tmp_path)
    assert pairs.subset.tolist() == ['stackexchange'] + ['edits'] * 3
    assert pairs.chosen.tolist() == [' high', ' after 3', ' after 0', ' after 1']
    assert pairs.rejected.tolist() == [' low', ' before 3', ' before 0', ' before 1']
    assert pairs.split.tolist() == ['train', 'test', 'train', 'train']
    assert pairs.where[1] == 'edits/test.jsonl.gz, line 1'
    assert pairs.dropped == {'edits empty': (2, 'edits/test.jsonl.gz, line 2')}
  assert set(load(tmp_path, subsets=('edits',)).subset) == {'edits'}


def test_files_without_a_split_are_divided_by_key_and_others_as_they_say(tmp_path):
  root = tmp_path / 'data' / 'pmp' / 'edits'
  path = write(root / 'all.jsonl', [edit(i, doc_id=str(i // 2)) for i in range(1200)])
  pairs = load(tmp_path)
  np.testing.assert_array_equal(pairs.split == 'test', pairs.place >= 0.99)
  assert 0 < (pairs.split == 'test').mean() < 0.03                    # 0.01, standard deviation 0.004
  np.testing.assert_array_equal(pairs.place[::2], pairs.place[1::2])  # a document is on one side
  np.testing.assert_allclose(pairs.place[::200], [sources.uniform(str(i)) for i in range(0, 600, 100)])
  path.rename(root / 'test.jsonl')                                    # the same bytes
  assert set(load(tmp_path).split) == {'test'}


def test_changed_files_and_other_subreddits_are_read_anew(tmp_path):
  root = tmp_path / 'data' / 'pmp'
  write(root / 'edits' / 'train.jsonl', [edit(0)])
  assert load(tmp_path).chosen.tolist() == [' after 0']
  write(root / 'edits' / 'train.jsonl', [edit(1)])
  assert load(tmp_path).chosen.tolist() == [' after 1']
  write(root / 'reddit' / 'submissions.jsonl', [post('p'), post('q', subreddit='science', title='S')])
  write(root / 'reddit' / 'comments.jsonl', [
    comment(f'{n}{link}', f't3_{link}', n, str(n), link=link) for n in (1, 2) for link in 'pq'])
  for subreddits, titles in (((), ['A title', 'S']), (('science',), ['S'])):
    pairs = load(tmp_path, subsets=('reddit',), subreddits=subreddits)
    assert [prompt.split('\n')[0] for prompt in pairs.prompt] == [
      f'SUBMISSION by ann: {title}' for title in titles]


def test_an_unreadable_line_is_an_error_or_counted(tmp_path):
  path = write(tmp_path / 'data' / 'pmp' / 'edits' / 'train.jsonl', [edit(0), '{"before": ', edit(1)])
  for _ in range(2):
    with pytest.raises(ValueError, match=f'{path}, line 2: .*skip'):
      load(tmp_path)
    pairs = load(tmp_path, on_error='skip')
    count, example = pairs.dropped['edits unreadable']
    assert len(pairs.prompt) == 2 and count == 1 and 'line 2: ' in example


def test_what_is_missing_is_named(tmp_path, monkeypatch):
  monkeypatch.delenv(sources.DATA_VARIABLE, raising=False)
  with pytest.raises(FileNotFoundError, match='holds pmp/ in RLHF_DATA_DIR or data.dir'):
    pmp.load_pairs()
  (tmp_path / 'data').mkdir()
  with pytest.raises(FileNotFoundError, match='data/pmp holds none of stackexchange, reddit'):
    load(tmp_path)
  with pytest.raises(FileNotFoundError, match='data/pmp/reddit holds no files of this source'):
    load(tmp_path, subsets=('reddit',))
  with pytest.raises(ValueError, match=r"no source \['web'\]: use stackexchange, reddit"):
    load(tmp_path, subsets=('web',))
  write(tmp_path / 'data' / 'pmp' / 'edits' / 'train.jsonl', [edit(0) | {'after': ''}])
  with pytest.raises(ValueError, match='not one usable pair; 1 empty .as edits/train.jsonl, line 1'):
    load(tmp_path)


@pytest.mark.skipif(not sources.data_dir() or not (sources.data_dir() / 'pmp').is_dir(),
                    reason='no published data here')
def test_published_records(tmp_path):
  pairs = pmp.load_pairs(cache_dir=tmp_path)
  count = sum(count for kind, (count, _) in pairs.dropped.items() if kind.startswith('edits'))
  lines = sum(len(sources.read_jsonl(path)[0])
              for path in Path(sources.data_dir()).glob('pmp/edits/*.jsonl.gz'))
  assert (pairs.subset == 'edits').sum() + count == lines and count < 0.05 * lines
  assert (pairs.subset == 'stackexchange').sum() > 500
  assert all(a.strip() != b.strip() for a, b in zip(pairs.chosen, pairs.rejected, strict=True))
