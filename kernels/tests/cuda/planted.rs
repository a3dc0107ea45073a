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
        "a missing barrier before a bound is read",
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
    (
        15,
        "the last block but one taken for the last",
        "sample::draws_are",
    ),
    (
        16,
        "a missing barrier before bins are read",
        "sample::equal_weights",
    ),
    (
        17,
        "a token that is read before the kernel before has ended",
        "embed::each_token",
    ),
    (
        100,
        "a missing barrier between the stages of a tile",
        "gemm::a_row_has_the_same_bits_whatever",
    ),
    (
        101,
        "a stage that is read one wait too early",
        "gemm::a_row_has_the_same_bits_whatever",
    ),
    (
        102,
        "a step past the last term",
        "gemm::a_row_has_the_same_bits_whatever",
    ),
    (
        103,
        "a wrong swizzle of one operand",
        "gemm::a_row_has_the_same_bits_whatever",
    ),
    (
        104,
        "a wrong count of a bulk copy's bytes",
        "gemm::the_backward",
    ),
    (
        105,
        "a stage that is handed back while it is read",
        "gemm::the_backward",
    ),
    (
        106,
        "a wait for the other phase of a barrier",
        "gemm::the_backward",
    ),
    (
        107,
        "a wrong distance in a descriptor",
        "gemm::the_backward",
    ),
    (
        108,
        "an adapter that reaches into the next row",
        "gemm::the_backward",
    ),
    (
        110,
        "a missing barrier between the stages of few rows",
        "gemm::a_row_has_the_same_bits_whatever",
    ),
    (
        111,
        "few rows' stage that is read one wait too early",
        "gemm::a_row_has_the_same_bits_whatever",
    ),
    (
        112,
        "few rows' last adapter left out",
        "gemm::a_row_has_the_same_bits_whatever",
    ),
    (
        113,
        "a wrong count of the bytes of few rows' stage",
        "gemm::few_rows_have",
    ),
    (
        114,
        "a wait for the other phase of few rows' stage",
        "gemm::few_rows_have",
    ),
    (
        115,
        "few rows' stage that is handed back while it is read",
        "gemm::few_rows_have",
    ),
    (
        116,
        "an adapter of a warp's first row left out",
        "gemm::few_rows_have",
    ),
    (
        117,
        "few rows that are copied before the kernel that makes them has ended",
        "gemm::few_rows_wait",
    ),
    (
        120,
        "a missing barrier before chains are added",
        "lora::the_inner",
    ),
    (121, "a gradient with a row too many", "lora::the_gradients"),
    (
        122,
        "a missing barrier before a matrix is turned",
        "lora::the_inner",
    ),
    (
        123,
        "a chain's stage that is read one wait too early",
        "lora::the_inner",
    ),
    (
        130,
        "a missing barrier before a tile's parts are one",
        "output::the_log_probs",
    ),
    (
        131,
        "columns beyond the vocabulary in a sum",
        "output::the_log_probs",
    ),
    (
        132,
        "a target that is looked for in the wrong part",
        "output::the_gradient",
    ),
    (
        133,
        "a missing barrier before tiles' largest logits are one",
        "output::the_log_probs",
    ),
    (
        134,
        "a missing barrier before tiles' sums are added",
        "output::the_gradient",
    ),
    (
        200,
        "a missing barrier before a page is read",
        "attention::attention_is_the_references",
    ),
    (
        201,
        "a page that is read one wait too early",
        "attention::attention_is_the_references",
    ),
    (
        202,
        "a wrong swizzle of the pages",
        "attention::attention_is_the_references",
    ),
    (
        203,
        "a key that a row should not see",
        "attention::attention_is_the_references",
    ),
    (
        204,
        "splits that end one page too early",
        "attention::a_decoded_row",
    ),
    (
        205,
        "sums that do not follow a new maximum",
        "attention::attention_is_the_references",
    ),
    (
        210,
        "a missing barrier before a decode step's page",
        "attention::a_decoded_row",
    ),
    (
        211,
        "a missing barrier before a decode step's weights",
        "attention::a_decoded_row",
    ),
    (
        212,
        "a decode step's page that is read one wait too early",
        "attention::a_decoded_row",
    ),
    (
        213,
        "a fold by a block that is not the last one",
        "attention::a_decoded_row",
    ),
    (
        214,
        "a few rows' keys that are read one wait too early",
        "attention::a_decoded_row",
    ),
    (
        215,
        "a missing barrier before a few rows' weights",
        "attention::a_decoded_row",
    ),
    (
        216,
        "a decode step's attention that waits for no kernel before it",
        "attention::a_decoded_row",
    ),
    (
        220,
        "a missing barrier in the pass by queries",
        "attention_backward::gradients_are",
    ),
    (
        221,
        "a missing barrier in the pass by keys",
        "attention_backward::gradients_are",
    ),
    (
        222,
        "a row that is left out of a key's gradient",
        "attention_backward::gradients_are",
    ),
    (
        223,
        "rows kept in the wrong stage",
        "attention_backward::gradients_are",
    ),
    (
        240,
        "a gradient of queries that is added a turn too early",
        "attention_backward::the_gradients_of_hopper",
    ),
    (
        241,
        "a turn that is passed on before everything is added",
        "attention_backward::the_gradients_of_hopper",
    ),
    (
        242,
        "gradients of scores that are read one wait too early",
        "attention_backward::the_gradients_of_hopper",
    ),
    (
        243,
        "a gradient of queries that is stored one wait too early",
        "attention_backward::the_gradients_of_hopper",
    ),
    (
        244,
        "a descriptor of half the step of what both halves share",
        "attention_backward::the_gradients_of_hopper",
    ),
    (
        245,
        "a sequence's last row left out",
        "attention_backward::the_gradients_of_hopper",
    ),
    (
        246,
        "a row that sees one key too many",
        "attention_backward::the_gradients_of_hopper",
    ),
    (
        247,
        "a wrong count of a tile's bytes",
        "attention_backward::the_gradients_of_hopper",
    ),
    (
        230,
        "a last page of Hopper's kernel that is read too early",
        "attention::the_kernel_of_hopper",
    ),
    (
        231,
        "a descriptor of half the step",
        "attention::the_kernel_of_hopper",
    ),
    (
        232,
        "sums that are read one wait too early",
        "attention::the_kernel_of_hopper",
    ),
    (
        233,
        "a wrong count of the bytes of keys",
        "attention::the_kernel_of_hopper",
    ),
    (
        234,
        "a wrong count of the bytes of queries",
        "attention::the_kernel_of_hopper",
    ),
    (
        235,
        "queries that are read before they are there",
        "attention::the_kernel_of_hopper",
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
