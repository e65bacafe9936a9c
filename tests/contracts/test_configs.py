"""Every config file: it builds, names its main, has a smoke variant and no unknown setting."""
import importlib
import json
import re
from pathlib import Path

import numpy as np
import pytest

from rlhf_jax.core import mesh
from rlhf_jax.models import sizes
from rlhf_jax.run import config

ROOT = Path(__file__).parents[2]
FILES = sorted(path for path in (ROOT / 'configs').rglob('*.py')
               if path.stem not in ('__init__', 'presets'))


def variants(path):
  """The names a file knows, from its own message about one it does not know."""
  with pytest.raises(ValueError, match=r'^config variant .no such. is unknown: use one of ') as error:
    config.load(f'{path}:no such')
  return str(error.value).split('use one of ')[1].split(', ')


CASES = [(path, name) for path in FILES for name in variants(path)]
each = pytest.mark.parametrize('path, name', CASES, ids=[f'{p.stem}:{n}' for p, n in CASES])


def test_every_file_has_a_smoke_variant():
  assert len(FILES) >= 5
  assert {p for p, name in CASES if name == 'smoke'} == set(FILES)


@each
def test_it_builds_and_names_its_main(path, name):
  made = config.load(f'{path}:{"" if name == "default" else name}')
  assert importlib.util.find_spec(made.main) is not None
  assert callable(importlib.import_module(made.main).run)
  assert json.loads(json.dumps(made.to_dict())) is not None
  name = path.relative_to(ROOT)
  assert re.search(rf'python -m {made.main} --config={name} --workdir=', path.read_text())
  assert 'Expected' in path.read_text()


@each
def test_its_numbers_fit_one_another(path, name):
  """On the eight devices of this process, as on one."""
  made = config.load(f'{path}:{name}')
  if 'model' in made:
    sizes.config(made.model.name, **{k: v for k, v in made.model.items()
                                     if k != 'name' and v is not None})
  for key, value in config.flatten(made):
    last = key.rsplit('.', 1)[-1]
    if last in ('batch_size', 'sample_batch'):
      mesh.check_batch(value, mesh.make(8))
    if last.endswith('_every') or last in ('steps', 'epochs', 'microbatches', 'minibatches'):
      assert np.min(value) >= 1, key
    if last == 'learning_rate':
      assert 0 < value < 0.1, key


def test_files_of_the_same_variant_share_data_and_model():
  """A stage refuses a model or tokenizer other than that of the stage before."""
  for name in ('default', 'smoke', 'hh'):
    stages = [config.load(f'{ROOT}/configs/{stem}.py:{name}') for stem in
              ('pretrain_lm', 'distill_context', 'train_pm', 'train_ppo')]
    assert len({json.dumps(made.model.to_dict()) for made in stages}) == 1
    assert len({made.data.source for made in stages}) == 1


def test_an_override_changes_what_it_names_and_nothing_else():
  made, options = config.parse([f'--config={ROOT}/configs/train_ppo.py:smoke', '--workdir=x',
                                '--config.ppo.kl_coef=1', '--config.model.name=13M'])
  plain = dict(config.flatten(config.load(f'{ROOT}/configs/train_ppo.py:smoke')))
  changed = {k: v for k, v in config.flatten(made) if plain[k] != v}
  assert changed == {'ppo.kl_coef': 1.0, 'model.name': '13M'}
