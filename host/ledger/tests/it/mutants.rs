//! Deliberate bugs, one at a time: each must make the tests named beside it fail. That is what proves the suite.

use std::{
    env,
    process::{Command, Stdio},
};

use ledger::mutant;

const KILL: &str = "simulated::a_kill_at_any_operation_loses_nothing_acknowledged";
const POWER: &str = "simulated::a_power_loss_at_any_operation_loses_nothing_acknowledged";
const FAILED: &str =
    "simulated::a_failed_operation_anywhere_stops_the_ledger_and_loses_nothing_acknowledged";
const TORN: &str = "simulated::a_group_is_there_whole_or_not_at_all_after_any_tear";

/// A bug and the tests that must notice it, each of them.
const TABLE: [(&str, &[&str]); 15] = [
    (
        "ack-before-fsync",
        &[
            POWER,
            "simulated::an_append_costs_one_sync_and_opening_checks_before_it_writes",
        ],
    ),
    ("skip-folder-fsync", &[POWER]),
    ("skip-blob-fsync", &[POWER]),
    ("blob-without-rename", &[POWER]),
    ("ignore-torn-group", &[POWER, TORN]),
    (
        "no-chain-check",
        &[
            "damage::a_flipped_bit_in_an_old_body_is_found_and_located",
            "damage::a_record_rewritten_together_with_its_hash_breaks_the_chain_after_it",
        ],
    ),
    (
        "key-not-checked",
        &[
            "behaviour::a_second_append_with_the_same_key_returns_the_first_place",
            KILL,
        ],
    ),
    (
        "retry-after-failed-fsync",
        &[
            FAILED,
            "simulated::a_failed_sync_is_never_followed_by_an_acknowledgement",
        ],
    ),
    (
        "lock-not-taken",
        &[
            "behaviour::a_second_host_on_the_same_folder_is_refused",
            "simulated::two_handles_on_one_simulated_folder_are_refused_too",
        ],
    ),
    (
        "mark-ignored",
        &[
            "damage::a_log_that_lost_its_acknowledged_tail_is_refused",
            "damage::a_ledger_replaced_by_another_of_the_same_length_is_refused",
        ],
    ),
    ("erase-without-sync", &[POWER]),
    (
        "full-poisons-nothing-written",
        &[
            "simulated::a_full_disk_at_any_size_refuses_and_recovers",
            "space::a_full_disk_is_noticed_while_what_is_begun_can_still_be_finished",
        ],
    ),
    (
        "key-used-before-fsync",
        &["sealed::a_subjects_key_is_durable_before_it_is_used"],
    ),
    (
        "index-trusted",
        &["damage::an_index_is_made_again_when_it_is_missing_damaged_or_of_another_segment"],
    ),
    ("name-before-header", &[POWER]),
];

/// The test's name, when it failed as a test does.
fn killed_by(mutant: &str, test: &str) -> bool {
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", test])
        .env(mutant::VARIABLE, mutant)
        .stderr(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("running 1 test"),
        "{test} is not there: {text}"
    );
    !output.status.success() && text.contains("test result: FAILED")
}

#[test]
fn every_deliberate_bug_is_noticed_by_each_test_named_for_it() {
    // In a release build there are no bugs to have; and a child does not have children.
    if !cfg!(debug_assertions) || env::var_os(mutant::VARIABLE).is_some() {
        return;
    }
    let mut survived = Vec::new();
    println!("{:<30} killed by", "bug");
    for (mutant, tests) in TABLE {
        for test in tests {
            let killed = killed_by(mutant, test);
            println!(
                "{mutant:<30} {test}{}",
                if killed { "" } else { ": SURVIVED" }
            );
            if !killed {
                survived.push((mutant, *test));
            }
        }
    }
    assert!(survived.is_empty(), "{survived:?}");
}
