"""The published dialogue format: turns to text and back, and where a comparison forks.

Every transcript is a run of turns, each introduced by two newlines and a role marker (Bai et al.
2022 and the published data; Askell et al. 2021 stop the model at the marker). Nothing here reads
files or knows token ids.
"""
import re
from typing import NamedTuple

HUMAN_CUE = '\n\nHuman:'
ASSISTANT_CUE = '\n\nAssistant:'
_CUE = {'human': HUMAN_CUE, 'assistant': ASSISTANT_CUE}
_TURN = re.compile(r'\n\n(Human|Assistant):( ?)')


class Turn(NamedTuple):
  """What one side said. gap: what stands between the marker and the text, one space as a rule."""
  role: str
  text: str
  gap: str = ' '


def parse(text):
  """The turns of a transcript: `render(parse(text)) == text`, to the byte.

  Roles may repeat and texts may be empty; a marker inside an answer starts a turn like any other.
  """
  head, *pieces = _TURN.split(text)
  if head:
    raise ValueError(f'a transcript starts with {HUMAN_CUE!r} or {ASSISTANT_CUE!r}, '
                     f'not with {head[:40]!r}')
  return [Turn(role.lower(), said, gap)
          for role, gap, said in zip(pieces[::3], pieces[1::3], pieces[2::3], strict=True)]


def render(turns):
  """The transcript of a list of turns."""
  return ''.join(_CUE[turn.role] + turn.gap + turn.text for turn in turns)


def split_pair(chosen, rejected):
  """(prompt, chosen answer, rejected answer) of two transcripts of one conversation.

  The prompt is the longest common prefix that ends in `ASSISTANT_CUE`; answers keep their leading
  space, so prompt + answer is the transcript and the first answer token is the same word piece as
  in the middle of a sentence. An answer may hold further turns (a few dozen published ones do).
  """
  end = len(chosen)
  while (start := chosen.rfind(ASSISTANT_CUE, 0, end)) >= 0:
    fork = start + len(ASSISTANT_CUE)
    if rejected.startswith(chosen[:fork]):
      return chosen[:fork], chosen[fork:], rejected[fork:]
    end = start
  raise ValueError(f'the two transcripts share no prefix that ends in {ASSISTANT_CUE!r}: '
                   f'{chosen[:40]!r}, {rejected[:40]!r}')


def truncate_left(prompt_ids, answer_ids, context):
  """The end of the prompt that fits before the answer in `context` tokens; answers are never cut.

  A score is read on an end-of-context token behind the answer: leave one token for it.
  """
  room = context - len(answer_ids)
  if room < 0:
    raise ValueError(f'an answer of {len(answer_ids)} tokens does not fit into {context}: '
                     'drop the pair or raise the context')
  return prompt_ids[max(len(prompt_ids) - room, 0):]
