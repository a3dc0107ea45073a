//! Log-probabilities of tokens at a temperature, and their gradient; the softmax of attention rows.
//!
//! Sampling and training both go through [`normalizer`], which is why a recorded log-prob and a trained one have the
//! same bits. The sum of exponentials has 16 chains, one for each column mod 16, added in a fixed tree; its logarithm is taken in f64.

use crate::error::{check, require};
use crate::pool::Shards;
use crate::rows::share;
use crate::simd::{LANES, Simd, dispatch};
use crate::{Isa, Pool, Result};

/// What turns a logit of one row into a log-probability.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Normalizer {
    max: f32,
    log_sum: f32,
    inverse_temperature: f32,
}

impl Normalizer {
    /// From a row's largest logit, the logarithm of its sum of `e^((logit − max) / T)`, and 1 / T, as another device computed them.
    pub fn new(max: f32, log_sum: f32, inverse_temperature: f32) -> Normalizer {
        Normalizer {
            max,
            log_sum,
            inverse_temperature,
        }
    }

    /// `ln p` of the token with this logit.
    pub fn log_prob(&self, logit: f32) -> f32 {
        (logit - self.max) * self.inverse_temperature - self.log_sum
    }
}

/// The normalizer of one row of logits at a temperature.
///
/// # Errors
/// [`crate::Error::Argument`] for an empty row, or a temperature that is not positive and finite.
pub fn normalizer(pool: &Pool, logits: &[f32], temperature: f32) -> Result<Normalizer> {
    let sound = temperature > 0.0 && temperature.is_finite();
    require!(
        "softmax.normalizer",
        temperature = f64::from(temperature),
        sound,
        "it must be positive"
    );
    let vocabulary = logits.len();
    require!(
        "softmax.normalizer",
        vocabulary = 0.0,
        vocabulary > 0,
        "a row holds logits"
    );
    let inverse_temperature = 1.0 / temperature;
    let (max, sum) = max_and_sum(pool.isa(), logits, inverse_temperature);
    Ok(Normalizer {
        max,
        log_sum: f64::from(sum).ln() as f32,
        inverse_temperature,
    })
}

/// [`normalizer`] of every row.
///
/// # Shapes
/// `logits`: (N, V) · `out`: (N).
///
/// # Errors
/// As [`normalizer`]; [`crate::Error::Shape`].
pub fn normalizers(
    pool: &Pool,
    logits: &[f32],
    vocabulary: usize,
    temperature: f32,
    out: &mut Vec<Normalizer>,
) -> Result<()> {
    let rows = logits.len() / vocabulary.max(1);
    check!("softmax.normalizers", logits: rows * vocabulary);
    let sound = temperature > 0.0 && temperature.is_finite();
    require!(
        "softmax.normalizers",
        temperature = f64::from(temperature),
        sound,
        "it must be positive"
    );
    let mut sums = vec![0.0; 2 * rows];
    let inverse_temperature = 1.0 / temperature;
    let shards = Shards::new(&mut sums);
    share(pool, rows, 8 * vocabulary, &|some| {
        for n in some {
            // SAFETY: each row belongs to one task.
            let sums = unsafe { shards.part(2 * n..2 * n + 2) };
            let row = &logits[n * vocabulary..][..vocabulary];
            (sums[0], sums[1]) = max_and_sum(pool.isa(), row, inverse_temperature);
        }
    });
    out.clear();
    out.extend(sums.chunks_exact(2).map(|v| {
        let log_sum = f64::from(v[1]).ln() as f32;
        Normalizer {
            max: v[0],
            log_sum,
            inverse_temperature,
        }
    }));
    Ok(())
}

/// A token whose log-probability is asked for: row of the logits, id of the token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Target {
    /// Row.
    pub row: usize,
    /// Token id, the column.
    pub token: u32,
}

