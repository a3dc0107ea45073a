//! `kernels::cuda::attention_backward`: parity, slopes, and the same bits beside other sequences.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::env;
use std::process::Command;

use kernels::cuda::attention::{Heads, Rows, Variant};
use kernels::cuda::attention_backward::{Keys, Saved, Work, backward, hand_back};
use kernels::reference;

use crate::attention_world::{CASES, Case, Fused, World, width};
use crate::common::{bits, dot, slope, vector, wide};
use crate::setup::{driver, poisoned, stream};

/// The largest error of an element of a gradient, relative to it or to the root of the mean square of all, which is larger:
/// weights, their gradients, `dout` and the result are rounded to bf16, and the terms of a key that many rows see cancel.
const TOLERANCE: f64 = 0.1;

/// The root of the mean square error, likewise.
const MEAN: f64 = 0.01;

/// Gradients of some rows of sequences, and those of the keys before them.
fn parts(world: &World, variant: Variant, parts: &[Rows], dout: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let (on, heads) = (&world.on, world.heads);
    let plan = world.plan(parts).with_variant(variant);
    let mut keys = Keys::new(on.gpu()).unwrap();
    keys.lay(on, &plan).unwrap();
    let (out, lse) = world.whole(Variant::Sync);
    let saved = Saved {
        q: world.queries(),
        out: out.view(),
        lse: lse.view(),
    };
    let dout = on.upload(dout).unwrap();
    let mut work = Work::new(on.gpu(), &plan, world.rows).unwrap();
    let mut dqkv = poisoned(on, world.rows * width(heads));
    let mut before = poisoned(on, keys.before() * 2 * heads.kv_heads * heads.head_dim);
    let cache = (&world.layer, &world.table);
    let to = (&mut dqkv.view_mut(), &mut before.view_mut());
    backward(
        on,
        (&plan, &keys),
        cache,
        &saved,
        dout.view(),
        &mut work,
        to,
    )
    .unwrap();
    let [dqkv, before] = [dqkv, before].map(|found| on.download(found.view()).unwrap());
    (dqkv, before)
}

