"""One HTML file that opens anywhere: figures inside as vector images, no request to anything
outside. System fonts, light and dark; everything that is text is escaped.
"""
import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from rlhf_jax.analysis import style, tables
from rlhf_jax.core import rundir


class Dialogue(NamedTuple):
  """One prompt with the answers before and after training; badges: name -> number."""
  prompt: str
  before: str
  after: str
  before_badges: Mapping = {}
  after_badges: Mapping = {}


class Section(NamedTuple):
  """What stands under one heading, in this order; empty parts are left out.

  numbers: label -> value, shown large. figures: pairs (figure or None, caption). table: rows as
  dictionaries.
  """
  heading: str
  paragraphs: Sequence = ()
  numbers: Mapping = {}
  figures: Sequence = ()
  table: Sequence = ()
  dialogues: Sequence = ()


def write(folder, title, subtitle, sections):
  """The page as report.html in the folder of a run or of runs, whole or not at all; what they were made
  with stands at its foot."""
  rundir.write_text(Path(folder) / 'report.html',
                    html(title, subtitle, sections, rundir.made_with(folder)))


def html(title, subtitle, sections, made_with=None):
  """The page as text. made_with: of `rundir.made_with`."""
  body = '\n'.join(map(_section, sections))
  return (f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
          f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
          f'<meta name="color-scheme" content="light dark">\n<title>{escape(title)}</title>\n'
          f'<style>{_CSS}</style>\n</head>\n<body>\n<main>\n<header>\n<h1>{escape(title)}</h1>\n'
          f'<p class="subtitle">{escape(subtitle)}</p>\n</header>\n{body}\n'
          f'{_foot(made_with or {})}</main>\n</body>\n</html>\n')


def _section(section):
  parts = [f'<h2>{escape(section.heading)}</h2>']
  parts += [f'<p>{escape(paragraph)}</p>' for paragraph in section.paragraphs]
  if section.numbers:
    parts.append(_numbers(section.numbers))
  parts += [_figure(figure, caption) for figure, caption in section.figures if figure]
  if section.table:
    parts.append(_table(section.table))
  parts += map(_dialogue, section.dialogues)
  return '<section>\n' + '\n'.join(parts) + '\n</section>'


def _numbers(numbers):
  return '<dl class="numbers">' + ''.join(
    f'<div><dt>{escape(label)}</dt><dd>{escape(_text(value))}</dd></div>'
    for label, value in numbers.items()) + '</dl>'


def _foot(made_with):
  """Days, code, libraries and machine, if they are known; the command is in the folder."""
  parts = {name: ', '.join(texts) for name, texts in made_with.items() if name != 'command'}
  if not parts:
    return ''
  days = sorted({time[:10] for time in made_with['time']})
  parts['time'] = ' to '.join(dict.fromkeys([days[0], days[-1]]))
  said = [f'{name} {text}' if text[:1].isdigit() and name not in ('time', 'devices') else text
          for name, text in parts.items()]
  return f'<footer>{escape(" · ".join(said))}</footer>\n'


@style.styled
def _figure(figure, caption):
  file = io.BytesIO()
  figure.savefig(file, format='svg', metadata={'Date': None})
  image = base64.b64encode(file.getvalue()).decode()
  return (f'<figure><div class="plate"><img src="data:image/svg+xml;base64,{image}" '
          f'alt="{escape(caption)}"></div><figcaption>{escape(caption)}</figcaption></figure>')


def _table(rows):
  names = tables.column_names(rows)
  columns = [tables.column_texts([row.get(name) for row in rows]) for name in names]
  kinds = [' class="number"' if numeric else '' for _, numeric in columns]
  head = ''.join(f'<th{kind}>{escape(str(name))}</th>'
                 for name, kind in zip(names, kinds, strict=True))
  body = '\n'.join('<tr>' + ''.join(
    f'<td{kind}>{escape(texts[i])}</td>'
    for (texts, _), kind in zip(columns, kinds, strict=True)) + '</tr>' for i in range(len(rows)))
  return (f'<div class="scroll"><table><thead><tr>{head}</tr></thead>\n'
          f'<tbody>{body}</tbody></table></div>')


