//! Low-rank adapters beside a packed weight: `y += s·(x·Aᵀ)·Bᵀ`, and its gradients.
//!
//! The contract of [`crate::gemm`] holds: one chain for each output, terms ascending. The update of `y` goes on from the
//! base product's sum with the r terms of the adapter. An adapter is kept in both orientations, because each of its four
//! products wants its columns side by side; it is small. Serving calls [`linear`], for a whole batch at once.

mod segments;

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

/// The gradients of [`down`] and [`up`] by A, B and x; each is added to what is there.
///
/// # Shapes
/// `x`: (N, I) · `u`: (N, R) · `dy`: (N, `at.ld`) · `du`: (N, R), overwritten · `da`: (R, I) · `db`: (O, R) · `dx`: (N, I).
///
/// # Errors
/// [`crate::Error::Shape`], [`crate::Error::Argument`].
pub fn backward(
    pool: &Pool,
    rows: usize,
    pair: &Pair<'_>,
    forward: Forward<'_>,
    dy: (&[f32], Columns),
    into: Into<'_>,
) -> Result<()> {
    pair.check()?;
    check_backward(rows, pair, &forward, &dy, &into)?;
    let (i, o, r) = (pair.inputs(), pair.outputs(), pair.rank);
    let Forward { x, u } = forward;
    let Into { du, da, db, dx } = into;
    let (dy, Columns { first, ld }) = dy;
    if rows == 0 {
        return Ok(());
    }
    let dy = &dy[first..];
    let (a, b) = (Lhs::columns(dy, ld), Rhs::rows(u, r));
    parallel_dense(pool, Dims::new(o, r, rows), a, b, (db, r), Sums::Resume);
    let (a, b) = (Lhs::rows(dy, ld), Rhs::rows(pair.b, r));
    parallel_dense(
        pool,
        Dims::new(rows, r, o),
        a,
        b,
        (&mut *du, r),
        Sums::Start,
    );
    du.iter_mut().for_each(|v| *v *= pair.scale);
    let (a, b) = (Lhs::columns(du, r), Rhs::rows(x, i));
    parallel_dense(pool, Dims::new(r, i, rows), a, b, (da, i), Sums::Resume);
    let (a, b) = (Lhs::rows(du, r), Rhs::rows(pair.a, i));
    parallel_dense(pool, Dims::new(rows, i, r), a, b, (dx, i), Sums::Resume);
    Ok(())
}

/// The door of [`backward`].
fn check_backward(
    rows: usize,
    pair: &Pair<'_>,
    forward: &Forward<'_>,
    (dy, at): &(&[f32], Columns),
    into: &Into<'_>,
) -> Result<()> {
    let (i, o, r) = (pair.inputs(), pair.outputs(), pair.rank);
    let Forward { x, u } = forward;
    let Into { du, da, db, dx } = into;
    check!("lora.backward", x: rows * i, u: rows * r, dy: rows * at.ld);
    check!("lora.backward", du: rows * r, da: r * i, db: o * r, dx: rows * i);
    let first = at.first;
    let inside = first + o <= at.ld;
    require!(
        "lora.backward",
        first = first as f64,
        inside,
        "the columns end inside a row"
    );
    Ok(())
}

/// What the forward pass left for [`backward`].
#[derive(Clone, Copy, Debug)]
pub struct Forward<'a> {
    /// The input.
    pub x: &'a [f32],
    /// The result of [`down`].
    pub u: &'a [f32],
}

/// Where [`backward`] puts its results.
#[derive(Debug)]
pub struct Into<'a> {
    /// Work space.
    pub du: &'a mut [f32],
    /// Gradient by A, added to.
    pub da: &'a mut [f32],
    /// Gradient by B, added to.
    pub db: &'a mut [f32],
    /// Gradient by x, added to.
    pub dx: &'a mut [f32],
}
