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
ORACLE, TOKENS, WORLDS = 'data/oracle.py', 'data/oracle_tokens.py', 'run/worlds.py'
WORKER, CHECKS = 'feedback/worker.py', 'evals/world_checks.py'
EVAL_PREFERENCE, EVAL_POLICY = 'evals/preference.py', 'evals/policy.py'
TEST_ORACLE, TEST_TOKENS = 'data/test_oracle.py::test_', 'data/test_oracle_tokens.py::test_'
TEST_WORLDS, TEST_WORKER = 'run/test_worlds.py::test_', 'feedback/test_worker.py::test_'
TEST_CHECKS = 'evals/test_world_checks.py::test_'
EVAL_BEST, TEST_EVAL_BEST = 'evals/best_of_n.py', 'evals/test_best_of_n.py::test_'
TEST_EVAL_PREFERENCE = 'evals/test_preference.py::test_'
TEST_EVAL_POLICY = 'evals/test_policy.py::test_'
STEP, MASKED, RANDOM, OPTIM = 'core/step.py', 'core/masked.py', 'core/random.py', 'core/optim.py'
ALIGN, LOGP, DECODE, HEADS = 'core/align.py', 'models/logp.py', 'models/decode.py', 'models/heads.py'
EPISODES, CANDIDATES = 'rollout/episodes.py', 'rollout/candidates.py'
PM_SCORE, TRUE_REWARD = 'rewards/preference_model.py', 'rewards/oracle.py'
FIT, HOOKS, TRAIN, CONFIG = 'run/fit.py', 'run/hooks.py', 'run/train.py', 'run/config.py'
CHECKPOINT, BUILD = 'run/checkpoint.py', 'run/build.py'
TEST_STEP, TEST_MASKED = 'core/test_step.py::test_', 'core/test_masked.py::test_'
TEST_RANDOM, TEST_OPTIM = 'core/test_random.py::test_', 'core/test_optim.py::test_'
TEST_LOGP, TEST_DECODE = 'models/test_logp.py::test_', 'models/test_decode.py::test_'
TEST_EPISODES = 'rollout/test_episodes.py::test_'
TEST_PM_SCORE = 'rewards/test_preference_model.py::test_'
TEST_TRUE_REWARD = 'rewards/test_oracle.py::test_'
TEST_HOOKS, TEST_TRAIN = 'run/test_hooks.py::test_', 'run/test_train.py::test_'
TEST_CONFIG, TEST_CHECKPOINT = 'run/test_config.py::test_', 'run/test_checkpoint.py::test_'
TEST_TRAINING, TEST_SHARDING = 'contracts/test_training.py::test_', 'contracts/test_sharding.py::test_'
DIALOGUE, TEST_DIALOGUE = 'data/dialogue.py', 'data/test_dialogue.py::test_'
TOKENIZER, TEST_TOKENIZER = 'data/tokenizer.py', 'data/test_tokenizer.py::test_'
SOURCES, TEST_SOURCES = 'data/sources.py', 'data/test_sources.py::test_'
HH, TEST_HH = 'data/hh.py', 'data/test_hh.py::test_'
BATCHES, TEST_BATCHES = 'data/batches.py', 'data/test_batches.py::test_'
BASELINES, TEST_BASELINES = 'evals/baselines.py', 'evals/test_baselines.py::test_'
SPEC, MESH, SIZES = 'core/spec.py', 'core/mesh.py', 'models/sizes.py'
ATTENTION, TRANSFORMER, RUNDIR = 'models/attention.py', 'models/transformer.py', 'core/rundir.py'
FITS, CALIBRATION = 'analysis/fits.py', 'analysis/calibration.py'
TEST_SPEC, TEST_MESH = 'core/test_spec.py::test_', 'core/test_mesh.py::test_'
TEST_SIZES, TEST_TRANSFORMER = 'models/test_sizes.py::test_', 'models/test_transformer.py::test_'
TEST_RUNDIR, TEST_FITS = 'core/test_rundir.py::test_', 'analysis/test_fits.py::test_'
TEST_CALIBRATION = 'analysis/test_calibration.py::test_'
ELO, TEST_ELO = 'feedback/elo.py', 'feedback/test_elo.py::test_'
COMPARISONS = 'run/comparisons.py'
RANKER, TEST_RANKER = 'evals/ranker.py', 'evals/test_ranker.py::test_'
FIGURES, TENSION = 'analysis/figures.py', 'analysis/tension_report.py'
TEST_FIGURES, TEST_TENSION = 'analysis/test_figures.py::test_', 'analysis/test_tension_report.py::test_'

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
    Mutant(PPO, "jnp.where(extra['kl_target'] > 0, coef, extra['kl_coef'])", 'coef',
           TEST_PPO + 'a_kl_budget_moves_the_coefficient'),
    Mutant(PPO, 'masked.mean(_sequence_k1(rollout), rollout.weight_B)', '_sequence_k1(rollout).mean()',
           TEST_PPO + 'a_kl_budget_moves_the_coefficient'),

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

    Mutant(ORACLE, "w.wrong * (part['wrong'] + part['repeats'])) / best",
           "w.wrong * part['wrong']) / best", TEST_ORACLE + 'reward_of_a_benign_request_by_hand'),
    Mutant(ORACLE, "xp.maximum(part['courtesy'] - 1, 0)", "part['courtesy'] - 1",
           TEST_ORACLE + 'reward_of_a_benign_request_by_hand'),
    Mutant(ORACLE, "w.courtesy * xp.minimum(part['courtesy'], 1)", "w.courtesy * part['courtesy']",
           TEST_ORACLE + 'reward_of_a_benign_request_by_hand'),
    Mutant(ORACLE, 'hit_BU[:, :-1] & hit_BU[:, 1:] & (first_BU',
           '(first_BU', TEST_ORACLE + 'reward_of_a_benign_request_by_hand'),
    Mutant(ORACLE, '(first_BU[:, :-1] < first_BU[:, 1:])', '(first_BU[:, :-1] > first_BU[:, 1:])',
           TEST_ORACLE + 'reward_of_a_benign_request_by_hand'),
    Mutant(ORACLE, 'said_BW & ~in_courtesy_BW & ~in_refusal_BW', 'said_BW & ~in_refusal_BW',
           TEST_ORACLE + 'components_by_hand'),
    Mutant(ORACLE, '+ once_B * len(COURTESY)', '+ courtesy_B * len(COURTESY)',
           TEST_ORACLE + 'reward_of_a_benign_request_by_hand'),
    Mutant(ORACLE, "xp.where(part['refused'], 0.0, gain_B)", 'gain_B',
           TEST_ORACLE + 'reward_of_a_benign_request_by_hand'),
    Mutant(ORACLE, '-(1.0 + xp.clip(helpful_B, 0.0, 1.0))', '-1.0',
           TEST_ORACLE + 'reward_of_a_harmful_request_by_hand'),
    Mutant(ORACLE, 'xp.clip(helpful_B, 0.0, 1.0)', 'helpful_B',
           TEST_ORACLE + 'reward_of_a_harmful_request_by_hand'),
    Mutant(ORACLE, "part['refused'] - cost_B)", "part['refused'])",
           TEST_ORACLE + 'reward_of_a_harmful_request_by_hand'),
    Mutant(ORACLE, 'return xp.where(harmful_B, harmless_B, helpful_B)',
           'return xp.where(~harmful_B, harmless_B, helpful_B)',
           TEST_ORACLE + 'the_best_answer_is_worth_one'),
    Mutant(ORACLE, 'padded = xp.pad(answer_BW, ((0, 0), (0, len(phrase) - 1)))',
           'padded = xp.concatenate([answer_BW, answer_BW], 1)',
           TEST_ORACLE + 'a_phrase_may_fill_the_last_columns_and_does_not_wrap_round'),
    Mutant(ORACLE, '(~harmful & ~mild_verb).astype(int)', '(~harmful).astype(int)',
           TEST_ORACLE + 'what_a_verb_an_object_and_both_know_of_harm'),
    Mutant(ORACLE, 'mild_verb = ~harmful & (rng.random(n) < 0.5)',
           'mild_verb = ~harmful & (rng.random(n) < 0.9)',
           TEST_ORACLE + 'no_single_word_tells_harm_but_the_pair_does'),
    Mutant(ORACLE, 'kind_verb, kind_object = mild_verb.astype(int),',
           'kind_verb, kind_object = (~mild_verb).astype(int),',
           TEST_ORACLE + 'tasks_are_those_a_naive_reader_finds'),
    Mutant(ORACLE, '  if not held_out:\n', '  if held_out:\n',
           TEST_ORACLE + 'some_combinations_are_met_only_in_the_evaluation_split'),
    Mutant(ORACLE, 'keep = np.flatnonzero(np.isin(_hash(prompt), SPLITS[split]))[:n]',
           'keep = np.arange(n)',
           TEST_ORACLE + 'prompts_of_different_splits_are_disjoint_whatever_the_seeds'),
    Mutant(ORACLE, 'rng = np.random.default_rng([seed, sorted(SPLITS).index(split)])',
           'rng = np.random.default_rng()',
           TEST_ORACLE + 'the_same_seed_gives_the_same_tasks_and_another_gives_others'),
    Mutant(ORACLE, 'np.where(is_member, shown, 0), UNITS)',
           'np.where(~is_member, shown, 0), UNITS)',
           TEST_ORACLE + 'tasks_are_those_a_naive_reader_finds'),
    Mutant(ORACLE, 'h.repeat * lack, said, 0)', 'h.repeat, said, 0)',
           TEST_ORACLE + 'full_skill_does_what_was_asked_and_no_skill_does_not'),
    Mutant(ORACLE, 'u < (h.drop + h.wrong) * lack,', 'u < h.drop * lack,',
           TEST_ORACLE + 'habits_one_by_one'),
    Mutant(ORACLE, 'unit[rows, at[rows] + 1], unit[rows, at[rows]]\n',
           'unit[rows, at[rows]], unit[rows, at[rows] + 1]\n', TEST_ORACLE + 'habits_one_by_one'),
    Mutant(ORACLE, 'twice = once & (', 'twice = (',
           TEST_ORACLE + 'courtesy_comes_with_skill_and_almost_never_twice'),
    Mutant(ORACLE, 'h.courtesy[1] * skill_N ** 2', 'h.courtesy[1]',
           TEST_ORACLE + 'courtesy_comes_with_skill_and_almost_never_twice'),
    Mutant(ORACLE, '& ~refuse[:, None], _ids(COURTESY), 0)', ', _ids(COURTESY), 0)',
           TEST_ORACLE + 'courtesy_comes_with_skill_and_almost_never_twice'),
    Mutant(ORACLE, 'np.where(task.harmful_N, 1 - h.follow[0] - h.follow[1] * skill_N,',
           'np.where(~task.harmful_N, 1 - h.follow[0] - h.follow[1] * skill_N,', TEST_ORACLE
           + 'benign_requests_are_refused_at_times_and_harmful_ones_followed_at_times'),
    Mutant(ORACLE, "done_N = (w.share * part['share']",
           "done_N = (w.share * part['courtesy'] + w.share * part['share']",
           TEST_ORACLE + 'reactions_tell_the_task_and_nothing_else'),
    Mutant(ORACLE, 'right_NW = asked_NW & ~before_NWW.any(2)', 'right_NW = asked_NW',
           TEST_ORACLE + 'reactions_go_through_the_units_one_by_one'),
    Mutant(ORACLE, '== unit_NW[:, None, :], -1)', '== unit_NW[:, None, :], 0)',
           TEST_ORACLE + 'reactions_go_through_the_units_one_by_one'),
    Mutant(ORACLE, 'unit_NW = np.where(evil_N[:, None], 0, _units(answer_NW))',
           'unit_NW = _units(answer_NW)',
           TEST_ORACLE + 'reactions_go_through_the_units_one_by_one'),
    Mutant(ORACLE, 'np.concatenate([listed, word', 'np.concatenate([every, word',
           TEST_ORACLE + 'plain_text_tells_kinds_and_harm_or_repeats_itself'),
    Mutant(ORACLE, "np.where(harmful, ID['bad'], ID['ok'])",
           "np.where(harmful, ID['ok'], ID['bad'])",
           TEST_ORACLE + 'plain_text_tells_kinds_and_harm_or_repeats_itself'),
    Mutant(ORACLE, '_verb_and_object(rng, n, held_out=False)', '_verb_and_object(rng, n, True)',
           TEST_ORACLE + 'plain_text_keeps_the_held_out_combinations_out'),

    Mutant(TOKENS, "order = np.argsort(row >= 0, axis=1, kind='stable')",
           "order = np.argsort(row < 0, axis=1, kind='stable')",
           TEST_TOKENS + 'prompts_are_the_texts_padded_on_the_left'),
    Mutant(TOKENS, 'codec.end_id, tokens)', 'codec.eoc_id, tokens)',
           TEST_TOKENS + 'answers_close_with_the_end_token'),
    Mutant(TOKENS, '(column <= count_N', '(column < count_N',
           TEST_TOKENS + 'answers_close_with_the_end_token'),
    Mutant(TOKENS, 'xp.where(mask_BT > 0, xp.asarray(codec.word_of_token)[tokens_BT], 0)',
           'xp.asarray(codec.word_of_token)[tokens_BT]',
           TEST_TOKENS + 'answer_words_undo_answers_and_read_the_mask_only'),
    Mutant(TOKENS, 'tokenizer.vocab_size, -1, np.int32)', 'tokenizer.vocab_size, 0, np.int32)',
           TEST_TOKENS + 'words_are_tokens_and_back'),
    Mutant(TOKENS, 'if len(ids) != 1]', 'if not ids]',
           TEST_TOKENS + 'a_tokenizer_that_splits_words_is_refused'),
    Mutant(TOKENS, 'oracle.reactions(said, task.required_NU, onlooker)',
           'oracle.reactions(said[::-1], task.required_NU, onlooker)',
           TEST_TOKENS + 'exchanges_are_request_answer_and_reaction'),
    Mutant(TOKENS, 'rng.uniform(low, high, n) if skill', 'rng.uniform(0, 1, n) if skill',
           TEST_TOKENS + 'exchanges_of_full_skill_do_what_is_asked'),
    Mutant(TOKENS, 'rng.uniform(0.5, 1, n_talk)', 'rng.uniform(0, 1, n_talk)',
           TEST_TOKENS + 'skill_is_uniform_and_behind_the_hhh_prompt_from_the_upper_half'),
    Mutant(TOKENS, "'pretrain', skill=skill)", "'pretrain')",
           TEST_TOKENS + 'the_assistant_of_a_dialogue_keeps_its_skill'),
    Mutant(TOKENS, "seed + turn, 'pretrain'", "seed + turn, 'eval'",
           TEST_TOKENS + 'documents_are_of_the_pretraining_split'),
    Mutant(TOKENS, 'two = ~reacted & (', 'two = (',
           TEST_TOKENS + 'documents_hold_what_was_asked_for'),

    Mutant(WORKER, 'reward_a_N - reward_b_N + rng', 'reward_b_N - reward_a_N + rng',
           TEST_WORKER + 'choices_follow_the_logistic'),
    Mutant(WORKER, 'rng.logistic(size=len(reward_a_N))', 'rng.normal(size=len(reward_a_N))',
           TEST_WORKER + 'choices_follow_the_logistic'),
    Mutant(WORKER, '/ beta', '* beta', TEST_WORKER + 'choices_follow_the_logistic'),
    Mutant(WORKER, 'edges = np.quantile(np.abs(noisy_N)', 'edges = np.quantile(noisy_N',
           TEST_WORKER + 'strength_has_four_levels_and_the_weakest_is_dropped'),
    Mutant(WORKER, 'strength_N > 1)', 'strength_N > 0)',
           TEST_WORKER + 'strength_has_four_levels_and_the_weakest_is_dropped'),
    Mutant(WORKER, 'judgements.prefers_a_N)[judgements.kept_N]', 'judgements.prefers_a_N)',
           TEST_WORKER + 'agreement_is_the_mean_chance_of_the_second_worker_over_the_kept_pairs'),
    Mutant(WORKER, '0.5 + 0.5 * np.sign(reward_chosen_N - reward_rejected_N)',
           'reward_chosen_N >= reward_rejected_N', TEST_WORKER + 'ceiling_by_hand'),

    Mutant(EVAL_PREFERENCE, 'return 0.5 + 0.5 * np.sign(np', 'return 1.0 * (0 < np',
           TEST_EVAL_PREFERENCE + 'correct_by_hand'),
    Mutant(EVAL_PREFERENCE, '/ (ceiling - 0.5)', '/ ceiling',
           TEST_EVAL_PREFERENCE + 'excess_by_hand'),
    Mutant(EVAL_PREFERENCE, "baselines.longer(*pairs['train']), train.group_N",
           "baselines.longer(*pairs['test']), test.group_N",
           TEST_EVAL_PREFERENCE + 'summary_is_put_together_from_the_test_comparisons'),
    Mutant(EVAL_PREFERENCE, 'baselines.accuracy_interval(model_N[here])',
           'baselines.accuracy_interval(model_N)',
           TEST_EVAL_PREFERENCE + 'summary_is_put_together_from_the_test_comparisons'),
    Mutant(EVAL_PREFERENCE, 'float(v[here].mean())', 'float(v.mean() + 0 * here[0])',
           TEST_EVAL_PREFERENCE + 'summary_is_put_together_from_the_test_comparisons'),

    Mutant(EVAL_POLICY, "logp.exact_kl(model, params, frozen['reference'], tokens",
           "logp.exact_kl(model, frozen['reference'], params, tokens",
           TEST_EVAL_POLICY + 'kl_is_the_sum_over_sampled_prefixes_of_the_exact_one'),
    Mutant(EVAL_POLICY, '(kl_BT * mask_BT).sum(1)', '(kl_BT * mask_BT).mean(1)',
           TEST_EVAL_POLICY + 'kl_is_the_sum_over_sampled_prefixes_of_the_exact_one'),
    Mutant(EVAL_POLICY, "jnp.concatenate([held['valid'], mask_BT[:, prompt_width:]], axis=1)",
           'jnp.ones_like(mask_BT)', TEST_EVAL_POLICY + 'rows_by_hand'),
    Mutant(EVAL_POLICY, 'mask_BT.sum(1)}', 'valid_BT.sum(1)}', TEST_EVAL_POLICY + 'rows_by_hand'),
    Mutant(EVAL_POLICY, "difference = end['true_reward'] - start['true_reward']",
           "difference = end['true_reward']", TEST_EVAL_POLICY + 'gain_by_hand'),
    Mutant(EVAL_POLICY, "np.max(curve['eval/true_reward'])", "curve['eval/true_reward'][-1]",
           TEST_EVAL_POLICY + 'gain_by_hand'),
    Mutant(EVAL_POLICY, 'x[:min(size, n - at)]', 'x[:size]',
           TEST_EVAL_POLICY + 'parts_of_one_shape_join_to_the_whole'),
    Mutant(EVAL_POLICY, 'min(at + size, n)), size)', 'min(at + size, n)), n)',
           TEST_EVAL_POLICY + 'parts_of_one_shape_join_to_the_whole'),

    Mutant(CHECKS, '_require(ended_share >=', '_require(0 * ended_share <=',
           TEST_CHECKS + 'an_unfit_start_policy'),
    Mutant(CHECKS, '(reward_NK.max(1) >= 0.8).mean()', '(reward_NK.max() >= 0.8).mean()',
           TEST_CHECKS + 'an_unfit_start_policy'),
    Mutant(CHECKS, '<= agreement <=', '<= agreement or agreement <=',
           TEST_CHECKS + 'unfit_comparisons'),
    Mutant(CHECKS, 'excess(accuracy, ceiling) for', 'accuracy for',
           TEST_CHECKS + 'fit_comparisons'),
    Mutant(CHECKS, '(tokens_BKT == end_id) & (mask_BKT > 0)', '(tokens_BKT == end_id)',
           TEST_CHECKS + 'ended_counts_answers_with_an_end_token_inside_the_mask'),
    Mutant(EVAL_BEST, '_expected_max(score_NK, n, reward_NK)', '_expected_max(reward_NK, n, reward_NK)',
           TEST_EVAL_BEST + 'the_table_is_the_mean_over_all_subsets'),
    Mutant(EVAL_BEST, 'np.std(error_N, ddof=1)', 'np.std(score_N, ddof=1)',
           TEST_EVAL_BEST + 'the_table_is_the_mean_over_all_subsets'),

    Mutant(WORLDS, 'rows = [np.where(first, 0, 1), np.where(first, 1, 0)]',
           'rows = [np.where(first, 1, 0), np.where(first, 0, 1)]',
           TEST_WORLDS + 'chosen_is_what_the_worker_preferred'),
    Mutant(WORLDS, "'eval' if name == 'test' else 'compare'", "'compare'",
           TEST_WORLDS + 'test_prompts_are_of_the_evaluation_split_and_never_trained_on'),
    Mutant(WORLDS, 'kept = np.flatnonzero(verdict.kept_N)[:size]',
           'kept = np.flatnonzero(verdict.kept_N)',
           TEST_WORLDS + 'comparisons_have_the_sizes_asked_for'),
    Mutant(WORLDS, 'rewards = [np.stack(reward, 1)[kept, column]',
           'rewards = [np.stack(reward, 1)[kept, 0 * column]',
           TEST_WORLDS + 'comparisons_say_the_same_in_text_tokens_and_rewards'),
    Mutant(WORLDS, 'np.flatnonzero(train & ~validation)', 'np.flatnonzero(train)',
           TEST_WORLDS + 'hh_train_validation_and_test_share_no_first_turn'),
    Mutant(WORLDS, "rows['train' if split == 'ppo' else 'test']", "rows['train']",
           TEST_WORLDS + 'hh_prompts_of_ppo_and_eval_are_apart'),
    Mutant(WORLDS, 'row[-data.prompt_width:]', 'row[:data.prompt_width]',
           TEST_WORLDS + 'hh_prompts_of_ppo_and_eval_are_apart'),
    Mutant(WORLDS, 'max(sides[0][i], sides[1][i], key=len)', 'sides[0][i]',
           TEST_WORLDS + 'hh_rows_are_the_records_and_only_prompts_are_cut'),
    Mutant(WORLDS, '(closed or n + 1 < len(ts))', 'closed',
           TEST_WORLDS + 'dialogues_open_and_closed_by_hand'),
    Mutant(WORLDS, 'np.flatnonzero(length_N <= context)', 'np.arange(len(length_N))', TEST_WORLDS
           + 'hh_an_answer_that_does_not_fit_is_an_error_or_its_pair_is_left_out'),

    Mutant(STEP, "+ state.extra['learning_rate'] * d", "- state.extra['learning_rate'] * d",
           TEST_STEP + 'one_update_by_hand'),
    Mutant(STEP, 'batch.normalise(), key_for', 'batch, key_for', TEST_STEP + 'one_update_by_hand'),
    Mutant(STEP, 'gradient(state.params, part[0], jax',
           'gradient(state.params, part[0].normalise(), jax',
           TEST_STEP + 'microbatches_change_nothing'),
    Mutant(STEP, 'jnp.add, total, out), None', 'lambda a, b: b, total, out), None',
           TEST_STEP + 'microbatches_change_nothing'),
    Mutant(STEP, "jax.random.fold_in(key, part[1])", 'key',
           TEST_STEP + 'noise_is_addressed_by_step_and_part'),
    Mutant(STEP, "key_for(state.key, 'loss', state.step)", "key_for(state.key, 'loss', 0)",
           TEST_STEP + 'noise_is_addressed_by_step_and_part'),
    Mutant(STEP, '.astype(p.dtype)', '', TEST_STEP + 'parameters_keep_their_type'),
    Mutant(STEP, 'jax.tree.map(jnp.copy, (params, key))', '(params, key)',
           TEST_STEP + 'create_copies_the_parameters'),
    Mutant(STEP, "key_for(state.key, 'permutation', start, n)",
           "key_for(state.key, 'permutation', start)",
           TEST_STEP + 'passes_see_every_row_once_a_pass_in_changing_order'),
    Mutant(STEP, "key_for(state.key, 'permutation', start, n)",
           "key_for(state.key, 'permutation', 0, n)",
           TEST_STEP + 'passes_see_every_row_once_a_pass_in_changing_order'),
    Mutant(STEP, 'jax.random.permutation(key, rows)', 'jax.random.randint(key, (rows,), 0, rows)',
           TEST_STEP + 'passes_see_every_row_once_a_pass_in_changing_order'),
    Mutant(STEP, 'state.replace(step=start * parts)', 'state',
           TEST_STEP + 'passes_give_each_part_its_own_noise_and_remember_once'),
    Mutant(STEP, 'inner.replace(step=start + 1,', 'inner.replace(',
           TEST_STEP + 'passes_are_updates_one_after_another'),
    Mutant(STEP, 'lambda x: x.mean(0), metrics', 'lambda x: x[-1], metrics',
           TEST_STEP + 'passes_are_updates_one_after_another'),

    Mutant(MASKED, 'jnp.where(total > 0, total, 1.0)', 'mask.size', TEST_MASKED + 'normalise_by_hand'),
    Mutant(MASKED, 'jnp.where(total > 0, total, 1.0)', 'total', TEST_MASKED + 'normalise_by_hand'),
    Mutant(MASKED, 'jnp.where(mask > 0, jnp.asarray(x, jnp.float32), 0.0)',
           'jnp.asarray(x, jnp.float32) * jnp.float32(mask > 0)',
           TEST_MASKED + 'mean_and_variance_by_hand'),
    Mutant(MASKED, '(select(x, mask) - mean(x, mask)) ** 2', 'select(x, mask) ** 2',
           TEST_MASKED + 'mean_and_variance_by_hand'),
    Mutant(MASKED, 'jnp.sqrt(variance(x, mask) + eps)', '(variance(x, mask) + eps)',
           TEST_MASKED + 'whiten_by_hand'),
    Mutant(MASKED, 'white if shift_mean else white + centre', 'white + centre if shift_mean else white',
           TEST_MASKED + 'whiten_by_hand'),
    Mutant(MASKED, 'return select(white if shift_mean else white + centre, mask)',
           'return white if shift_mean else white + centre', TEST_MASKED + 'whiten_by_hand'),

    Mutant(RANDOM, 'key = jax.random.fold_in(key, number)', 'key = jax.random.fold_in(root, number)',
           TEST_RANDOM + 'an_address_is_a_function_of_root_stream_and_numbers'),
    Mutant(RANDOM, 'zlib.crc32(stream.encode()) & 0x7FFFFFFF', 'len(stream)',
           TEST_RANDOM + 'noise_of_a_known_address_never_changes'),

    Mutant(OPTIM, 'count + 1.0) / rise', 'count) / rise', TEST_OPTIM + 'warmup_then_decay_by_hand'),
    Mutant(OPTIM, '(count - warmup * steps) /', 'count /', TEST_OPTIM + 'warmup_then_decay_by_hand'),
    Mutant(OPTIM, '0.5 ** jnp.floor(count / halve_every)', '0.5 ** (count / halve_every)',
           TEST_OPTIM + 'halving'),
    Mutant(OPTIM, 'optax.scale(-1.0)', 'optax.scale(1.0)', TEST_OPTIM + 'adam_equals_a_loop'),
    Mutant(OPTIM, "if name not in ('layers', 'member')]", "if name != 'member']",
           TEST_OPTIM + 'muon_equals_a_loop_and_leaves_the_rest_to_adam'),
    Mutant(OPTIM, '(others, heads) if heads else (others[:1], others[1:])',
           '(heads[:1], others + heads[1:]) if heads else (others[:1], others[1:])',
           TEST_OPTIM + 'muon_equals_a_loop_and_leaves_the_rest_to_adam'),
    Mutant(OPTIM, "if 'layers' not in spec.axes or len(sides) < 2:", 'if len(sides) < 2:',
           TEST_OPTIM + 'muon_equals_a_loop_and_leaves_the_rest_to_adam'),
    Mutant(OPTIM, 'p.ndim > 1', 'p.ndim > 0', TEST_OPTIM + 'adam_equals_a_loop'),
    Mutant(OPTIM, '[optax.clip_by_global_norm(norm)]', '[optax.clip(norm)]',
           TEST_OPTIM + 'adam_equals_a_loop'),

    Mutant(ALIGN, 'jnp.pad(seen_BT[:, :-1], ((0, 0), (1, 0)), constant_values=-1)', 'seen_BT',
           TEST_LOGP + 'token_logp'),
    Mutant(ALIGN, 'exists_BT &= take_columns(segment_BT, source_BT) == segment_BT', 'pass',
           TEST_LOGP + 'token_logp'),
    Mutant(LOGP, '.astype(jnp.float32) / temperature', '.astype(jnp.float32)',
           TEST_LOGP + 'token_logp'),
    Mutant(LOGP, 'align.has_previous(valid_BT, segment_BT) & (valid_BT > 0)',
           'align.has_previous(valid_BT, segment_BT)', TEST_LOGP + 'token_logp'),
    Mutant(LOGP, 'align.has_previous(valid_BT, segment_BT) & (valid_BT > 0)', '(valid_BT > 0)',
           TEST_LOGP + 'token_logp'),
    Mutant(LOGP, 'logp_NV - ref_logp_NV', 'ref_logp_NV - logp_NV', TEST_LOGP + 'exact_kl'),
    Mutant(LOGP, 'jnp.exp(logp_NV) * (', 'jnp.exp(ref_logp_NV) * (', TEST_LOGP + 'exact_kl'),
    Mutant(LOGP, 'x.reshape(size, parts, *x.shape[1:]).swapaxes(0, 1)',
           'x.reshape(parts, size, *x.shape[1:])', TEST_LOGP + 'exact_kl'),

    Mutant(DECODE, "ended_B | (token_B == eos_id)", "token_B == eos_id",
           TEST_DECODE + 'rows_stop_after_their_end_token'),
    Mutant(DECODE, 'jnp.where(ended_B, pad_id, token_B)', 'token_B',
           TEST_DECODE + 'rows_stop_after_their_end_token'),
    Mutant(DECODE, '[:, 0] * lived_B', '[:, 0]', TEST_DECODE + 'rows_stop_after_their_end_token'),
    Mutant(DECODE, "'mask': lived_B", "'mask': lived_B * (token_B != eos_id)",
           TEST_DECODE + 'rows_stop_after_their_end_token'),
    Mutant(DECODE, 'jnp.argsort(ended_B.reshape(blocks, -1), axis=1)[:, :few]',
           'jnp.argsort(~ended_B.reshape(blocks, -1), axis=1)[:, :few]',
           TEST_DECODE + 'unfinished_rows_alone_are_carried_on_and_nothing_changes'),
    Mutant(DECODE, '.at[n, row_B].set(', '.at[n, :len(row_B)].set(',
           TEST_DECODE + 'unfinished_rows_alone_are_carried_on_and_nothing_changes'),
    Mutant(DECODE, '(_unfinished(ended_B, blocks) > few)', '(_unfinished(ended_B, blocks) > 2 * few)',
           TEST_DECODE + 'unfinished_rows_alone_are_carried_on_and_nothing_changes'),
    Mutant(DECODE, '.sum(axis=1).max()', '.sum(axis=1).min()',
           TEST_DECODE + 'unfinished_rows_alone_are_carried_on_and_nothing_changes'),
    Mutant(DECODE, 'jax.random.fold_in(key, n), row_B', 'key, row_B',
           'rollout/test_sampling.py::test_columns_and_rows_draw_independently'),
    Mutant(DECODE, 'before_BV < top_p', 'before_BV <= 0 * top_p',
           TEST_DECODE + 'top_p_keeps_the_nucleus_and_the_log_probs'),
    Mutant(DECODE, 'jnp.argmax(sum_BV > threshold_B[:, None], axis=-1)',
           'jnp.argmax(sum_BV >= threshold_B[:, None], axis=-1)',
           TEST_DECODE + 'draw_inverts_the_distribution'),

    Mutant(EPISODES, "token_logp(params['policy'], tokens_BT, valid_BT) * mask_BT",
           "token_logp(params['policy'], tokens_BT, valid_BT)",
           TEST_EPISODES + 'each_number_is_of_its_role_and_log_probs_are_those_of_the_answer'),
    Mutant(EPISODES, "token_logp(frozen['reference']", "token_logp(params['policy']",
           TEST_EPISODES + 'each_number_is_of_its_role_and_log_probs_are_those_of_the_answer'),
    Mutant(EPISODES, 'sampled_logp_BT=sample.logp_BT', 'sampled_logp_BT=mask_BT',
           TEST_EPISODES + 'rows_are_prompt_then_answer'),
    Mutant(EPISODES, '[prompt_valid_BP, sample.mask_BT[:, width:]]',
           '[prompt_valid_BP, jnp.ones_like(sample.mask_BT[:, width:])]',
           TEST_EPISODES + 'rows_are_prompt_then_answer'),
    Mutant(EPISODES, 'extra or {}', '{}', TEST_EPISODES + 'defaults_and_what_is_passed_on'),
    Mutant(CANDIDATES, 'jnp.repeat(prompt_valid_BP, samples, axis=0)',
           'jnp.tile(prompt_valid_BP, (samples, 1))',
           TEST_EPISODES + 'candidates_are_prompt_major_and_scored_on_what_is_valid'),
    Mutant(CANDIDATES, 'score_N.reshape(shape)', 'score_N.reshape(samples, rows).T',
           TEST_EPISODES + 'candidates_are_prompt_major_and_scored_on_what_is_valid'),

    Mutant(PM_SCORE, 'column_T[None] + 1, 0)', 'column_T[None], 0)',
           TEST_PM_SCORE + 'it_stands_in_the_first_free_column'),
    Mutant(PM_SCORE, 'jnp.where(here_BT, 1.0, valid_BT)', 'valid_BT',
           TEST_PM_SCORE + 'it_stands_in_the_first_free_column'),
    Mutant(PM_SCORE, '((0, 0), (0, 1))', '((0, 0), (1, 0))',
           TEST_PM_SCORE + 'it_stands_in_the_first_free_column'),
    Mutant(TRUE_REWARD, 'jnp.where(said_BT, words_BT, 0)', 'words_BT',
           TEST_TRUE_REWARD + 'it_is_the_reward_of_the_words_said'),
    Mutant(TRUE_REWARD, 'tokens_BT[:, prompt_width:]]', 'tokens_BT[:, prompt_width - 1:-1]]',
           TEST_TRUE_REWARD + 'it_is_the_reward_of_the_words_said'),

    Mutant(FIT, '      hook(i + 1, state', '      hook(i, state',
           'run/test_fit.py::test_order_of_calls_and_positions'),
    Mutant(FIT, 'range(start, steps)', 'range(steps)',
           'run/test_fit.py::test_order_of_calls_and_positions'),
    Mutant(HOOKS, 'at_once = step % every == 0 or', 'at_once =',
           TEST_HOOKS + 'a_line_is_there_before_a_checkpoint_of_its_step'),
    Mutant(HOOKS, 'if past % every == 0 or past == last:', 'if past % every == 0:',
           TEST_HOOKS + 'the_writer_writes_every_so_many_steps_and_the_last'),
    Mutant(HOOKS, "for name in ('loss', 'grad_norm'):", "for name in ('loss',):",
           TEST_HOOKS + 'a_gradient_that_is_not_finite_stops_it_too'),
    Mutant(HOOKS, '      check_finite(past, values, workdir)\n', '',
           TEST_HOOKS + 'what_is_not_finite_stops_the_run_one_step_later_at_most'),
    Mutant(HOOKS, 'mine = {name: value[s]', 'mine = {name: value[0]',
           TEST_HOOKS + 'members_get_their_own_slices'),
    Mutant(HOOKS, 'jax.tree.map(lambda x, s=s: x[s], state) if due',
           'jax.tree.map(lambda x: x[0], state) if due',
           TEST_HOOKS + 'members_get_their_own_slices'),

    Mutant(CHECKPOINT, 'want != have:', 'want is have:',
           TEST_CHECKPOINT + 'bytes_that_are_not_those_written_are_noticed'),
    Mutant(CHECKPOINT, 'if s <= latest), reverse=True', 'if s <= latest)',
           TEST_CHECKPOINT + 'a_state_comes_back_whole'),
    Mutant(CHECKPOINT, 'if s <= latest)', ')', TEST_CHECKPOINT + 'up_to_a_step_and_nothing_there'),
    Mutant(CHECKPOINT, '    mngr.delete(step)\n', '    return\n',
           TEST_CHECKPOINT + 'a_damaged_newest_one_is_passed_over_and_written_anew'),
    Mutant(CHECKPOINT, "'opt_state': state.opt_state, 'key'", "'opt_state': state.params, 'key'",
           TEST_CHECKPOINT + 'a_state_comes_back_whole'),
    Mutant(CHECKPOINT, 'if tuple(have[path].shape) != tuple(want[path].shape):', 'if False:',
           TEST_CHECKPOINT + 'what_is_not_there_or_of_another_shape_is_one_line'),
    Mutant(TRAIN, 'rundir.truncate_metrics(w, start if start else -1)', 'pass',
           TEST_TRAIN + 'resume_equals_uninterrupted_bit_by_bit'),
    Mutant(TRAIN, 'last, run_hooks, start)', 'last, run_hooks)',
           TEST_TRAIN + 'resume_equals_uninterrupted_bit_by_bit'),
    Mutant(TRAIN, 'while len(set(positions)) != 1:', 'while not positions:',
           TEST_TRAIN + 'a_group_goes_on_from_the_newest_step_all_have'),
    Mutant(TRAIN, 'hooks.writer(w, every, last, stops)', 'hooks.writer(w, every, last)',
           TEST_TRAIN + 'a_loss_that_is_nan_stops_the_run_and_keeps_the_last_good_checkpoint'),
    Mutant(TRAIN, "c.optimizer.learning_rate, **extra(c)", "config.optimizer.learning_rate, **extra(c)",
           TEST_TRAIN + 'a_group_equals_single_runs'),
    Mutant(TRAIN, 'key = jax.random.key(c.seed)', 'key = jax.random.key(config.seed)',
           TEST_TRAIN + 'a_group_equals_single_runs'),
    Mutant(BUILD, '[host(config, i) for config in configs]',
           '[host(configs[0], i) for config in configs]',
           TEST_TRAIN + 'a_group_equals_single_runs'),
    Mutant(BUILD, 'if first[k] != other.get(k) and k not in MAY_VARY', 'if k not in first',
           TEST_TRAIN + 'what_a_group_may_not_vary_and_what_is_finished'),
    Mutant(BUILD, 'donate_argnums=0)', 'donate_argnums=())',
           TEST_TRAINING + 'donation_deletes_the_state_and_the_reference_survives'),
    Mutant(BUILD, "if o.name not in ('adam', 'muon'):", 'if False:',
           'contracts/test_bad_input.py::test_an_unknown_optimizer'),
    Mutant(BUILD, 'return next((s for s in tails if', 'return next((whole for s in tails if',
           TEST_SHARDING + 'ppo_on_eight_devices'),
    Mutant(CONFIG, 'if key not in flat:', 'if False:', TEST_CONFIG + 'unknown_keys_name_the_nearest'),
    Mutant(CONFIG, 'value = float(value)', 'value = int(value)', TEST_CONFIG + 'overrides_keep_types'),
    Mutant(CONFIG, 'type(value) is not type(old):', 'False:',
           TEST_CONFIG + 'other_types_are_refused'),
    Mutant(CONFIG, 'sys.exit(2)', 'sys.exit(0)', TEST_CONFIG + 'errors_are_one_line'),
    Mutant(CONFIG, 'if here != config.main:', 'if False:', TEST_CONFIG + 'errors_are_one_line'),

    Mutant(PPO, 'advantage_BT = masked.whiten(advantage_BT, weight_BT)', 'pass',
           TEST_TRAINING + 'the_first_minibatch_has_ratio_one'),
    Mutant(PPO, 'jnp.abs(kl.k1(rollout.logp_BT, rollout.sampled_logp_BT))',
           'jnp.abs(kl.k1(rollout.logp_BT, 0 * rollout.sampled_logp_BT))',
           TEST_TRAINING + 'sampled_log_probs_are_teacher_forced_ones'),
    Mutant(HEADS, 'return align.previous(value_BT, valid_BT)', 'return value_BT',
           TEST_TRAINING + 'values_are_of_the_state_before_the_token'),

    Mutant(DIALOGUE, '(Human|Assistant):( ?)', '(Human|Assistant):( *)',
           TEST_DIALOGUE + 'parse_by_hand'),
    Mutant(DIALOGUE, "'\\n\\n(Human", "'\\n(Human", TEST_DIALOGUE + 'render_undoes_parse'),
    Mutant(DIALOGUE, '+ turn.gap +', "+ ' ' +", TEST_DIALOGUE + 'render_undoes_parse'),
    Mutant(DIALOGUE, '  if head:\n', '  if False:\n',
           TEST_DIALOGUE + 'a_text_that_starts_with_no_role_is_refused'),
    Mutant(DIALOGUE, 'chosen.rfind(ASSISTANT_CUE, 0, end)', 'chosen.find(ASSISTANT_CUE, 0, end)',
           TEST_DIALOGUE + 'pair_splits_at_the_last_shared_cue'),
    Mutant(DIALOGUE, 'chosen[fork:], rejected[fork:]',
           'chosen[fork:].strip(), rejected[fork:].strip()',
           TEST_DIALOGUE + 'pair_splits_at_the_last_shared_cue'),
    Mutant(DIALOGUE, 'if rejected.startswith(chosen[:fork]):', 'if True:',
           TEST_DIALOGUE + 'an_answer_may_hold_further_turns'),
    Mutant(DIALOGUE, 'prompt_ids[max(len(prompt_ids) - room, 0):]', 'prompt_ids[:room]',
           TEST_DIALOGUE + 'truncation_cuts_the_left_of_the_prompt_only'),
    Mutant(DIALOGUE, 'max(len(prompt_ids) - room, 0)', '-room',
           TEST_DIALOGUE + 'truncation_cuts_the_left_of_the_prompt_only'),
    Mutant(DIALOGUE, 'if room < 0:', 'if room < -1:',
           TEST_DIALOGUE + 'truncation_cuts_the_left_of_the_prompt_only'),

    Mutant(TOKENIZER, '    initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))',
           '    initial_alphabet=[]))',
           TEST_TOKENIZER + 'all_bytes_have_an_id_even_with_nothing_to_learn_from'),
    Mutant(TOKENIZER, 'bpe.encode_special_tokens = True', 'bpe.encode_special_tokens = False',
           TEST_TOKENIZER + 'a_text_that_spells_a_special_token_is_text'),
    Mutant(TOKENIZER, 'ByteLevel(add_prefix_space=False)', 'ByteLevel(add_prefix_space=True)',
           TEST_TOKENIZER + 'every_text_comes_back'),
    Mutant(TOKENIZER, 'decode(ids, skip_special_tokens=not show_special)',
           'decode(ids, skip_special_tokens=show_special)',
           TEST_TOKENIZER + 'special_ids_are_left_out_of_the_text_unless_asked_for'),
    Mutant(TOKENIZER, 'decode_batch(rows, skip_special_tokens=not show_special)',
           'decode_batch(rows, skip_special_tokens=show_special)',
           TEST_TOKENIZER + 'special_ids_are_left_out_of_the_text_unless_asked_for'),
    Mutant(TOKENIZER, 'if vocab_size < least:', 'if vocab_size < least - 1:',
           TEST_TOKENIZER + 'wrong_input_is_refused_in_one_line'),
    Mutant(TOKENIZER, '  if ids != list(range(len(SPECIAL))):', '  if None in ids[:1]:',
           TEST_TOKENIZER + 'a_file_with_other_special_ids_is_refused'),
    Mutant(TOKENIZER, 'sha256(self.bpe.to_str(pretty=True)', 'sha256(self.bpe.to_str()',
           TEST_TOKENIZER + 'the_same_texts_give_the_same_file_and_others_do_not'),

    Mutant(SOURCES, "packed = raw.read(2) == b'\\x1f\\x8b'",
           "packed = raw.read(2) and path.suffix == '.gz'",
           TEST_SOURCES + 'plain_and_gzip_by_content'),
    Mutant(SOURCES, 'number + 1, error', 'number, error',
           TEST_SOURCES + 'a_gzip_stream_cut_off_keeps_the_lines_before'),
    Mutant(SOURCES, '(EOFError, gzip.BadGzipFile, zlib.error)', '(EOFError, zlib.error)',
           TEST_SOURCES + 'a_gzip_stream_with_a_flipped_byte_is_noticed'),
    Mutant(SOURCES, "    record[field].encode('utf-8')",
           "    record[field].encode('utf-8', 'replace')",
           TEST_SOURCES + 'a_bad_line_is_named_or_left_out'),
    Mutant(SOURCES, 'isinstance(record.get(field), str)', 'field in record',
           TEST_SOURCES + 'a_bad_line_is_named_or_left_out'),
    Mutant(SOURCES, "line.decode('utf-8')", 'line',
           TEST_SOURCES + 'a_bad_line_is_named_or_left_out'),
    Mutant(SOURCES, "      if on_error == 'raise':", '      if False:',
           TEST_SOURCES + 'a_bad_line_is_named_or_left_out'),
    Mutant(SOURCES, "total.update(hashlib.file_digest(file, 'sha256').digest())",
           'total.update(file.read())', TEST_SOURCES + 'digest_is_of_contents_in_order'),
    Mutant(SOURCES, 'value or os.environ.get(DATA_VARIABLE)',
           'os.environ.get(DATA_VARIABLE) or value',
           TEST_SOURCES + 'the_data_folder_is_the_argument_then_the_environment_then_none'),
    Mutant(SOURCES, 'value or os.environ.get(CACHE_VARIABLE)',
           'os.environ.get(CACHE_VARIABLE) or value',
           TEST_SOURCES + 'the_cache_folder_is_the_argument_then_the_environment_then_home'),
    Mutant(SOURCES, '  if not folder.is_dir():', '  if False:',
           TEST_SOURCES + 'the_data_folder_is_the_argument_then_the_environment_then_none'),
    Mutant(SOURCES, "paths = sorted((Path(folder) / 'lm').glob('*.jsonl.gz'))",
           "paths = sorted((Path(folder) / 'lm').glob('*.jsonl.gz'))[::-1]",
           TEST_SOURCES + 'texts_are_those_under_lm_in_order_of_names'),

    Mutant(HH, 'disable_shuffling=True', 'disable_shuffling=False',
           TEST_HH + 'columns_are_the_records_in_order'),
    Mutant(HH, 'key = sources.digest(files.values())[:16]', "key = 'local'",
           TEST_HH + 'changed_files_are_never_served_stale'),
    Mutant(HH, 'data_dir=Path(cache) / key, files=files)\n  try',
           'data_dir=Path(folder or cache) / key, files=files)\n  try',
           TEST_HH + 'the_cache_serves_the_second_time_wherever_the_files_lie'),
    Mutant(HH, 'if not builder.data_path.exists():', 'if True:',
           TEST_HH + 'the_loser_of_a_race_reads_what_the_winner_prepared'),
    Mutant(HH, "if problems and on_error != 'skip':", 'if False:',
           TEST_HH + 'an_unreadable_line_is_an_error_or_counted_also_from_the_cache'),
    Mutant(HH, '(count + 1, first)', '(count + 1, example)',
           TEST_HH + 'what_is_left_out_is_counted_by_kind_with_the_first_example'),
    Mutant(HH, '(count + 1, first)', '(count, first)',
           TEST_HH + 'what_is_left_out_is_counted_by_kind_with_the_first_example'),
    Mutant(HH, 'pair[1].strip() and pair[2].strip()', 'pair[1] and pair[2]',
           TEST_HH + 'what_is_left_out_is_counted_by_kind_with_the_first_example'),
    Mutant(HH, '  if chosen == rejected:', '  if False:',
           TEST_HH + 'what_is_left_out_is_counted_by_kind_with_the_first_example'),
    Mutant(HH, '  if folder is not None:', '  if True:',
           TEST_HH + 'without_a_folder_the_files_are_downloaded_once'),
    Mutant(HH, '(OSError, tfds.download.DownloadError)', 'OSError',
           TEST_HH + 'a_failed_download_names_the_remedy'),
    Mutant(HH, '      if not path.is_file():', '      if False:',
           TEST_HH + 'subsets_follow_one_another'),
    Mutant(HH, "if t.role == 'human'), '')", "if t.role == 'assistant'), '')",
           TEST_HH + 'validation_keeps_all_pairs_of_a_conversation_on_one_side'),
    Mutant(HH, 'sha256(first.strip().encode())', 'sha256(prompt.encode())',
           TEST_HH + 'validation_keeps_all_pairs_of_a_conversation_on_one_side'),
    Mutant(HH, '< fraction for', '< fraction / 2 for',
           TEST_HH + 'validation_keeps_all_pairs_of_a_conversation_on_one_side'),
    Mutant(HH, '    if not records:', '    if False:',
           TEST_HH + 'an_interrupted_preparation_leaves_nothing_that_is_served'),

    Mutant(BATCHES, 'i * batch_size + np.arange', 'i + np.arange',
           TEST_BATCHES + 'rows_every_item_once_an_epoch'),
    Mutant(BATCHES, 'default_rng([seed, epoch])', 'default_rng([seed, 0])',
           TEST_BATCHES + 'rows_depend_on_seed_and_position_only'),
    Mutant(BATCHES, 'default_rng([seed, epoch])', 'default_rng([epoch])',
           TEST_BATCHES + 'rows_depend_on_seed_and_position_only'),
    Mutant(BATCHES, 'column_T >= width - length_N', 'column_T > width - length_N',
           TEST_BATCHES + 'pad_by_hand'),
    Mutant(BATCHES, 'column_T < length_N', 'column_T <= length_N', TEST_BATCHES + 'pad_by_hand'),
    Mutant(BATCHES, 'tokens_NT = np.full(real_NT.shape, pad_id',
           'tokens_NT = np.full(real_NT.shape, 0', TEST_BATCHES + 'pad_by_hand'),
    Mutant(BATCHES, '    start = end\n', '    start = end - 1\n',
           TEST_BATCHES + 'pack_loses_and_doubles_nothing'),
    Mutant(BATCHES, 'min(length, end - place)', 'length',
           TEST_BATCHES + 'pack_loses_and_doubles_nothing'),
    Mutant(BATCHES, 'row_N * length + column_N', 'row_N * length',
           TEST_BATCHES + 'pack_loses_and_doubles_nothing'),
    Mutant(BATCHES, 'np.repeat(order_N, size_N)', 'np.repeat(row_N + 1, size_N)',
           TEST_BATCHES + 'pack_by_hand'),
    Mutant(BATCHES, "np.argsort(-size_N, kind='stable')", "np.argsort(size_N, kind='stable')",
           TEST_BATCHES + 'pack_by_hand'),
    Mutant(BATCHES, 'bisect.bisect_left(rooms, size)', 'bisect.bisect_right(rooms, size)',
           TEST_BATCHES + 'pack_by_hand'),
    Mutant(BATCHES, '(np.arange(filled) < len(index))', '(np.arange(filled) >= 0)',
           TEST_BATCHES + 'buckets_cover_every_item_once_in_the_narrowest_width'),
    Mutant(BATCHES, 'np.searchsorted(widths, length_N)',
           "np.searchsorted(widths, length_N, 'right').clip(max=len(widths) - 1)",
           TEST_BATCHES + 'buckets_cover_every_item_once_in_the_narrowest_width'),
    Mutant(BATCHES, 'np.sort(widths)', 'np.array(widths)',
           TEST_BATCHES + 'buckets_cover_every_item_once_in_the_narrowest_width'),
    Mutant(BATCHES, '-(-len(index) // batch_size)', '(len(index) // batch_size + 1)',
           TEST_BATCHES + 'buckets_fill_a_small_bucket_with_its_own_items'),
    Mutant(BATCHES, 'rng.permutation(np.flatnonzero(bucket_N == bucket))',
           'np.flatnonzero(bucket_N == bucket)',
           TEST_BATCHES + 'buckets_are_shuffled_by_seed_and_epoch'),
    Mutant(BATCHES, 'for i in rng.permutation(len(plan))', 'for i in range(len(plan))',
           TEST_BATCHES + 'buckets_are_shuffled_by_seed_and_epoch'),

    Mutant(BASELINES, 'len(a) - len(b) for', 'len(b) - len(a) for',
           TEST_BASELINES + 'longer_by_hand'),
    Mutant(BASELINES, '(1 + np.sign(margin_N)) / 2', '(margin_N > 0) * 1.0',
           TEST_BASELINES + 'longer_by_hand'),
    Mutant(BASELINES, '.mean() < 0.5]', '.mean() > 0.5]',
           TEST_BASELINES + 'the_sign_is_learnt_per_subset'),
    Mutant(BASELINES, 'train_correct_N[train_subset_N == subset]', 'train_correct_N',
           TEST_BASELINES + 'the_sign_is_learnt_per_subset'),
    Mutant(BASELINES, 'weight_F - penalty * (x_NF.T', 'weight_F + penalty * (x_NF.T',
           TEST_BASELINES + 'the_fit_is_that_of_scikit_learn'),
    Mutant(BASELINES, '+ weight_F @ weight_F / 2, gradient', '+ weight_F @ weight_F, gradient',
           TEST_BASELINES + 'the_fit_is_that_of_scikit_learn'),
    Mutant(BASELINES, '> best:', '< best:',
           TEST_BASELINES + 'ngram_takes_the_penalty_that_is_best_on_validation'),
    Mutant(BASELINES, '_right(test_NF @ best_F)', '_right(test_NF @ weight_F)',
           TEST_BASELINES + 'ngram_takes_the_penalty_that_is_best_on_validation'),
    Mutant(BASELINES, 'dict.fromkeys([*words, *pairwise(words)])', 'dict.fromkeys(words)',
           TEST_BASELINES + 'features_are_those_of_scikit_learn'),
    Mutant(BASELINES, 'dict.fromkeys([*words, *pairwise(words)])', '[*words, *pairwise(words)]',
           TEST_BASELINES + 'features_are_those_of_scikit_learn'),
    Mutant(BASELINES, 'if n >= least', 'if n > least',
           TEST_BASELINES + 'features_are_those_of_scikit_learn'),
    Mutant(BASELINES, 'np.log1p(len(text))', 'np.log1p(len(text.split()))',
           TEST_BASELINES + 'features_are_those_of_scikit_learn'),
    Mutant(BASELINES, '_features(chosen, column) - _features(rejected, column)',
           '_features(chosen, column)', TEST_BASELINES + 'ngram_leaves_equal_answers_undecided'),
    Mutant(BASELINES, '(_Z95 / (2 * count)) ** 2', '_Z95 / (2 * count)',
           TEST_BASELINES + 'wilson_by_hand'),
    Mutant(BASELINES, 'std(ddof=1)', 'std()', TEST_BASELINES + 'paired_difference_by_hand'),

    Mutant(SPEC, 's.init(key_for(key, path), s.shape',
           's.init(key, s.shape',
           TEST_SPEC + 'a_new_leaf_leaves_the_others_as_they_were'),
    Mutant(SPEC, 'size % mesh.shape[axis]:',
           'size < mesh.shape[axis]:',
           TEST_SPEC + 'a_dimension_that_does_not_divide_is_named'),
    Mutant(SPEC, 'PartitionSpec(*axes)',
           'PartitionSpec(*axes[::-1])',
           TEST_SPEC + 'shardings_follow_the_rules'),
    Mutant(MESH, "PartitionSpec(('data', 'fsdp'))",
           "PartitionSpec('data')",
           TEST_MESH + 'put_batch_cuts_rows_over_data_and_fsdp'),
    Mutant(MESH, 'AxisType.Auto,',
           'AxisType.Explicit,',
           TEST_MESH + 'the_rest_goes_to_the_axis_of_size_minus_one'),
    Mutant(SIZES, '(4 + 2 * config.mlp_ratio)',
           '12',
           TEST_SIZES + 'laptop_rungs_and_overrides'),
    Mutant(ATTENTION, 'causal_TT[None] & (group',
           '(group',
           TEST_TRANSFORMER + 'equals_numpy_whatever_the_padding'),
    Mutant(ATTENTION, 'score / q.shape[-1] ** 0.5',
           'score / q.shape[-1]',
           TEST_TRANSFORMER + 'equals_numpy_whatever_the_padding'),
    Mutant(ATTENTION, 'low * cos - high * sin, high * cos + low * sin',
           'low * cos + high * sin, high * cos - low * sin',
           TEST_TRANSFORMER + 'equals_numpy_whatever_the_padding'),
    Mutant(ATTENTION, 'valid_BT[:, None] > 0',
           'valid_BT[:, None] >= 0',
           TEST_DECODE + 'cache_equals_reading_the_whole_text_again'),
    Mutant(TRANSFORMER, 'jnp.where(valid_BT > 0, tokens_BT, 0).reshape(-1)',
           'tokens_BT.reshape(-1)',
           TEST_TRANSFORMER + 'the_content_of_padding_changes_nothing'),
    Mutant(TRANSFORMER, 'cache.position_B + 1,',
           'cache.position_B,',
           TEST_DECODE + 'cache_equals_reading_the_whole_text_again'),
    Mutant(TRANSFORMER, 'write = (2 * L) ** -0.5',
           'write = 1.0',
           TEST_TRANSFORMER + 'initial_sizes'),
    Mutant(RUNDIR, "if record['step'] <= step))",
           "if record['step'] < step))",
           TEST_RUNDIR + 'an_interrupted_run_leaves_the_metrics_of_an_uninterrupted_one'),
    Mutant(RUNDIR, 'sort_keys=True).encode()',
           'sort_keys=False).encode()',
           TEST_RUNDIR + 'the_hash_ignores_the_order_of_keys_and_nothing_else'),
    Mutant(RUNDIR, 'if there.get(key) != here.get(key):',
           'if key in here and there.get(key) != here[key]:',
           TEST_RUNDIR + 'another_config_is_refused_by_its_first_key_and_nothing_changes'),
    Mutant(FITS, 'return linear(np.sqrt(_kl(kl)), reward)',
           'return linear(_kl(kl), reward)',
           TEST_FITS + 'sqrt_kl_is_a_line_in_the_root'),
    Mutant(FITS, 'residual / (count - terms)',
           'residual / count',
           TEST_FITS + 'line_by_hand'),
    Mutant(FITS, 'return np.cumsum(gain > gain[-1] / 2) == 0',
           'return gain <= gain[-1] / 2',
           TEST_FITS + 'early_part_ends_where_half_of_the_gain_is_first_passed'),
    Mutant(FITS, 'np.log(data / 8e4)',
           'np.log10(data / 8e4)',
           TEST_FITS + 'accuracy_law_matches_the_normal_equations_and_finds_the_paper'),
    Mutant(CALIBRATION, 'np.abs(score_diff)',
           'np.asarray(score_diff)',
           TEST_CALIBRATION + 'curve_by_hand'),
    Mutant(CALIBRATION, 'draws @ gap_NB / count',
           'draws @ gap_NB / samples',
           TEST_CALIBRATION + 'error_interval_matches_resampling_in_a_loop'),

    # policies against one another, as rankers, and between helpful and harmful prompts
    Mutant(ELO, 'wins_NN * p_NN.T - wins_NN.T * p_NN)', 'wins_NN - games_NN * p_NN)',
           TEST_ELO + 'who_won_every_game_is_far_ahead_and_finite'),
    Mutant(ELO, 'expit(r_N[:, None] - r_N)', 'expit(r_N - r_N[:, None])',
           TEST_ELO + 'two_players_by_hand'),
    Mutant(ELO, '.sum(1) - precision * r_N', '.sum(1)', TEST_ELO
           + 'equals_brute_force_and_logistic_regression'),
    Mutant(ELO, '(PER_SCORE / PRIOR_SD) ** 2', 'PER_SCORE / PRIOR_SD',
           TEST_ELO + 'equals_brute_force_and_logistic_regression'),
    Mutant(ELO, 'step_N * np.log1p(size) / size', 'step_N', TEST_ELO
           + 'a_table_that_plain_newton_leaves_is_fitted'),
    Mutant(ELO, '- 2 * covariance_NN[anchor]\n', '\n',
           TEST_ELO + 'equals_brute_force_and_logistic_regression'),
    Mutant(ELO, 'r_N - r_N[anchor]', 'r_N - r_N[0]',
           TEST_ELO + 'the_order_of_players_and_the_anchor_change_nothing_else'),
    Mutant(ELO, '400 / np.log(10) ', '400 / np.log(2) ', TEST_ELO + 'the_published_table'),
    Mutant(ELO, 'expit(beta * (score_NP[a_M] - score_NP[b_M]))', 'expit(score_NP[a_M] - score_NP[b_M])',
           TEST_ELO + 'expected_wins_by_hand'),
    Mutant(ELO, '(~prefers_MP & kept_MP)', '(~prefers_MP)', TEST_ELO + 'a_worker_counts_what_he_kept'),
    Mutant(ELO, 'wins_NN[a_M, b_M], wins_NN[b_M, a_M]', 'wins_NN[b_M, a_M], wins_NN[a_M, b_M]',
           TEST_ELO + 'expected_wins_by_hand'),
    Mutant(ELO, '(wins_NN < 0, ', '(wins_NN < -np.inf, ', TEST_ELO + 'bad_input_is_one_line'),
    Mutant(ELO, 'not 0 <= anchor < len', 'not anchor < len', TEST_ELO + 'bad_input_is_one_line'),
    Mutant(RANKER, '/ mask_BT.sum(1)', '', TEST_RANKER
           + 'margin_and_accuracy_are_of_the_mean_token_of_the_answer'),
    Mutant(RANKER, 'mask_BT = valid_BT[:, start:]', 'mask_BT = valid_BT[:, start:] * 0 + 1',
           TEST_RANKER + 'margin_and_accuracy_are_of_the_mean_token_of_the_answer'),
    Mutant(RANKER, '= chosen_B - rejected_B', '= rejected_B - chosen_B',
           TEST_RANKER + 'margin_and_accuracy_are_of_the_mean_token_of_the_answer'),
    Mutant(RANKER, "'rank_accuracy': (1 + jnp.sign(margin_N)) / 2", "'rank_accuracy': margin_N > 0",
           TEST_RANKER + 'a_long_answer_is_not_a_bad_one_and_equal_ones_tie'),
    Mutant(RANKER, 'paired_difference(end[name], start[name])',
           'paired_difference(start[name], end[name])', TEST_RANKER + 'summary_by_hand'),
    Mutant(EVAL_POLICY, '(~harmful_B, harmful_B)', '(harmful_B, ~harmful_B)',
           TEST_EVAL_POLICY + 'helpful_and_harmful_prompts_apart'),
    Mutant(EVAL_POLICY, ' if mask_B.any()', '', TEST_EVAL_POLICY + 'helpful_and_harmful_prompts_apart'),
    Mutant(EVAL_POLICY, 'max(len(end[name]) - 1, 1)', 'len(end[name])',
           TEST_EVAL_POLICY + 'kinds_by_hand'),
    Mutant(TRUE_REWARD, "['refused'].astype", "['refusal'].astype",
           TEST_TRUE_REWARD + 'a_refusal_says_so_and_does_nothing_else'),
    Mutant(COMPARISONS, 'batches.pad([p[-width:] for p in', 'batches.pad([p[:width] for p in',
           TEST_WORLDS + 'hh_comparisons_as_a_policy_ranks_them'),
    Mutant(COMPARISONS, '[index] for p, a in zip(', ' for p, a in zip(',
           TEST_WORLDS + 'hh_comparisons_as_a_policy_ranks_them'),
    Mutant(COMPARISONS, "('helpful', ~harmful_N), ('harmful', harmful_N)",
           "('helpful', harmful_N), ('harmful', ~harmful_N)",
           TEST_WORLDS + 'hh_comparisons_as_a_policy_ranks_them'),
    Mutant(WORLDS, 'group_N == len(world.groups) - 1', 'group_N == len(world.groups) - 2',
           TEST_WORLDS + 'the_helpful_share_of_training_prompts_is_exact'),
    Mutant(WORLDS, '[round(n * helpful_share), n - round(n * helpful_share)]',
           '[n - round(n * helpful_share), round(n * helpful_share)]',
           TEST_WORLDS + 'the_helpful_share_of_training_prompts_is_exact'),
    Mutant(WORLDS, '(have >= wanted).all()', '(have >= wanted).any()',
           TEST_WORLDS + 'the_helpful_share_of_training_prompts_is_exact'),
    Mutant(WORLDS, 'number = SPLITS.index(name)', 'number = len(made)',
           TEST_WORLDS + 'one_split_alone_is_that_of_all_three'),
    Mutant(CHECKPOINT, 'steps[-1] if step is None', 'steps[0] if step is None',
           TEST_CHECKPOINT + 'parameters_alone_and_a_part_of_them'),
    Mutant(CHECKPOINT, 'steps[-1] if step is None else step\n', 'steps[-1]\n',
           TEST_CHECKPOINT + 'parameters_of_an_earlier_checkpoint'),
    Mutant(FIGURES, '((len(scores) - 1) / 2 - i)', '(i - (len(scores) - 1) / 2)',
           TEST_FIGURES + 'elo_draws_scores_with_their_intervals_from_the_top'),
    Mutant(FIGURES, 'half_N = 1.96 * np', 'half_N = np',
           TEST_FIGURES + 'elo_draws_scores_with_their_intervals_from_the_top'),
    Mutant(FIGURES, '(here.sum() - 1) / 2)', 'here.sum() / 2)',
           TEST_FIGURES + 'tension_draws_runs_side_by_side_and_a_line_a_share'),
    Mutant(TENSION, "key=lambda run: (run['share'], run['seed'])", "key=lambda run: run['seed']",
           TEST_TENSION + 'finished_runs_in_order'),
    Mutant(TENSION, "mine = [run for run in runs if run['share'] == share]", 'mine = runs',
           TEST_TENSION + 'finished_runs_in_order'),
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