/// The gradient of the targets' log-probs by the logits, written over the logits.
///
/// A row may have several targets; a row without any gets zeros. With G = Σ of a row's `upstream`:
/// `dlogits[v] = (Σ upstream of targets v − G·p_v) / temperature`.
///
/// # Order
/// G is added up in the order of the row's targets. The probabilities' part is written first; each target then adds its own, in the
/// same order.
///
/// # Shapes
/// `logits`: (N, V) in, gradient out · `normalizers`: (N) · `targets`, `upstream`: one each.
///
/// # Errors
/// [`crate::Error::Shape`]; [`crate::Error::Argument`] for a target outside the logits.
pub fn backward(
    pool: &Pool,
    logits: &mut [f32],
    normalizers: &[Normalizer],
    targets: &[Target],
    upstream: &[f32],
) -> Result<()> {
    let rows = normalizers.len();
    let vocabulary = logits.len() / rows.max(1);
    check!("softmax.backward", logits: rows * vocabulary, upstream: targets.len());
    for target in targets {
        let (row, token) = (target.row, target.token as usize);
        require!(
            "softmax.backward",
            row = row as f64,
            row < rows,
            "there are fewer rows"
        );
        require!(
            "softmax.backward",
            token = token as f64,
            token < vocabulary,
            "the vocabulary is smaller"
        );
    }
    let total = |n: usize| -> f32 {
        targets
            .iter()
            .zip(upstream)
            .filter(|(t, _)| t.row == n)
            .map(|(_, g)| g)
            .sum()
    };
    let shards = Shards::new(logits);
    share(pool, rows, 8 * vocabulary, &|some| {
        for n in some {
            // SAFETY: each row belongs to one task.
            let row = unsafe { shards.part(n * vocabulary..(n + 1) * vocabulary) };
            let norm = &normalizers[n];
            scaled_probabilities(pool.isa(), row, norm, -total(n) * norm.inverse_temperature);
        }
    });
    for (target, g) in targets.iter().zip(upstream) {
        let at = target.row * vocabulary + target.token as usize;
        logits[at] += g * normalizers[target.row].inverse_temperature;
    }
    Ok(())
}

/// The place of the largest logit, and the logit; the first wins a tie. A NaN counts as −∞; none where nothing is larger.
pub fn largest(logits: &[f32]) -> Option<(usize, f32)> {
    let (mut best, mut at) = (f32::NEG_INFINITY, 0);
    for (i, some) in logits.chunks(SEARCHED).enumerate() {
        let max = max_of_numbers(Isa::best(), some);
        if max > best {
            (best, at) = (max, i * SEARCHED);
        }
    }
    let place = logits[at..].iter().position(|&logit| logit == best)?;
    (best > f32::NEG_INFINITY).then_some((at + place, best))
}

/// Logits that are searched one by one once the largest is known to be among them.
const SEARCHED: usize = 512;

/// `out[v]` = e^((logit − max) / T): what tokens weigh in a draw. −∞ and NaN weigh nothing, nor does what is below e⁻⁸⁷.
pub fn weights(logits: &[f32], max: f32, inverse_temperature: f32, out: &mut Vec<f32>) {
    out.clear();
    out.extend_from_slice(logits);
    weigh(Isa::best(), out, max, inverse_temperature);
}

#[inline(always)]
fn max_of_numbers_kernel<S: Simd>(s: S, x: &[f32]) -> f32 {
    let (body, tail) = x.as_chunks::<LANES>();
    let mut max = s.splat(f32::NEG_INFINITY);
    for v in body {
        // A NaN in the first operand loses.
        max = s.max(s.load(v), max);
    }
    let all = s.lanes(max).into_iter().chain(tail.iter().copied());
    all.fold(f32::NEG_INFINITY, |a, b| if b > a { b } else { a })
}

dispatch! {
    fn max_of_numbers(x: &[f32]) -> f32 = max_of_numbers_kernel
}

#[inline(always)]
fn weigh_kernel<S: Simd>(s: S, x: &mut [f32], max: f32, inverse_temperature: f32) {
    // What `exp` gives for everything below its range: taken away, it leaves nothing there, and from 10⁻³⁰ on no trace.
    let least = s.exp(s.splat(f32::NEG_INFINITY));
    let (body, tail) = x.as_chunks_mut::<LANES>();
    for v in body {
        let w = weight(s, s.load(v), max, inverse_temperature, least);
        s.store(v, w);
    }
    let last = weight(s, s.load_tail(tail), max, inverse_temperature, least);
    s.store_tail(tail, last);
}