def _dialogue(dialogue):
  answers = (('Before', dialogue.before, dialogue.before_badges),
             ('After', dialogue.after, dialogue.after_badges))
  return (f'<article class="dialogue"><div class="prompt">{escape(dialogue.prompt)}</div>'
          '<div class="pair">' + ''.join(
            f'<div class="answer"><div class="head"><b>{name}</b>{_badges(badges)}</div>'
            f'<div class="words">{escape(text)}</div></div>' for name, text, badges in answers)
          + '</div></article>')


def _badges(badges):
  return ''.join(f'<span class="badge">{escape(name)} {escape(_text(value))}</span>'
                 for name, value in badges.items())


def _text(value):
  return tables.column_texts([value])[0][0]


_CSS = """
:root { --ground: #fbfbfa; --card: #ffffff; --ink: #1f2933; --soft: #5b6670; --line: #e2e5e8;
  --accent: #0072b2; --tint: #eef4f8; }
@media (prefers-color-scheme: dark) { :root { --ground: #15181b; --card: #1d2125; --ink: #e4e7ea;
  --soft: #9aa5af; --line: #30363c; --accent: #6cb8e6; --tint: #202b33; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 1rem/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial,
  sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 3.5rem 1.5rem 5rem; }
header { margin-bottom: 2.5rem; }
h1 { font-size: 2rem; line-height: 1.2; letter-spacing: -0.02em; font-weight: 680; margin: 0; }
.subtitle { color: var(--soft); font-size: 1.1rem; margin: 0.6rem 0 0; }
section { border-top: 1px solid var(--line); padding-top: 1.75rem; margin-top: 2.25rem; }
h2 { font-size: 1.3rem; line-height: 1.3; letter-spacing: -0.01em; font-weight: 640;
  margin: 0 0 0.75rem; }
p { max-width: 44rem; margin: 0 0 1rem; }
.numbers { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr));
  gap: 0.75rem; margin: 1.25rem 0; }
.numbers div { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 0.8rem 1rem; }
dt { color: var(--soft); font-size: 0.82rem; line-height: 1.35; }
dd { margin: 0.2rem 0 0; font-size: 1.55rem; line-height: 1.25; font-weight: 620;
  font-variant-numeric: tabular-nums; letter-spacing: -0.01em; }
figure { margin: 1.5rem 0; }
.plate { background: #ffffff; border: 1px solid var(--line); border-radius: 10px; padding: 1rem;
  text-align: center; overflow-x: auto; }
.plate img { max-width: 100%; height: auto; vertical-align: middle; }
figcaption { color: var(--soft); font-size: 0.9rem; line-height: 1.5; margin-top: 0.6rem;
  max-width: 48rem; }
.scroll { overflow-x: auto; margin: 1.25rem 0; }
table { border-collapse: collapse; font-size: 0.92rem; min-width: 60%;
  font-variant-numeric: tabular-nums; }
th { text-align: left; color: var(--soft); font-weight: 600; font-size: 0.84rem; }
th, td { padding: 0.45rem 1.25rem 0.45rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th.number, td.number { text-align: right; white-space: nowrap; }
.dialogue { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  margin: 1rem 0; overflow: hidden; }
.prompt { background: var(--tint); padding: 0.8rem 1.1rem; font-weight: 550;
  white-space: pre-wrap; overflow-wrap: anywhere; }
.pair { display: grid; grid-template-columns: 1fr 1fr; }
.answer { padding: 0.8rem 1.1rem 1rem; min-width: 0; }
.answer + .answer { border-left: 1px solid var(--line); }
.head { display: flex; flex-wrap: wrap; align-items: center; gap: 0.4rem;
  margin-bottom: 0.4rem; }
.head b { font-size: 0.84rem; color: var(--soft); font-weight: 600; margin-right: auto; }
.badge { background: var(--tint); color: var(--accent); border-radius: 99px;
  padding: 0.05rem 0.6rem; font-size: 0.78rem; font-variant-numeric: tabular-nums;
  white-space: nowrap; }
.words { white-space: pre-wrap; overflow-wrap: anywhere; }
footer { border-top: 1px solid var(--line); margin-top: 2.25rem; padding-top: 1rem;
  color: var(--soft); font-size: 0.82rem; }
@media (max-width: 40rem) { main { padding-top: 2rem; } .pair { grid-template-columns: 1fr; }
  .answer + .answer { border-left: 0; border-top: 1px solid var(--line); }
  .plate img { max-width: none; } }
@media print { body { background: #ffffff; } section, figure, .dialogue { break-inside: avoid; } }
"""
