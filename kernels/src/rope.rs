//! Rotary position embedding, half-split as in Hugging Face: element i of a head is rotated with element i + D/2.
//!
//! Angles are computed once, in f32 as `transformers` does, for every position that the model allows.

use crate::error::{check, require};
use crate::pool::Shards;
use crate::rows::share;
use crate::{Pool, Result};
use std::ops::Range;

/// How the angles of a model differ from the plain ones.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Scaling {
    /// Plain.
    None,
    /// Every frequency divided by `factor`.
    Linear {
        /// The divisor.
        factor: f32,
    },
    /// Llama 3: long wavelengths divided by `factor`, short ones kept, a smooth passage between.
    Llama3 {
        /// The divisor of long wavelengths.
        factor: f32,
        /// Wavelengths above `original_context / low_freq_factor` are long.
        low_freq_factor: f32,
        /// Wavelengths below `original_context / high_freq_factor` are short.
        high_freq_factor: f32,
        /// The context that the model was trained with first.
        original_context: usize,
    },
}

/// Cosines and sines for every position.
#[derive(Clone, Debug)]
pub struct Table {
    half: usize,
    /// (position, cosines then sines): 2·half for each position.
    values: Vec<f32>,
}

impl Table {
    /// The table of heads of `head_dim` elements for positions below `context`.
    ///
    /// # Errors
    /// [`crate::Error::Argument`] for an odd or zero `head_dim`, or a `theta` that is not positive.
    ///
    /// # Source
    /// Su et al. 2021; the scaling as in `transformers.modeling_rope_utils`.
    pub fn new(head_dim: usize, context: usize, theta: f32, scaling: Scaling) -> Result<Table> {
        let even = head_dim > 0 && head_dim.is_multiple_of(2);
        require!(
            "rope.table",
            head_dim = head_dim as f64,
            even,
            "a rotary head has an even size"
        );
        let positive = theta > 0.0 && theta.is_finite();
        require!(
            "rope.table",
            theta = f64::from(theta),
            positive,
            "it must be positive"
        );
        let half = head_dim / 2;
        let frequencies: Vec<f32> = (0..half)
            .map(|i| {
                let power = f64::from(theta).powf((2 * i) as f64 / head_dim as f64) as f32;
                scaling.apply(1.0 / power)
            })
            .collect();
        let mut values = Vec::with_capacity(context * head_dim);
        for position in 0..context {
            let angle = |f: &f32| f64::from(position as f32 * f);
            values.extend(frequencies.iter().map(|f| angle(f).cos() as f32));
            values.extend(frequencies.iter().map(|f| angle(f).sin() as f32));
        }
        Ok(Table { half, values })
    }

    /// Positions in the table.
    pub fn context(&self) -> usize {
        self.values.len() / (2 * self.half)
    }

    /// (position, cosines then sines): as many of each as half a head has elements.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    fn at(&self, position: usize) -> (&[f32], &[f32]) {
        self.values[position * 2 * self.half..][..2 * self.half].split_at(self.half)
    }
}

impl Scaling {
    /// The frequency that replaces a plain one.
    fn apply(self, frequency: f32) -> f32 {
        match self {
            Scaling::None => frequency,
            Scaling::Linear { factor } => frequency / factor,
            Scaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_context,
            } => {
                let original = original_context as f32;
                let wavelength = 2.0 * std::f32::consts::PI / frequency;
                if wavelength > original / low_freq_factor {
                    frequency / factor
                } else if wavelength < original / high_freq_factor {
                    frequency
                } else {
                    let smooth = (original / wavelength - low_freq_factor)
                        / (high_freq_factor - low_freq_factor);
                    (1.0 - smooth) * frequency / factor + smooth * frequency
                }
            }
        }
    }
}

/// Rotates some columns (whole heads) of consecutive tokens, in place.
///
/// # Shapes
/// `x`: (N, `ld`); the columns are whole heads; token n is at position `start + n`.
///
/// # Errors
/// [`crate::Error::Shape`]; [`crate::Error::Argument`] when a position is outside the table.
pub fn forward(
    pool: &Pool,
    table: &Table,
    x: &mut [f32],
    ld: usize,
    columns: Range<usize>,
    start: usize,
) -> Result<()> {
    rotate(pool, table, (x, ld), columns, start, 1.0)
}

/// The gradient of [`forward`], in place: rotates back.
///
/// # Shapes
/// As [`forward`].
///
/// # Errors
/// As [`forward`].
pub fn backward(
    pool: &Pool,
    table: &Table,
    dx: &mut [f32],
    ld: usize,
    columns: Range<usize>,
    start: usize,
) -> Result<()> {
    rotate(pool, table, (dx, ld), columns, start, -1.0)
}

fn rotate(
    pool: &Pool,
    table: &Table,
    (x, ld): (&mut [f32], usize),
    columns: Range<usize>,
    start: usize,
    sign: f32,
) -> Result<()> {
    let d = 2 * table.half;
    let rows = x.len() / ld.max(1);
    check!("rope", x: rows * ld, columns: columns.len() / d * d);
    require!(
        "rope",
        columns = columns.end as f64,
        columns.end <= ld,
        "columns end inside a row"
    );
    let end = start + rows;
    require!(
        "rope",
        end = end as f64,
        end <= table.context(),
        "the model's context is shorter"
    );
    let x = Shards::new(x);
    share(pool, rows, columns.len(), &|some| {
        for n in some {
            // SAFETY: a row belongs to one task.
            let row = unsafe { x.part(n * ld..(n + 1) * ld) };
            let (cos, sin) = table.at(start + n);
            for head in row[columns.clone()].chunks_exact_mut(d) {
                let (low, high) = head.split_at_mut(table.half);
                for (((a, b), c), s) in low.iter_mut().zip(high).zip(cos).zip(sin) {
                    let s = s * sign;
                    (*a, *b) = (*a * c - *b * s, *b * c + *a * s);
                }
            }
        }
    });
    Ok(())
}
