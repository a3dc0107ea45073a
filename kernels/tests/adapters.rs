//! Low-rank products: parity with the reference, and a batch of segments against one adapter after the other, in bits.

mod common;

use common::*;
use kernels::lora::{Columns, Pair, Part, Segment};
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
            let part = Part {
                pair: adapter.pair(),
                first: 0,
                u: &u,
                da: &mut da,
                db: &mut db,
            };
            lora::backward(&pool, m, &x, &mut [part], (&dy, o), &mut du, &mut dx).unwrap();
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

/// The gradients of three adapters of one product. Each has columns of `dy`; some columns have none.
struct Gradients {
    u: Vec<f32>,
    du: Vec<f32>,
    da: Vec<Vec<f32>>,
    db: Vec<Vec<f32>>,
    dx: Vec<f32>,
}

impl Gradients {
    fn new(rows: usize, inputs: usize, adapters: &[(Adapter, usize)]) -> Gradients {
        let ranks: usize = adapters.iter().map(|(adapter, _)| adapter.rank).sum();
        let of = |seed, len: fn(&Adapter) -> usize| {
            let one = |(adapter, _): &(Adapter, usize)| vector(seed, len(adapter));
            adapters.iter().map(one).collect()
        };
        Gradients {
            u: vector(30, rows * ranks),
            du: vec![f32::NAN; rows * ranks],
            da: of(31, |adapter| adapter.a.len()),
            db: of(32, |adapter| adapter.b.len()),
            dx: vec![f32::NAN; rows * inputs],
        }
    }

    fn parts<'a>(
        u: &'a [f32],
        (da, db): (&'a mut [Vec<f32>], &'a mut [Vec<f32>]),
        rows: usize,
        adapters: &'a [(Adapter, usize)],
    ) -> Vec<Part<'a>> {
        let mut before = 0;
        let grads = da.iter_mut().zip(db);
        (adapters.iter().zip(grads))
            .map(|((adapter, first), (da, db))| {
                let u = &u[before..][..rows * adapter.rank];
                before += u.len();
                let (pair, first) = (adapter.pair(), *first);
                Part {
                    pair,
                    first,
                    u,
                    da,
                    db,
                }
            })
            .collect()
    }
}

#[test]
fn a_products_gradient_with_adapters_has_the_bits_of_plain_loops_after_one_another() {
    // Rows and outputs of more than one block, the second adapter's in both; 4864 and 1024 are distances of rows that are copied.
    for (rows, inputs, outputs) in [
        (265, 40, 4864),
        (257, 33, 4700),
        (130, 70, 1024),
        (37, 33, 150),
        (1, 5, 8),
        (0, 70, 40),
    ] {
        let third = outputs / 3;
        let adapters = [
            (Adapter::new(third, inputs, 16), 0),
            (Adapter::new(outputs - third - 2, inputs, 3), third),
            (Adapter::new(1, inputs, 17), outputs - 1),
        ];
        let (x, dy) = (vector(33, rows * inputs), vector(34, rows * outputs));
        let weights = vector(35, outputs * inputs);
        let alone = Pool::new(1).unwrap();
        for dtype in [Dtype::F32, Dtype::Q8, Dtype::Bf16Pairs] {
            let packed = Packed::pack(&alone, &[&weights], inputs, dtype).unwrap();
            let mut expected = Gradients::new(rows, inputs, &adapters);
            if dtype == Dtype::F32 {
                plain_product(&mut expected.dx, &weights, (&dy, outputs));
            } else {
                gemm::backward(&alone, rows, &dy, &packed, &mut expected.dx).unwrap();
            }
            one_after_another(&mut expected, &adapters, (&x, inputs), (&dy, outputs));
            for pool in pools() {
                let mut found = Gradients::new(rows, inputs, &adapters);
                let grads = (&mut found.da[..], &mut found.db[..]);
                let mut parts = Gradients::parts(&found.u, grads, rows, &adapters);
                let (du, dx) = (&mut found.du, &mut found.dx);
                lora::linear_backward(&pool, rows, &x, &packed, &mut parts, &dy, du, dx).unwrap();
                let label = format!("{pool:?} {dtype:?} {rows} rows");
                assert!(bits(&found.du) == bits(&expected.du), "{label}: du");
                assert!(bits(&found.dx) == bits(&expected.dx), "{label}: dx");
                for at in 0..adapters.len() {
                    assert!(bits(&found.da[at]) == bits(&expected.da[at]), "{label}: da");
                    assert!(bits(&found.db[at]) == bits(&expected.db[at]), "{label}: db");
                }
            }
        }
    }
}

