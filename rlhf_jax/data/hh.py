"""The published comparisons of Bai et al. 2022 (section 2.3) as a TFDS builder and as columns.

Files (`hh-rlhf/<subset>/{train,test}.jsonl.gz`, local or downloaded) -> prepared array_record data
in a cache -> `load_pairs`: prompt, chosen answer, rejected answer. TensorFlow is never imported.
The release holds the comparisons kept for training: no strengths, no ties. Checksums of the
published files are not part of this package: TFDS records those of the first download beside it.
"""
import hashlib
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
  transcript. dropped: {kind: (count, one example)} of the records that are not here."""
  prompt: np.ndarray
  chosen: np.ndarray
  rejected: np.ndarray
  subset: np.ndarray
  split: np.ndarray
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
      lost = [('unreadable', problem) for problem in problems]
      for i, record in enumerate(builder.as_data_source(split)):
        pair, kind = _pair(*(record[field].decode() for field in FIELDS))
        if kind:
          lost.append((kind, f'{subset}/{split}, record {i}'))
        else:
          columns.append((*pair, subset, split))
      for kind, example in lost:
        count, first = dropped.get(kind, (0, example))
        dropped[kind] = (count + 1, first)
  prompt, chosen, rejected, subset, split = np.array(columns, object).reshape(-1, 5).T
  return Pairs(prompt, chosen, rejected, subset.astype(str), split.astype(str), dropped)


def prepare(subset, folder, cache):
  """The builder of a subset with its data prepared under `cache`; folder None: downloads.

  The place is named by the digest of the source files, so changed files are prepared anew, and is
  filled elsewhere and then renamed, so it is whole or not there.
  """
  files, key = None, 'published'
  if folder is not None:
    files = {split: Path(folder) / 'hh-rlhf' / subset / f'{split}.jsonl.gz' for split in SPLITS}
    for path in files.values():
      if not path.is_file():
        raise FileNotFoundError(f'{path} does not exist: put the published files there, or name '
                                'the subsets that you have')
    key = sources.digest(files.values())[:16]
  builder = HhRlhf(config=subset, data_dir=Path(cache) / key, files=files)
  try:
    builder.download_and_prepare(
      download_dir=Path(cache) / 'downloads', file_format='array_record',
      download_config=tfds.download.DownloadConfig(
        try_download_gcs=False, force_checksums_validation=False))
  except (OSError, tfds.download.DownloadError) as error:
    if files is None:
      raise ConnectionError(f'no {subset} from {PUBLISHED}: name a folder that holds hh-rlhf/ in '
                            f'{sources.DATA_VARIABLE} ({type(error).__name__}: {error})') from error
    if not builder.data_path.exists():      # else another process was first
      raise
  return HhRlhf(config=subset, data_dir=Path(cache) / key, files=files)


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
  return np.array([_uniform(prompt) < fraction for prompt in prompts], bool)


def _uniform(prompt):
  """A number in [0, 1) that belongs to the first human turn."""
  first = next((t.text for t in dialogue.parse(prompt) if t.role == 'human'), '')
  return int.from_bytes(hashlib.sha256(first.strip().encode()).digest()[:8], 'big') / 2 ** 64
