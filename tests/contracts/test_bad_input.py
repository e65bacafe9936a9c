"""What a user can get wrong: one line that says what to do, exit code 2, before anything compiles."""
import gzip
import importlib
import json
import shutil

import pytest

from experiments import sweep
from rlhf_jax.core import rundir
from rlhf_jax.data import hh, oracle, tokenizer
from rlhf_jax.models import sizes
from rlhf_jax.run import config
from tests.contracts.conftest import ROOT


@pytest.fixture
def refused(capsys, monkeypatch, caplog):
  """refused(name of a config, *arguments) -> the one line of a command that was refused."""
  monkeypatch.chdir(ROOT)
  monkeypatch.setattr(config, 'prepare_backend', lambda: None)       # a setting of the whole process
  def run(name, *arguments):
    caplog.clear()
    main = importlib.import_module(f'experiments.{name.partition(":")[0]}')
    argv = [f'--config=configs/{name.partition(":")[0]}.py:{name.partition(":")[2]}', *arguments]
    with pytest.raises(SystemExit) as stop:
      config.main(main.run, argv)
    assert stop.value.code == 2
    *before, line = capsys.readouterr().err.splitlines()
    assert line.startswith('error: ') and not any('error' in x.lower() for x in before)
    return line
  return run


def test_unknown_key(refused, tmp_path):
  line = refused('train_ppo:smoke', f'--workdir={tmp_path}/w', '--config.ppo.klcoef=0.1')
  assert 'config.ppo.klcoef is unknown; did you mean config.ppo.kl_coef?' in line
  assert not (tmp_path / 'w').exists()


def test_the_config_of_another_main(capsys, monkeypatch, tmp_path):
  from experiments import train_pm
  monkeypatch.chdir(ROOT)
  with pytest.raises(SystemExit):
    config.main(train_pm.run, ['--config=configs/train_ppo.py:smoke', f'--workdir={tmp_path}/w'])
  assert ('configs/train_ppo.py:smoke is a config of experiments.train_ppo, not of experiments.train_pm'
          in capsys.readouterr().err)


@pytest.mark.parametrize('name', ['train_ppo:smoke', 'train_pm:smoke', 'distill_context:smoke'])
def test_missing_upstream_run(refused, tmp_path, name):
  key = {'train_ppo': 'policy', 'train_pm': 'init', 'distill_context': 'teacher'}[name.split(':')[0]]
  line = refused(name, f'--workdir={tmp_path}/w', f'--config.{key}={tmp_path}/nowhere')
  assert f'{tmp_path}/nowhere' in line and 'does not exist' in line
  assert not (tmp_path / 'w').exists()                      # nothing left behind to be refused later


def test_missing_data_folder(refused, tmp_path):
  line = refused('pretrain_lm:hh', f'--workdir={tmp_path}/w', f'--config.data.dir={tmp_path}/nowhere')
  assert f'{tmp_path}/nowhere does not exist' in line
  assert not (tmp_path / 'w').exists()


def test_a_batch_that_does_not_divide(refused, tmp_path):
  line = refused('pretrain_lm:smoke', f'--workdir={tmp_path}/w', '--config.batch_size=12')
  assert '12 rows does not divide over data * fsdp = 8: use 16' in line or 'use 8' in line
  line = refused('pretrain_lm:smoke', f'--workdir={tmp_path}/w', '--config.microbatches=3')
  assert 'does not divide into 3 parts: use 15 rows' in line
  assert not (tmp_path / 'w').exists()


def test_an_unknown_optimizer(refused, tmp_path):
  for setting, says in (('name=lion', "config.optimizer.name='lion' is unknown: use adam, muon"),
                        ('decay=step', "schedule 'step' is unknown"),
                        ('clip=0', 'config.optimizer.clip=0 makes every gradient 0'),
                        ('warmup=1000', 'config.optimizer.warmup=1000.0: use 0 to 1'),
                        ('weight_decay=0.1', 'config.optimizer.weight_decay=0.1 is for adam only')):
    line = refused('pretrain_lm:smoke', f'--workdir={tmp_path}/w', f'--config.optimizer.{setting}')
    assert says in line
    assert not (tmp_path / 'w').exists()


def test_an_impossible_mesh(refused, tmp_path):
  line = refused('pretrain_lm:smoke', f'--workdir={tmp_path}/w', '--config.mesh.tensor=3')
  assert 'does not fit 8 devices' in line


