//! `kernels::cuda::probe`: both instructions of the tensor cores, one step of each.

use kernels::cuda::probe::{Instruction, SIDE, STEP, peak, step};

use crate::common::{bits, close, vector};
use crate::setup::{narrow, poisoned, rounded, stream};

#[test]
fn one_step_has_the_same_bits_by_both_instructions() {
    let Some(on) = stream() else { return };
    let tiles = 5;
    let (a, b) = (
        vector(1, tiles * SIDE * STEP),
        vector(2, tiles * SIDE * STEP),
    );
    let c = vector(3, tiles * SIDE * SIDE);
    let [a_, b_] = [&a, &b].map(|v| on.upload(&narrow(v)).unwrap());
    let c_ = on.upload(&c).unwrap();
    let run = |by| {
        let mut d = poisoned(&on, c.len());
        step(&on, by, a_.view(), b_.view(), c_.view(), &mut d.view_mut()).unwrap();
        on.download(d.view()).unwrap()
    };
    let found = run(Instruction::Mma);
    let (a, b) = (rounded(&a), rounded(&b));
    let expected: Vec<f64> = (0..c.len())
        .map(|at| {
            let (tile, i, j) = (at / (SIDE * SIDE), at / SIDE % SIDE, at % SIDE);
            let row = |of: &[f32], n: usize, k: usize| f64::from(of[(tile * SIDE + n) * STEP + k]);
            let dot: f64 = (0..STEP).map(|k| row(&a, i, k) * row(&b, j, k)).sum();
            f64::from(c[at]) + dot
        })
        .collect();
    close("one step", &found, &expected, 1e-5);
    if on.gpu().is_hopper() {
        assert_eq!(bits(&run(Instruction::Wgmma)), bits(&found));
    }
}

#[test]
fn the_peak_counts_what_it_multiplies() {
    let Some(on) = stream() else { return };
    let mut out = poisoned(&on, 2 * 128);
    let operations = peak(&on, Instruction::Mma, 3, &mut out.view_mut()).unwrap();
    assert_eq!(operations, 2 * 3 * 2 * 4 * 8 * 2048);
    let found = on.download(out.view()).unwrap();
    assert!(found.iter().all(|v| v.is_finite() && *v > 0.0));
    if on.gpu().is_hopper() {
        let mut out = poisoned(&on, 128);
        let operations = peak(&on, Instruction::Wgmma, 2, &mut out.view_mut()).unwrap();
        assert_eq!(operations, 2 * 2 * 4 * 64 * 256 * 16);
        let found = on.download(out.view()).unwrap();
        assert!(found.iter().all(|v| v.is_finite() && *v > 0.0));
    }
}
