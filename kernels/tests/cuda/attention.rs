//! `kernels::cuda::{attention, decode_attention}`: parity, and the same bits from every way to compute a row.

use half::bf16;
use kernels::cuda::attention::{Plan, Queries, Room, Rows, Variant};
use kernels::cuda::kv::{PAGE, PageTable, SPLIT};
use kernels::cuda::{attention, decode_attention};
use kernels::{Error, reference};

use crate::attention_world::{CASES, Case, Fused, World, width};
use crate::common::{close, noise, wide};
use crate::setup::{BF16, poisoned, stream, widened};

/// The weights of keys are rounded to bf16, then the result is.
const TOLERANCE: f64 = 2.0 * BF16;

/// Rounding each weight by up to 2^-8 moves their sum by as much.
const LSE: f64 = 1.45 / 256.0;

fn bits(values: &[bf16]) -> Vec<u16> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// Some number below `below`, by seed and place.
fn pick(seed: u64, place: u64, below: usize) -> usize {
    ((f64::from(noise(seed, place)) + 1.0) / 2.0 * below as f64) as usize
}

#[test]
fn attention_is_the_references_for_ragged_sequences() {
    for (seed, case) in CASES.into_iter().enumerate() {
        let Some(on) = stream() else { return };
        let world = World::new(on, case, seed as u64);
        let (out, lse) = world.whole(Variant::Sync);
        let out = widened(&world.on.download(out.view()).unwrap());
        let lse = world.on.download(lse.view()).unwrap();
        let heads = world.heads;
        let sizes = reference::Heads {
            heads: heads.heads,
            kv_heads: heads.kv_heads,
            head_dim: heads.head_dim,
        };
        for &(first, n) in &world.sequences {
            let data = wide(&world.qkv[first * width(heads)..][..n * width(heads)]);
            let row = heads.heads * heads.head_dim;
            let expected = reference::attention(n, sizes, &data);
            close(
                "attention",
                &out[first * row..][..n * row],
                &expected,
                TOLERANCE,
            );
            let fused = Fused { data: &data, heads };
            let sums = (0..n).flat_map(|row| (0..heads.heads).map(move |head| (row, head)));
            let expected: Vec<f64> = sums.map(|(row, head)| fused.weights(row, head).1).collect();
            close(
                "lse",
                &lse[first * heads.heads..][..n * heads.heads],
                &expected,
                LSE,
            );
        }
    }
}

/// Every sequence cut into chunks, and chunks of different sequences put into random calls.
fn calls(world: &World, seed: u64, longest: usize) -> Vec<Vec<Rows>> {
    let mut done = vec![0; world.sequences.len()];
    let mut place = 0;
    let mut calls = Vec::new();
    while done
        .iter()
        .zip(&world.sequences)
        .any(|(done, s)| *done < s.1)
    {
        let mut call = Vec::new();
        for (sequence, &(first, n)) in world.sequences.iter().enumerate() {
            place += 2;
            if done[sequence] == n || pick(seed, place, 3) == 0 {
                continue;
            }
            let (start, count) = (done[sequence], 1 + pick(seed, place + 1, longest));
            let count = count.min(n - start);
            done[sequence] += count;
            call.push(Rows {
                first: first + start,
                count,
                start,
                sequence,
            });
        }
        calls.push(call);
    }
    calls
}

#[test]
fn a_rows_bits_depend_neither_on_chunks_nor_on_the_batch() {
    for (seed, case) in CASES.into_iter().enumerate() {
        let Some(on) = stream() else { return };
        let world = World::new(on, case, seed as u64);
        let whole = world
            .on
            .download(world.whole(Variant::Sync).0.view())
            .unwrap();
        for (longest, &variant) in [40, 150, 700]
            .iter()
            .flat_map(|&l| world.variants().iter().map(move |v| (l, v)))
        {
            let mut out = poisoned(&world.on, whole.len());
            for call in calls(&world, longest as u64, longest) {
                world.forward(variant, &call, &mut out, None);
            }
            let found = world.on.download(out.view()).unwrap();
            assert_eq!(
                bits(&found),
                bits(&whole),
                "{case:?}, chunks up to {longest}, {variant:?}"
            );
        }
    }
}

#[test]
fn the_kernel_of_hopper_has_the_bits_of_the_other() {
    for (seed, case) in CASES.into_iter().enumerate() {
        let Some(on) = stream() else { return };
        let world = World::new(on, case, seed as u64);
        let [found, expected] =
            [world.variants().last().unwrap(), &Variant::Sync].map(|&variant| {
                let (out, lse) = world.whole(variant);
                let lse = world.on.download(lse.view()).unwrap();
                let lse: Vec<u32> = lse.iter().map(|v| v.to_bits()).collect();
                (bits(&world.on.download(out.view()).unwrap()), lse)
            });
        assert_eq!(found, expected, "{case:?}");
    }
}

