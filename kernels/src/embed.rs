//! The embedding lookup.

use crate::error::check;
use crate::packed::Packed;
use crate::{Pool, Result};

/// The embedding of each token, read from the packed matrix.
///
/// # Shapes
/// `table`: (V, C) · `out`: (N, C).
///
/// # Errors
/// [`crate::Error::Shape`]; [`crate::Error::Argument`] for a token outside the vocabulary.
pub fn forward(_pool: &Pool, table: &Packed, tokens: &[u32], out: &mut [f32]) -> Result<()> {
    let c = table.inputs();
    check!("embed.forward", out: tokens.len() * c);
    for (&token, out) in tokens.iter().zip(out.chunks_exact_mut(c)) {
        table.row(token as usize, out)?;
    }
    Ok(())
}
