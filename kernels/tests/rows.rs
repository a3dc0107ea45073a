//! Ops on rows: parity with the reference, gradients by finite differences, the same bits everywhere.

mod common;

use common::*;
use kernels::adamw::{self, AdamW};
use kernels::rope::{Scaling, Table};
use kernels::softmax::{self, Target};
use kernels::{Dtype, Error, Packed, Pool, embed, reference, rmsnorm, rope, swiglu};

/// Runs `op` on every pool; the results must be bit-identical. Gives the result.
fn everywhere(op: impl Fn(&Pool) -> Vec<f32>) -> Vec<f32> {
    let pools = pools();
    let first = op(&pools[0]);
    for pool in &pools[1..] {
        assert!(bits(&op(pool)) == bits(&first), "{pool:?}");
    }
    first
}

#[test]
fn rmsnorm_is_the_references() {
    for c in SIZES {
        for rows in [1, 3, 700] {
            let (x, w) = (vector(1, rows * c), vector(2, c));
            let out = everywhere(|pool| {
                let mut out = vec![f32::NAN; rows * c];
                rmsnorm::forward(pool, rows, &x, &w, 1e-5, &mut out).unwrap();
                let mut same = x.clone();
                rmsnorm::in_place(pool, rows, &mut same, &w, 1e-5).unwrap();
                assert!(bits(&same) == bits(&out));
                out
            });
            let expected = x
                .chunks(c)
                .flat_map(|x| reference::rmsnorm(&wide(x), &wide(&w), 1e-5));
            close("rmsnorm", &out, &expected.collect::<Vec<_>>(), 1e-5);
        }
    }
}

#[test]
fn rmsnorms_gradient_is_its_slope() {
    for c in SIZES {
        let (x, w, dout) = (vector(3, c), vector(4, c), vector(5, c));
        let dx = everywhere(|pool| {
            let mut dx = vec![1.0; c];
            rmsnorm::backward(pool, 1, &x, &w, 1e-3, &dout, &mut dx).unwrap();
            dx
        });
        let loss = |x: &[f64]| dot(&reference::rmsnorm(x, &wide(&w), 1e-3), &dout);
        let expected: Vec<f64> = slope(&wide(&x), loss).iter().map(|v| v + 1.0).collect();
        close("rmsnorm gradient", &dx, &expected, 2e-4);
    }
}

#[test]
fn swiglu_is_the_references_far_from_zero_too() {
    for f in SIZES {
        let gate_up: Vec<f32> = vector(6, 2 * 2 * f).iter().map(|v| v * 120.0).collect();
        let out = everywhere(|pool| {
            let mut out = vec![f32::NAN; 2 * f];
            swiglu::forward(pool, 2, f, &gate_up, &mut out).unwrap();
            out
        });
        let expected: Vec<f64> = (0..2 * f)
            .map(|at| (at / f * 2 * f + at % f, at))
            .map(|(g, _)| reference::swiglu(f64::from(gate_up[g]), f64::from(gate_up[g + f])))
            .collect();
        close("swiglu", &out, &expected, 1e-5);
    }
}

#[test]
fn swiglus_gradient_is_its_slope() {
    for f in SIZES {
        let (x, dout) = (vector(7, 2 * f), vector(8, f));
        let dx = everywhere(|pool| {
            let mut dx = x.clone();
            swiglu::backward(pool, 1, f, &mut dx, &dout).unwrap();
            dx
        });
        let loss = |x: &[f64]| {
            let out: Vec<f64> = (0..f).map(|i| reference::swiglu(x[i], x[i + f])).collect();
            dot(&out, &dout)
        };
        close("swiglu gradient", &dx, &slope(&wide(&x), loss), 1e-4);
    }
}

