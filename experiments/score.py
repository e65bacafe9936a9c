"""Scores every dialogue of a file by a preference model, as a batch job that can be killed.

  python -m experiments.score --config=configs/score.py --workdir=runs/scores \\
    --config.preference_model=runs/pm --config.file=dialogues.jsonl.gz

Dialogues in: one JSON object a line, `text`, or `chosen` and `rejected`. Scores out:
`scores.jsonl`, one line for each that is not blank, with its number. Parts of the file are scored and
written one after another; the same command again goes on behind the last whole part, and the file is
then the one that an uninterrupted job would have written.
"""
from pathlib import Path

from tqdm import tqdm

from rlhf_jax.core import rundir
from rlhf_jax.data import sources
from rlhf_jax.run import build, scoring
from rlhf_jax.run.config import main, to_dict
from rlhf_jax.run.train import Clock, finish


def run(config, workdir):
  """The counts of `scoring.summary`, and answers a second of this process, compilation included."""
  answers = scoring.check(config.file, config.on_error)
  mesh = build.mesh(config, config.batch_size)
  judge, score = build.judge(config.preference_model, mesh)
  widths = rundir.read_config(config.preference_model)['widths']
  settings = to_dict(config) | {'file_sha256': sources.digest([config.file])}
  if rundir.open_run(workdir, settings) == 'done':
    return rundir.read_summary(workdir)
  scores = scoring.scorer(judge, score, widths, config.batch_size, mesh)
  output = Path(workdir, 'scores.jsonl')
  done, clock = scoring.whole_parts(output, config.part), Clock()
  with tqdm(total=answers, desc='       scoring', unit='answer') as bar, open(output, 'ab') as file:
    for number, part in enumerate(scoring.parts(config.file, config.part)):
      if number < done:
        bar.update(sum(len(item[1]) for _, item in part if not isinstance(item, ValueError)))
        bar.initial = bar.n
        continue
      encoded = scoring.encode(part, config.file, judge.tokenizer, max(widths), config.on_error)
      file.write(scoring.lines(encoded, scores, bar.update))
      file.flush()
  rate = (bar.n - bar.initial) / max(clock(), 0.1)
  summary = scoring.summary(output) | {'answers_per_second': rate, 'wall_seconds': clock()}
  finish(workdir, summary, f"{summary['answers']} answers of {summary['lines']} lines, "
         f"{summary['problems']} problems, {rate:.0f} answers a second ({clock():.0f} s)")
  return summary


if __name__ == '__main__':
  main(run)