def test_an_unknown_world_and_size(refused, tmp_path):
  for setting, says in (('data.source=web', 'use oracle, hh'),
                        ('data.source=hh', "config.data has those of another source: take the variant"),
                        ('model.name=huge', "model size 'huge' is unknown"),
                        ('length=2048', '2048 columns do not fit model micro'),
                        ('log_every=0', 'config.log_every=0: use 1 or more'),
                        ('steps=0', 'config.steps=0: use 1 or more')):
    line = refused('pretrain_lm:smoke', f'--workdir={tmp_path}/a', f'--config.{setting}')
    assert says in line and not (tmp_path / 'a').exists()


def test_every_stage_of_the_pipeline_is_looked_at_before_the_first_begins(refused, tmp_path):
  for setting, says in (('ppo.ppo.minibatches=3', '16 rows does not divide into 3 parts'),
                        ('pm.kinds=("juggle",)', 'config.kinds names juggle, and the data have'),
                        ('policy.eval_rows=0', 'config.eval_rows=0'),
                        ('lm.eval_every=0', 'config.lm.eval_every=0: use 1 or more')):
    assert says in refused('quickstart:smoke', f'--workdir={tmp_path}/a', f'--config.{setting}')
    assert not (tmp_path / 'a').exists()


def test_a_study_looks_at_its_stages_too(refused, tmp_path):
  for name, stage in (('pm_study', 'pm'), ('pm_study', 'lm'), ('pm_study', 'policy'),
                      ('robustness', 'ppo')):
    line = refused(f'{name}:smoke', f'--workdir={tmp_path}/a', f'--config.{stage}.optimizer.name=lion')
    assert "config.optimizer.name='lion' is unknown" in line and not (tmp_path / 'a').exists()


def test_a_run_of_another_kind_is_named_as_what_it_is(refused, pipeline, tmp_path):
  common, (policy, judge) = [f'--workdir={tmp_path}/w'], stages(pipeline)
  line = refused('train_ppo:smoke', *common, policy, f'--config.preference_model={pipeline.path}/lm')
  assert f'{pipeline.path}/lm gives no scores: name a run of experiments.train_pm ' \
    '(config.preference_model)' in line
  line = refused('train_ppo:smoke', *common, judge, f'--config.policy={pipeline.path}/pm')
  assert f'{pipeline.path}/pm is a preference model: name a run of experiments.pretrain_lm' in line
  line = refused('train_ppo:smoke', *common, judge, f'--config.policy={tmp_path}')
  assert f'{tmp_path}/config.json does not exist: name the folder of a run (config.policy)' in line
  line = refused('elo:smoke', *common, f'--config.policies={pipeline.path}/policy,')
  assert 'Elo compares two policies or more, a comma between' in line
  assert not (tmp_path / 'w').exists()


def test_comparisons_by_a_policy_that_is_not_there(refused, pipeline, tmp_path):
  line = refused('train_pm:smoke', f'--workdir={tmp_path}/w', f'--config.init={pipeline.path}/lm',
                 f'--config.policy={tmp_path}/nowhere')
  assert f'{tmp_path}/nowhere' in line and 'does not exist' in line
  assert not (tmp_path / 'w').exists()


def stages(pipeline):
  return [f'--config.policy={pipeline.path}/policy', f'--config.preference_model={pipeline.path}/pm']


def test_a_model_that_is_not_the_checkpoints(refused, pipeline, tmp_path):
  common = [f'--workdir={tmp_path}/w', *stages(pipeline)]
  line = refused('train_ppo:smoke', *common, '--config.model.name=tiny')
  assert 'holds a model with name micro and config.model.name is tiny: set it to micro' in line
  line = refused('train_ppo:smoke', *common, '--config.model.vocab_size=600')
  assert 'vocab_size 512 and config.model.vocab_size is 600' in line
  line = refused('train_ppo:smoke', *common, '--config.ppo.kl_target=1.0', '--config.ppo.kl_coef=0.0')
  assert 'config.ppo.kl_target=1.0 is held by a factor on config.ppo.kl_coef' in line
  line = refused('train_ppo:smoke', *common, '--config.ppo.helpful_share=2')
  assert 'config.ppo.helpful_share=2.0 is no share: use 0 to 1, or None' in line
  line = refused('train_ppo:smoke', *common, '--config.ppo.minibatches=3')
  assert '16 rows does not divide into 3 parts' in line
  assert not (tmp_path / 'w').exists()


