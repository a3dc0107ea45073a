//! What the machine does at all: its tensor cores' arithmetic, its ceilings, its cost of a launch.

use kernels::Result;
use kernels::cuda::probe::{Instruction, SIDE, STEP, peak, step};
use kernels::cuda::rmsnorm;

use crate::meter::{Meter, values};

/// Compares 10^6 single steps by `mma.sync`, by `wgmma`, and by the published model of both.
///
/// # Source
/// MMA-Sim, arXiv 2511.10909: products and accumulator are aligned to the largest exponent with 25 fraction bits, summed
/// exactly, truncated.
pub(crate) fn instructions(meter: &Meter) -> Result<()> {
    let tiles = meter.size(256, 2);
    // Exponents far apart, so that alignment shows.
    let spread = |seed: u64, len: usize| -> Vec<f32> {
        let scale = values(seed + 9, len);
        let numbers = values(seed, len).into_iter().zip(scale);
        numbers.map(|(v, s)| v * (8.0 * s).round().exp2()).collect()
    };
    let narrow = |values: &[f32]| -> Vec<half::bf16> {
        values.iter().map(|&v| half::bf16::from_f32(v)).collect()
    };
    let a = narrow(&spread(1, tiles * SIDE * STEP));
    let b = narrow(&spread(2, tiles * SIDE * STEP));
    let c = spread(3, tiles * SIDE * SIDE);
    let (a_, b_, c_) = (
        meter.on.upload(&a)?,
        meter.on.upload(&b)?,
        meter.on.upload(&c)?,
    );
    let run = |by| {
        let mut d = meter.poisoned(c.len())?;
        step(
            &meter.on,
            by,
            a_.view(),
            b_.view(),
            c_.view(),
            &mut d.view_mut(),
        )?;
        meter.on.download(d.view())
    };
    let mma = run(Instruction::Mma)?;
    let model: Vec<f32> = (0..c.len())
        .map(|at| {
            let (tile, i, j) = (at / (SIDE * SIDE), at / SIDE % SIDE, at % SIDE);
            let row = |of: &[half::bf16], n: usize| -> Vec<half::bf16> {
                of[(tile * SIDE + n) * STEP..][..STEP].to_vec()
            };
            modelled(&row(&a, i), &row(&b, j), c[at])
        })
        .collect();
    let differ = |x: &[f32], y: &[f32]| {
        x.iter()
            .zip(y)
            .filter(|(x, y)| x.to_bits() != y.to_bits())
            .count()
    };
    println!(
        "{} single steps: mma.sync and the model differ in {}",
        c.len(),
        differ(&mma, &model)
    );
    if meter.on.gpu().is_hopper() {
        let wgmma = run(Instruction::Wgmma)?;
        println!(
            "wgmma and mma.sync differ in {}, wgmma and the model in {}",
            differ(&wgmma, &mma),
            differ(&wgmma, &model)
        );
    }
    Ok(())
}

/// A number's significand in units of 2^(exponent − 23). Numbers without a leading bit have the exponent of the least normal.
fn parts(x: f32) -> (i64, i32) {
    let bits = x.to_bits();
    let (biased, fraction) = ((bits >> 23 & 255) as i32, i64::from(bits & 0x7f_ffff));
    let significand = if biased > 0 {
        fraction | 1 << 23
    } else {
        fraction
    };
    let signed = if x < 0.0 { -significand } else { significand };
    (signed, biased.max(1) - 127)
}

/// One step by the model. A product's exponent is the sum of its factors', its significand one of 1 to 4.
fn modelled(a: &[half::bf16], b: &[half::bf16], c: f32) -> f32 {
    const FRACTION: i32 = 25;
    let products = a.iter().zip(b).map(|(a, b)| {
        let ((x, i), (y, j)) = (parts(a.to_f32()), parts(b.to_f32()));
        // Seven of the 23 bits behind the point are bf16's; the product has twice as many.
        ((x >> 16) * (y >> 16), i + j, 14)
    });
    let (start, exponent) = parts(c);
    let terms: Vec<(i64, i32, i32)> = products.chain([(start, exponent, 23)]).collect();
    let held = terms.iter().filter(|(significand, ..)| *significand != 0);
    let Some(top) = held.map(|(_, exponent, _)| *exponent).max() else {
        return 0.0;
    };
    // Each term in units of 2^(top − 25), towards zero.
    let sum: i64 = terms
        .iter()
        .map(|&(significand, exponent, point)| {
            let size = significand.abs();
            let aligned = match point - FRACTION + top - exponent {
                up @ ..0 => size << -up,
                down @ 0..63 => size >> down,
                _ => 0,
            };
            significand.signum() * aligned
        })
        .sum();
    truncated(sum, top - FRACTION)
}

/// `sum · 2^unit` as f32, towards zero.
fn truncated(sum: i64, unit: i32) -> f32 {
    let bits = 64 - sum.unsigned_abs().leading_zeros();
    let drop = bits.saturating_sub(24);
    let kept = (sum.unsigned_abs() >> drop) as f64;
    let magnitude = kept * f64::from(unit + drop as i32).exp2();
    (magnitude * sum.signum() as f64) as f32
}

/// Copying, multiplying, launching: what the rows of the table are held against.
pub(crate) fn ceilings(meter: &mut Meter) -> Result<()> {
    let len = meter.size(1 << 28, 1 << 16);
    let from = meter.poisoned::<f32>(len)?;
    let mut to = meter.poisoned::<f32>(len)?;
    let us = meter.time(|on| on.copy(from.view(), &mut to.view_mut()))?;
    meter.copy = 8.0 * len as f64 / (us * 1e-6);
    println!("copy: {:.0} GB/s, read and written", meter.copy / 1e9);
    meter.peak = multiplied(meter, Instruction::Mma)?;
    println!("mma.sync: {:.1} TFLOP/s", meter.peak / 1e12);
    if meter.on.gpu().is_hopper() {
        let wgmma = multiplied(meter, Instruction::Wgmma)?;
        println!("wgmma: {:.1} TFLOP/s", wgmma / 1e12);
        meter.peak = meter.peak.max(wgmma);
    }
    launches(meter)
}

fn multiplied(meter: &Meter, by: Instruction) -> Result<f64> {
    let blocks = meter.size(12 * meter.on.gpu().multiprocessors()? as usize, 2);
    let mut out = meter.poisoned(blocks * 128)?;
    let mut operations = 0;
    let us = meter.time(|on| {
        operations = peak(on, by, meter.size(2000, 2), &mut out.view_mut())?;
        Ok(())
    })?;
    Ok(operations as f64 / (us * 1e-6))
}

fn launches(meter: &Meter) -> Result<()> {
    const MANY: usize = 20;
    let mut x = meter.noise(1, 64)?;
    let weight = meter.noise(2, 64)?;
    let mut out = meter.poisoned(64)?;
    let mut norms = |on: &_| {
        for _ in 0..MANY {
            let (mut x, mut out) = (x.view_mut(), out.view_mut());
            rmsnorm::forward(on, &mut x, None, weight.view(), 1e-5, &mut out)?;
        }
        Ok(())
    };
    let each = meter.time(&mut norms)? / MANY as f64;
    let mut graph = meter.on.capture(&mut norms)?;
    let replayed = meter.time(|on| on.replay(&mut graph))? / MANY as f64;
    println!("a launch: {each:.2} µs, in a graph {replayed:.2} µs");
    Ok(())
}
