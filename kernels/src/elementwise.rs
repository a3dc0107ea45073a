//! Residual addition and the embedding lookup.

use crate::error::check;
use crate::packed::Packed;
use crate::{Pool, Result};

/// `x += y`.
///
/// # Errors
/// [`crate::Error::Shape`].
pub fn add(_pool: &Pool, x: &mut [f32], y: &[f32]) -> Result<()> {
    check!("elementwise.add", y: x.len());
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
    Ok(())
}

/// The embedding of each token, read from the packed matrix.
///
/// # Shapes
/// `table`: (V, C) · `out`: (N, C).
///
/// # Errors
/// [`crate::Error::Shape`]; [`crate::Error::Argument`] for a token outside the vocabulary.
pub fn embed(_pool: &Pool, table: &Packed, tokens: &[u32], out: &mut [f32]) -> Result<()> {
    let c = table.inputs();
    check!("elementwise.embed", out: tokens.len() * c);
    for (&token, out) in tokens.iter().zip(out.chunks_exact_mut(c)) {
        table.row(token as usize, out)?;
    }
    Ok(())
}
