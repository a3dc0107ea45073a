//! An adapter's products with their terms, or their rows, dealt out to the threads.

use super::{C, QKV, RANK, Sums, add, halves, numbers};
use kernels::Pool;
use kernels::lora::{self, Pair, Part};
use std::sync::Mutex;

/// `u = x·Aᵀ` of an adapter against the two halves of its terms.
pub(crate) fn down(sums: &mut Sums, pool: &Pool, rows: usize, times: f64) {
    let numbers = |inputs: usize| [numbers(RANK * inputs), numbers(QKV * RANK)];
    let [whole, half] = [numbers(C), numbers(C / 2)];
    let pair = |of: &'static [f32], b: &'static [f32]| Pair {
        a: of,
        b,
        a_t: of,
        b_t: b,
        rank: RANK,
        scale: 2.0,
    };
    // A benchmark's few numbers may live as long as it does.
    let [whole, half] = [whole, half].map(|[a, b]| pair(a.leak(), b.leak()));
    let [x, x_half] = [C, C / 2].map(|k| self::numbers(rows * k));
    let (mut u, mut sum) = (vec![0.0; rows * RANK], vec![0.0; rows * RANK]);
    let space = [0, 1].map(|_| Mutex::new(vec![0.0; rows * RANK]));
    sums.row(
        &format!("adapter down, {rows} rows"),
        (0.0, times),
        || lora::down(pool, rows, &x, &whole, &mut u).unwrap(),
        || {
            halves(pool, &space, &|_, out| {
                lora::down(pool, rows, &x_half, &half, out).unwrap()
            });
            sum.copy_from_slice(&space[0].lock().unwrap());
            add(&mut sum, &space[1].lock().unwrap());
        },
    );
}

/// The gradients of an adapter against those of two halves of the rows, added at the end.
pub(crate) fn down_backward(sums: &mut Sums, pool: &Pool, rows: usize, times: f64) {
    let [a, b] = [numbers(RANK * C), numbers(QKV * RANK)];
    let pair = Pair {
        a: &a,
        b: &b,
        a_t: &a,
        b_t: &b,
        rank: RANK,
        scale: 2.0,
    };
    let (x, u, dy) = (numbers(rows * C), numbers(rows * RANK), numbers(rows * QKV));
    let sizes = [rows * RANK, RANK * C, QKV * RANK, rows * C];
    let run = |rows: usize, from: usize, [du, da, db, dx]: [&mut [f32]; 4]| {
        let x = &x[from * C..][..rows * C];
        let dy = &dy[from * QKV..][..rows * QKV];
        let part = Part {
            pair,
            first: 0,
            u: &u[from * RANK..][..rows * RANK],
            da,
            db,
        };
        lora::backward(pool, rows, x, &mut [part], (dy, QKV), du, dx).unwrap();
    };
    let mut exact = sizes.map(|len| vec![0.0; len]);
    let [_, mut da, mut db, _] = exact.clone();
    let space = [0, 1].map(|_| Mutex::new(sizes.map(|len| vec![0.0; len])));
    sums.row(
        &format!("adapter backward, {rows} rows"),
        (0.0, times),
        || run(rows, 0, exact.each_mut().map(Vec::as_mut_slice)),
        || {
            pool.run(2, &|half| {
                let own = &mut *space[half].lock().unwrap();
                let [du, da, db, dx] = own.each_mut().map(Vec::as_mut_slice);
                da.fill(0.0);
                db.fill(0.0);
                let (du, dx) = (&mut du[..rows / 2 * RANK], &mut dx[..rows / 2 * C]);
                run(rows / 2, half * rows / 2, [du, da, db, dx]);
            });
            for own in &space {
                let [_, own_a, own_b, _] = &*own.lock().unwrap();
                add(&mut da, own_a);
                add(&mut db, own_b);
            }
        },
    );
}
