"""Shows that the tests can fail: each mutant breaks one line, and its test must turn red.

Usage: python tests/mutants.py [part of a file name, of a text or of a test id]
Every mutant runs in its own copy of the tree, so the working tree is never touched. A mutant counts
as killed only when its test ran and failed; one that cannot even be imported proves nothing.
"""
import collections
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
COPIED = ('rlhf_jax', 'experiments', 'configs', 'tests', 'pyproject.toml')
AT_ONCE = 2
SECONDS = 300


class Mutant(NamedTuple):
  file: str           # under rlhf_jax/
  text: str           # occurs once in the file
  replacement: str
  test: str           # under tests/


GAE, PPO, KL = 'algorithms/gae.py', 'algorithms/ppo.py', 'algorithms/kl.py'
PREFERENCE, DISTILLATION = 'algorithms/preference.py', 'algorithms/distillation.py'
BEST_OF_N, LANGUAGE_MODEL = 'algorithms/best_of_n.py', 'algorithms/language_model.py'
TEST_GAE, TEST_PPO = 'algorithms/test_gae.py::test_', 'algorithms/test_ppo.py::test_'
TEST_KL, TEST_PREFERENCE = 'algorithms/test_kl.py::test_', 'algorithms/test_preference.py::test_'
TEST_DISTILLATION = 'algorithms/test_distillation.py::test_'
TEST_BEST_OF_N = 'algorithms/test_best_of_n.py::test_'
TEST_LANGUAGE_MODEL = 'algorithms/test_language_model.py::test_'

