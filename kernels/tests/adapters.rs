//! Low-rank products: parity with the reference, and a batch of segments against one adapter after the other, in bits.

mod common;

use common::*;
use kernels::lora::{Columns, Forward, Into, Pair, Segment};
use kernels::{Dtype, Error, Packed, Pool, gemm, lora, reference};

/// A random adapter of a weight (o, i), with its transposes.
struct Adapter {
    a: Vec<f32>,
    b: Vec<f32>,
    a_t: Vec<f32>,
    b_t: Vec<f32>,
    rank: usize,
}

impl Adapter {
    fn new(o: usize, i: usize, rank: usize) -> Adapter {
        let (a, b) = (vector(8, rank * i), vector(9, o * rank));
        let transposed = |m: &[f32], rows: usize, columns: usize| {
            (0..rows * columns)
                .map(|at| m[at % rows * columns + at / rows])
                .collect()
        };
        Adapter {
            a_t: transposed(&a, rank, i),
            b_t: transposed(&b, o, rank),
            a,
            b,
            rank,
        }
    }

    fn pair(&self) -> Pair<'_> {
        let Adapter {
            a,
            b,
            a_t,
            b_t,
            rank,
        } = self;
        Pair {
            a,
            b,
            a_t,
            b_t,
            rank: *rank,
            scale: 0.5,
        }
    }
}

#[test]
fn an_adapter_adds_its_two_products_to_the_columns_it_owns() {
    for pool in pools() {
        for (m, o, i, rank) in [
            (1, 1, 1, 1),
            (5, 33, 17, 3),
            (90, 70, 130, 17),
            (2, 31, 16, 16),
        ] {
            let adapter = Adapter::new(o, i, rank);
            let (x, before) = (vector(10, m * i), vector(11, m * (o + 5)));
            let (mut u, mut y) = (vec![f32::NAN; m * rank], before.clone());
            lora::down(&pool, m, &x, &adapter.pair(), &mut u).unwrap();
            lora::up(
                &pool,
                m,
                &u,
                &adapter.pair(),
                &mut y,
                Columns {
                    first: 2,
                    ld: o + 5,
                },
            )
            .unwrap();
            let inner = reference::matmul_t(m, rank, i, &x, &adapter.a);
            let inner: Vec<f32> = inner.iter().map(|v| *v as f32).collect();
            let update = reference::matmul_t(m, o, rank, &inner, &adapter.b);
            let mut expected = wide(&before);
            for row in 0..m {
                for column in 0..o {
                    expected[row * (o + 5) + 2 + column] += 0.5 * update[row * o + column];
                }
            }
            close("up", &y, &expected, 1e-4);
        }
    }
}

#[test]
fn an_adapters_gradients_are_the_references() {
    for pool in pools() {
        for (m, o, i, rank) in [(1, 1, 1, 1), (5, 33, 17, 3), (90, 70, 130, 17)] {
            let adapter = Adapter::new(o, i, rank);
            let (x, dy) = (vector(12, m * i), vector(13, m * o));
            let mut u = vec![0.0; m * rank];
            lora::down(&pool, m, &x, &adapter.pair(), &mut u).unwrap();
            let (mut du, mut da) = (vec![0.0; m * rank], vec![1.0; rank * i]);
            let (mut db, mut dx) = (vec![2.0; o * rank], vec![3.0; m * i]);
            let into = Into {
                du: &mut du,
                da: &mut da,
                db: &mut db,
                dx: &mut dx,
            };
            let at = Columns { first: 0, ld: o };
            let forward = Forward { x: &x, u: &u };
            lora::backward(&pool, m, &adapter.pair(), forward, (&dy, at), into).unwrap();
            let narrow = |v: &[f64]| v.iter().map(|v| *v as f32).collect::<Vec<f32>>();
            let turned = |v: &[f32], rows: usize, columns: usize| {
                (0..rows * columns)
                    .map(|at| v[at % rows * columns + at / rows])
                    .collect::<Vec<f32>>()
            };
            let half = |v: Vec<f64>| v.into_iter().map(|v| 0.5 * v).collect::<Vec<f64>>();
            let plus = |v: &[f64], c: f64| v.iter().map(|v| v + c).collect::<Vec<f64>>();
            let expected_du = half(reference::matmul(m, rank, o, &dy, &adapter.b));
            close("du", &du, &expected_du, 1e-4);
            let (dy_t, du_t) = (turned(&dy, m, o), turned(&narrow(&expected_du), m, rank));
            close(
                "db",
                &db,
                &plus(&reference::matmul(o, rank, m, &dy_t, &u), 2.0),
                1e-4,
            );
            close(
                "da",
                &da,
                &plus(&reference::matmul(rank, i, m, &du_t, &x), 1.0),
                1e-4,
            );
            let expected = reference::matmul(m, i, rank, &narrow(&expected_du), &adapter.a);
            close("dx", &dx, &plus(&expected, 3.0), 1e-4);
        }
    }
}

/// Inputs, and outputs of the whole weight.
const INPUTS: usize = 83;
const OUTPUTS: usize = 150;

/// Sequences with neighbours of other ranks, lengths and columns, some rows without an adapter, one in two projections.
fn crowd(adapters: &[Adapter]) -> Vec<Segment<'_>> {
    let mut segments = Vec::new();
    let mut inner = 3;
    // First row, rows, adapter, first column.
    for (first, count, adapter, column) in [
        (0, 1, 0, 0),
        (0, 1, 1, 70),
        (1, 1, 0, 1),
        (2, 1, 2, 0),
        (3, 1, 0, 2),
        (4, 3, 3, 40),
        (8, 60, 1, 70),
        (68, 61, 0, 0),
        (68, 61, 4, 110),
        (129, 1, 3, 0),
    ] {
        let pair = adapters[adapter].pair();
        segments.push(Segment {
            first,
            count,
            pair,
            column,
            inner,
        });
        inner += count * pair.rank + 1;
    }
    segments
}