/// `dx = dy·W`, each sum one chain, terms ascending.
fn plain_product(dx: &mut [f32], weights: &[f32], (dy, outputs): (&[f32], usize)) {
    let inputs = weights.len() / outputs;
    for (dx, dy) in dx.chunks_mut(inputs).zip(dy.chunks(outputs)) {
        dx.fill(0.0);
        for (dy, weights) in dy.iter().zip(weights.chunks(inputs)) {
            for (dx, weight) in dx.iter_mut().zip(weights) {
                *dx = dy.mul_add(*weight, *dx);
            }
        }
    }
}

/// The contract, written out: each sum one chain, terms ascending, adapters one after another.
fn one_after_another(
    to: &mut Gradients,
    adapters: &[(Adapter, usize)],
    (x, i): (&[f32], usize),
    (dy, ld): (&[f32], usize),
) {
    let rows = x.len() / i;
    let mut before = 0;
    for (at, (adapter, first)) in adapters.iter().enumerate() {
        let Adapter { a, b, rank, .. } = adapter;
        let (r, o) = (*rank, b.len() / rank);
        let dy = |row: usize, column: usize| dy[row * ld + first + column];
        let u = &to.u[before..][..rows * r];
        let du = &mut to.du[before..][..rows * r];
        before += du.len();
        for (row, du) in du.chunks_mut(r).enumerate() {
            for (rank, du) in du.iter_mut().enumerate() {
                let term = |sum: f32, c: usize| dy(row, c).mul_add(b[c * r + rank], sum);
                *du = 0.5 * (0..o).fold(0.0, term);
            }
        }
        for (c, db) in to.db[at].chunks_mut(r).enumerate() {
            for (rank, db) in db.iter_mut().enumerate() {
                let term = |sum: f32, row: usize| dy(row, c).mul_add(u[row * r + rank], sum);
                *db = (0..rows).fold(*db, term);
            }
        }
        for (rank, da) in to.da[at].chunks_mut(i).enumerate() {
            for (c, da) in da.iter_mut().enumerate() {
                let term = |sum: f32, row: usize| du[row * r + rank].mul_add(x[row * i + c], sum);
                *da = (0..rows).fold(*da, term);
            }
        }
        for (row, dx) in to.dx.chunks_mut(i).enumerate() {
            for (c, dx) in dx.iter_mut().enumerate() {
                let term = |sum: f32, rank: usize| du[row * r + rank].mul_add(a[rank * i + c], sum);
                *dx = (0..r).fold(*dx, term);
            }
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

#[test]
fn gradients_that_do_not_fit_are_refused() {
    let pool = Pool::new(1).unwrap();
    let adapter = Adapter::new(3, 4, 2);
    let packed = Packed::pack(&pool, &[&[1.0; 12]], 4, Dtype::F32).unwrap();
    let nothing = Pair {
        b: &[],
        b_t: &[],
        ..adapter.pair()
    };
    // The adapter, its first column; lengths of x, u, dA, dB, du, dx.
    let run = |pair, first, [x, u, da, db, du, dx]: [usize; 6]| {
        let (mut da, mut db) = (vec![0.0; da], vec![0.0; db]);
        let (mut du, mut dx) = (vec![0.0; du], vec![0.0; dx]);
        let (x, u, dy) = (vec![0.0; x], vec![0.0; u], [0.0; 6]);
        let mut part = [Part {
            pair,
            first,
            u: &u,
            da: &mut da,
            db: &mut db,
        }];
        let alone = lora::backward(&pool, 2, &x, &mut part, (&dy, 3), &mut du, &mut dx);
        let both = lora::linear_backward(&pool, 2, &x, &packed, &mut part, &dy, &mut du, &mut dx);
        assert_eq!(alone.is_err(), both.is_err());
        alone.and(both)
    };
    let sizes = [8, 4, 8, 6, 4, 8];
    run(adapter.pair(), 0, sizes).unwrap();
    for wrong in 0..sizes.len() {
        let mut sizes = sizes;
        sizes[wrong] -= 1;
        let refused = run(adapter.pair(), 0, sizes);
        assert!(matches!(refused, Err(Error::Shape { .. })), "{wrong}");
    }
    for first in [1, usize::MAX] {
        let refused = run(adapter.pair(), first, sizes);
        assert!(matches!(
            refused,
            Err(Error::Argument { what: "first", .. })
        ));
    }
    let refused = run(nothing, 0, [8, 4, 8, 0, 4, 8]);
    assert!(matches!(
        refused,
        Err(Error::Argument {
            what: "outputs",
            ..
        })
    ));
    let x = lora::linear_backward(
        &pool,
        2,
        &[0.0; 7],
        &packed,
        &mut [],
        &[0.0; 6],
        &mut [],
        &mut [0.0; 8],
    );
    assert!(matches!(x, Err(Error::Shape { what: "x", .. })));
}