#[inline(always)]
fn weight<S: Simd>(s: S, v: S::F, max: f32, inverse_temperature: f32, least: S::F) -> S::F {
    let above = s.mul(s.sub(v, s.splat(max)), s.splat(inverse_temperature));
    // A NaN in the first operand loses.
    s.max(s.sub(s.exp(above), least), s.splat(0.0))
}

dispatch! {
    fn weigh(x: &mut [f32], max: f32, inverse_temperature: f32) = weigh_kernel
}

#[inline(always)]
fn row_max<S: Simd>(s: S, x: &[f32]) -> f32 {
    let (body, tail) = x.as_chunks::<LANES>();
    let mut max = s.splat(f32::NEG_INFINITY);
    for v in body {
        max = s.max(max, s.load(v));
    }
    let max = s.lanes(max).into_iter().chain(tail.iter().copied());
    max.fold(f32::NEG_INFINITY, |a, b| if a > b { a } else { b })
}

#[inline(always)]
fn max_and_sum_kernel<S: Simd>(s: S, x: &[f32], inverse_temperature: f32) -> (f32, f32) {
    let max = row_max(s, x);
    let (top, scale) = (s.splat(max), s.splat(inverse_temperature));
    let (body, tail) = x.as_chunks::<LANES>();
    let mut sum = s.splat(0.0);
    for v in body {
        sum = s.add(sum, s.exp(s.mul(s.sub(s.load(v), top), scale)));
    }
    let mut last = [0.0; LANES];
    s.store_tail(
        &mut last[..tail.len()],
        s.exp(s.mul(s.sub(s.load_tail(tail), top), scale)),
    );
    sum = s.add(sum, s.load(&last));
    (max, s.sum(sum))
}

dispatch! {
    fn max_and_sum(x: &[f32], inverse_temperature: f32) -> (f32, f32) = max_and_sum_kernel
}

#[inline(always)]
fn scaled_probabilities_kernel<S: Simd>(s: S, x: &mut [f32], norm: &Normalizer, scale: f32) {
    let (body, tail) = x.as_chunks_mut::<LANES>();
    for v in body {
        let p = scaled_probability(s, s.load(v), norm, scale);
        s.store(v, p);
    }
    let p = scaled_probability(s, s.load_tail(tail), norm, scale);
    s.store_tail(tail, p);
}

// Not a closure: those are compiled without the instruction set of the function that they are in.
#[inline(always)]
fn scaled_probability<S: Simd>(s: S, v: S::F, norm: &Normalizer, scale: f32) -> S::F {
    let above = s.mul(
        s.sub(v, s.splat(norm.max)),
        s.splat(norm.inverse_temperature),
    );
    s.mul(s.splat(scale), s.exp(s.sub(above, s.splat(norm.log_sum))))
}

dispatch! {
    /// `scale · p` in place of the logits.
    fn scaled_probabilities(x: &mut [f32], norm: &Normalizer, scale: f32) = scaled_probabilities_kernel
}

#[inline(always)]
fn exp_row_kernel<S: Simd>(s: S, x: &mut [f32], max: Option<f32>) -> (f32, f32) {
    let max = max.unwrap_or_else(|| row_max(s, x));
    let top = s.splat(max);
    let (body, tail) = x.as_chunks_mut::<LANES>();
    let mut sum = s.splat(0.0);
    for v in body {
        let e = s.exp(s.sub(s.load(v), top));
        sum = s.add(sum, e);
        s.store(v, e);
    }
    let e = s.exp(s.sub(s.load_tail(tail), top));
    s.store_tail(tail, e);
    sum = s.add(sum, s.load_tail(tail));
    (max, s.sum(sum))
}

dispatch! {
    /// `e^(x − max)` in place; gives the maximum that was used and the sum.
    pub(crate) fn exp_row(x: &mut [f32], max: Option<f32>) -> (f32, f32) = exp_row_kernel
}
