//! The stand-in's models of a tensor core: the plain one that tests use, and the exact ones of Hopper and Ampere, under which the
//! variants of an op must agree, too (`NEXTSTATE_EMULATED_TENSOR`; kernels/emulator/exact.h).
#![expect(clippy::unwrap_used, reason = "tests")]

use std::env;
use std::process::Command;

use kernels::cuda::adapters::Shape;
use kernels::cuda::gemm::{self, Output};

use crate::setup::{driver, narrow, poisoned, stream};

const MODEL: &str = "NEXTSTATE_EMULATED_TENSOR";

#[test]
fn the_bits_agree_under_the_exact_models_too() {
    let others = [MODEL, "NEXTSTATE_PLANT", "NEXTSTATE_TEST_GPU"];
    if others.iter().any(|name| env::var_os(name).is_some()) || !driver() {
        return;
    }
    for (model, compute) in [("hopper", "9.0"), ("ampere", "8.0")] {
        for test in [
            "attention::a_decoded_row",
            "attention::the_kernel_of_hopper",
            "exact::a_step_cuts_off_what_the_model_says",
            "gemm::a_row_has_the_same_bits_whatever",
            "gemm::the_forward_product",
            "gemm::the_backward_product",
            "output::what_a_decode_step_records",
            "output::the_variants_have",
        ] {
            let run = Command::new(env::current_exe().unwrap())
                .args([test, "--test-threads=1"])
                .env(MODEL, model)
                .env("NEXTSTATE_EMULATED_COMPUTE", compute)
                .env("NEXTSTATE_REQUIRE_EMULATOR", "1")
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&run.stdout);
            assert!(text.contains("running 1 test"), "{test} is no test: {text}");
            assert!(run.status.success(), "{model}: {text}");
        }
    }
}

/// The sum of sixteen numbers as one step computes it.
fn step(numbers: [f32; 16]) -> Option<f64> {
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
    Some(f64::from(on.download(y.view()).unwrap()[0]))
}

#[test]
fn a_step_cuts_off_what_the_model_says() {
    if env::var_os("NEXTSTATE_TEST_GPU").is_some() {
        return;
    }
    const LARGE: f64 = 1_048_576.0;
    let model = env::var(MODEL).unwrap_or_default();
    let sum = |small: f32| {
        let mut numbers = [small; 16];
        numbers[0] = LARGE as f32;
        let sum = step(numbers)?;
        assert_eq!(step(numbers.map(|n| -n)), Some(-sum), "either sign");
        Some(sum - LARGE)
    };
    // Half a unit in the last place of 2²⁰, fifteen times: a chain of f32 additions loses each. Hopper sums all sixteen at once
    // and cuts off once; Ampere does so after eight: 7/16 become 3/8, 8/16 more 7/8.
    let Some(half) = sum(1.0 / 16.0) else { return };
    assert_eq!(half, if model.is_empty() { 0.0 } else { 0.875 }, "{model}");
    // A quarter: the 25th fraction bit, which Ampere does not keep.
    let quarter = sum(1.0 / 32.0).unwrap();
    assert_eq!(
        quarter,
        if model == "hopper" { 0.375 } else { 0.0 },
        "{model}"
    );
    // The 26th is lost on all.
    assert_eq!(sum(1.0 / 64.0), Some(0.0), "{model}");
}