#[test]
fn rotation_is_the_references_and_its_gradient_rotates_back() {
    let pool = Pool::new(1).unwrap();
    for d in [2, 16, 30, 64] {
        let table = Table::new(d, 50, 10_000.0, Scaling::None).unwrap();
        // Three rows of two heads and one column that is none of them.
        let x = vector(9, 3 * (2 * d + 1));
        let mut y = x.clone();
        rope::forward(&pool, &table, &mut y, 2 * d + 1, 0..2 * d, 40).unwrap();
        for row in 0..3 {
            let at = row * (2 * d + 1);
            for head in [at..at + d, at + d..at + 2 * d] {
                let expected = reference::rope(&wide(&x[head.clone()]), 40 + row, 10_000.0);
                close("rope", &y[head], &expected, 1e-5);
            }
            assert_eq!(y[at + 2 * d], x[at + 2 * d]);
        }
        rope::backward(&pool, &table, &mut y, 2 * d + 1, 0..2 * d, 40).unwrap();
        close("back", &y, &wide(&x), 1e-5);
        assert!(rope::forward(&pool, &table, &mut y, 2 * d + 1, 0..2 * d, 48).is_err());
    }
    for d in [0, 3] {
        assert!(matches!(
            Table::new(d, 5, 1e4, Scaling::None),
            Err(Error::Argument { .. })
        ));
    }
    assert!(Table::new(4, 5, f32::NAN, Scaling::None).is_err());
}

#[test]
fn rows_are_rotated_by_all_threads_as_each_is_alone() {
    let (rows, d, columns) = (300, 64, 2 * 64 + 3);
    let table = Table::new(d, 400, 10_000.0, Scaling::None).unwrap();
    let x = vector(9, rows * columns);
    for rotate in [rope::forward, rope::backward] {
        let alone = Pool::new(1).unwrap();
        let mut expected = x.clone();
        for (row, x) in expected.chunks_mut(columns).enumerate() {
            rotate(&alone, &table, x, columns, 1..1 + 2 * d, 40 + row).unwrap();
        }
        for pool in pools() {
            let mut y = x.clone();
            rotate(&pool, &table, &mut y, columns, 1..1 + 2 * d, 40).unwrap();
            assert!(y == expected);
        }
    }
}

#[test]
fn scaled_rotation_stretches_long_wavelengths_only() {
    let pool = Pool::new(1).unwrap();
    let (low_freq_factor, high_freq_factor, original_context) = (1.0, 4.0, 64);
    let llama = Scaling::Llama3 {
        factor: 8.0,
        low_freq_factor,
        high_freq_factor,
        original_context,
    };
    // The first pair has wavelength 2π (short), the last of 16 about 35,000 (long).
    let angle = |scaling, pair: usize| {
        let table = Table::new(32, 8, 10_000.0, scaling).unwrap();
        let mut x = vec![0.0; 32];
        x[pair] = 1.0;
        rope::forward(&pool, &table, &mut x, 32, 0..32, 7).unwrap();
        x[pair + 16].atan2(x[pair])
    };
    assert_eq!(angle(llama, 0), angle(Scaling::None, 0));
    assert!((angle(llama, 15) * 8.0 / angle(Scaling::None, 15) - 1.0).abs() < 1e-5);
    let linear = Scaling::Linear { factor: 4.0 };
    assert!((angle(linear, 3) * 4.0 / angle(Scaling::None, 3) - 1.0).abs() < 1e-5);
}

#[test]
fn log_probs_are_the_references_at_any_temperature() {
    let pool = Pool::new(2).unwrap();
    for v in SIZES {
        for temperature in [0.3, 1.0, 2.5] {
            let logits: Vec<f32> = vector(10, v).iter().map(|l| l * 30.0).collect();
            let expected = reference::log_softmax(&wide(&logits), f64::from(temperature));
            let found = everywhere(|pool| {
                let n = softmax::normalizer(pool, &logits, temperature).unwrap();
                logits.iter().map(|&l| n.log_prob(l)).collect()
            });
            close("log-probs", &found, &expected, 2e-6);
            let mut all = Vec::new();
            let twice = [logits.clone(), logits.clone()].concat();
            softmax::normalizers(&pool, &twice, v, temperature, &mut all).unwrap();
            let one = softmax::normalizer(&pool, &logits, temperature).unwrap();
            assert_eq!(all, [one, one]);
        }
    }
    for temperature in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        assert!(softmax::normalizer(&pool, &[1.0], temperature).is_err());
    }
    assert!(softmax::normalizer(&pool, &[], 1.0).is_err());
    let poisoned = softmax::normalizer(&pool, &[1.0, f32::NAN], 1.0).unwrap();
    assert!(poisoned.log_prob(1.0).is_nan(), "a NaN is not hidden");
}

