//! The table of deliberate bugs: each is switched on in a child that runs the named tests of this binary, which must fail.
//!
//! A bug that no test notices fails the table. `NEXTSTATE_MUTANT=<name> cargo test -p ledger` shows one by hand.

use std::{
    env,
    process::{Command, Stdio},
    sync::Mutex,
    thread,
};

use crate::syscalls::strace;

/// A child that takes longer has been stopped by its bug, which counts as noticed.
const SECONDS: &str = "20";

/// A bug, and a test that notices it.
const TABLE: &[(&str, &str)] = &[
    (
        "not-committed",
        "behaviour::what_was_acknowledged_is_there_after_reopening_in_the_same_order",
    ),
    (
        "mark-not-written",
        "behaviour::a_database_that_lost_its_acknowledged_tail_is_refused",
    ),
    (
        "mark-without-sync",
        "syscalls::whatever_is_acknowledged_was_synced_before",
    ),
    (
        "commit-without-sync",
        "syscalls::whatever_is_acknowledged_was_synced_before",
    ),
    (
        "blob-without-sync",
        "syscalls::whatever_is_acknowledged_was_synced_before",
    ),
    (
        "blob-in-place",
        "syscalls::whatever_is_acknowledged_was_synced_before",
    ),
    (
        "name-without-sync",
        "syscalls::whatever_is_acknowledged_was_synced_before",
    ),
    (
        "erase-without-sync",
        "syscalls::whatever_is_acknowledged_was_synced_before",
    ),
    (
        "no-lock",
        "behaviour::a_second_host_on_the_same_folder_is_refused",
    ),
    (
        "mark-ignored",
        "behaviour::a_database_that_lost_its_acknowledged_tail_is_refused",
    ),
    (
        "divergence-ignored",
        "behaviour::a_ledger_replaced_by_another_of_the_same_length_is_refused",
    ),
    (
        "tail-not-checked",
        "behaviour::a_missing_record_is_refused_and_named",
    ),
    (
        "no-chain-check",
        "behaviour::a_flipped_bit_in_a_body_is_found_and_located",
    ),
    (
        "key-not-checked",
        "behaviour::a_second_append_with_the_same_key_returns_the_first_place",
    ),
    (
        "limits-not-checked",
        "behaviour::an_entry_that_breaks_a_limit_is_refused_before_it_is_written",
    ),
    (
        "full-poisons",
        "behaviour::a_full_disk_refuses_the_append_and_nothing_else",
    ),
    (
        "failed-write-goes-on",
        "crash::after_a_failed_write_nothing_more_is_accepted_and_nothing_acknowledged_is_lost",
    ),
    (
        "poisoned-takes-blobs",
        "crash::after_a_failed_write_nothing_more_is_accepted_and_nothing_acknowledged_is_lost",
    ),
    (
        "blob-not-checked",
        "behaviour::a_damaged_blob_is_refused_until_it_is_stored_again",
    ),
    (
        "damaged-blob-kept",
        "behaviour::a_damaged_blob_is_refused_until_it_is_stored_again",
    ),
    (
        "key-not-destroyed",
        "sealing::a_destroyed_key_stays_destroyed_and_takes_only_its_own_subject_with_it",
    ),
    (
        "one-key-for-all",
        "sealing::a_destroyed_key_stays_destroyed_and_takes_only_its_own_subject_with_it",
    ),
    (
        "forgotten-poisons",
        "sealing::more_about_a_forgotten_subject_is_refused_and_everybody_else_goes_on",
    ),
];

#[test]
fn every_deliberate_bug_is_noticed() {
    if env::var("NEXTSTATE_MUTANT").is_ok() {
        return;
    }
    let traced = strace();
    let left = TABLE
        .iter()
        .filter(|(_, test)| traced || !test.starts_with("syscalls::"));
    let (left, survived) = (Mutex::new(left), Mutex::new(Vec::new()));
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
