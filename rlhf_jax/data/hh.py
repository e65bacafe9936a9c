"""The published comparisons of Bai et al. 2022 (section 2.3) as a TFDS builder and as columns.

Files (`hh-rlhf/<subset>/{train,test}.jsonl.gz`, local or downloaded) -> prepared array_record data
in a cache -> `load_pairs`: prompt, chosen answer, rejected answer. TensorFlow is never imported.
The release holds the comparisons kept for training: no strengths, no ties. Checksums of the
published files are not part of this package: TFDS records those of the first download beside it.
"""
import functools
import urllib.request
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from rlhf_jax.data import dialogue, sources

SUBSETS = ('helpful-base', 'helpful-online', 'helpful-rejection-sampled', 'harmless-base')
SPLITS = ('train', 'test')
FIELDS = ('chosen', 'rejected')
PUBLISHED = 'https://raw.githubusercontent.com/anthropics/hh-rlhf/master'


class Pairs(NamedTuple):
  """Comparisons as columns [N]: prompt, chosen and rejected are texts with prompt + answer the
  transcript. where: file and record. dropped: {kind: (count, one example)} of what is not here."""
  prompt: np.ndarray
  chosen: np.ndarray
  rejected: np.ndarray
  subset: np.ndarray
  split: np.ndarray
  where: np.ndarray
  dropped: dict


class HhRlhf(tfds.core.GeneratorBasedBuilder):
  """One subset a config, records in the order of the file, unreadable lines in the metadata.

  files: {split: path}; without it the published files are downloaded.
  """
  VERSION = tfds.core.Version('1.0.0')
  BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=subset) for subset in SUBSETS]
  code_path = Path(__file__)      # else TFDS looks for it with a package that it does not install

  def __init__(self, *, files=None, **options):
    self.files = files
    super().__init__(**options)

  def _info(self):
    return tfds.core.DatasetInfo(
      builder=self, homepage='https://github.com/anthropics/hh-rlhf', disable_shuffling=True,
      features=tfds.features.FeaturesDict({field: tfds.features.Text() for field in FIELDS}),
      metadata=tfds.core.MetadataDict())

  def _split_generators(self, dl_manager):
    urls = {split: f'{PUBLISHED}/{self.builder_config.name}/{split}.jsonl.gz' for split in SPLITS}
    if not self.files:      # fail at once where there is no network: TFDS would try for minutes
      request = urllib.request.Request(urls['train'], method='HEAD')
      urllib.request.urlopen(request, timeout=30).close()
    files = self.files or dl_manager.download(urls)
    return {split: self._generate_examples(split, files[split]) for split in SPLITS}

  def _generate_examples(self, split, path):
    records, self.info.metadata[split] = sources.read_jsonl(path, FIELDS, on_error='skip')
    if not records:
      raise ValueError(f'{path}: not one readable record')
    for i, record in enumerate(records):
      yield i, {field: record[field] for field in FIELDS}


def load_pairs(data_dir=None, cache_dir=None, on_error='raise', subsets=SUBSETS):
  """All comparisons that can be used, and a count of the rest.

  Pairs without a common prompt, identical ones and those with an empty answer are left out, as
  they say nothing about which answer is better. An unreadable line is an error, or is counted with
  on_error='skip'. The folders default as in `sources.data_dir` and `sources.cache_dir`.
  """
  folder, cache = sources.data_dir(data_dir), sources.cache_dir(cache_dir)
  columns, dropped = [], {}
  for subset in subsets:
    builder = prepare(subset, folder, cache)
    for split in SPLITS:
      problems = builder.info.metadata[split]
      if problems and on_error != 'skip':
        raise ValueError(f"{problems[0]} (on_error='skip' leaves such lines out)")
      for problem in problems:
        sources.tally(dropped, 'unreadable', problem)
      for i, record in enumerate(builder.as_data_source(split)):
        pair, kind = _pair(*(record[field].decode() for field in FIELDS))
        where = f'{subset}/{split}, record {i}'
        if kind:
          sources.tally(dropped, kind, where)
        else:
          columns.append((*pair, subset, split, where))
  *texts, subset, split, where = np.array(columns, object).reshape(-1, 6).T
  return Pairs(*texts, subset.astype(str), split.astype(str), where, dropped)


def prepare(subset, folder, cache):
  """The builder of a subset with its data prepared under `cache`; folder None: downloads.

  The place is named by the digest of the source files, so changed files are prepared anew.
  """
  files, key = None, 'published'
  if folder is not None:
    files = {split: Path(folder) / 'hh-rlhf' / subset / f'{split}.jsonl.gz' for split in SPLITS}
    for path in files.values():
      if not path.is_file():
        raise FileNotFoundError(f'{path} does not exist: put the published files there, or name '
                                'the subsets that you have')
    key = sources.digest(files.values())[:16]
  make = functools.partial(HhRlhf, config=subset, data_dir=Path(cache) / key, files=files)
  try:
    return sources.prepare(make, cache)
  except (OSError, tfds.download.DownloadError) as error:
    if files is not None:
      raise
    raise ConnectionError(f'no {subset} from {PUBLISHED}: name a folder that holds hh-rlhf/ in '
                          f'{sources.DATA_VARIABLE} ({type(error).__name__}: {error})') from error


def _pair(chosen, rejected):
  """((prompt, chosen answer, rejected answer), None), or (None, the reason to leave it out)."""
  if chosen == rejected:
    return None, 'identical'
  try:
    pair = dialogue.split_pair(chosen, rejected)
  except ValueError:
    return None, 'no_common_prompt'
  return (pair, None) if pair[1].strip() and pair[2].strip() else (None, 'empty_answer')


def validation_mask(prompts, fraction=0.05):
  """Which prompts belong to validation, by a hash of the first human turn.

  It depends on nothing else, so all comparisons of one conversation, in any subset and any order,
  are on one side; the share is `fraction` only on average.
  """
  return np.array([sources.uniform(_first_turn(p).strip()) < fraction for p in prompts], bool)


def _first_turn(prompt):
  return next((t.text for t in dialogue.parse(prompt) if t.role == 'human'), '')
