//! Bugs that the tests must see: each is built into the kernels, and a test that passes without it must fail.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::{env, fs};

use crate::setup::driver;

/// `NS_PLANTED(number)` in the sources, what it is, and the test that sees it.
const PLANTED: &[(u32, &str, &str)] = &[
    (
        1,
        "a missing barrier in a row's sum",
        "rmsnorm::the_norm_is",
    ),
    (
        2,
        "a missing barrier in a sum in f64",
        "adamw::the_norm_and",
    ),
    (
        3,
        "a missing barrier in the search for the largest logit",
        "sample::without_a",
    ),
    (
        4,
        "a missing barrier before sums are used again",
        "sample::draws_are",
    ),
    (
        5,
        "two sums in one place without a barrier between",
        "rmsnorm::the_gradient",
    ),
    (6, "keys and values one position too far", "rope::queries"),
    (7, "a rotation by the first angle's sine", "rope::queries"),
    (8, "a chunk's last value left out", "adamw::the_norm_and"),
    (
        9,
        "a sample that reaches into the next",
        "loss::every_objective",
    ),
    (
        10,
        "a missing barrier in a largest ratio",
        "loss::every_objective",
    ),
    (11, "a missing barrier between spans", "sample::draws_are"),
    (12, "one too few of equal weights", "sample::equal_weights"),
    (
        13,
        "a column's offset of one load",
        "swiglu::the_activation",
    ),
    (
        14,
        "a token beyond the vocabulary by one",
        "embed::each_token",
    ),
];

#[test]
fn every_planted_bug_is_seen() {
    if env::var_os("NEXTSTATE_PLANT").is_some() || env::var_os("NEXTSTATE_TEST_GPU").is_some() {
        return;
    }
    if !driver() {
        return;
    }
    let missed: Vec<_> = PLANTED.iter().filter(|planted| !is_seen(planted)).collect();
    assert!(missed.is_empty(), "no test failed for {missed:#?}");
}

fn is_seen((number, _, test): &(u32, &str, &str)) -> bool {
    let run = Command::new(env::current_exe().unwrap())
        .args([test, "--test-threads=1"])
        .env("NEXTSTATE_PLANT", number.to_string())
        .env("NEXTSTATE_REQUIRE_EMULATOR", "1")
        .output()
        .unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&run.stdout),
        String::from_utf8_lossy(&run.stderr)
    );
    assert!(!text.contains("was not built"), "{text}");
    assert!(text.contains("running 1 test"), "{test} is no test: {text}");
    !run.status.success()
}

#[test]
fn the_table_has_every_planted_bug_of_the_sources() {
    let cuda = Path::new(env!("CARGO_MANIFEST_DIR")).join("cuda");
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(cuda).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let text = fs::read_to_string(path).unwrap();
            let after = text.split("NS_PLANTED(").skip(1);
            found.extend(after.filter_map(|rest| rest.split(')').next()?.parse::<u32>().ok()));
        }
    }
    let known: BTreeSet<u32> = PLANTED.iter().map(|(number, ..)| *number).collect();
    assert_eq!(known, found);
}
