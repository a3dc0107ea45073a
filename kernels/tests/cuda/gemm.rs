//! `kernels::cuda::gemm`.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use half::bf16;
use kernels::Error;
use kernels::cuda::adapters::{Segment, Segments, Shape};
use kernels::cuda::gemm::{self, Output, Variant};
use kernels::cuda::{Buffer, Priority, Stream};

use crate::common::{bits, close, vector, wide};
use crate::done::done;
use crate::linear::{
    Linear, MAP, RANKS, ROWS, WIDTHS, down, head, master, operand, packed, segments, uploaded,
};
use crate::setup::{BF16, narrow, poisoned, stream};

/// The variants that this GPU has.
fn variants(on: &Stream) -> Vec<Variant> {
    let mut all = vec![Variant::Tiles, Variant::Few];
    if on.gpu().is_hopper() {
        all.extend([Variant::Hopper, Variant::HopperFew]);
    }
    all
}

fn is_few(variant: Variant) -> bool {
    matches!(variant, Variant::Few | Variant::HopperFew)
}

fn takes(variant: Variant, rows: usize) -> bool {
    match variant {
        Variant::Few => rows <= Variant::FEW_ROWS,
        Variant::HopperFew => rows <= Variant::HOPPER_FEW_ROWS,
        Variant::Tiles | Variant::Hopper => true,
    }
}

#[test]
fn the_forward_product_is_the_references_in_every_variant() {
    let Some(on) = stream() else { return };
    let linear = Linear::new(&on);
    for rows in [1, 3, 17, 33, 64, 65, ROWS] {
        let (x, operand) = operand(&on, 2, rows * MAP.inputs);
        let add = vector(3, rows * MAP.outputs);
        let residual = on.upload(&add).unwrap();
        let segments_ = uploaded(&on, rows);
        let u = linear.u(&on, &segments_, &operand);
        let expected = linear.forward(&x, &down(&on, &u), &segments(rows));
        let mut first = None;
        for variant in variants(&on) {
            if !takes(variant, rows) {
                continue;
            }
            let len = rows * MAP.outputs;
            let (mut narrow, mut plain) = (poisoned::<bf16>(&on, len), poisoned::<f32>(&on, len));
            let (mut sum, mut onto) = (poisoned::<f32>(&on, len), on.upload(&add).unwrap());
            let (mut narrow_, mut plain_) = (narrow.view_mut(), plain.view_mut());
            let (mut sum_, mut onto_) = (sum.view_mut(), onto.view_mut());
            let of = residual.view();
            for y in [
                Output::Bf16(&mut narrow_),
                Output::F32(&mut plain_),
                Output::Sum { of, to: &mut sum_ },
                Output::Onto(&mut onto_),
            ] {
                let operands = (operand.view(), linear.weights.view());
                let beside = Some(linear.beside(&segments_, &u));
                gemm::forward_by(variant, &on, rows, MAP, operands, beside, y).unwrap();
            }
            let what = format!("{variant:?}, {rows} rows");
            let plain = on.download(plain.view()).unwrap();
            close(&what, &plain, &expected, 1e-5);
            close(&what, &down(&on, &narrow), &wide(&plain), BF16);
            let summed: Vec<f32> = add.iter().zip(&plain).map(|(a, y)| a + y).collect();
            for found in [sum, onto] {
                let found = on.download(found.view()).unwrap();
                assert_eq!(bits(&found), bits(&summed), "{what}");
            }
            let first = first.get_or_insert_with(|| bits(&plain));
            assert!(*first == bits(&plain), "{what}: other bits");
        }
    }
}

#[test]
fn the_backward_product_is_the_references_in_every_variant() {
    let Some(on) = stream() else { return };
    let linear = Linear::new(&on);
    for rows in [1, 33, 65, ROWS] {
        let (dy, operand) = operand(&on, 4, rows * MAP.outputs);
        let add = vector(5, rows * MAP.inputs);
        let segments_ = uploaded(&on, rows);
        let du = linear.du(&on, &segments_, &operand);
        let expected = linear.backward(&dy, &down(&on, &du), &segments(rows));
        let mut first = None;
        for variant in variants(&on) {
            if is_few(variant) {
                continue;
            }
            let len = rows * MAP.inputs;
            let (mut narrow, mut plain) = (poisoned::<bf16>(&on, len), poisoned::<f32>(&on, len));
            let mut onto = on.upload(&add).unwrap();
            let (mut narrow_, mut plain_) = (narrow.view_mut(), plain.view_mut());
            let mut onto_ = onto.view_mut();
            for dx in [
                Output::Bf16(&mut narrow_),
                Output::F32(&mut plain_),
                Output::Onto(&mut onto_),
            ] {
                let operands = (operand.view(), linear.weights.view());
                let beside = Some(linear.beside(&segments_, &du));
                gemm::backward_by(variant, &on, rows, MAP, operands, beside, dx).unwrap();
            }
            let what = format!("{variant:?}, {rows} rows");
            let plain = on.download(plain.view()).unwrap();
            close(&what, &plain, &expected, 1e-5);
            close(&what, &down(&on, &narrow), &wide(&plain), BF16);
            let onto = on.download(onto.view()).unwrap();
            let summed: Vec<f32> = add.iter().zip(&plain).map(|(a, y)| a + y).collect();
            assert_eq!(bits(&onto), bits(&summed), "{what}");
            let first = first.get_or_insert_with(|| bits(&plain));
            assert!(*first == bits(&plain), "{what}: other bits");
        }
    }
}

