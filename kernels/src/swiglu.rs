//! The gated activation of the feed-forward block: `out = silu(gate) * up`.
//!
//! Gate and up lie side by side in one row, as the fused product leaves them.

use crate::error::check;
use crate::pool::Shards;
use crate::rows::share;
use crate::simd::{LANES, Simd, dispatch};
use crate::{Pool, Result};

/// `out = gate / (1 + e^-gate) * up`.
///
/// # Shapes
/// `gate_up`: (N, 2F), gate first · `out`: (N, F).
///
/// # Errors
/// [`crate::Error::Shape`].
///
/// # Source
/// Shazeer 2020, "GLU variants improve transformer".
pub fn forward(pool: &Pool, rows: usize, f: usize, gate_up: &[f32], out: &mut [f32]) -> Result<()> {
    check!("swiglu.forward", gate_up: rows * 2 * f, out: rows * f);
    let out = Shards::new(out);
    share(pool, rows, 4 * f, &|some| {
        for n in some {
            // SAFETY: each row belongs to one task.
            let out = unsafe { out.part(n * f..(n + 1) * f) };
            let (gate, up) = gate_up[n * 2 * f..][..2 * f].split_at(f);
            row(pool.isa(), gate, up, out);
        }
    });
    Ok(())
}

/// The gradient of [`forward`] by gate and up, written over them.
///
/// # Shapes
/// `gate_up`: (N, 2F) in, its gradient out · `dout`: (N, F).
///
/// # Errors
/// [`crate::Error::Shape`].
pub fn backward(
    pool: &Pool,
    rows: usize,
    f: usize,
    gate_up: &mut [f32],
    dout: &[f32],
) -> Result<()> {
    check!("swiglu.backward", gate_up: rows * 2 * f, dout: rows * f);
    let gate_up = Shards::new(gate_up);
    share(pool, rows, 6 * f, &|some| {
        for n in some {
            // SAFETY: each row belongs to one task.
            let both = unsafe { gate_up.part(n * 2 * f..(n + 1) * 2 * f) };
            let (gate, up) = both.split_at_mut(f);
            row_backward(pool.isa(), gate, up, &dout[n * f..][..f]);
        }
    });
    Ok(())
}

#[inline(always)]
fn one<S: Simd>(s: S, gate: S::F, up: S::F) -> S::F {
    s.mul(s.mul(gate, s.sigmoid(gate)), up)
}

#[inline(always)]
fn row_kernel<S: Simd>(s: S, gate: &[f32], up: &[f32], out: &mut [f32]) {
    let (gates, gate_tail) = gate.as_chunks::<LANES>();
    let (ups, up_tail) = up.as_chunks::<LANES>();
    let (outs, out_tail) = out.as_chunks_mut::<LANES>();
    for ((gate, up), out) in gates.iter().zip(ups).zip(outs) {
        s.store(out, one(s, s.load(gate), s.load(up)));
    }
    s.store_tail(
        out_tail,
        one(s, s.load_tail(gate_tail), s.load_tail(up_tail)),
    );
}

dispatch! {
    fn row(gate: &[f32], up: &[f32], out: &mut [f32]) = row_kernel
}

/// With σ = sigmoid(g): `dg = d·u·σ·(1 + g·(1 − σ))`, `du = d·g·σ`.
#[inline(always)]
fn one_backward<S: Simd>(s: S, g: S::F, u: S::F, d: S::F) -> (S::F, S::F) {
    let sigma = s.sigmoid(g);
    let one = s.splat(1.0);
    let slope = s.mul(sigma, s.fma(g, s.sub(one, sigma), one));
    (s.mul(s.mul(d, u), slope), s.mul(d, s.mul(g, sigma)))
}

#[inline(always)]
fn row_backward_kernel<S: Simd>(s: S, gate: &mut [f32], up: &mut [f32], dout: &[f32]) {
    let (gates, gate_tail) = gate.as_chunks_mut::<LANES>();
    let (ups, up_tail) = up.as_chunks_mut::<LANES>();
    let (douts, dout_tail) = dout.as_chunks::<LANES>();
    for ((gate, up), d) in gates.iter_mut().zip(ups).zip(douts) {
        let (dg, du) = one_backward(s, s.load(gate), s.load(up), s.load(d));
        s.store(gate, dg);
        s.store(up, du);
    }
    let (dg, du) = one_backward(
        s,
        s.load_tail(gate_tail),
        s.load_tail(up_tail),
        s.load_tail(dout_tail),
    );
    s.store_tail(gate_tail, dg);
    s.store_tail(up_tail, du);
}

dispatch! {
    fn row_backward(gate: &mut [f32], up: &mut [f32], dout: &[f32]) = row_backward_kernel
}
