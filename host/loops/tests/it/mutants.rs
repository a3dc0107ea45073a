//! The table of deliberate bugs: each is switched on in a child that runs the named tests of this binary, which must fail.
//!
//! A bug that no test notices fails the table. `NEXTSTATE_MUTANT=<name> cargo test -p loops` shows one by hand.

use std::{
    env,
    process::{Command, Stdio},
    sync::Mutex,
    thread,
};

/// A child that takes longer has been stopped by its bug, which counts as noticed.
const SECONDS: &str = "10";

/// A bug, and a test that notices it.
const TABLE: &[(&str, &str)] = &[
    (
        "failed-vote-is-zero",
        "judging::no_vote_present_is_no_verdict_and_never_a_reward_of_zero",
    ),
    (
        "no-verdict-rewards-zero",
        "judging::no_vote_present_is_no_verdict_and_never_a_reward_of_zero",
    ),
    (
        "votes-outrank-a-person",
        "judging::explicit_feedback_outranks_the_judge_before_and_after_it_has_judged",
    ),
    (
        "any-reward-believed",
        "judging::a_rule_that_turns_round_what_was_said_trains_nothing",
    ),
    (
        "praise-never-fades",
        "judging::praise_of_everything_counts_less_and_less_also_after_a_restart",
    ),
    (
        "trained-again-after-restart",
        "training::samples_become_versions_that_are_live_as_soon_as_they_are_committed",
    ),
    (
        "revert-forgotten-at-restart",
        "history::a_revert_brings_back_weights_and_optimizer_bit_for_bit_and_is_live_at_once",
    ),
    (
        "revision-trained-again",
        "moving::a_word_about_a_turn_that_was_trained_trains_it_no_second_time",
    ),
    (
        "stale-sample-trained",
        "training::a_sample_that_lags_too_far_behind_is_dropped_and_counted",
    ),
    (
        "stale-not-recorded",
        "training::a_sample_that_lags_too_far_behind_is_dropped_and_counted",
    ),
    (
        "trial-is-for-all",
        "staging::a_version_on_trial_answers_its_share_and_nothing_is_trained_until_it_is_promoted",
    ),
    (
        "trained-during-a-trial",
        "staging::a_version_on_trial_answers_its_share_and_nothing_is_trained_until_it_is_promoted",
    ),
    (
        "rejected-is-promoted",
        "staging::a_version_that_is_worse_in_its_trial_answers_nobody_and_the_next_one_starts_before_it",
    ),
    (
        "replay-ignores-trials",
        "staging::a_version_that_is_worse_in_its_trial_answers_nobody_and_the_next_one_starts_before_it",
    ),
    (
        "trial-forgotten-at-restart",
        "staging::a_trial_goes_on_where_it_was_after_a_kill",
    ),
    (
        "moved-to-what-is-trained-again",
        "history::whoever_goes_back_to_a_version_after_forgetting_gets_its_weights_also_in_a_replay",
    ),
    (
        "forget-leaves-the-learner",
        "history::a_learner_that_could_not_be_restored_after_forgetting_is_restored_before_its_next_step",
    ),
    (
        "held-version-answers",
        "moving::a_version_that_the_gate_cannot_examine_is_kept_and_never_answers",
    ),
    (
        "held-and-stays",
        "retreat::a_slide_is_taken_back_to_where_versions_are_far_enough_to_tell_them_apart",
    ),
    (
        "gate-error-passes",
        "moving::a_version_that_the_gate_cannot_examine_is_kept_and_never_answers",
    ),
    (
        "end-of-samples-not-recorded",
        "recovery::killed_after_any_record_the_loops_lose_nothing_and_train_nothing_twice",
    ),
    (
        "revert-without-optimizer",
        "moving::a_revert_has_the_optimizer_state_of_its_source",
    ),
    (
        "revert-waits-for-the-step",
        "moving::a_revert_in_the_middle_of_a_step_answers_at_once_and_the_step_is_taken_again_from_there",
    ),
    (
        "overtaken-step-committed",
        "moving::a_revert_in_the_middle_of_a_step_answers_at_once_and_the_step_is_taken_again_from_there",
    ),
    (
        "revert-leaves-the-learner",
        "history::a_revert_brings_back_weights_and_optimizer_bit_for_bit_and_is_live_at_once",
    ),
    (
        "nan-committed",
        "training::a_refused_step_is_recorded_and_the_version_does_not_move",
    ),
    (
        "busy-is-refused",
        "training::a_learner_that_is_busy_is_asked_again_and_nothing_is_lost",
    ),
    (
        "run-not-recorded",
        "history::a_replay_gives_every_version_again",
    ),
    (
        "replay-waits-for-the-next-turn",
        "history::a_batch_that_other_rules_make_due_is_replayed_where_it_was",
    ),
    (
        "forgotten-turn-ends-the-judge",
        "racing::a_turn_that_is_forgotten_while_it_is_judged_ends_nothing_else",
    ),
    (
        "begun-forgetting-dropped",
        "history::a_kill_while_forgetting_is_finished_at_the_next_start",
    ),
    (
        "forget-keeps-keys",
        "history::the_adapter_after_forgetting_is_the_one_of_a_ledger_in_which_the_user_never_was",
    ),
    (
        "forget-keeps-the-head",
        "history::the_adapter_after_forgetting_is_the_one_of_a_ledger_in_which_the_user_never_was",
    ),
    (
        "forget-keeps-weights",
        "history::the_adapter_after_forgetting_is_the_one_of_a_ledger_in_which_the_user_never_was",
    ),
    (
        "forgotten-derived-again",
        "moving::a_replay_without_somebody_gives_the_weights_of_a_world_in_which_she_never_was",
    ),
    (
        "trip-ignored",
        "history::a_live_guard_takes_a_broken_version_back_at_once_and_says_why",
    ),
    (
        "guard-counts-other-versions",
        "moving::a_guard_counts_only_replies_of_the_version_that_it_watches",
    ),
    (
        "every-version-starts-clean",
        "history::versions_that_follow_each_other_fast_inherit_what_speaks_against_them",
    ),
    (
        "feedback-of-anybody",
        "judging::a_correction_is_the_hint_and_feedback_to_a_turn_of_another_tenant_is_unknown",
    ),
    (
        "side-request-reacts",
        "serving::a_side_request_that_quotes_the_conversation_is_nobodys_reaction",
    ),
    (
        "nan-served",
        "serving::a_turn_that_was_never_begun_or_has_impossible_numbers_is_refused",
    ),
    (
        "closed-twice",
        "serving::the_same_request_sent_twice_closes_a_turn_once",
    ),
    (
        "forgotten-episode-goes-on",
        "store::an_episode_in_which_something_that_it_may_have_read_is_forgotten_ends_there",
    ),
    (
        "stale-checkpoint-believed",
        "checkpoint::checkpoints_of_other_rules_or_of_another_chain_are_not_believed",
    ),
    (
        "checkpoint-keeps-the-forgotten",
        "checkpoint::forgetting_takes_every_checkpoint_away_and_the_next_one_knows_nothing_of_it",
    ),
    (
        "store-of-now",
        "store::an_episode_that_goes_on_after_a_restart_sees_what_it_saw",
    ),
    (
        "store-remembers",
        "store::what_a_forgotten_episode_stored_is_gone_and_so_are_those_that_read_it",
    ),
    (
        "store-hands-on-what-is-forgotten",
        "store::what_a_forgotten_user_made_a_turn_store_is_gone_with_the_turns_that_read_it",
    ),
    (
        "store-hands-on-what-is-forgotten",
        "store::an_episode_that_is_not_over_goes_with_what_it_may_have_read",
    ),
];

#[test]
fn every_deliberate_bug_is_noticed() {
    if env::var("NEXTSTATE_MUTANT").is_ok() {
        return;
    }
    let (left, survived) = (Mutex::new(TABLE.iter()), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some((mutant, test)) = left.lock().unwrap().next() else {
                        return;
                    };
                    match killed(mutant, test) {
                        true => println!("{mutant} -> killed by {test}"),
                        false => survived.lock().unwrap().push(*mutant),
                    }
                }
            });
        }
    });
    let survived = survived.into_inner().unwrap();
    assert!(survived.is_empty(), "nobody noticed {survived:?}");
}

fn killed(mutant: &str, test: &str) -> bool {
    let output = Command::new("timeout")
        .arg(SECONDS)
        .arg(env::current_exe().unwrap())
        .args(["--exact", test, "--test-threads=1"])
        .env("NEXTSTATE_MUTANT", mutant)
        .stderr(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("running 1 test\n"),
        "there is no test {test}: {text}"
    );
    // 101 is a failed test's, 124 is `timeout`'s.
    matches!(output.status.code(), Some(101 | 124))
}