#[test]
fn the_gradient_of_several_log_probs_of_a_row_is_their_slope() {
    let (v, temperature) = (33, 0.7);
    let logits = vector(11, 3 * v);
    let at = |row, token| Target { row, token };
    // Row 1 has no target; row 2 has one twice.
    let targets = [at(2, 5), at(0, 32), at(2, 5), at(2, 0)];
    let upstream = [0.5, -2.0, 0.25, 1.5];
    let found = everywhere(|pool| {
        let (mut dlogits, mut normalizers) = (logits.clone(), Vec::new());
        softmax::normalizers(pool, &logits, v, temperature, &mut normalizers).unwrap();
        softmax::backward(pool, &mut dlogits, &normalizers, &targets, &upstream).unwrap();
        dlogits
    });
    let loss = |x: &[f64]| {
        let log_prob = |t: &Target| {
            reference::log_softmax(&x[t.row * v..][..v], f64::from(temperature))[t.token as usize]
        };
        targets
            .iter()
            .zip(upstream)
            .map(|(t, g)| f64::from(g) * log_prob(t))
            .sum()
    };
    close("dlogits", &found, &slope(&wide(&logits), loss), 1e-5);
    let pool = Pool::new(1).unwrap();
    let mut normalizers = Vec::new();
    softmax::normalizers(&pool, &logits, v, 1.0, &mut normalizers).unwrap();
    for bad in [at(3, 0), at(0, 33)] {
        let outcome = softmax::backward(&pool, &mut logits.clone(), &normalizers, &[bad], &[1.0]);
        assert!(matches!(outcome, Err(Error::Argument { .. })));
    }
}

#[test]
fn adamw_and_the_norm_are_the_references() {
    let settings = AdamW {
        lr: 0.1,
        beta1: 0.9,
        beta2: 0.98,
        eps: 1e-8,
        weight_decay: 0.1,
    };
    for len in [1, 15, 17, 4095, 4097, 9000] {
        let (p, g) = (vector(12, len), vector(13, len));
        let (m, v) = (
            vector(14, len),
            vector(15, len).iter().map(|v| v * v).collect::<Vec<_>>(),
        );
        let found = everywhere(|pool| {
            let (mut p, mut m, mut v) = (p.clone(), m.clone(), v.clone());
            adamw::step(pool, &settings, 3, 0.5, &mut p, &g, &mut m, &mut v).unwrap();
            let norm = adamw::norm(pool, &g) as f32;
            [p, m, v, vec![norm]].concat()
        });
        let mut expected = vec![0.0; 3 * len];
        for i in 0..len {
            let [p, g, m, v] = [p[i], g[i] * 0.5, m[i], v[i]].map(f64::from);
            let (p, m, v) = reference::adamw(&settings, 3, (p, g, m, v));
            (expected[i], expected[len + i], expected[2 * len + i]) = (p, m, v);
        }
        expected.push(g.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt());
        close("adamw", &found, &expected, 2e-5);
    }
    let pool = Pool::new(1).unwrap();
    let step = adamw::step(&pool, &settings, 0, 1.0, &mut [], &[], &mut [], &mut []);
    assert!(matches!(step, Err(Error::Argument { what: "step", .. })));
}

#[test]
fn the_lookup_and_norms_refuse_what_does_not_fit() {
    let pool = Pool::new(1).unwrap();
    let table = Packed::pack(&pool, &[&vector(16, 5 * 3)], 3, Dtype::F32).unwrap();
    let mut out = vec![0.0; 6];
    embed::forward(&pool, &table, &[4, 0], &mut out).unwrap();
    assert_eq!(out, reference::embed(&vector(16, 15), 3, &[4, 0]));
    assert!(matches!(
        embed::forward(&pool, &table, &[5, 0], &mut out),
        Err(Error::Argument { .. })
    ));
    assert!(matches!(
        embed::forward(&pool, &table, &[1], &mut out),
        Err(Error::Shape { .. })
    ));
    let wrong = rmsnorm::forward(&pool, 2, &out, &[1.0; 4], 1e-5, &mut [0.0; 8]);
    assert!(matches!(
        wrong,
        Err(Error::Shape {
            what: "x",
            expected: 8,
            found: 6,
            ..
        })
    ));
    assert!(swiglu::forward(&pool, 1, 4, &out, &mut [0.0; 4]).is_err());
}

