"""The page is one file, well formed, escaped, the same each time, and asks for nothing outside."""
import base64
import json
import re
from html.parser import HTMLParser

from rlhf_jax.analysis import figures, report

HOSTILE = '<script>alert("1")</script> & <b>'


class _Reader(HTMLParser):
  """Collects tags with attributes and the text; fails where tags do not nest."""

  def __init__(self, page):
    super().__init__(convert_charrefs=True)
    self.open, self.tags, self.texts = [], [], []
    self.feed(page)
    self.close()
    assert not self.open

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))
    if tag not in ('meta', 'img'):
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    if self.open and self.open[-1] != 'style':
      self.texts.append(data)


def _figure():
  return figures.loss_curves({'stage': ([0, 1, 2], [3, 2, 1])})


def _page():
  return report.html(HOSTILE, HOSTILE, [
    report.Section(HOSTILE, [HOSTILE], {HOSTILE: 0.75}, [(_figure(), HOSTILE), (None, 'gone')],
                   [{HOSTILE: HOSTILE, 'reward': 1.5}, {'reward': -20.25}],
                   [report.Dialogue(HOSTILE, HOSTILE, HOSTILE, {HOSTILE: 1.0}, {})]),
    report.Section('Nothing more')])


def test_all_text_is_escaped_and_tags_nest():
  reader = _Reader(_page())
  assert 'script' not in [tag for tag, _ in reader.tags]
  # title, h1, subtitle, h2, paragraph, number, caption, column head, cell, prompt and two answers
  assert reader.texts.count(HOSTILE) == 12
  assert HOSTILE + ' 1.000' in reader.texts             # the badge
  image, = (attrs for tag, attrs in reader.tags if tag == 'img')
  assert image['alt'] == HOSTILE


def test_the_page_asks_for_nothing_outside():
  page = _page()
  for tag, attrs in _Reader(page).tags:
    assert tag not in ('link', 'script', 'iframe')
    assert all(value.startswith('data:') for name, value in attrs.items()
               if name in ('src', 'href'))
  assert not re.search(r'url\(|@import', page)


def test_the_figure_inside_is_the_drawing_and_a_missing_one_leaves_no_trace():
  page = _page()
  images = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', page)
  assert len(images) == 1 and 'gone' not in page
  drawing = base64.b64decode(images[0]).decode()
  assert drawing.startswith('<?xml') and drawing.rstrip().endswith('</svg>')


def test_the_same_numbers_give_the_same_page():
  assert _page() == _page()


def test_numbers_of_a_table_stand_to_the_right_with_shared_decimals():
  page = _page()
  assert '<th class="number">reward</th>' in page
  assert '<td class="number">1.50</td>' in page and '<td class="number">-20.25</td>' in page


def test_before_stands_left_of_after_with_its_own_badges():
  page = report.html('t', 's', [report.Section('h', dialogues=[
    report.Dialogue('ask', 'old', 'new', {'score': 0.1}, {'score': 0.9})])])
  texts = [text for text in _Reader(page).texts if text.strip()]
  assert texts[texts.index('ask'):] == ['ask', 'Before', 'score 0.100', 'old',
                                        'After', 'score 0.900', 'new']


def test_the_page_is_written_whole(tmp_path):
  report.write(tmp_path, HOSTILE, 's', [])
  assert (tmp_path / 'report.html').read_text(encoding='utf-8') == report.html(HOSTILE, 's', [])
  assert [file.name for file in tmp_path.iterdir()] == ['report.html']


def test_at_the_foot_stands_what_the_runs_were_made_with(tmp_path):
  for name, day, code in (('a', '2026-03-01', 'commit abc'), ('b', '2026-03-04', HOSTILE)):
    (tmp_path / name).mkdir()
    (tmp_path / name / 'starts.jsonl').write_text(json.dumps({
      'time': f'{day}T10:00:00+00:00', 'command': 'python -m x', 'code': code, 'jax': '0.10.2',
      'devices': '2 x cpu'}) + '\n')
  report.write(tmp_path, 't', 's', [])
  texts = _Reader((tmp_path / 'report.html').read_text(encoding='utf-8')).texts
  assert f'2026-03-01 to 2026-03-04 · commit abc, {HOSTILE} · jax 0.10.2 · 2 x cpu' in texts
  report.write(tmp_path / 'a', 't', 's', [])
  assert '2026-03-01 · commit abc · jax 0.10.2 · 2 x cpu' in _Reader(
    (tmp_path / 'a' / 'report.html').read_text(encoding='utf-8')).texts
