//! Products of bf16 in pairs: the bits of their chains on every instruction set, where small numbers are flushed, too.

mod common;

use common::*;
use half::bf16;
use kernels::{Dtype, Packed, gemm};

/// To bf16; numbers below 2⁻¹²⁶ are zeros before.
fn rounded(v: f32) -> f32 {
    if v.is_subnormal() {
        return 0f32.copysign(v);
    }
    bf16::from_f32(v).to_f32()
}

/// `a·b + c`, a zero of its sign when it stays below 2⁻¹²⁶ after rounding to 24 bits.
fn add_product(a: f32, b: f32, c: f32) -> f32 {
    let small = f64::from(f32::MIN_POSITIVE);
    let sum = a.mul_add(b, c);
    // The numbers of these tests near 2⁻¹²⁶ need fewer than 53 bits.
    let exact = f64::from(a) * f64::from(b) + f64::from(c);
    if exact.abs() < small - 2f64.powi(-151) {
        0f32.copysign(sum)
    } else {
        sum
    }
}

/// The sum of products as the contract has it: the second of two terms first.
fn chain(terms: impl Iterator<Item = (f32, f32)>) -> f32 {
    let terms: Vec<(f32, f32)> = terms.collect();
    let mut sum = 0.0;
    for two in terms.chunks(2) {
        let (first, second) = (two[0], two.get(1).copied().unwrap_or((0.0, 0.0)));
        sum = add_product(second.0, second.1, sum);
        sum = add_product(first.0, first.1, sum);
    }
    sum
}

/// Numbers of sizes around `middle`, some of them subnormal, some zero.
fn sizes(seed: u64, len: usize, middle: i32) -> Vec<f32> {
    let value = |i: usize| match i % 11 {
        3 => f32::from_bits(0x0040_1234 + i as u32),
        7 => 0.0,
        _ => noise(seed, i as u64) * 2f32.powi(middle + (noise(seed + 1, i as u64) * 6.0) as i32),
    };
    (0..len).map(value).collect()
}

#[test]
fn the_chains_of_both_products_are_the_contracts_bit_for_bit() {
    for (n, k, m) in [
        (1, 1, 1),
        (33, 7, 2),
        (70, 401, 29),
        (131, 96, 113),
        (290, 100, 17),
    ] {
        // Ordinary numbers, and products around the smallest normal one.
        for (x_size, w_size) in [(0, 0), (-62, -63), (-100, -25)] {
            let (x, w) = (sizes(1, m * k, x_size), sizes(3, n * k, w_size));
            let dy = sizes(5, m * n, x_size);
            let at = |matrix: &[f32], place: usize| rounded(matrix[place]);
            let y = (0..m * n).map(|place| {
                let (row, o) = (place / n, place % n);
                chain((0..k).map(|i| (at(&x, row * k + i), at(&w, o * k + i))))
            });
            let dx = (0..m * k).map(|place| {
                let (row, i) = (place / k, place % k);
                chain((0..n).map(|o| (at(&dy, row * n + o), at(&w, o * k + i))))
            });
            let (y, dx) = (y.collect::<Vec<f32>>(), dx.collect::<Vec<f32>>());
            assert!(!y.iter().chain(&dx).any(|v| v.is_subnormal()));
            for pool in pools() {
                let packed = Packed::pack(&pool, &[&w], k, Dtype::Bf16Pairs).unwrap();
                let (mut y2, mut dx2) = (vec![f32::NAN; m * n], vec![f32::NAN; m * k]);
                gemm::forward(&pool, m, &x, &packed, &mut y2).unwrap();
                gemm::backward(&pool, m, &dy, &packed, &mut dx2).unwrap();
                let what = format!("{pool:?} ({m}, {n}, {k}), 2^{x_size} by 2^{w_size}");
                assert!(bits(&y) == bits(&y2), "forward, {what}");
                assert!(bits(&dx) == bits(&dx2), "backward, {what}");
            }
        }
    }
}

#[test]
fn a_sum_is_flushed_by_its_size_after_rounding_to_24_bits() {
    let (small, least) = (2f32.powi(-100), 2f32.powi(-26));
    // 2⁻¹²⁶ and something: the second term comes first.
    for (rest, expected) in [
        (0.0, f32::MIN_POSITIVE),
        // Rounds up to 2⁻¹²⁶ in steps of 2⁻¹⁴⁹ and of 2⁻¹⁵⁰.
        (-0.75, f32::MIN_POSITIVE),
        // Rounds up to it in steps of 2⁻¹⁴⁹ only.
        (-1.5, 0.0),
        (-64.0, 0.0),
        (-3e7, 0.0),
        (-3.4e7, -0.0),
        (-83_886_080.0, -f32::MIN_POSITIVE * 1.5),
    ] {
        let (x, w) = ([2f32.powi(-51) * rest, small], [small, least]);
        for pool in pools() {
            let packed = Packed::pack(&pool, &[&w], 2, Dtype::Bf16Pairs).unwrap();
            let mut y = [f32::NAN];
            gemm::forward(&pool, 1, &x, &packed, &mut y).unwrap();
            let near = (y[0] - expected).abs() <= expected.abs() * 0.01;
            assert!(
                near && y[0].is_sign_negative() == expected.is_sign_negative(),
                "{pool:?} {rest}: {:e}",
                y[0]
            );
        }
    }
}

#[test]
fn what_is_not_finite_shows_and_the_largest_number_rounds_to_infinity() {
    for pool in pools() {
        for (x, expected) in [
            (f32::NAN, f32::NAN),
            (f32::INFINITY, f32::INFINITY),
            (f32::MAX, f32::INFINITY),
            (-f32::NAN, f32::NAN),
        ] {
            let packed = Packed::pack(&pool, &[&[1.0, 1.0, 1.0]], 3, Dtype::Bf16Pairs).unwrap();
            let mut y = [0.0];
            gemm::forward(&pool, 1, &[0.5, 0.5, x], &packed, &mut y).unwrap();
            assert!(
                y[0] == expected || y[0].is_nan() && expected.is_nan(),
                "{pool:?} {x}: {}",
                y[0]
            );
            let packed = Packed::pack(&pool, &[&[x, 1.0, 1.0]], 3, Dtype::Bf16Pairs).unwrap();
            let mut row = [0.0; 3];
            packed.row(0, &mut row).unwrap();
            assert!(row[0] == expected || row[0].is_nan() && expected.is_nan());
            assert_eq!(row[1..], [1.0, 1.0]);
        }
    }
}

#[test]
fn floating_point_is_as_before_once_a_product_is_done() {
    for pool in pools() {
        let packed = Packed::pack(&pool, &[&[1.0; 64]], 1, Dtype::Bf16Pairs).unwrap();
        let (mut y, half) = ([0.0; 64], std::hint::black_box(0.5f32));
        gemm::forward(&pool, 1, &[1.0], &packed, &mut y).unwrap();
        assert!((f32::MIN_POSITIVE * half).is_subnormal(), "{pool:?}");
    }
}