#[test]
fn a_norm_is_the_references_and_has_the_same_bits_on_every_pool() {
    for len in [0, 1, 7, 8, 4095, 4097, 50_001] {
        let values = vector(30, len);
        let expected = wide(&values).iter().map(|v| v * v).sum::<f64>().sqrt();
        let mut first = None;
        for pool in pools() {
            let found = kernels::adamw::norm(&pool, &values);
            assert!((found - expected).abs() <= 1e-12 * expected, "{len}");
            assert_eq!(*first.get_or_insert(found.to_bits()), found.to_bits());
        }
    }
}

#[test]
fn the_norm_is_added_up_in_the_order_that_it_promises() {
    // Three chunks of 4,096, in each eight chains. Numbers of many sizes, and many vectors of them: a root often hides that a sum had
    // another last bit.
    for seed in 31..63 {
        let sizes = (0..9001).map(|i| 2f32.powi(i % 40 - 20));
        let values: Vec<f32> = vector(seed, 9001)
            .iter()
            .zip(sizes)
            .map(|(v, size)| v * size)
            .collect();
        let mut expected = 0.0;
        for chunk in wide(&values).chunks(4096) {
            let chain = |lane: usize| {
                let squares = chunk.iter().skip(lane).step_by(8).map(|v| v * v);
                squares.fold(0.0, |sum, square| sum + square)
            };
            expected += (0..8).map(chain).fold(0.0, |sum, lane| sum + lane);
        }
        for pool in pools() {
            let found = adamw::norm(&pool, &values);
            assert_eq!(found.to_bits(), f64::sqrt(expected).to_bits(), "{pool:?}");
        }
    }
}

#[test]
fn the_largest_logit_is_the_first_of_the_largest_numbers() {
    let naive = |logits: &[f32]| {
        let numbers = logits.iter().copied().enumerate();
        let better = |best: Option<(usize, f32)>, (at, logit): (usize, f32)| match best {
            Some((_, max)) if logit <= max => best,
            _ if logit.is_nan() || logit == f32::NEG_INFINITY => best,
            _ => Some((at, logit)),
        };
        numbers.fold(None, better)
    };
    for len in [0, 1, 15, 16, 17, 511, 512, 513, 1700] {
        for seed in 0..8 {
            // Few values, so that there are ties; some that are no numbers.
            let mut logits: Vec<f32> = vector(seed, len)
                .iter()
                .map(|v| (v * 4.0).round())
                .collect();
            for at in (seed as usize..len).step_by(5) {
                logits[at] = [f32::NAN, f32::NEG_INFINITY][at % 2];
            }
            assert_eq!(softmax::largest(&logits), naive(&logits), "{len}, {seed}");
            if len > 3 {
                logits[len - 2] = f32::INFINITY;
                assert_eq!(softmax::largest(&logits), Some((len - 2, f32::INFINITY)));
            }
        }
    }
    assert_eq!(softmax::largest(&[f32::NAN, f32::NEG_INFINITY]), None);
}

#[test]
fn weights_are_the_exponentials_and_what_is_no_number_weighs_nothing() {
    let mut logits: Vec<f32> = vector(3, 1003).iter().map(|v| v * 60.0).collect();
    let max = softmax::largest(&logits).unwrap().1;
    (logits[5], logits[1000], logits[1001]) = (f32::NAN, f32::NEG_INFINITY, -1e30);
    let mut found = vec![1.0; 7];
    for inverse_temperature in [0.5, 1.0, 3.0] {
        softmax::weights(&logits, max, inverse_temperature, &mut found);
        assert_eq!(found.len(), logits.len());
        for (at, (weight, &logit)) in found.iter().zip(&logits).enumerate() {
            let above = (logit - max) * inverse_temperature;
            if above.is_nan() || above < -87.0 {
                assert!(*weight == 0.0 || above > -88.0, "{at}: {weight}");
                continue;
            }
            let expected = f64::from(above).exp();
            let off = (f64::from(*weight) - expected).abs();
            assert!(off <= 3e-7 * expected + 2e-38, "{at}: {weight}, {expected}");
        }
    }
}