#[test]
fn a_decoded_row_has_the_bits_that_it_has_in_its_prompt() {
    for (seed, case) in CASES.into_iter().enumerate() {
        let Some(on) = stream() else { return };
        let world = World::new(on, case, seed as u64);
        let whole = world
            .on
            .download(world.whole(Variant::Sync).0.view())
            .unwrap();
        let row = world.heads.heads * world.heads.head_dim;
        let longest = world.sequences.iter().map(|s| s.1).max().unwrap();
        for round in 0..6 {
            let position = |(i, &(_, n)): (usize, &(usize, usize))| match round {
                0 => n - 1,
                1 => 0,
                2 => (n - 1).min(SPLIT),
                3 => (n - 1).min(SPLIT - 1),
                _ => pick(round, i as u64, n),
            };
            let positions: Vec<usize> = world.sequences.iter().enumerate().map(position).collect();
            let given: Vec<i32> = positions
                .iter()
                .map(|&p| i32::try_from(p).unwrap())
                .collect();
            for &parts in world.parts() {
                let found = world.decode(&given, longest, parts);
                for (i, (at, s)) in positions.iter().zip(&world.sequences).enumerate() {
                    let (found, expected) =
                        (&found[i * row..][..row], &whole[(s.0 + at) * row..][..row]);
                    assert_eq!(
                        bits(found),
                        bits(expected),
                        "{case:?}, sequence {i}, position {at}, {parts:?}"
                    );
                }
            }
        }
    }
}

const SMALL: Case = (3, 1, 64, &[70, 20]);

#[test]
fn rows_outside_a_plan_and_idle_slots_stay_as_they_were() {
    let Some(on) = stream() else { return };
    let world = World::new(on, SMALL, 1);
    let row = world.heads.heads * world.heads.head_dim;
    let mut out = poisoned(&world.on, world.rows * row);
    let part = Rows {
        first: 10,
        count: 33,
        start: 10,
        sequence: 0,
    };
    world.forward(Variant::Sync, &[part], &mut out, None);
    for (i, row) in world
        .on
        .download(out.view())
        .unwrap()
        .chunks(row)
        .enumerate()
    {
        let planned = (10..43).contains(&i);
        assert!(row.iter().all(|v| v.is_nan() != planned), "row {i}");
    }
    for &parts in world.parts() {
        let out = world.decode(&[-1, 3], 70, parts);
        assert!(out[..row].iter().all(|v| v.to_bits() == 0xffff));
        assert!(out[row..].iter().all(|v| v.is_finite()));
    }
}

#[test]
fn a_row_with_more_keys_than_it_was_given_room_for_is_not_a_number() {
    let Some(on) = stream() else { return };
    let world = World::new(on, (2, 1, 64, &[600, 600]), 1);
    let row = world.heads.heads * world.heads.head_dim;
    for &parts in world.parts() {
        let out = world.decode(&[511, 512], SPLIT, parts);
        assert!(out[..row].iter().all(|v| v.is_finite()));
        assert!(out[row..].iter().all(|v| v.is_nan()));
        let out = world.decode(&[599, 700], 4 * SPLIT, parts);
        assert!(out[..row].iter().all(|v| v.is_finite()));
        assert!(out[row..].iter().all(|v| v.is_nan()));
    }
}

/// What the op says of an argument.
fn refusal(result: kernels::Result<()>) -> &'static str {
    match result {
        Err(Error::Argument { rule, .. }) => rule,
        Err(Error::Shape { what, .. }) => what,
        other => panic!("{other:?} is no refusal"),
    }
}

