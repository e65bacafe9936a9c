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
TEST_EVAL_PREFERENCE = 'evals/test_preference.py::test_'
TEST_EVAL_POLICY = 'evals/test_policy.py::test_'

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
    Mutant(ORACLE, 'np.where(harmful, kind, 1 - kind)', 'harmful.astype(int)',
           TEST_ORACLE + 'tasks_are_those_a_naive_reader_finds'),
    Mutant(ORACLE, 'kind, harmful = rng.integers(0, 2, n), rng.random(n) < 0.5',
           'kind = rng.integers(0, 2, n); harmful = rng.random(n) < 0.2 + 0.6 * kind',
           TEST_ORACLE + 'no_single_word_tells_harm_but_the_pair_does'),
    Mutant(ORACLE, 'kind, harmful = rng.integers(0, 2, n), rng.random(n) < 0.5',
           'kind = rng.integers(0, 2, n); harmful = kind > 0',
           TEST_ORACLE + 'a_bag_of_words_is_at_chance_on_harm'),
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
    Mutant(TOKENS, 'oracle.reactions(said, task.required_NU)',
           'oracle.reactions(said[::-1], task.required_NU)',
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
    Mutant(CHECKS, 'expected_max(score_NK, n, reward_NK)', 'expected_max(reward_NK, n, reward_NK)',
           TEST_CHECKS + 'best_of_n_is_the_mean_over_all_subsets'),
    Mutant(CHECKS, 'np.std(error_N, ddof=1)', 'np.std(score_N, ddof=1)',
           TEST_CHECKS + 'best_of_n_is_the_mean_over_all_subsets'),

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
