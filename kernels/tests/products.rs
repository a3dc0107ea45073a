//! Products with packed weights: parity with the reference, and the same bits whatever surrounds a row.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use common::*;
use half::bf16;
use kernels::{Dtype, Error, Packed, Pool, gemm, reference};

const DTYPES: [Dtype; 4] = [Dtype::F32, Dtype::Bf16, Dtype::Q8, Dtype::Bf16Pairs];

/// What is left of weights that were packed: rounded by rules of their own where these are simple, else as they are read back.
fn kept(packed: &Packed, weights: &[f32]) -> Vec<f32> {
    match packed.dtype() {
        Dtype::F32 => weights.to_vec(),
        Dtype::Bf16 | Dtype::Bf16Pairs => rounded(weights),
        Dtype::Q8 => {
            let mut rows = vec![f32::NAN; weights.len()];
            for (i, row) in rows.chunks_mut(packed.inputs()).enumerate() {
                packed.row(i, row).unwrap();
            }
            rows
        }
    }
}

fn rounded(values: &[f32]) -> Vec<f32> {
    let values = values.iter();
    values.map(|&v| bf16::from_f32(v).to_f32()).collect()
}

/// What a product makes of its input before it multiplies.
fn taken(dtype: Dtype, input: &[f32]) -> Vec<f32> {
    match dtype {
        Dtype::Bf16Pairs => rounded(input),
        _ => input.to_vec(),
    }
}

#[test]
fn the_forward_product_is_the_references_at_every_odd_size() {
    for pool in pools() {
        for n in SIZES {
            for k in SIZES {
                for m in [1, 2, 3, 13, 14, 15] {
                    let (x, w) = (vector(1, m * k), vector(2, n * k));
                    for dtype in DTYPES {
                        let packed = Packed::pack(&pool, &[&w], k, dtype).unwrap();
                        let mut y = vec![f32::NAN; m * n];
                        gemm::forward(&pool, m, &x, &packed, &mut y).unwrap();
                        let expected =
                            reference::matmul_t(m, n, k, &taken(dtype, &x), &kept(&packed, &w));
                        close(&format!("{pool:?} {m} {n} {k}"), &y, &expected, 1e-5);
                    }
                }
            }
        }
    }
}

#[test]
fn the_backward_product_is_the_references_at_every_odd_size() {
    for pool in pools() {
        for n in [1, 31, 33, 257, 512] {
            for k in [1, 15, 17, 95, 97] {
                for m in [1, 15] {
                    let (dy, w) = (vector(3, m * n), vector(4, n * k));
                    for dtype in DTYPES {
                        let packed = Packed::pack(&pool, &[&w], k, dtype).unwrap();
                        let mut dx = vec![f32::NAN; m * k];
                        gemm::backward(&pool, m, &dy, &packed, &mut dx).unwrap();
                        let expected =
                            reference::matmul(m, k, n, &taken(dtype, &dy), &kept(&packed, &w));
                        close(&format!("{pool:?} {m} {n} {k}"), &dx, &expected, 1e-5);
                    }
                }
            }
        }
    }
}

/// Sizes of a matrix: one whose sums are interrupted forward, one that is read in another way backward since its rows would meet in the
/// cache, one whose sums go through two jobs backward.
const SHAPES: [(usize, usize); 3] = [(130, 1700), (512, 97), (4700, 40)];

/// Both products of `rows` rows of a fixed input, as bits.
fn both(pool: &Pool, dtype: Dtype, (n, k): (usize, usize), rows: usize) -> (Vec<u32>, Vec<u32>) {
    let packed = Packed::pack(pool, &[&vector(5, n * k)], k, dtype).unwrap();
    let (x, dy) = (vector(6, 300 * k), vector(7, 300 * n));
    let (mut y, mut dx) = (vec![0.0; rows * n], vec![0.0; rows * k]);
    gemm::forward(pool, rows, &x[..rows * k], &packed, &mut y).unwrap();
    gemm::backward(pool, rows, &dy[..rows * n], &packed, &mut dx).unwrap();
    (bits(&y), bits(&dx))
}

fn kinds() -> impl Iterator<Item = (Dtype, (usize, usize))> {
    DTYPES
        .into_iter()
        .flat_map(|dtype| SHAPES.map(|shape| (dtype, shape)))
}

#[test]
fn the_backward_products_chain_is_the_same_where_its_rows_are_gathered() {
    // Rows of 512, 1024 and 4864 numbers are gathered, those of 544 are not; 113 rows are two blocks; 4864 terms are two jobs.
    for pool in pools() {
        for n in [512usize, 544, 1024, 4864] {
            let (k, m) = (33, 113);
            let (w, dy) = (vector(1, n * k), vector(2, m * n));
            let packed = Packed::pack(&pool, &[&w], k, Dtype::F32).unwrap();
            let mut dx = vec![f32::NAN; m * k];
            gemm::backward(&pool, m, &dy, &packed, &mut dx).unwrap();
            for (row, column) in [(0, 0), (57, 32), (111, 7), (112, 32)] {
                let chain = (0..n).fold(0.0f32, |sum, o| {
                    dy[row * n + o].mul_add(w[o * k + column], sum)
                });
                let found = dx[row * k + column];
                assert_eq!(found.to_bits(), chain.to_bits(), "{n} {row} {column}");
            }
        }
    }
}

#[test]
fn a_rows_bits_do_not_depend_on_the_other_rows() {
    let pool = Pool::new(2).unwrap();
    for (dtype, shape) in kinds() {
        let (y, dx) = both(&pool, dtype, shape, 300);
        for rows in [1, 2, 7, 13, 14, 15, 28, 111, 113, 299] {
            let (some_y, some_dx) = both(&pool, dtype, shape, rows);
            assert!(
                y[..some_y.len()] == some_y,
                "forward, {dtype:?}, {rows} rows"
            );
            assert!(
                dx[..some_dx.len()] == some_dx,
                "backward, {dtype:?}, {rows} rows"
            );
        }
    }
}

#[test]
fn bits_do_not_depend_on_threads_or_instruction_set() {
    for (dtype, shape) in kinds() {
        let mut expected = None;
        for pool in pools() {
            let found = both(&pool, dtype, shape, 30);
            assert!(
                *expected.get_or_insert_with(|| found.clone()) == found,
                "{dtype:?} {pool:?}"
            );
        }
    }
}

#[test]
fn products_refuse_sizes_that_do_not_fit() {
    let pool = Pool::new(1).unwrap();
    let packed = Packed::pack(&pool, &[&[1.0; 12]], 4, Dtype::F32).unwrap();
    let (mut y, mut dx) = (vec![0.0; 6], vec![0.0; 8]);
    let shape = |outcome: Result<(), Error>, what| {
        assert!(matches!(outcome, Err(Error::Shape { what: w, .. }) if w == what));
    };
    shape(gemm::forward(&pool, 2, &[0.0; 7], &packed, &mut y), "x");
    shape(
        gemm::forward(&pool, 2, &[0.0; 8], &packed, &mut y[..5]),
        "y",
    );
    shape(
        gemm::backward(&pool, 2, &[0.0; 6], &packed, &mut dx[..7]),
        "dx",
    );
    shape(gemm::backward(&pool, 2, &[0.0; 5], &packed, &mut dx), "dy");
    gemm::forward(&pool, 0, &[], &packed, &mut []).unwrap();
    gemm::backward(&pool, 0, &[], &packed, &mut []).unwrap();
}