MUTANTS = [
    Mutant(GAE, 'value_next_B - value_B\n', 'value_next_B + value_B\n', TEST_GAE + 'fixed_numbers'),
    Mutant(GAE, 'discount * lam * advantage', 'lam * advantage', TEST_GAE + 'fixed_numbers'),
    Mutant(GAE, 'jnp.where(on_B, value_B, value_next_B)', 'value_B',
           TEST_GAE + 'a_gap_is_as_if_it_were_not_there'),
    Mutant(GAE, 'jnp.where(on_B, advantage_B, advantage_next_B)', 'advantage_B * on_B',
           TEST_GAE + 'equals_the_naive_loop_with_gaps_and_empty_rows'),
    Mutant(GAE, 'masked.select(value_BT, mask_BT).T', 'value_BT.T',
           TEST_GAE + 'nothing_outside_the_mask_leaks_into_values_or_gradients'),
    Mutant(GAE, '(advantage_TB + value_TB).T', 'advantage_TB.T', TEST_GAE + 'fixed_numbers'),

    Mutant(PPO, 'return score_BT - jnp', 'return score_BT + jnp',
           TEST_PPO + 'rewards_two_answers_by_hand'),
    Mutant(PPO, 'masked.select(kl.k1(logp_BT, ref_logp_BT), mask_BT)',
           'kl.k1(logp_BT, ref_logp_BT)', TEST_PPO + 'rewards_two_answers_by_hand'),
    Mutant(PPO, '(following_BT == 1)', '(following_BT == 2)',
           TEST_PPO + 'rewards_two_answers_by_hand'),
    Mutant(PPO, 'on_BT & (following', '(following',
           TEST_PPO + 'rewards_an_empty_row_and_garbage_outside_the_mask_give_nothing'),
    Mutant(PPO, 'jnp.reshape(jnp.asarray(kl_coef, jnp.float32), (-1, 1))',
           'jnp.asarray(kl_coef, jnp.float32)', TEST_PPO + 'rewards_a_coefficient_per_row'),
    Mutant(PPO, 'weight_BT = rollout.mask_BT * rollout.weight_B[:, None]',
           'weight_BT = rollout.mask_BT',
           TEST_PPO + 'experience_is_rewards_then_advantages_with_the_weights_of_rows'),
    Mutant(PPO, 'masked.whiten(advantage_BT, weight_BT)',
           'masked.whiten(advantage_BT, jnp.ones_like(weight_BT))',
           TEST_PPO + 'experience_whitened_advantages_have_weighted_mean_0_and_variance_1'
           '_and_keep_their_order'),
    Mutant(PPO, 'jax.lax.stop_gradient(Experience(rollout, advantage_BT, return_BT, weight_BT))',
           'Experience(rollout, advantage_BT, return_BT, weight_BT)',
           TEST_PPO + 'experience_no_gradient_passes_through'),
    Mutant(PPO, 'return -(weight_BT * jnp.minimum(', 'return (weight_BT * jnp.minimum(',
           TEST_PPO + 'policy_four_corners_by_hand'),
    Mutant(PPO, 'jnp.minimum(ratio', 'jnp.maximum(ratio', TEST_PPO + 'policy_four_corners_by_hand'),
    Mutant(PPO, '1 - clip, 1 + clip)', '1 - clip, 1 + 2 * clip)',
           TEST_PPO + 'policy_four_corners_by_hand'),
    Mutant(PPO, 'return masked.select(logp_BT, weight_BT) - masked.select(old_logp_BT, weight_BT)',
           'return logp_BT - old_logp_BT',
           TEST_PPO + 'policy_weight_zero_hides_garbage_from_value_and_gradient'),
    Mutant(PPO, 'advantage_BT = masked.select(advantage_BT, weight_BT)\n', '\n',
           TEST_PPO + 'policy_weight_zero_hides_garbage_from_value_and_gradient'),
    Mutant(PPO, 'jnp.maximum(error_BT', 'jnp.minimum(error_BT',
           TEST_PPO + 'value_the_worse_of_clipped_and_unclipped_by_hand'),
    Mutant(PPO, 'old_BT - clip, old_BT + clip', 'return_BT - clip, return_BT + clip',
           TEST_PPO + 'value_the_worse_of_clipped_and_unclipped_by_hand'),
    Mutant(PPO, '0.5 * (weight_BT * error_BT).sum()', '0.5 * (weight_BT * error_BT).mean()',
           TEST_PPO + 'value_the_worse_of_clipped_and_unclipped_by_hand'),
    Mutant(PPO, "+ value_coef * aux['value_loss']", "- value_coef * aux['value_loss']",
           TEST_PPO + 'loss_terms_and_diagnostics_by_hand'),
    Mutant(PPO, 'total - entropy_coef', 'total + entropy_coef',
           TEST_PPO + 'loss_terms_and_diagnostics_by_hand'),
    Mutant(PPO, 'jnp.abs(ratio_BT - 1) > clip', 'ratio_BT - 1 < -clip',
           TEST_PPO + 'loss_terms_and_diagnostics_by_hand'),
    Mutant(PPO, 'kl.k3(0.0, log_ratio_BT)', 'kl.k3(log_ratio_BT, 0.0)',
           TEST_PPO + 'loss_terms_and_diagnostics_by_hand'),
    Mutant(PPO, '(weight_BT * ratio_BT * logp_BT)', '(weight_BT * logp_BT)',
           TEST_PPO + 'the_entropy_gradient_is_exact_on_average'),
    Mutant(PPO, '1 - unexplained / jnp', 'unexplained / jnp', TEST_PPO + 'explained_variance'),
    Mutant(PPO, 'masked.mean(x_B, weight_B)', 'x_B.mean()', TEST_PPO + 'diagnostics_by_hand'),
    Mutant(PPO, "'truncated': ~ended_B", "'truncated': mask_BT[:, -1]",
           TEST_PPO + 'diagnostics_by_hand'),
    Mutant(PPO, 'ended_B & (length_B == 1)', 'length_B == 1',
           TEST_PPO + 'a_one_token_answer_without_an_end_is_truncated_and_not_empty'),

    Mutant(KL, 'jnp.asarray(logp, jnp.float32) - jnp.asarray(ref_logp, jnp.float32)',
           'jnp.asarray(ref_logp, jnp.float32) - jnp.asarray(logp, jnp.float32)',
           TEST_KL + 'per_token_numbers_by_hand'),
    Mutant(KL, 'log_ratio = -k1(', 'log_ratio = k1(',
           TEST_KL + 'the_mean_over_the_policy_is_the_exact_kl'),
    Mutant(KL, 'jnp.expm1(log_ratio)', 'jnp.exp(log_ratio)', TEST_KL + 'per_token_numbers_by_hand'),
    Mutant(KL, 'masked.select(kl_BT, mask_BT)', 'kl_BT',
           TEST_KL + 'a_sequence_adds_up_its_masked_tokens_only'),
    Mutant(KL, '.sum(axis=1)', '.mean(axis=1)',
           TEST_KL + 'a_sequence_adds_up_its_masked_tokens_only'),
    Mutant(KL, 'target - 1, -0.2, 0.2)', 'target - 1, -1.0, 1.0)',
           TEST_KL + 'adaptive_coefficient'),
    Mutant(KL, '(1 + error', '(1 - error', TEST_KL + 'adaptive_coefficient'),

    Mutant(PREFERENCE, 'label_B * jax.nn.softplus(-gap_B)', 'label_B * jax.nn.softplus(gap_B)',
           TEST_PREFERENCE + 'weighted_soft_labels_by_hand'),
    Mutant(PREFERENCE, '(1 - label_B) * jax', 'label_B * jax',
           TEST_PREFERENCE + 'weighted_soft_labels_by_hand'),
    Mutant(PREFERENCE, '1 / gap_B.size', '1.0', TEST_PREFERENCE + 'weighted_soft_labels_by_hand'),
    Mutant(PREFERENCE, 'gap_B = masked.select(gap_B, weight_B)\n', '\n',
           TEST_PREFERENCE + 'only_score_differences_count_and_rows_of_weight_zero_do_not'),
    Mutant(PREFERENCE, 'jax.nn.softplus(-gap_B)', 'jnp.log(1 + jnp.exp(-gap_B))',
           TEST_PREFERENCE + 'huge_gaps_stay_finite_and_keep_their_slope'),
    Mutant(PREFERENCE, 'sign_B = jnp.sign(gap_B)', 'sign_B = jnp.where(gap_B > 0, 1, -1)',
           TEST_PREFERENCE + 'statistics_by_hand'),
    Mutant(PREFERENCE, '(score_N[::2], score_N[1::2],', '(score_N[1::2], score_N[::2],',
           TEST_PREFERENCE + 'one_pass_gives_the_two_losses_of_separate_passes'),
    Mutant(PREFERENCE, 'hidden_NTD[::2]', 'hidden_NTD[:len(hidden_NTD) // 2]',
           TEST_PREFERENCE + 'one_pass_gives_the_two_losses_of_separate_passes'),
    Mutant(PREFERENCE, 'batch.lm_weight_BT)', 'batch.chosen_valid_BT)',
           TEST_PREFERENCE + 'one_pass_gives_the_two_losses_of_separate_passes'),

    Mutant(DISTILLATION, '(teacher_BTK - student_BTK)', '(student_BTK - teacher_BTK)',
           TEST_DISTILLATION + 'number_by_hand'),
    Mutant(DISTILLATION, '+ jnp.where(rest_BT > _LEAST_REST, rest_kl_BT, 0.0)', '+ 0 * rest_kl_BT',
           TEST_DISTILLATION + 'number_by_hand'),
    Mutant(DISTILLATION, '_log_rest(teacher_BTK) - _log_rest(student_BTK)',
           '_log_rest(student_BTK) - _log_rest(teacher_BTK)', TEST_DISTILLATION + 'number_by_hand'),
    Mutant(DISTILLATION, 'jnp.minimum(jax.nn.logsumexp(logp_BTK, axis=-1), -_LEAST_REST)',
           'jax.nn.logsumexp(logp_BTK, axis=-1)',
           TEST_DISTILLATION + 'gradient_is_finite_when_the_top_holds_all_mass'),
    Mutant(DISTILLATION, 'student_BTK = masked.select(student_logp_BTK, weight_BT1)',
           'student_BTK = student_logp_BTK',
           TEST_DISTILLATION + 'impossible_categories_and_weight_zero_hide_everything'),
    Mutant(DISTILLATION, 'batch.top_id_BTK)', 'batch.top_id_BTK * 0 + 1)',
           TEST_DISTILLATION + 'loss_reads_the_student_at_the_teachers_ids'),

    Mutant(BEST_OF_N, 'jnp.log(n) - (n - 1) / n', 'jnp.log(n)',
           TEST_BEST_OF_N + 'kl_of_the_best_of_n'),
    Mutant(BEST_OF_N, 'math.comb(rank, n - 1)', 'math.comb(rank, n)',
           TEST_BEST_OF_N + 'one_of_one_is_sampling_and_all_of_them_is_the_maximum'),
    Mutant(BEST_OF_N, 'math.comb(candidates, n)', 'math.comb(candidates - 1, n)',
           TEST_BEST_OF_N + 'one_of_one_is_sampling_and_all_of_them_is_the_maximum'),
    Mutant(BEST_OF_N, 'jnp.argsort(score_K)', 'jnp.argsort(-score_K)',
           TEST_BEST_OF_N + 'one_of_one_is_sampling_and_all_of_them_is_the_maximum'),
    Mutant(BEST_OF_N, '* shared_K).sum()', '* value_K).sum()',
           TEST_BEST_OF_N + 'equals_brute_force'),

    Mutant(LANGUAGE_MODEL, 'return -(weight_BT', 'return (weight_BT',
           TEST_LANGUAGE_MODEL + 'weighted_sum_by_hand'),
    Mutant(LANGUAGE_MODEL, 'masked.select(logp_BT, weight_BT)', 'logp_BT',
           TEST_LANGUAGE_MODEL + 'nothing_of_weight_zero_enters_value_or_gradient'),
]