#[test]
fn rows_that_do_not_fit_are_refused_at_the_door() {
    let Some(on) = stream() else { return };
    let world = World::new(on, SMALL, 1);
    let (on, all) = (&world.on, world.all());
    let room = Room {
        rows: 90,
        sequences: 2,
    };
    let mut plan = Plan::new(on.gpu(), world.heads, room).unwrap();
    let mut turned = all.clone();
    turned.reverse();
    assert_eq!(
        refusal(plan.lay(on, &turned)),
        "rows ascend, and are counted in 31 bits"
    );
    let mut more = all.clone();
    more[1].count = 21;
    assert_eq!(refusal(plan.lay(on, &more)), "there is room for fewer");

    let mut out = poisoned(on, world.rows * 192);
    let mut run = |parts: &[Rows], q: Queries<'_>, table: &PageTable| {
        plan.lay(on, parts).unwrap();
        let cache = (&world.layer, table);
        refusal(attention::forward(
            on,
            &plan,
            cache,
            q,
            &mut out.view_mut(),
            None,
        ))
    };
    let mut deep = all.clone();
    deep[1].start = 2 * PAGE;
    let outside = "the planned rows are in the page table";
    assert_eq!(run(&deep, world.queries(), &world.table), outside);
    let mut foreign = all.clone();
    foreign[1].sequence = 2;
    assert_eq!(run(&foreign, world.queries(), &world.table), outside);
    let data = world.device.view().part(0..89 * 320).unwrap();
    let fewer = Queries { data, ld: 320 };
    assert_eq!(
        run(&all, fewer, &world.table),
        "the planned rows are in the queries"
    );
    let data = world.device.view().part(1..81).unwrap();
    let shifted = Queries { data, ld: 80 };
    let whole = "rows are whole, hold the heads, and have a multiple of 8 elements";
    assert_eq!(run(&[], shifted, &world.table), whole);
    let data = world.device.view().part(1..321).unwrap();
    let shifted = Queries { data, ld: 320 };
    assert_eq!(
        run(&[], shifted, &world.table),
        "rows start at a multiple of 16 bytes"
    );
    let larger = PageTable::new(on, 2, 2, 100).unwrap();
    assert_eq!(
        run(&all, world.queries(), &larger),
        "the pools have the table's pages"
    );
    let data = world.device.view();
    let short = Queries { data, ld: 320 };
    let mut small = poisoned(on, 12);
    let cache = (&world.layer, &world.table);
    let result = attention::forward(on, &plan, cache, short, &mut small.view_mut(), None);
    assert_eq!(refusal(result), "out");
}

#[test]
fn pages_outside_the_pools_or_the_table_are_refused() {
    let Some(on) = stream() else { return };
    let mut table = PageTable::new(&on, 2, 3, 5).unwrap();
    assert_eq!(refusal(table.set(2, 0, 0)), "the table has no such place");
    assert_eq!(refusal(table.set(0, 3, 0)), "the table has no such place");
    assert_eq!(refusal(table.set(0, 0, 5)), "the pools have fewer pages");
    table.set(1, 2, 4).unwrap();
    table.upload(&on).unwrap();
    assert_eq!(on.download(table.view()).unwrap(), [0, 0, 0, 0, 0, 4]);
    // What is uploaded begins at the first sequence that changed.
    for (sequence, index, page) in [(1, 0, 3), (0, 1, 2), (1, 0, 3)] {
        table.set(sequence, index, page).unwrap();
    }
    table.upload(&on).unwrap();
    assert_eq!(on.download(table.view()).unwrap(), [0, 2, 0, 3, 0, 4]);
    assert!(matches!(
        PageTable::new(&on, 1, 1, 0),
        Err(Error::Argument { .. })
    ));
}

#[test]
fn a_decode_step_that_does_not_fit_is_refused_at_the_door() {
    let Some(on) = stream() else { return };
    let world = World::new(on, (17, 1, 64, &[5]), 1);
    let on = &world.on;
    let positions = on.upload(&[4]).unwrap();
    let mut out = poisoned(on, 17 * 64);
    let mut run = |keys: usize| {
        let mut work = decode_attention::Work::new(on, world.heads, 1, 64).unwrap();
        let q = Queries {
            data: world.device.view().part(0..19 * 64).unwrap(),
            ld: 19 * 64,
        };
        let cache = (&world.layer, &world.table);
        let at = (positions.view(), keys);
        refusal(decode_attention::forward(
            on,
            cache,
            q,
            at,
            &mut work,
            &mut out.view_mut(),
        ))
    };
    assert_eq!(run(5), "up to 16 heads share a key head");
    // Two splits are one for each of two sequences, or two for one.
    let world = World::new(stream().unwrap(), (2, 1, 64, &[5, 3]), 1);
    let on = &world.on;
    let mut work = decode_attention::Work::with_splits(on, world.heads, 2, 2).unwrap();
    let mut run = |rows: usize, keys: usize| {
        let data = on.upload(&vec![half::bf16::ONE; rows * 256]).unwrap();
        let q = Queries {
            data: data.view(),
            ld: 256,
        };
        let positions = on.upload(&vec![2; rows]).unwrap();
        let mut out = poisoned(on, rows * 128);
        let cache = (&world.layer, &world.table);
        let (at, out) = ((positions.view(), keys), &mut out.view_mut());
        let outcome = decode_attention::forward(on, cache, q, at, &mut work, out);
        on.wait().unwrap();
        outcome
    };
    for (rows, keys) in [(2, 500), (1, 1000)] {
        run(rows, keys).unwrap();
    }
    for (rows, keys) in [(2, 600), (1, 1100)] {
        assert_eq!(refusal(run(rows, keys)), "there is room for fewer keys");
    }
}