#[test]
fn a_batch_of_segments_gives_the_bits_of_one_adapter_after_the_other() {
    let rows = 131;
    let adapters = [(70, 16), (80, 3), (33, 16), (64, 17), (40, 40)]
        .map(|(o, rank)| Adapter::new(o, INPUTS, rank));
    let segments = crowd(&adapters);
    let (x, room) = (vector(20, rows * INPUTS), 10_000);
    for dtype in [Dtype::F32, Dtype::Bf16, Dtype::Q8, Dtype::Bf16Pairs] {
        let weights = vector(21, OUTPUTS * INPUTS);
        let alone = Pool::new(1).unwrap();
        let packed = Packed::pack(&alone, &[&weights], INPUTS, dtype).unwrap();
        let (mut u, mut y) = (vec![7.0; room], vec![f32::NAN; rows * OUTPUTS]);
        gemm::forward(&alone, rows, &x, &packed, &mut y).unwrap();
        for s in &segments {
            let u = &mut u[s.inner..][..s.count * s.pair.rank];
            let x = &x[s.first * INPUTS..][..s.count * INPUTS];
            let y = &mut y[s.first * OUTPUTS..][..s.count * OUTPUTS];
            let at = Columns {
                first: s.column,
                ld: OUTPUTS,
            };
            lora::down(&alone, s.count, x, &s.pair, u).unwrap();
            lora::up(&alone, s.count, u, &s.pair, y, at).unwrap();
        }
        for pool in pools() {
            let (mut u2, mut y2) = (vec![7.0; room], vec![f32::NAN; rows * OUTPUTS]);
            lora::linear(&pool, rows, &x, &packed, &segments, None, &mut u2, &mut y2).unwrap();
            assert!(bits(&u) == bits(&u2), "{pool:?} {dtype:?}: inner results");
            assert!(bits(&y) == bits(&y2), "{pool:?} {dtype:?}: outputs");
            // A residual is added once to each sum that is done.
            let residual = vector(23, rows * OUTPUTS);
            let added: Vec<f32> = y.iter().zip(&residual).map(|(y, r)| y + r).collect();
            let residual = Some(&residual[..]);
            lora::linear(
                &pool, rows, &x, &packed, &segments, residual, &mut u2, &mut y2,
            )
            .unwrap();
            assert!(bits(&added) == bits(&y2), "{pool:?} {dtype:?}: residual");
        }
    }
}

#[test]
fn segments_that_overlap_leave_the_matrices_or_go_backwards_are_refused() {
    let pool = Pool::new(1).unwrap();
    let adapter = Adapter::new(4, 5, 2);
    let packed = Packed::pack(&pool, &[&[1.0; 50]], 5, Dtype::F32).unwrap();
    let segment = |first, count, column, inner| Segment {
        first,
        count,
        pair: adapter.pair(),
        column,
        inner,
    };
    let run = |segments: &[Segment<'_>]| {
        let (mut u, mut y) = ([0.0; 12], [0.0; 40]);
        lora::linear(
            &pool, 4, &[0.5; 20], &packed, segments, None, &mut u, &mut y,
        )
    };
    run(&[]).unwrap();
    let short = Some(&[0.0; 39][..]);
    let (mut u, mut y) = ([0.0; 12], [0.0; 40]);
    let outcome = lora::linear(&pool, 4, &[0.5; 20], &packed, &[], short, &mut u, &mut y);
    assert!(outcome.is_err(), "a residual that is too short");
    run(&[
        segment(0, 2, 0, 0),
        segment(0, 2, 4, 4),
        segment(2, 2, 6, 8),
    ])
    .unwrap();
    for refused in [
        // Outside: rows, columns, inner results.
        vec![segment(3, 2, 0, 0)],
        vec![segment(0, 1, 7, 0)],
        vec![segment(0, 4, 0, 5)],
        // Overlaps: columns, rows with other columns, inner results; and rows that go backwards.
        vec![segment(0, 2, 0, 0), segment(0, 2, 3, 4)],
        vec![segment(0, 2, 0, 0), segment(1, 2, 4, 4)],
        vec![segment(0, 2, 0, 0), segment(0, 2, 4, 3)],
        vec![segment(1, 1, 0, 0), segment(0, 1, 0, 2)],
    ] {
        assert!(
            matches!(run(&refused), Err(Error::Argument { .. })),
            "{refused:?}"
        );
    }
    let narrow = Adapter::new(4, 4, 2);
    let narrow = Segment {
        pair: narrow.pair(),
        ..segment(0, 1, 0, 0)
    };
    assert!(matches!(
        run(&[narrow]),
        Err(Error::Shape { what: "a", .. })
    ));
}

#[test]
fn adapters_that_do_not_fit_are_refused() {
    let pool = Pool::new(1).unwrap();
    let mut y = [0.0; 6];
    let adapter = Adapter::new(3, 4, 2);
    let at = Columns { first: 1, ld: 3 };
    let outside = lora::up(&pool, 2, &[0.0; 4], &adapter.pair(), &mut y, at);
    assert!(matches!(
        outside,
        Err(Error::Argument { what: "first", .. })
    ));
    let none = Pair {
        rank: 0,
        ..adapter.pair()
    };
    assert!(lora::down(&pool, 1, &[0.0; 4], &none, &mut []).is_err());
}
