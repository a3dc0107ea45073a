//! Random inputs and comparisons, for all test files of this crate.
#![expect(clippy::unwrap_used, reason = "tests")]
#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "each test binary uses a part"
)]

use kernels::{Isa, Pool};

/// One below, at and above a vector and a panel, and one.
pub(crate) const SIZES: [usize; 7] = [1, 15, 16, 17, 31, 32, 33];

/// A number in [-1, 1), by seed and place.
pub(crate) fn noise(seed: u64, place: u64) -> f32 {
    let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ place.wrapping_add(seed << 32);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 40) as f32 / (1u32 << 23) as f32 - 1.0
}

pub(crate) fn vector(seed: u64, len: usize) -> Vec<f32> {
    (0..len as u64).map(|place| noise(seed, place)).collect()
}

pub(crate) fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

pub(crate) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// A pool for each instruction set of this machine, with one to three threads.
pub(crate) fn pools() -> Vec<Pool> {
    let isas = Isa::available().iter();
    isas.flat_map(|&isa| (1..=3).map(move |threads| Pool::with_isa(threads, isa).unwrap()))
        .collect()
}

/// Fails when a value is further from the reference than `tolerance`, relative to the larger of it and 1.
#[track_caller]
pub(crate) fn close(what: &str, found: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        let off = (f64::from(*f) - e).abs() / e.abs().max(1.0);
        assert!(off <= tolerance, "{what}[{i}]: {f}, the reference says {e}");
    }
}

/// The gradient of `loss` at `x` by central differences, in f64.
pub(crate) fn slope(x: &[f64], loss: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    let mut x = x.to_vec();
    (0..x.len())
        .map(|i| {
            let (at, h) = (x[i], 1e-5);
            x[i] = at + h;
            let above = loss(&x);
            x[i] = at - h;
            let below = loss(&x);
            x[i] = at;
            (above - below) / (2.0 * h)
        })
        .collect()
}

/// Σ x·y.
pub(crate) fn dot(x: &[f64], y: &[f32]) -> f64 {
    x.iter().zip(y).map(|(x, y)| x * f64::from(*y)).sum()
}