def copy_tree(folder):
  """A copy without compiled files: Python would take a stale one for a change of equal length."""
  for name in COPIED:
    source, target = ROOT / name, folder / name
    if source.is_dir():
      shutil.copytree(source, target, ignore=shutil.ignore_patterns('__pycache__', '.*'))
    elif source.exists():
      shutil.copy(source, target)


def run(folder, *command):
  """The finished process of a Python command that sees the copy and not the installed package."""
  path = os.pathsep.join([str(folder), *filter(None, [os.environ.get('PYTHONPATH')])])
  environment = {**os.environ, 'PYTHONPATH': path, 'PYTHONDONTWRITEBYTECODE': '1'}
  return subprocess.run([sys.executable, *command], cwd=folder, env=environment, text=True,
                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=SECONDS)


def pytest(folder, *tests):
  ids = [f'tests/{test}' for test in tests]
  return run(folder, '-m', 'pytest', '-q', '-x', '-m', '', '-p', 'no:cacheprovider', *ids)


def mutated(mutant):
  """The source of the mutant's file with its text replaced."""
  source = (ROOT / 'rlhf_jax' / mutant.file).read_text()
  if source.count(mutant.text) != 1:
    sys.exit(f'{mutant.file}: {mutant.text!r} occurs {source.count(mutant.text)} times, not once: '
             'bring the table in tests/mutants.py up to date')
  return source.replace(mutant.text, mutant.replacement)


