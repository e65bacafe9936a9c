"""What two runs of one config have in common in their files."""
import json


def metrics(path):
  """The lines of metrics.jsonl without the seconds."""
  return [{name: value for name, value in json.loads(line).items() if not name.startswith('time/')}
          for line in (path / 'metrics.jsonl').read_text().splitlines()]


def columns(read):
  """The columns of `rundir.read_metrics` without the seconds."""
  return {name: column for name, column in read.items() if not name.startswith('time/')}
