//! Sums over rows, and over all gradients, in four chains of vectors instead of one.

use super::{C, Sums, numbers};
use kernels::{Pool, adamw, rmsnorm};
use std::sync::Mutex;

/// A norm in four chains of vectors, in any order.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq")]
fn free_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    for (x, out) in x.chunks_exact(C).zip(out.chunks_exact_mut(C)) {
        let scale = 1.0 / (free_dot(x, x) / C as f32 + eps).sqrt();
        for ((out, v), w) in out.iter_mut().zip(x).zip(weight) {
            *out = v * scale * w;
        }
    }
}

/// Its gradient, likewise; `h` has room for a row.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq")]
fn free_norm_backward(x: &[f32], weight: &[f32], eps: f32, dout: &[f32], dx: &mut [f32]) {
    let mut h = [0.0_f32; C];
    for ((x, dout), dx) in x
        .chunks_exact(C)
        .zip(dout.chunks_exact(C))
        .zip(dx.chunks_exact_mut(C))
    {
        for ((h, d), w) in h.iter_mut().zip(dout).zip(weight) {
            *h = d * w;
        }
        let scale = 1.0 / (free_dot(x, x) / C as f32 + eps).sqrt();
        let back = -free_dot(&h, x) / C as f32 * scale * scale * scale;
        for ((dx, v), h) in dx.iter_mut().zip(x).zip(&h) {
            *dx += h.mul_add(scale, v * back);
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq")]
fn free_dot(x: &[f32], y: &[f32]) -> f32 {
    let mut chains = [0.0_f32; 64];
    for (x, y) in x.as_chunks::<64>().0.iter().zip(y.as_chunks::<64>().0) {
        for ((chain, x), y) in chains.iter_mut().zip(x).zip(y) {
            *chain = x.mul_add(*y, *chain);
        }
    }
    chains.iter().sum()
}

/// Σ x² in f64 in four chains of vectors; the rest of a vector is left out.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq")]
fn free_squares(x: &[f32]) -> f64 {
    let mut chains = [0.0_f64; 32];
    for part in x.as_chunks::<32>().0 {
        for (chain, &v) in chains.iter_mut().zip(part) {
            *chain = f64::from(v).mul_add(f64::from(v), *chain);
        }
    }
    chains.iter().sum()
}

/// Whether the free sums can run here.
fn wide() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::is_x86_feature_detected!("avx512dq") && std::is_x86_feature_detected!("avx512vl");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

pub(crate) fn norm(sums: &mut Sums, pool: &Pool, rows: usize, times: (f64, f64)) {
    let (x, weight) = (numbers(rows * C), numbers(C));
    let (mut exact, mut free) = (vec![0.0; rows * C], vec![0.0; rows * C]);
    #[cfg(target_arch = "x86_64")]
    if wide() {
        let tasks = if rows > 32 { pool.threads() } else { 1 };
        let each = rows.div_ceil(tasks) * C;
        sums.row(
            &format!("norm, {rows} rows"),
            times,
            || rmsnorm::forward(pool, rows, &x, &weight, 1e-5, &mut exact).unwrap(),
            || {
                let shards: Vec<_> = x
                    .chunks(each)
                    .zip(free.chunks_mut(each))
                    .map(Mutex::new)
                    .collect();
                pool.run(shards.len(), &|task| {
                    let (x, out) = &mut *shards[task].lock().unwrap();
                    // SAFETY: the processor has these instructions (asked above).
                    unsafe { free_norm(x, &weight, 1e-5, out) };
                });
            },
        );
    }
}

pub(crate) fn norm_backward(sums: &mut Sums, pool: &Pool, rows: usize, times: f64) {
    let (x, weight, dout) = (numbers(rows * C), numbers(C), numbers(rows * C));
    let (mut exact, mut free) = (vec![0.0; rows * C], vec![0.0; rows * C]);
    #[cfg(target_arch = "x86_64")]
    if wide() {
        let each = rows.div_ceil(pool.threads()) * C;
        sums.row(
            &format!("norm backward, {rows} rows"),
            (0.0, times),
            || rmsnorm::backward(pool, rows, &x, &weight, 1e-5, &dout, &mut exact).unwrap(),
            || {
                let parts = x.chunks(each).zip(dout.chunks(each));
                let shards: Vec<_> = parts.zip(free.chunks_mut(each)).map(Mutex::new).collect();
                pool.run(shards.len(), &|task| {
                    let ((x, dout), dx) = &mut *shards[task].lock().unwrap();
                    // SAFETY: the processor has these instructions (asked above).
                    unsafe { free_norm_backward(x, &weight, 1e-5, dout, dx) };
                });
            },
        );
    }
}

/// The norm of all gradients, of an adapter of rank 16 for every projection.
pub(crate) fn gradients_norm(sums: &mut Sums, pool: &Pool, times: f64) {
    let values = numbers(4_884_480);
    #[cfg(target_arch = "x86_64")]
    if wide() {
        let each = values.len().div_ceil(pool.threads());
        let space: Vec<_> = values.chunks(each).map(|_| Mutex::new(0.0_f64)).collect();
        sums.row(
            "norm of the gradients, 4.9 M",
            (0.0, times),
            || {
                std::hint::black_box(adamw::norm(pool, &values));
            },
            || {
                pool.run(space.len(), &|task| {
                    let part = values.chunks(each).nth(task).unwrap();
                    // SAFETY: the processor has these instructions (asked above).
                    *space[task].lock().unwrap() = unsafe { free_squares(part) };
                });
                let parts = space.iter().map(|part| *part.lock().unwrap());
                std::hint::black_box(parts.sum::<f64>().sqrt());
            },
        );
    }
}
