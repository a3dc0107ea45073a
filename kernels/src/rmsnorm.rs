//! Root-mean-square norm, of hidden rows and of attention heads (QK-norm).
//!
//! The sum of squares has 16 chains, one for each column mod 16, added in a fixed tree; so has the gradient's other sum, of x times
//! (dout·weight, rounded). So a row's bits depend on nothing but the row.

use crate::error::check;
use crate::pool::Shards;
use crate::rows::share;
use crate::simd::{LANES, Simd, dispatch};
use crate::{Pool, Result};

/// `out = x / rms(x) * weight` over the last axis.
///
/// # Shapes
/// `x`, `out`: (N, C) · `weight`: (C).
///
/// # Errors
/// [`crate::Error::Shape`].
///
/// # Source
/// Zhang & Sennrich 2019, eq. 4. Departs from it: `eps` is added to the mean square, as in Llama.
pub fn forward(
    pool: &Pool,
    rows: usize,
    x: &[f32],
    weight: &[f32],
    eps: f32,
    out: &mut [f32],
) -> Result<()> {
    let c = weight.len();
    check!("rmsnorm.forward", x: rows * c, out: rows * c);
    let out = Shards::new(out);
    share(pool, rows, c, &|some| {
        for n in some {
            // SAFETY: each row belongs to one task.
            let out = unsafe { out.part(n * c..(n + 1) * c) };
            row(pool.isa(), &x[n * c..][..c], weight, eps, out);
        }
    });
    Ok(())
}

/// [`forward`] on a few short rows that lie together, in place: the heads of one token.
///
/// # Shapes
/// `x`: (N, C) · `weight`: (C).
///
/// # Errors
/// [`crate::Error::Shape`].
pub fn in_place(pool: &Pool, rows: usize, x: &mut [f32], weight: &[f32], eps: f32) -> Result<()> {
    check!("rmsnorm.in_place", x: rows * weight.len());
    for x in x.chunks_exact_mut(weight.len().max(1)) {
        row_in_place(pool.isa(), x, weight, eps);
    }
    Ok(())
}

/// The gradient of [`forward`] by x, added to `dx`. The weight is frozen.
///
/// # Shapes
/// `x`, `dout`, `dx`: (N, C) · `weight`: (C).
///
/// # Errors
/// [`crate::Error::Shape`].
pub fn backward(
    pool: &Pool,
    rows: usize,
    x: &[f32],
    weight: &[f32],
    eps: f32,
    dout: &[f32],
    dx: &mut [f32],
) -> Result<()> {
    let c = weight.len();
    check!("rmsnorm.backward", x: rows * c, dout: rows * c, dx: rows * c);
    let dx = Shards::new(dx);
    share(pool, rows, 2 * c, &|some| {
        for n in some {
            // SAFETY: each row belongs to one task.
            let dx = unsafe { dx.part(n * c..(n + 1) * c) };
            row_backward(
                pool.isa(),
                &x[n * c..][..c],
                weight,
                eps,
                &dout[n * c..][..c],
                dx,
            );
        }
    });
    Ok(())
}

/// `1 / sqrt(mean(x²) + eps)`.
#[inline(always)]
fn inverse_rms<S: Simd>(s: S, x: &[f32], eps: f32) -> f32 {
    let (body, tail) = x.as_chunks::<LANES>();
    let mut sum = s.splat(0.0);
    for v in body {
        let v = s.load(v);
        sum = s.fma(v, v, sum);
    }
    let v = s.load_tail(tail);
    sum = s.fma(v, v, sum);
    1.0 / (s.sum(sum) / x.len() as f32 + eps).sqrt()
}

#[inline(always)]
fn row_kernel<S: Simd>(s: S, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let inverse = s.splat(inverse_rms(s, x, eps));
    let (xs, x_tail) = x.as_chunks::<LANES>();
    let (ws, w_tail) = weight.as_chunks::<LANES>();
    let (outs, out_tail) = out.as_chunks_mut::<LANES>();
    for ((x, w), out) in xs.iter().zip(ws).zip(outs) {
        s.store(out, s.mul(s.load(w), s.mul(s.load(x), inverse)));
    }
    s.store_tail(
        out_tail,
        s.mul(s.load_tail(w_tail), s.mul(s.load_tail(x_tail), inverse)),
    );
}

dispatch! {
    fn row(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) = row_kernel
}

#[inline(always)]
fn row_in_place_kernel<S: Simd>(s: S, x: &mut [f32], weight: &[f32], eps: f32) {
    let inverse = s.splat(inverse_rms(s, x, eps));
    let (xs, x_tail) = x.as_chunks_mut::<LANES>();
    let (ws, w_tail) = weight.as_chunks::<LANES>();
    for (x, w) in xs.iter_mut().zip(ws) {
        let v = s.mul(s.load(w), s.mul(s.load(x), inverse));
        s.store(x, v);
    }
    let v = s.mul(s.load_tail(w_tail), s.mul(s.load_tail(x_tail), inverse));
    s.store_tail(x_tail, v);
}

dispatch! {
    fn row_in_place(x: &mut [f32], weight: &[f32], eps: f32) = row_in_place_kernel
}

/// With i = 1/rms and h = dout·weight: `dx += i·h − x·i³·mean(h·x)`.
#[inline(always)]
fn row_backward_kernel<S: Simd>(
    s: S,
    x: &[f32],
    weight: &[f32],
    eps: f32,
    dout: &[f32],
    dx: &mut [f32],
) {
    let inverse = inverse_rms(s, x, eps);
    let (xs, x_tail) = x.as_chunks::<LANES>();
    let (ws, w_tail) = weight.as_chunks::<LANES>();
    let (ds, d_tail) = dout.as_chunks::<LANES>();
    let (outs, out_tail) = dx.as_chunks_mut::<LANES>();
    let mut sum = s.splat(0.0);
    for ((x, w), d) in xs.iter().zip(ws).zip(ds) {
        sum = s.fma(s.mul(s.load(d), s.load(w)), s.load(x), sum);
    }
    let h_tail = s.mul(s.load_tail(d_tail), s.load_tail(w_tail));
    sum = s.fma(h_tail, s.load_tail(x_tail), sum);
    let back = s.splat(-(s.sum(sum) / x.len() as f32) * inverse * inverse * inverse);
    let inverse = s.splat(inverse);
    for (((x, w), d), out) in xs.iter().zip(ws).zip(ds).zip(outs) {
        let h = s.mul(s.load(d), s.load(w));
        let v = s.fma(h, inverse, s.fma(s.load(x), back, s.load(out)));
        s.store(out, v);
    }
    let v = s.fma(
        h_tail,
        inverse,
        s.fma(s.load_tail(x_tail), back, s.load_tail(out_tail)),
    );
    s.store_tail(out_tail, v);
}

dispatch! {
    fn row_backward(x: &[f32], weight: &[f32], eps: f32, dout: &[f32], dx: &mut [f32]) = row_backward_kernel
}