def judge(mutant):
  """'killed', 'SURVIVED', or what kept the test from running."""
  with tempfile.TemporaryDirectory() as name:
    copy_tree(Path(name))
    (Path(name) / 'rlhf_jax' / mutant.file).write_text(mutated(mutant))
    try:
      code = pytest(Path(name), mutant.test).returncode
    except subprocess.TimeoutExpired:
      return 'TIMED OUT'
  return {0: 'SURVIVED', 1: 'killed'}.get(code, f'BROKEN: pytest exit code {code}')


def check(mutants):
  """Stops with a message unless texts are there, the copy is what is tested, and it is green."""
  for mutant in mutants:
    mutated(mutant)
  with tempfile.TemporaryDirectory() as name:
    folder = Path(name).resolve()
    copy_tree(folder)
    seen = run(folder, '-c', 'import rlhf_jax; print(rlhf_jax.__file__)').stdout.strip()
    if not Path(seen).is_relative_to(folder):
      sys.exit(f'the package under test is {seen}, not the copy in {folder}')
    green = pytest(folder, *dict.fromkeys(mutant.test for mutant in mutants))
    if green.returncode:
      sys.exit(f'{green.stdout}\nthe tests are not green before any mutation')


def main(wanted=''):
  mutants = [m for m in MUTANTS if any(wanted in field for field in (m.file, m.text, m.test))]
  if not mutants:
    sys.exit(f'no mutant matches {wanted!r}')
  check(mutants)
  with ThreadPoolExecutor(AT_ONCE) as pool:
    verdicts = list(tqdm(pool.map(judge, mutants), total=len(mutants), unit='mutant'))
  for mutant, verdict in zip(mutants, verdicts, strict=True):
    print(f'{verdict:9} {mutant.file:28} {mutant.text.strip()!r} -> {mutant.replacement.strip()!r}')
    if verdict != 'killed':
      print(f'{"":9} tests/{mutant.test}')
  counts = collections.Counter(verdicts)
  print(', '.join(f'{count} {verdict}' for verdict, count in counts.most_common()))
  sys.exit(counts['killed'] != len(mutants))


if __name__ == '__main__':
  main(*sys.argv[1:2])