def test_another_tokenizer(refused, pipeline, tmp_path):
  """A vocabulary of the same size in which two bytes have each other's id."""
  shutil.copytree(pipeline.path / 'pm', tmp_path / 'pm')
  tokenizer = json.loads((tmp_path / 'pm' / 'tokenizer.json').read_text())
  ids = tokenizer['model']['vocab']
  ids['!'], ids['#'] = ids['#'], ids['!']
  (tmp_path / 'pm' / 'tokenizer.json').write_text(json.dumps(tokenizer))
  line = refused('train_ppo:smoke', f'--workdir={tmp_path}/w', stages(pipeline)[0],
                 f'--config.preference_model={tmp_path}/pm')
  assert f'the policy and {tmp_path}/pm were trained with different tokenizers' in line
  assert not (tmp_path / 'w').exists()


def test_ppo_settings_are_refused_before_a_run_is_opened(refused, pipeline, tmp_path):
  for setting, says in (('value_init=pm', "config.ppo.value_init='pm' is unknown"),
                        ('prompts=0', 'config.ppo.prompts=0 gives no prompts'),
                        ('samples=8', 'config.ppo.samples=8 is less than one batch')):
    line = refused('train_ppo:smoke', f'--workdir={tmp_path}/w', *stages(pipeline),
                   f'--config.ppo.{setting}')
    assert says in line
    assert not (tmp_path / 'w').exists()


def test_test_models_of_one_name(refused, pipeline, tmp_path):
  line = refused('train_ppo:smoke', f'--workdir={tmp_path}/w', *stages(pipeline),
                 f'--config.test_models=("{pipeline.path}/pm", "{pipeline.path}/../run/pm")')
  assert 'two preference models are named pm' in line
  assert not (tmp_path / 'w').exists()


def test_test_models_that_are_called_as_a_kind_of_prompt(refused, pipeline, tmp_path):
  line = refused('train_ppo:smoke', f'--workdir={tmp_path}/w', *stages(pipeline),
                 f'--config.test_models={tmp_path}/helpful,')
  assert 'config.test_models names a folder helpful, and score_helpful is the score of prompts' in line
  assert not (tmp_path / 'w').exists()


def test_a_temperature_that_divides_by_nothing(refused, pipeline, tmp_path):
  line = refused('generate_prompts:smoke', f'--workdir={tmp_path}/w', '--config.temperature=0',
                 f'--config.language_model={pipeline.path}/lm')
  assert 'config.temperature=0.0 divides the logits: use one above 0' in line
  assert not (tmp_path / 'w').exists()


def test_no_comparisons_to_train_on(refused, pipeline, tmp_path):
  line = refused('train_pm:smoke', f'--workdir={tmp_path}/w', f'--config.init={pipeline.path}/lm',
                 '--config.policy=', '--config.data.comparisons=0')
  assert 'no training comparisons are left: look at config.kinds, config.half and config.data' in line


def test_an_unknown_half(refused, pipeline, tmp_path):
  line = refused('train_pm:smoke', f'--workdir={tmp_path}/w', f'--config.init={pipeline.path}/lm',
                 '--config.half=c')
  assert "config.half='c' is unknown: use a, b, or ''" in line
  assert not (tmp_path / 'w').exists()


def test_a_teacher_file_that_does_not_fit(refused, pipeline, tmp_path):
  common = [f'--workdir={tmp_path}/w', f'--config.teacher={pipeline.path}/lm']
  named = [*common, f'--config.teacher_file={pipeline.path}/policy/teacher.array_record']
  line = refused('distill_context:smoke', *named, '--config.top_k=20')
  assert 'keeps 50 log-probs a token and config.top_k is 20: set it to 50' in line
  line = refused('distill_context:smoke', *common, f'--config.teacher_file={tmp_path}/nowhere')
  assert f'{tmp_path}/nowhere: no teacher file here' in line
  other = tmp_path / 'lm'                                    # a student that knows other tokens
  shutil.copytree(pipeline.path / 'lm', other)
  size = tokenizer.load(other / 'tokenizer.json').vocab_size
  texts = [*oracle.training_texts(0), ' queuing fjords vex my glyph' * 99]
  tokenizer.train(texts, size).save(other / 'tokenizer.json')
  line = refused('distill_context:smoke', *named, f'--config.init={other}')
  assert 'was made with another tokenizer than the student has' in line
  line = refused('distill_context:smoke', *common, f'--config.init={other}')
  assert f'{pipeline.path}/lm and {other} were trained with different tokenizers' in line
  line = refused('distill_context:smoke', *common, '--config.generic_share=1.0')
  assert 'config.generic_share=1.0 is no share of texts beside dialogues' in line
  assert not (tmp_path / 'w').exists()


