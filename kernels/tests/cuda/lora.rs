//! `kernels::cuda::lora`, and what `adapters` packs.

use kernels::Error;
use kernels::cuda::adapters::{Packed, Shape};
use kernels::cuda::lora::{self, Columns};

use crate::common::{bits, close, vector};
use crate::linear::{
    Linear, MAP, RANKS, ROWS, WIDTHS, down, head, operand, segments, sum, uploaded,
};
use crate::setup::{BF16, poisoned, rounded, stream};

#[test]
fn the_inner_results_are_the_references_and_nothing_else_is_written() {
    let Some(on) = stream() else { return };
    let linear = Linear::new(&on);
    let largest = linear.table.largest_rank();
    for rows in [1, 4, 17, ROWS] {
        let who = uploaded(&on, rows);
        let (x, x_) = operand(&on, 2, rows * MAP.inputs);
        let (dy, dy_) = operand(&on, 3, rows * MAP.outputs);
        let (u, du) = (linear.u(&on, &who, &x_), linear.du(&on, &who, &dy_));
        let (u, du) = (down(&on, &u), down(&on, &du));
        let mut written = vec![false; u.len()];
        linear.each_adapted(&segments(rows), rows, |row, projection, master| {
            let (a, b) = (rounded(&master.a), rounded(&master.b));
            let first = linear.parts[projection].outputs.start;
            for r in 0..largest {
                let at = row * linear.inner() + projection * largest + r;
                if r >= master.rank.next_multiple_of(16) {
                    continue;
                }
                written[at] = true;
                if r >= master.rank {
                    assert_eq!((u[at], du[at]), (0.0, 0.0), "{row} {projection} {r}");
                    continue;
                }
                let scale = f64::from(master.scale);
                let i = &x[row * MAP.inputs..][..MAP.inputs];
                let expected = scale * sum(i, &a[r * MAP.inputs..][..MAP.inputs]);
                close("u", &u[at..=at], &[expected], BF16);
                let o = &dy[row * MAP.outputs + first..][..WIDTHS[projection]];
                let column: Vec<f32> = (0..o.len()).map(|o| b[o * master.rank + r]).collect();
                close("du", &du[at..=at], &[scale * sum(o, &column)], BF16);
            }
        });
        for (at, written) in written.into_iter().enumerate() {
            assert!(written || (u[at].is_nan() && du[at].is_nan()), "{at}");
        }
    }
}

#[test]
fn an_inner_result_has_the_same_bits_for_every_number_of_rows() {
    let Some(on) = stream() else { return };
    let linear = Linear::new(&on);
    let (_, x) = operand(&on, 4, ROWS * MAP.inputs);
    let (_, dy) = operand(&on, 5, ROWS * MAP.outputs);
    let all = uploaded(&on, ROWS);
    let u = bits(&down(&on, &linear.u(&on, &all, &x)));
    let du = bits(&down(&on, &linear.du(&on, &all, &dy)));
    for rows in [1, 2, 4, 9, 16, 33, 129] {
        let who = uploaded(&on, rows);
        let some = linear.u(&on, &who, &head(&on, &x, rows * MAP.inputs));
        assert!(
            bits(&down(&on, &some)) == u[..rows * linear.inner()],
            "{rows}"
        );
        let some = linear.du(&on, &who, &head(&on, &dy, rows * MAP.outputs));
        assert!(
            bits(&down(&on, &some)) == du[..rows * linear.inner()],
            "{rows}"
        );
    }
}

