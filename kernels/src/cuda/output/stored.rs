//! Log-probabilities from logits that a decode step stored, with the bits that training has.
//!
//! Knows nothing of the product that made them. Start at [`normalizers`].

use super::{Normalizer, Targets, Work, finish, normalize};
use crate::Result;
use crate::cuda::adapters::{aligned, ints, step};
use crate::cuda::gemm::TILE;
use crate::cuda::launch::Grid;
use crate::cuda::{Stream, View, ViewMut};
use crate::error::check;

/// Tiles of a block of `output_logit_tiles`.
const LOGIT_TILES: usize = 64;

/// The normalizers of logits that [`crate::cuda::gemm::forward`] stored as f32: the bits that [`super::log_probs`] has.
///
/// # Shapes
/// `logits`: (N, V), V a multiple of 16 · `inverse_temperature`: (N), positive · `out`: (N).
///
/// # Errors
/// As [`super::log_probs`].
pub fn normalizers(
    on: &Stream,
    logits: View<'_, f32>,
    vocabulary: usize,
    inverse_temperature: View<'_, f32>,
    work: &mut Work,
    out: &mut ViewMut<'_, Normalizer>,
) -> Result<()> {
    let rows = inverse_temperature.len();
    step("output.normalizers", "vocabulary", vocabulary)?;
    check!("output.normalizers", logits: rows * vocabulary, out: rows);
    aligned("output.normalizers", "logits", logits.address())?;
    let tiles = vocabulary.div_ceil(TILE);
    let mut stats = work.stats.view_mut();
    let mut stats = stats.part(0..rows * tiles)?;
    let [v] = ints("output.normalizers", [vocabulary])?;
    let grid = Grid {
        blocks: [tiles.div_ceil(LOGIT_TILES), rows, 1],
        threads: 256,
        shared: 0,
    };
    // SAFETY: order and types are those of `output_logit_tiles`; the checks proved the logits, the part the tiles.
    unsafe {
        on.launch(
            "output_logit_tiles",
            grid,
            &[&logits, &inverse_temperature, &mut stats, &v],
        )
    }?;
    normalize(on, stats.as_view(), inverse_temperature, vocabulary, out)
}

/// [`super::log_probs`] from stored logits and their [`normalizers`].
///
/// # Shapes
/// `logits`: (N, V) · `normalizers`, `inverse_temperature`: (N) · `out`: one for each target, by rows.
///
/// # Errors
/// As [`super::log_probs`].
pub fn log_probs_of(
    on: &Stream,
    logits: View<'_, f32>,
    normalizers: View<'_, Normalizer>,
    inverse_temperature: View<'_, f32>,
    targets: &Targets,
    work: &mut Work,
    out: &mut ViewMut<'_, f32>,
) -> Result<()> {
    let (rows, vocabulary) = (targets.rows, targets.vocabulary);
    check!("output.log_probs_of", logits: rows * vocabulary, normalizers: rows, inverse_temperature: rows);
    let mut picked = work.target_logits.view_mut();
    let mut picked = picked.part(0..targets.count)?;
    let [n, v] = ints("output.log_probs_of", [rows, vocabulary])?;
    let (first, token) = (targets.first.view(), targets.token.view());
    let grid = Grid::line(rows.div_ceil(256), 256);
    // SAFETY: order and types are those of `output_pick`; the checks proved the logits, `Targets` that tokens are inside.
    unsafe {
        on.launch(
            "output_pick",
            grid,
            &[&logits, &first, &token, &mut picked, &n, &v],
        )
    }?;
    finish(
        on,
        normalizers,
        inverse_temperature,
        targets,
        picked.as_view(),
        out,
    )
}

/// The log-probabilities of tokens that [`crate::cuda::sample`] drew, one a row: the bits of [`super::log_probs`], at the temperature and before
/// any truncation. A row without a token gets NaN.
///
/// # Shapes
/// `logits`: (N, V) · `normalizers`, `inverse_temperature`, `tokens`, `out`: (N).
///
/// # Errors
/// As [`super::log_probs`].
pub fn log_probs_of_drawn(
    on: &Stream,
    logits: View<'_, f32>,
    vocabulary: usize,
    normalizers: View<'_, Normalizer>,
    inverse_temperature: View<'_, f32>,
    tokens: View<'_, u32>,
    out: &mut ViewMut<'_, f32>,
) -> Result<()> {
    let rows = tokens.len();
    check!("output.log_probs_of_drawn", logits: rows * vocabulary, normalizers: rows);
    check!("output.log_probs_of_drawn", inverse_temperature: rows, out: rows);
    let [n, v] = ints("output.log_probs_of_drawn", [rows, vocabulary])?;
    let grid = Grid::line(rows.div_ceil(256), 256);
    let (norms, inverse) = (normalizers, inverse_temperature);
    // SAFETY: order and types are those of `output_drawn`, which looks up tokens below V alone; the checks proved the rest.
    unsafe {
        on.launch(
            "output_drawn",
            grid,
            &[&logits, &norms, &inverse, &tokens, out, &n, &v],
        )
    }
}