/// Gradients of some whole sequences.
fn gradients(world: &World, variant: Variant, rows: &[Rows], dout: &[f32]) -> Vec<f32> {
    parts(world, variant, rows, dout).0
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

/// Whether the gradients of whole sequences are those of the plain formulas.
fn are_the_references(world: &World, what: &str, found: &[f32], dout: &[f32]) {
    let (heads, ld) = (world.heads, width(world.heads));
    let row = heads.heads * heads.head_dim;
    for &(first, n) in &world.sequences {
        let data = wide(&world.qkv[first * ld..][..n * ld]);
        let expected =
            Fused { data: &data, heads }.gradient(n, &wide(&dout[first * row..][..n * row]));
        let found = &found[first * ld..][..n * ld];
        let (k, v) = (heads.heads, heads.heads + heads.kv_heads);
        for (of, range) in [("dq", 0..k), ("dk", k..v), ("dv", v..v + heads.kv_heads)] {
            let what = format!("{of} of {n} rows of {what}");
            let [found, expected] = [
                columns(&wide(found), heads, range.clone()),
                columns(&expected, heads, range),
            ];
            // One key: the weight is 1 and no score has a gradient.
            if n > 1 || of == "dv" {
                let found: Vec<f32> = found.iter().map(|v| *v as f32).collect();
                near(&what, &found, &expected);
            }
        }
    }
}

#[test]
fn gradients_are_the_references_for_ragged_sequences() {
    for (seed, case) in CASES.into_iter().enumerate() {
        let Some(on) = stream() else { return };
        let world = World::new(on, case, seed as u64);
        let dout = vector(99, world.rows * world.heads.heads * world.heads.head_dim);
        let found = gradients(&world, Variant::Sync, &world.all(), &dout);
        are_the_references(&world, &format!("{case:?}"), &found, &dout);
    }
}

/// On GPUs where a block has 99 KiB of shared memory, smaller tiles.
#[test]
fn a_gpu_with_less_shared_memory_has_the_gradients_too() {
    let others = ["NEXTSTATE_PLANT", "NEXTSTATE_TEST_GPU"];
    if others.iter().any(|name| env::var_os(name).is_some()) || !driver() {
        return;
    }
    let run = Command::new(env::current_exe().unwrap())
        .args(["attention_backward::gradients_are", "--test-threads=1"])
        .env("NEXTSTATE_EMULATED_COMPUTE", "8.6")
        .env("NEXTSTATE_REQUIRE_EMULATOR", "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&run.stdout);
    assert!(text.contains("running 1 test"), "{text}");
    assert!(run.status.success(), "{text}");
}

/// Heads of 128, which Hopper's kernel is for: several blocks of keys, ends in the middle of a tile, one key.
const WIDE: [Case; 3] = [
    (4, 2, 128, &[3, 100]),
    (2, 1, 128, &[530, 1]),
    (3, 1, 128, &[128, 257, 64]),
];

#[test]
fn the_gradients_of_hopper_are_the_references() {
    for (seed, case) in WIDE.into_iter().enumerate() {
        let Some(on) = stream() else { return };
        if !on.gpu().is_hopper() {
            return;
        }
        let world = World::new(on, case, seed as u64);
        let dout = vector(99, world.rows * world.heads.heads * world.heads.head_dim);
        let found = gradients(&world, Variant::Wgmma, &world.all(), &dout);
        are_the_references(&world, &format!("{case:?}"), &found, &dout);
    }
}

/// Two chunks of every sequence: their rows' gradients, and the first's keys' from both.
#[test]
fn chunks_have_the_gradients_of_the_whole() {
    for (seed, case) in [CASES[0], CASES[2], CASES[3], WIDE[1]]
        .into_iter()
        .enumerate()
    {
        let Some(on) = stream() else { return };
        let world = World::new(on, case, seed as u64);
        let (heads, ld) = (world.heads, width(world.heads));
        let dout = vector(99, world.rows * heads.heads * heads.head_dim);
        for &variant in world.variants() {
            let cut = |n: usize| n * 2 / 5;
            let [heads_of, tails] = [false, true].map(|tail| -> Vec<Rows> {
                let part = |rows: Rows| {
                    let start = cut(rows.count);
                    let (start, count) = if tail {
                        (start, rows.count - start)
                    } else {
                        (0, start)
                    };
                    Rows {
                        first: rows.first + start,
                        count,
                        start,
                        ..rows
                    }
                };
                world.all().into_iter().map(part).collect()
            });
            let (mut found, none) = parts(&world, variant, &heads_of, &dout);
            assert!(none.is_empty());
            let (later, before) = parts(&world, variant, &tails, &dout);
            for (row, later) in later.chunks(ld).enumerate() {
                if !later.iter().all(|v| v.is_nan()) {
                    found[row * ld..][..ld].copy_from_slice(later);
                }
            }
            let (on, columns) = (&world.on, 2 * heads.kv_heads * heads.head_dim);
            let (mut sums, before) = (on.upload(&found).unwrap(), on.upload(&before).unwrap());
            let mut place = 0;
            for &(first, n) in &world.sequences {
                let rows = place * columns..(place + cut(n)) * columns;
                let part = before.view().part(rows).unwrap();
                hand_back(on, heads, first, part, &mut sums.view_mut()).unwrap();
                place += cut(n);
            }
            let found = on.download(sums.view()).unwrap();
            are_the_references(&world, &format!("{case:?}, {variant:?}"), &found, &dout);
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
    for case in [CASES[0], CASES[2], CASES[3], WIDE[1], WIDE[2]] {
        let Some(on) = stream() else { return };
        let world = World::new(on, case, 5);
        let dout = vector(99, world.rows * world.heads.heads * world.heads.head_dim);
        let ld = width(world.heads);
        for &variant in world.variants() {
            let all = gradients(&world, variant, &world.all(), &dout);
            let again = gradients(&world, variant, &world.all(), &dout);
            assert_eq!(bits(&again), bits(&all), "twice");
            for part in world.all() {
                let alone = gradients(&world, variant, &[part], &dout);
                for (row, (alone, all)) in alone.chunks(ld).zip(all.chunks(ld)).enumerate() {
                    if (part.first..part.first + part.count).contains(&row) {
                        assert_eq!(bits(alone), bits(all), "{case:?}, {variant:?}, row {row}");
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
}

#[test]
fn keys_of_another_plan_are_refused() {
    let Some(on) = stream() else { return };
    let world = World::new(on, (3, 1, 64, &[70]), 1);
    let on = &world.on;
    let plan = world.plan(&world.all());
    let keys = Keys::new(on.gpu()).unwrap();
    let (out, lse) = world.whole(Variant::Sync);
    let saved = Saved {
        q: world.queries(),
        out: out.view(),
        lse: lse.view(),
    };
    let dout = on.upload(&vector(1, 70 * 192)).unwrap();
    let mut work = Work::new(on.gpu(), &plan, 70).unwrap();
    let mut dqkv = poisoned(on, 70 * 320);
    let mut before = poisoned(on, 0);
    let to = (&mut dqkv.view_mut(), &mut before.view_mut());
    let cache = (&world.layer, &world.table);
    let found = backward(
        on,
        (&plan, &keys),
        cache,
        &saved,
        dout.view(),
        &mut work,
        to,
    );
    assert!(
        found
            .unwrap_err()
            .to_string()
            .contains("the keys are laid for")
    );
}