/// Both products of the first `rows` rows, as bits.
fn both(
    on: &Stream,
    linear: &Linear,
    variant: Variant,
    rows: usize,
    [x, u, dy, du]: [&Buffer<bf16>; 4],
) -> (Vec<u32>, Vec<u32>) {
    let segments = uploaded(on, rows);
    let inner = rows * linear.inner();
    let (x, u) = (head(on, x, rows * linear.map.inputs), head(on, u, inner));
    let (dy, du) = (head(on, dy, rows * linear.map.outputs), head(on, du, inner));
    let mut y = poisoned(on, rows * linear.map.outputs);
    let operands = (x.view(), linear.weights.view());
    let beside = Some(linear.beside(&segments, &u));
    let mut to = y.view_mut();
    gemm::forward_by(
        variant,
        on,
        rows,
        linear.map,
        operands,
        beside,
        Output::F32(&mut to),
    )
    .unwrap();
    let y = bits(&on.download(y.view()).unwrap());
    if is_few(variant) {
        return (y, Vec::new());
    }
    let mut dx = poisoned(on, rows * linear.map.inputs);
    let operands = (dy.view(), linear.weights.view());
    let beside = Some(linear.beside(&segments, &du));
    let mut to = dx.view_mut();
    gemm::backward_by(
        variant,
        on,
        rows,
        linear.map,
        operands,
        beside,
        Output::F32(&mut to),
    )
    .unwrap();
    (y, bits(&on.download(dx.view()).unwrap()))
}

#[test]
fn a_row_has_the_same_bits_in_every_variant_and_for_every_number_of_rows() {
    let Some(on) = stream() else { return };
    // Small: the emulator computes whole tiles.
    let linear = Linear::of(&on, [32, 16], 48);
    let (_, x) = operand(&on, 6, ROWS * linear.map.inputs);
    let (_, dy) = operand(&on, 7, ROWS * linear.map.outputs);
    let all = uploaded(&on, ROWS);
    let (u, du) = (linear.u(&on, &all, &x), linear.du(&on, &all, &dy));
    let operands = [&x, &u, &dy, &du];
    let (y, dx) = both(&on, &linear, Variant::Tiles, ROWS, operands);
    for variant in variants(&on) {
        for rows in 1..=ROWS {
            if !takes(variant, rows) {
                break;
            }
            let (some_y, some_dx) = both(&on, &linear, variant, rows, operands);
            assert!(y[..some_y.len()] == some_y, "{variant:?}, {rows} rows");
            assert!(dx[..some_dx.len()] == some_dx, "{variant:?}, {rows} rows");
        }
    }
}

/// On the stand-in driver, which has four multiprocessors.
#[test]
fn a_queue_that_gives_way_has_a_block_for_each_tile_and_the_same_bits() {
    let Some(on) = stream() else { return };
    if !on.gpu().is_hopper() {
        return;
    }
    let (rows, map) = (
        270,
        Shape {
            outputs: 528,
            inputs: 64,
        },
    );
    let run = |priority| {
        let on = on.gpu().stream(priority).unwrap();
        let of = |seed, len| on.upload(&narrow(&vector(seed, len))).unwrap();
        let (x, w) = (of(1, rows * map.inputs), of(2, map.outputs * map.inputs));
        let mut y = poisoned::<f32>(&on, rows * map.outputs);
        let before = done();
        let (operands, to) = ((x.view(), w.view()), &mut y.view_mut());
        gemm::forward_by(
            Variant::Hopper,
            &on,
            rows,
            map,
            operands,
            None,
            Output::F32(to),
        )
        .unwrap();
        let blocks = done()
            .zip(before)
            .map(|(now, then)| now.blocks - then.blocks);
        (bits(&on.download(y.view()).unwrap()), blocks)
    };
    let (high, stay) = run(Priority::High);
    let (low, leave) = run(Priority::Low);
    assert!(high == low);
    assert!(stay.is_none_or(|blocks| blocks == 4), "{stay:?}");
    assert!(leave.is_none_or(|blocks| blocks == 9), "{leave:?}");
}

