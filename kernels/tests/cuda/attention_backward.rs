//! `kernels::cuda::attention_backward`: parity, slopes, and the same bits beside other sequences.
#![expect(clippy::unwrap_used, reason = "tests")]

use kernels::cuda::attention::{Heads, Rows, Variant};
use kernels::cuda::attention_backward::{Saved, Work, backward};
use kernels::{Error, reference};

use crate::attention_world::{CASES, Case, Fused, World, width};
use crate::common::{bits, dot, slope, vector, wide};
use crate::setup::{poisoned, stream};

/// The largest error of an element of a gradient, relative to it or to the root of the mean square of all, which is larger:
/// weights, their gradients, `dout` and the result are rounded to bf16, and the terms of a key that many rows see cancel.
const TOLERANCE: f64 = 0.1;

/// The root of the mean square error, likewise.
const MEAN: f64 = 0.01;

/// Gradients of some whole sequences.
fn gradients(world: &World, parts: &[Rows], dout: &[f32]) -> Vec<f32> {
    let (on, heads) = (&world.on, world.heads);
    let plan = world.plan(parts);
    let (out, lse) = world.whole(Variant::Sync);
    let saved = Saved {
        q: world.queries(),
        out: out.view(),
        lse: lse.view(),
    };
    let dout = on.upload(dout).unwrap();
    let mut work = Work::new(on.gpu(), &plan, world.rows).unwrap();
    let mut dqkv = poisoned(on, world.rows * width(heads));
    let cache = (&world.layer, &world.table);
    backward(
        on,
        &plan,
        cache,
        &saved,
        dout.view(),
        &mut work,
        &mut dqkv.view_mut(),
    )
    .unwrap();
    on.download(dqkv.view()).unwrap()
}

fn near(what: &str, found: &[f32], expected: &[f64]) {
    let mean = |squares: f64| (squares / expected.len() as f64).sqrt();
    let size = mean(expected.iter().map(|e| e * e).sum());
    let off = |(f, e): (&f32, &f64)| (f64::from(*f) - e).abs() / e.abs().max(size);
    let off: Vec<f64> = found.iter().zip(expected).map(off).collect();
    let worst = off.iter().copied().fold(0.0, f64::max);
    assert!(
        off.iter().all(|off| *off <= TOLERANCE),
        "{what}: off by {worst}"
    );
    let mean = mean(off.iter().map(|off| off * off).sum());
    assert!(mean <= MEAN, "{what}: off by {mean} in the mean");
}

/// The columns of some heads.
fn columns<T: Copy>(data: &[T], heads: Heads, range: std::ops::Range<usize>) -> Vec<T> {
    let d = heads.head_dim;
    data.chunks(width(heads))
        .flat_map(|row| row[range.start * d..range.end * d].to_vec())
        .collect()
}

#[test]
fn gradients_are_the_references_for_ragged_sequences() {
    for (seed, case) in CASES.into_iter().enumerate() {
        let Some(on) = stream() else { return };
        let world = World::new(on, case, seed as u64);
        let (heads, ld) = (world.heads, width(world.heads));
        let row = heads.heads * heads.head_dim;
        let dout = vector(99, world.rows * row);
        let found = gradients(&world, &world.all(), &dout);
        for &(first, n) in &world.sequences {
            let data = wide(&world.qkv[first * ld..][..n * ld]);
            let expected =
                Fused { data: &data, heads }.gradient(n, &wide(&dout[first * row..][..n * row]));
            let found = &found[first * ld..][..n * ld];
            let (k, v) = (heads.heads, heads.heads + heads.kv_heads);
            for (what, range) in [("dq", 0..k), ("dk", k..v), ("dv", v..v + heads.kv_heads)] {
                let what = format!("{what} of {n} rows of {case:?}");
                let [found, expected] = [
                    columns(&wide(found), heads, range.clone()),
                    columns(&expected, heads, range),
                ];
                // One key: the weight is 1 and no score has a gradient.
                if n > 1 || what.starts_with("dv") {
                    let found: Vec<f32> = found.iter().map(|v| *v as f32).collect();
                    near(&what, &found, &expected);
                }
            }
        }
    }
}

#[test]
fn the_references_gradient_is_the_slope() {
    let heads = Heads {
        heads: 4,
        kv_heads: 2,
        head_dim: 4,
    };
    let sizes = reference::Heads {
        heads: 4,
        kv_heads: 2,
        head_dim: 4,
    };
    let n = 5;
    let (data, dout) = (wide(&vector(1, n * width(heads))), vector(2, n * 16));
    let expected = slope(&data, |qkv| {
        dot(&reference::attention(n, sizes, qkv), &dout)
    });
    let found = Fused { data: &data, heads }.gradient(n, &wide(&dout));
    for (found, expected) in found.iter().zip(&expected) {
        assert!((found - expected).abs() < 1e-8);
    }
}

#[test]
fn a_gradients_bits_depend_on_its_sequence_only() {
    for case in [CASES[0], CASES[2], CASES[3]] {
        let Some(on) = stream() else { return };
        let world = World::new(on, case, 5);
        let dout = vector(99, world.rows * world.heads.heads * world.heads.head_dim);
        let all = gradients(&world, &world.all(), &dout);
        assert_eq!(
            bits(&gradients(&world, &world.all(), &dout)),
            bits(&all),
            "twice"
        );
        let ld = width(world.heads);
        for part in world.all() {
            let alone = gradients(&world, &[part], &dout);
            for (row, (alone, all)) in alone.chunks(ld).zip(all.chunks(ld)).enumerate() {
                if (part.first..part.first + part.count).contains(&row) {
                    assert_eq!(bits(alone), bits(all), "{case:?}, row {row}");
                } else {
                    assert!(
                        alone.iter().all(|v| v.is_nan()),
                        "row {row} was not asked for"
                    );
                }
            }
        }
    }
}

#[test]
fn a_sequence_that_does_not_start_at_its_start_has_no_gradients() {
    let Some(on) = stream() else { return };
    let case: Case = (3, 1, 64, &[70]);
    let world = World::new(on, case, 1);
    let on = &world.on;
    let part = Rows {
        first: 6,
        count: 64,
        start: 6,
        sequence: 0,
    };
    let plan = world.plan(&[part]);
    let (out, lse) = world.whole(Variant::Sync);
    let saved = Saved {
        q: world.queries(),
        out: out.view(),
        lse: lse.view(),
    };
    let dout = on.upload(&vector(1, 70 * 192)).unwrap();
    let mut work = Work::new(on.gpu(), &plan, 70).unwrap();
    let mut dqkv = poisoned(on, 70 * 320);
    let cache = (&world.layer, &world.table);
    let refused = backward(
        on,
        &plan,
        cache,
        &saved,
        dout.view(),
        &mut work,
        &mut dqkv.view_mut(),
    );
    assert!(matches!(
        refused,
        Err(Error::Argument { what: "start", .. })
    ));
}
