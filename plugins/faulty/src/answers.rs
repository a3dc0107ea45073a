//! Abuses that lie in the answer: numbers and lists that no host should believe.

use sdk::{Fault, config};

/// A number as the abuse wants it.
pub(crate) fn number(honest: f64) -> Result<f64, Fault> {
    Ok(match config::text("abuse")?.as_str() {
        "nan" => f64::NAN,
        "infinite" => f64::INFINITY,
        "out-of-range" => 1e9,
        "negative" => -1.0,
        _ => honest,
    })
}

/// How many entries to return where `honest` are due.
pub(crate) fn length(honest: usize) -> Result<usize, Fault> {
    Ok(match config::text("abuse")?.as_str() {
        "too-short" => honest.saturating_sub(1),
        "too-long" => honest + 1,
        "flood" => config::count("size")?,
        _ => honest,
    })
}

/// A text as the abuse wants it.
pub(crate) fn text(honest: &str) -> Result<String, Fault> {
    Ok(match config::text("abuse")?.as_str() {
        "flood" => "x".repeat(config::count("size")?),
        _ => honest.to_owned(),
    })
}