#[test]
fn few_rows_have_the_same_bits_however_many_outputs_a_block_has() {
    let Some(on) = stream() else { return };
    if !on.gpu().is_hopper() {
        return;
    }
    let multiprocessors = on.gpu().multiprocessors().unwrap() as usize;
    // Of a multiprocessor, a little less than each kernel of cuda/decode_wgmma.cu has; the last is more than one wave.
    for share in [12, 20, 28, 44, 60, 92, 124, 148, 290] {
        let outputs = share * multiprocessors;
        // The widest blocks' rings come round.
        let inputs = if share == 148 { 720 } else { 80 };
        let linear = Linear::of(&on, [outputs.next_multiple_of(16) - 32, 32], inputs);
        for rows in [5, 17, 64, 81, 128] {
            let (_, x) = operand(&on, 13, rows * linear.map.inputs);
            let (_, dy) = operand(&on, 14, rows * linear.map.outputs);
            let who = uploaded(&on, rows);
            let (u, du) = (linear.u(&on, &who, &x), linear.du(&on, &who, &dy));
            let operands = [&x, &u, &dy, &du];
            let (y, _) = both(&on, &linear, Variant::HopperFew, rows, operands);
            let (of_tiles, _) = both(&on, &linear, Variant::Tiles, rows, operands);
            assert!(y == of_tiles, "{share} outputs, {rows} rows");
        }
    }
}

#[test]
fn few_rows_wait_for_the_kernel_that_makes_them() {
    let Some(on) = stream() else { return };
    if !on.gpu().is_hopper() {
        return;
    }
    let linear = Linear::of(&on, [32, 16], 48);
    let rows = 5;
    let values = vector(15, rows * linear.map.inputs);
    let from = on.upload(&values).unwrap();
    let mut made = poisoned(&on, values.len());
    gemm::round(&on, from.view(), &mut made.view_mut()).unwrap();
    let product = |x: &Buffer<bf16>| {
        let mut y = poisoned(&on, rows * linear.map.outputs);
        let (operands, variant) = ((x.view(), linear.weights.view()), Variant::HopperFew);
        let mut to = y.view_mut();
        let to = Output::F32(&mut to);
        gemm::forward_by(variant, &on, rows, linear.map, operands, None, to).unwrap();
        bits(&on.download(y.view()).unwrap())
    };
    let sent = on.upload(&narrow(&values)).unwrap();
    assert_eq!(product(&made), product(&sent));
}

#[test]
fn a_row_has_the_same_bits_whatever_adapters_its_neighbours_have() {
    let Some(on) = stream() else { return };
    let linear = Linear::new(&on);
    let rows = 20;
    let (_, x) = operand(&on, 8, rows * MAP.inputs);
    let mut segments = Segments::new(&on, rows, rows).unwrap();
    let mut run = |who: &[Segment], variant: Variant| {
        segments.set(&on, who, RANKS.len()).unwrap();
        let u = linear.u(&on, &segments, &x);
        let mut y = poisoned(&on, rows * MAP.outputs);
        let operands = (x.view(), linear.weights.view());
        let beside = Some(linear.beside(&segments, &u));
        let mut to = y.view_mut();
        let to = Output::F32(&mut to);
        gemm::forward_by(variant, &on, rows, MAP, operands, beside, to).unwrap();
        let y = on.download(y.view()).unwrap();
        bits(&y[7 * MAP.outputs..8 * MAP.outputs])
    };
    let own = Segment {
        first: 7,
        count: 1,
        slot: 1,
    };
    let alone = run(&[own], Variant::Tiles);
    assert_ne!(alone, run(&[], Variant::Tiles));
    let each = |slot: usize| {
        let of = move |first| Segment {
            first,
            count: 1,
            slot: if first == 7 { 1 } else { slot },
        };
        (0..rows).map(of).collect::<Vec<_>>()
    };
    for variant in variants(&on) {
        for slot in 0..RANKS.len() {
            assert_eq!(run(&each(slot), variant), alone, "{variant:?}, {slot}");
        }
        assert_eq!(run(&[own], variant), alone, "{variant:?}");
    }
}