def test_a_folder_that_holds_another_run(refused, pipeline):
  before = (pipeline.path / 'ppo' / 'config.json').read_bytes()
  line = refused('train_ppo:smoke', f'--workdir={pipeline.path}/ppo', *stages(pipeline),
                 '--config.ppo.kl_coef=0.5')
  assert 'holds a run of another config' in line
  assert (pipeline.path / 'ppo' / 'config.json').read_bytes() == before
  line = refused('train_ppo:smoke', f'--workdir={pipeline.path}/ppo/checkpoints', *stages(pipeline))
  assert 'has no config.json, so it is not a run' in line


def test_answers_that_do_not_fit_behind_the_prompts(refused, pipeline, tmp_path):
  line = refused('train_ppo:smoke', f'--workdir={tmp_path}/w', *stages(pipeline),
                 '--config.ppo.answer_width=5000')
  prompt, context = (int(line.partition(f'{word} ')[2].split()[0]) for word in ('prompts of', 'the'))
  assert context == sizes.config('micro', vocab_size=512).context
  assert 'answers of 5000 tokens do not fit into the' in line
  assert f'lower config.ppo.answer_width to {context - prompt} or fewer, or use one' in line
  assert not (tmp_path / 'w').exists()


def test_an_answer_longer_than_the_context(refused, pipeline, tmp_path):
  start = '\n\nHuman: hello there\n\nAssistant:'
  record = {'chosen': start + ' pot' * 60, 'rejected': start + ' no'}
  for subset in hh.SUBSETS:
    for split in ('train', 'test'):
      path = tmp_path / 'data' / 'hh-rlhf' / subset / f'{split}.jsonl.gz'
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(gzip.compress((json.dumps(record) + '\n').encode() * 3))
  line = refused('train_pm:hh', f'--workdir={tmp_path}/w', f'--config.init={pipeline.path}/lm',
                 '--config.model.name=micro', '--config.model.vocab_size=512',
                 f'--config.data.dir={tmp_path}/data', f'--config.data.cache_dir={tmp_path}/cache',
                 '--config.data.context=20', '--config.data.long_answers=error')
  assert 'does not fit into config.data.context=20 with the end-of-context token: use ' in line


def test_a_run_without_its_summary_says_so(tmp_path):
  (tmp_path / 'config.json').write_text('{}')
  with pytest.raises(FileNotFoundError, match='summary.json does not exist: the run has not got'):
    rundir.read_summary(tmp_path)


def test_a_study_is_refused_before_its_first_model(refused, tmp_path):
  for name, setting, says in (
    ('pm_study:smoke', "sizes=('nano',)", "model size 'nano' is unknown: use one of micro"),
    ('pm_study:smoke', 'pm.take=300', 'config.take=300 of config.data.comparisons=256'),
    ('pm_study:smoke', f'base={tmp_path}/nowhere', 'nowhere is no folder: name that of a study'),
    ('robustness:smoke', 'sampler=nano', "model size 'nano' is unknown"),
    ('robustness:smoke', "halves=('a','c')", "config.half='c' is unknown"),
    ('robustness:smoke', 'seeds=1', 'config.seeds=1 gives no interval')):
    assert says in refused(name, f'--workdir={tmp_path}/w', f'--config.{setting}')
    assert not (tmp_path / 'w').exists()


def test_a_folder_with_another_sweep_is_refused_before_anything_runs(tmp_path, monkeypatch):
  """A run of another seed or another value of what is swept may stand there, as for one report."""
  monkeypatch.chdir(ROOT)
  def checked(old, setting):
    made = sweep.points('configs/train_ppo.py', 'kl')
    config.override(made[0][2], *setting)
    (tmp_path / 'old').mkdir(exist_ok=True)
    other = config.load('configs/train_ppo.py')
    for key, value in old.items():
      config.override(other, key, value)
    (tmp_path / 'old' / 'config.json').write_text(json.dumps(config.to_dict(other)))
    sweep.check_folder(tmp_path, [str(tmp_path / 'new')], made)
  checked({'seed': 7, 'ppo.kl_coef': 0.7}, ('seed', 1))
  with pytest.raises(FileExistsError, match='another sweep: config.eval_every is 2 there and 3 here'):
    checked({'eval_every': 2}, ('seed', 1))
