//! Low-rank adapters beside a packed weight: `y += s·(x·Aᵀ)·Bᵀ`, and its gradients.
//!
//! The contract of [`crate::gemm`] holds: one chain for each output, terms ascending. The update of `y` goes on from the
//! base product's sum with the r terms of the adapter. An adapter is kept in both orientations, because each of its four
//! products wants its columns side by side; it is small. Serving calls [`linear`], for a whole batch at once, training
//! [`linear_backward`], for all adapters of a product.

mod backward;
mod segments;

pub use backward::{Part, backward, linear_backward};
pub use segments::{Segment, linear};

use crate::error::{check, require};
use crate::gemm::parallel_dense;
use crate::tile::{Dims, Lhs, Rhs, Sums};
use crate::{Pool, Result};

/// The adapter of one weight (O, I).
#[derive(Clone, Copy, Debug)]
pub struct Pair<'a> {
    /// A: (R, I).
    pub a: &'a [f32],
    /// B: (O, R).
    pub b: &'a [f32],
    /// Aᵀ: (I, R).
    pub a_t: &'a [f32],
    /// Bᵀ: (R, O).
    pub b_t: &'a [f32],
    /// R.
    pub rank: usize,
    /// s = α / R.
    pub scale: f32,
}

impl Pair<'_> {
    /// I.
    fn inputs(&self) -> usize {
        self.a.len() / self.rank.max(1)
    }

    /// O.
    fn outputs(&self) -> usize {
        self.b.len() / self.rank.max(1)
    }

    fn check(&self) -> Result<()> {
        let Pair {
            a,
            b,
            a_t,
            b_t,
            rank,
            ..
        } = *self;
        require!(
            "lora",
            rank = rank as f64,
            rank > 0,
            "an adapter has a rank"
        );
        check!("lora", a: a.len() / rank * rank, b: b.len() / rank * rank, a_t: a.len(), b_t: b.len());
        Ok(())
    }
}

/// The columns from `first` on of a row-major matrix whose rows have `ld` elements.
#[derive(Clone, Copy, Debug)]
pub struct Columns {
    /// The first column.
    pub first: usize,
    /// Elements of a whole row.
    pub ld: usize,
}

/// `u = s·(x·Aᵀ)`.
///
/// # Shapes
/// `x`: (N, I) · `u`: (N, R).
///
/// # Errors
/// [`crate::Error::Shape`], [`crate::Error::Argument`] for rank 0.
pub fn down(pool: &Pool, rows: usize, x: &[f32], pair: &Pair<'_>, u: &mut [f32]) -> Result<()> {
    pair.check()?;
    let (i, r) = (pair.inputs(), pair.rank);
    check!("lora.down", x: rows * i, u: rows * r);
    let (a, b) = (Lhs::rows(x, i), Rhs::rows(pair.a_t, r));
    parallel_dense(pool, Dims::new(rows, r, i), a, b, (u, r), Sums::Start);
    u.iter_mut().for_each(|v| *v *= pair.scale);
    Ok(())
}

/// `y += u·Bᵀ` in some columns of `y`.
///
/// # Shapes
/// `u`: (N, R), from [`down`] · `y`: (N, `at.ld`).
///
/// # Errors
/// [`crate::Error::Shape`], [`crate::Error::Argument`].
pub fn up(
    pool: &Pool,
    rows: usize,
    u: &[f32],
    pair: &Pair<'_>,
    y: &mut [f32],
    at: Columns,
) -> Result<()> {
    pair.check()?;
    let (o, r) = (pair.outputs(), pair.rank);
    check!("lora.up", u: rows * r, y: rows * at.ld);
    let first = at.first;
    require!(
        "lora.up",
        first = first as f64,
        first + o <= at.ld,
        "the columns end inside a row"
    );
    if rows == 0 {
        return Ok(());
    }
    let (a, b) = (Lhs::rows(u, r), Rhs::rows(pair.b_t, o));
    let out = (&mut y[first..], at.ld);
    parallel_dense(pool, Dims::new(rows, o, r), a, b, out, Sums::Resume);
    Ok(())
}
