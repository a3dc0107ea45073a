//! The stand-in's model of a tensor core: the plain one that tests use, and the exact one of Hopper, under which the variants of
//! an op must agree, too (`NEXTSTATE_EMULATED_TENSOR=exact`; kernels/emulator/exact.h).
#![expect(clippy::unwrap_used, reason = "tests")]

use std::env;
use std::process::Command;

use kernels::cuda::adapters::Shape;
use kernels::cuda::gemm::{self, Output};

use crate::setup::{driver, narrow, poisoned, stream};

fn is_exact() -> bool {
    env::var_os("NEXTSTATE_EMULATED_TENSOR").is_some_and(|model| model == "exact")
}

#[test]
fn the_bits_agree_under_the_exact_model_too() {
    let other = ["NEXTSTATE_PLANT", "NEXTSTATE_TEST_GPU"];
    if is_exact() || other.iter().any(|name| env::var_os(name).is_some()) || !driver() {
        return;
    }
    for test in [
        "exact::a_step_cuts_off_what_the_model_says",
        "gemm::a_row_has_the_same_bits_whatever",
        "gemm::the_forward_product",
        "gemm::the_backward_product",
        "output::what_a_decode_step_records",
        "output::the_variants_have",
    ] {
        let run = Command::new(env::current_exe().unwrap())
            .args([test, "--test-threads=1"])
            .env("NEXTSTATE_EMULATED_TENSOR", "exact")
            .env("NEXTSTATE_REQUIRE_EMULATOR", "1")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&run.stdout);
        assert!(text.contains("running 1 test"), "{test} is no test: {text}");
        assert!(run.status.success(), "{text}");
    }
}

/// The sum of sixteen numbers as one step computes it.
fn step(numbers: [f32; 16]) -> Option<f32> {
    let on = stream()?;
    let shape = Shape {
        outputs: 16,
        inputs: 16,
    };
    let x = on.upload(&narrow(&numbers)).unwrap();
    let w = on.upload(&narrow(&[1.0; 256])).unwrap();
    let mut y = poisoned(&on, 16);
    let mut to = y.view_mut();
    let operands = (x.view(), w.view());
    gemm::forward(&on, 1, shape, operands, None, Output::F32(&mut to)).unwrap();
    Some(on.download(y.view()).unwrap()[0])
}

#[test]
fn a_step_cuts_off_what_the_model_says() {
    // Half a unit in the last place of 2²⁰, fifteen times: a chain of f32 additions loses each; 25 fraction bits hold all of
    // them, and their sum is cut off to f32, whichever sign it has.
    let mut numbers = [0.0625; 16];
    numbers[0] = 1_048_576.0;
    let Some(sum) = step(numbers) else { return };
    let more = if is_exact() { 0.875 } else { 0.0 };
    assert_eq!(f64::from(sum), 1_048_576.0 + more);
    let negative = step(numbers.map(|n| -n)).unwrap();
    assert_eq!(negative, -sum);
    // The 26th fraction bit is lost.
    numbers[1..].fill(1.0 / 64.0);
    let lost = step(numbers).unwrap();
    assert_eq!(f64::from(lost), 1_048_576.0);
}