#[test]
fn a_recorded_product_sees_what_is_published_and_whose_rows_they_are_when_it_is_replayed() {
    let Some(on) = stream() else { return };
    let linear = Linear::new(&on);
    let rows = 5;
    let (_, x) = operand(&on, 9, rows * MAP.inputs);
    let mut who = uploaded(&on, rows);
    let mut u = poisoned(&on, rows * linear.inner());
    let mut y = poisoned(&on, rows * MAP.outputs);
    let product = |linear: &Linear, who: &Segments, u: &mut Buffer<bf16>, y: &mut Buffer<f32>| {
        let adapters = linear.adapters(who);
        kernels::cuda::lora::down(&on, rows, MAP, x.view(), &adapters, &mut u.view_mut())?;
        let beside = Some(linear.beside(who, u));
        let operands = (x.view(), linear.weights.view());
        let mut to = y.view_mut();
        gemm::forward(&on, rows, MAP, operands, beside, Output::F32(&mut to))
    };
    let mut graph = on
        .capture(|_| product(&linear, &who, &mut u, &mut y))
        .unwrap();
    let mut seen = Vec::new();
    for round in 0..3 {
        if round == 1 {
            let shape = Shape {
                outputs: WIDTHS[0],
                inputs: MAP.inputs,
            };
            let new = Arc::new(packed(&on, shape, &master(1, shape, 9)));
            linear.table.publish(&on, 1, 0, Some(new)).unwrap();
        }
        if round == 2 {
            let moved = Segment {
                first: 1,
                count: 2,
                slot: 2,
            };
            who.set(&on, &[moved], RANKS.len()).unwrap();
        }
        on.replay(&mut graph).unwrap();
        let replayed = bits(&on.download(y.view()).unwrap());
        let (mut own_u, mut own) = (poisoned(&on, u.len()), poisoned(&on, y.len()));
        product(&linear, &who, &mut own_u, &mut own).unwrap();
        assert_eq!(replayed, bits(&on.download(own.view()).unwrap()), "{round}");
        assert!(!seen.contains(&replayed), "{round}");
        seen.push(replayed);
    }
}

#[test]
fn a_gradient_becomes_an_operand_by_one_rounding() {
    let Some(on) = stream() else { return };
    for len in [0, 2, 514] {
        let values = vector(10, len);
        let from = on.upload(&values).unwrap();
        let mut to = poisoned(&on, len);
        gemm::round(&on, from.view(), &mut to.view_mut()).unwrap();
        assert_eq!(on.download(to.view()).unwrap(), narrow(&values));
    }
}

#[test]
fn what_does_not_fit_is_refused_at_the_door() {
    let Some(on) = stream() else { return };
    let linear = Linear::new(&on);
    let rows = 3;
    let (_, x) = operand(&on, 11, rows * MAP.inputs);
    let mut y = poisoned::<f32>(&on, rows * MAP.outputs);
    let u = poisoned(&on, rows * linear.inner());
    let weights = linear.weights.view();
    let mut refused = |map, rows, segments: Option<&Segments>| {
        let beside = segments.map(|s| linear.beside(s, &u));
        let mut to = y.view_mut();
        let to = Output::F32(&mut to);
        gemm::forward(&on, rows, map, (x.view(), weights), beside, to).unwrap_err()
    };
    let odd = Shape {
        outputs: MAP.outputs * 2,
        inputs: MAP.inputs / 2,
    };
    assert!(matches!(refused(odd, 3, None), Error::Shape { .. }));
    let uneven = Shape {
        outputs: MAP.outputs * 18,
        inputs: 8,
    };
    assert!(matches!(refused(uneven, 54, None), Error::Shape { .. }));
    assert!(matches!(
        refused(MAP, 4, None),
        Error::Shape { what: "x", .. }
    ));
    let many = uploaded(&on, 4);
    let error = refused(MAP, rows, Some(&many));
    assert!(
        matches!(error, Error::Argument { what: "rows", .. }),
        "{error}"
    );
    // Its first element is in the middle of what a kernel copies at a time.
    let (_, shifted) = operand(&on, 12, rows * MAP.inputs + 1);
    let shifted = shifted.view().part(1..rows * MAP.inputs + 1).unwrap();
    let mut to = y.view_mut();
    let to = Output::F32(&mut to);
    let error = gemm::forward(&on, rows, MAP, (shifted, weights), None, to).unwrap_err();
    let found = matches!(
        error,
        Error::Argument {
            what: "operand",
            ..
        }
    );
    assert!(found, "{error}");
    let mut to = y.view_mut();
    let (few, operands) = (Variant::Few, (x.view(), weights));
    let error = gemm::backward_by(few, &on, 0, MAP, operands, None, Output::F32(&mut to));
    assert!(matches!(error, Err(Error::Shape { .. })));
}

#[test]
fn segments_that_overlap_or_end_outside_are_refused() {
    let Some(on) = stream() else { return };
    let mut segments = Segments::new(&on, 2, 10).unwrap();
    let of = |first, count, slot| Segment { first, count, slot };
    for bad in [
        &[of(0, 3, 0), of(2, 1, 0)][..],
        &[of(8, 3, 0)],
        &[of(0, 0, 0)],
        &[of(0, 1, 3)],
        &[of(0, 1, 0), of(1, 1, 0), of(2, 1, 0)],
    ] {
        let refused = segments.set(&on, bad, 3);
        assert!(matches!(refused, Err(Error::Argument { .. })), "{bad:?}");
    }
    segments.set(&on, &[of(0, 3, 0), of(3, 7, 2)], 3).unwrap();
}
