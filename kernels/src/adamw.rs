//! The optimizer's arithmetic on flat parameter vectors.
//!
//! Not here: what the parameters are, schedules, and whether a step is refused.

use crate::error::{check, require};
use crate::pool::Shards;
use crate::rows::share;
use crate::simd::{LANES, Simd, dispatch};
use crate::{Pool, Result};

/// Settings of one AdamW step.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct AdamW {
    /// Learning rate.
    pub lr: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Decoupled weight decay.
    pub weight_decay: f32,
}

impl AdamW {
    /// What corrects the moments' bias at a step: the step size, and the divisor of the second moment's root.
    pub(crate) fn corrections(&self, step: u64) -> (f32, f32) {
        let power = |beta: f32| 1.0 - f64::from(beta).powf(step as f64);
        let step_size = f64::from(self.lr) / power(self.beta1);
        (step_size as f32, power(self.beta2).sqrt() as f32)
    }
}

/// Elements that one task updates, or sums.
const CHUNK: usize = 4096;

/// One AdamW step, in one pass over memory. `step` counts from 1; `grad_scale` multiplies each gradient (the clip).
///
/// # Shapes
/// all four vectors have the same length.
///
/// # Errors
/// [`crate::Error::Shape`]; [`crate::Error::Argument`] for step 0.
///
/// # Source
/// Loshchilov & Hutter 2019, algorithm 2, in the order of operations of `torch.optim.AdamW`.
#[expect(
    clippy::too_many_arguments,
    reason = "the four vectors of the algorithm and its scalars"
)]
pub fn step(
    pool: &Pool,
    settings: &AdamW,
    step: u64,
    grad_scale: f32,
    params: &mut [f32],
    grads: &[f32],
    first: &mut [f32],
    second: &mut [f32],
) -> Result<()> {
    let len = params.len();
    check!("adamw.step", grads: len, first: len, second: len);
    require!(
        "adamw.step",
        step = step as f64,
        step > 0,
        "steps count from 1"
    );
    let (step_size, root_correction) = settings.corrections(step);
    let constants = Constants {
        settings: *settings,
        grad_scale,
        step_size,
        root_correction,
    };
    let (params, first, second) = (Shards::new(params), Shards::new(first), Shards::new(second));
    share(pool, len.div_ceil(CHUNK), 8 * CHUNK, &|some| {
        let range = some.start * CHUNK..(some.end * CHUNK).min(len);
        // SAFETY: each chunk belongs to one task.
        let p = unsafe { params.part(range.clone()) };
        // SAFETY: as above.
        let m = unsafe { first.part(range.clone()) };
        // SAFETY: as above.
        let v = unsafe { second.part(range.clone()) };
        update(pool.isa(), &constants, p, &grads[range], m, v);
    });
    Ok(())
}

/// The Euclidean norm, in f64, where a square is exact.
///
/// # Order
/// Chunks of 4,096 values; in each, eight chains, by index mod 8, which are added from left to right; the chunks ascending. So it depends
/// on the values and their order alone, not on threads.
pub fn norm(pool: &Pool, values: &[f32]) -> f64 {
    let chunks = values.len().div_ceil(CHUNK);
    let sums: Vec<std::sync::atomic::AtomicU64> = (0..chunks)
        .map(|_| std::sync::atomic::AtomicU64::new(0))
        .collect();
    share(pool, chunks, CHUNK, &|some| {
        for chunk in some {
            let range = chunk * CHUNK..((chunk + 1) * CHUNK).min(values.len());
            let sum = squares(pool.isa(), &values[range]);
            sums[chunk].store(sum.to_bits(), std::sync::atomic::Ordering::Relaxed);
        }
    });
    sums.into_iter()
        .map(|sum| f64::from_bits(sum.into_inner()))
        .sum::<f64>()
        .sqrt()
}

#[inline(always)]
fn squares_kernel<S: Simd>(_: S, values: &[f32]) -> f64 {
    let mut lanes = [0f64; 8];
    let (chunks, tail) = values.as_chunks::<8>();
    for chunk in chunks {
        for (lane, &v) in lanes.iter_mut().zip(chunk) {
            *lane += f64::from(v) * f64::from(v);
        }
    }
    for (lane, &v) in lanes.iter_mut().zip(tail) {
        *lane += f64::from(v) * f64::from(v);
    }
    lanes.iter().sum()
}

dispatch! {
    /// Σ x² in eight chains, by index mod 8, which are added from left to right.
    fn squares(values: &[f32]) -> f64 = squares_kernel
}

struct Constants {
    settings: AdamW,
    grad_scale: f32,
    step_size: f32,
    root_correction: f32,
}

/// The new parameter and moments of 16 parameters.
#[inline(always)]
fn one<S: Simd>(s: S, c: &Constants, [p, g, m, v]: [S::F; 4]) -> [S::F; 3] {
    let AdamW {
        lr,
        beta1,
        beta2,
        eps,
        weight_decay,
    } = c.settings;
    let g = s.mul(g, s.splat(c.grad_scale));
    let p = s.mul(p, s.splat(1.0 - lr * weight_decay));
    let m = s.fma(s.splat(1.0 - beta1), s.sub(g, m), m);
    let v = s.fma(s.splat(1.0 - beta2), s.mul(g, g), s.mul(v, s.splat(beta2)));
    let root = s.add(s.div(s.sqrt(v), s.splat(c.root_correction)), s.splat(eps));
    [s.sub(p, s.div(s.mul(m, s.splat(c.step_size)), root)), m, v]
}

#[inline(always)]
fn update_kernel<S: Simd>(
    s: S,
    c: &Constants,
    p: &mut [f32],
    g: &[f32],
    m: &mut [f32],
    v: &mut [f32],
) {
    let (ps, p_tail) = p.as_chunks_mut::<LANES>();
    let (gs, g_tail) = g.as_chunks::<LANES>();
    let (ms, m_tail) = m.as_chunks_mut::<LANES>();
    let (vs, v_tail) = v.as_chunks_mut::<LANES>();
    for (((p, g), m), v) in ps.iter_mut().zip(gs).zip(ms).zip(vs) {
        let [p1, m1, v1] = one(s, c, [s.load(p), s.load(g), s.load(m), s.load(v)]);
        s.store(p, p1);
        s.store(m, m1);
        s.store(v, v1);
    }
    let (p0, g0) = (s.load_tail(p_tail), s.load_tail(g_tail));
    let (m0, v0) = (s.load_tail(m_tail), s.load_tail(v_tail));
    let [p1, m1, v1] = one(s, c, [p0, g0, m0, v0]);
    s.store_tail(p_tail, p1);
    s.store_tail(m_tail, m1);
    s.store_tail(v_tail, v1);
}

dispatch! {
    fn update(c: &Constants, p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) = update_kernel
}