#[test]
fn the_gradients_are_the_references_and_are_added() {
    let Some(on) = stream() else { return };
    // Three runs of rows at most.
    const ROWS: usize = 1100;
    let (x, x_) = operand(&on, 6, ROWS * MAP.inputs);
    let work = lora::gradient_work(ROWS, MAP.inputs, 80);
    let mut work = poisoned(&on, work);
    for rank in [5usize, 16, 80] {
        let ld = 2 * rank.next_multiple_of(16);
        let padded = ld / 2;
        let (u, u_) = operand(&on, 7, ROWS * ld);
        for rows in [0..1, 3..8, 9..40, 1..130, 100..613, 7..ROWS, 4..4] {
            let begun = vector(8, rank * MAP.inputs);
            let mut da = on.upload(&begun).unwrap();
            let mut db = on.upload(&begun).unwrap();
            let wide = Columns {
                of: x_.view(),
                ld: MAP.inputs,
                which: 0..MAP.inputs,
            };
            let narrow = Columns {
                of: u_.view(),
                ld,
                which: padded..ld,
            };
            let (mut da_, mut db_) = (da.view_mut(), db.view_mut());
            let mut work = work.view_mut();
            lora::gradient_a(&on, rows.clone(), &wide, &narrow, &mut work, &mut da_).unwrap();
            lora::gradient_b(&on, rows.clone(), &wide, &narrow, &mut work, &mut db_).unwrap();
            let (mut a, mut b) = (vec![0.0; begun.len()], vec![0.0; begun.len()]);
            for r in 0..rank {
                for i in 0..MAP.inputs {
                    let at = |row: usize| {
                        f64::from(x[row * MAP.inputs + i]) * f64::from(u[row * ld + padded + r])
                    };
                    let total: f64 = rows.clone().map(at).sum();
                    let (at_a, at_b) = (r * MAP.inputs + i, i * rank + r);
                    a[at_a] = total + f64::from(begun[at_a]);
                    b[at_b] = total + f64::from(begun[at_b]);
                }
            }
            let what = format!("rank {rank}, {rows:?}");
            // Tensor cores cut a sum off at 24 bits after every step of 16 terms (MMA-Sim): an H200 is off by 1.01e-5 here.
            close(&what, &on.download(da.view()).unwrap(), &a, 3e-5);
            close(&what, &on.download(db.view()).unwrap(), &b, 3e-5);
        }
    }
}

#[test]
fn a_part_of_wider_rows_has_its_own_gradient() {
    let Some(on) = stream() else { return };
    let (dy, dy_) = operand(&on, 9, 40 * MAP.outputs);
    let (u, u_) = operand(&on, 10, 40 * 16);
    let mut db = on.upload(&vec![0.0; WIDTHS[1] * RANKS[0]]).unwrap();
    let wide = Columns {
        of: dy_.view(),
        ld: MAP.outputs,
        which: WIDTHS[0]..MAP.outputs,
    };
    let narrow = Columns {
        of: u_.view(),
        ld: 16,
        which: 0..16,
    };
    let mut work = poisoned(&on, lora::gradient_work(38, WIDTHS[1], 16));
    let mut work = work.view_mut();
    lora::gradient_b(&on, 2..40, &wide, &narrow, &mut work, &mut db.view_mut()).unwrap();
    let expected = (0..WIDTHS[1] * 16).map(|at| {
        let (o, r) = (WIDTHS[0] + at / 16, at % 16);
        let term = |row: usize| f64::from(dy[row * MAP.outputs + o]) * f64::from(u[row * 16 + r]);
        (2..40).map(term).sum()
    });
    let expected: Vec<f64> = expected.collect();
    close("dB", &on.download(db.view()).unwrap(), &expected, 1e-5);
}

#[test]
fn adapters_without_rank_and_columns_outside_are_refused() {
    let Some(on) = stream() else { return };
    let shape = Shape {
        outputs: 32,
        inputs: 16,
    };
    let refused = Packed::new(on.gpu(), &[shape], 0, 1.0);
    assert!(matches!(refused, Err(Error::Argument { what: "rank", .. })));
    let (_, x) = operand(&on, 11, 4 * 32);
    let columns = |which| Columns {
        of: x.view(),
        ld: 32,
        which,
    };
    let mut out = poisoned::<f32>(&on, 16 * 16);
    let (mut few, mut enough) = (poisoned(&on, 16 * 16 - 1), poisoned(&on, 16 * 16));
    for (rows, wide, u) in [
        (0..5, 0..16, 0..16),
        (0..4, 24..40, 0..16),
        (0..4, 0..16, 0..8),
    ] {
        let (wide, u) = (columns(wide), columns(u));
        let work = &mut enough.view_mut();
        let refused = lora::gradient_b(&on, rows, &wide, &u, work, &mut out.view_mut());
        assert!(
            matches!(refused, Err(Error::Argument { .. })),
            "{refused:?}"
        );
    }
    let (wide, u, work) = (columns(0..16), columns(0..16), &mut few.view_mut());
    let refused = lora::gradient_b(&on, 0..4, &wide, &u, work, &mut out.view_mut());
    assert!(
        matches!(refused, Err(Error::Argument { .. })),
        "{refused:?}"
    );
}
