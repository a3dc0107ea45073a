//! The shape of a model: what `config.json` or GGUF metadata say, checked before a byte of weights is read.
//!
//! Knows Llama-family and Qwen3 dense decoders. Whatever would change the arithmetic and is not implemented (other
//! architectures, sliding windows, biases, other rotary scalings) is refused with the name of the field, never ignored.
//! Holds no weights; [`crate::checkpoint`] reads those. Start at [`ModelConfig`].

use std::path::Path;

use crate::error::{Error, Problem, Result, field};

mod gguf;
mod hf;

/// The decoder families that this crate runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// Llama 2 and 3, SmolLM2, TinyLlama and others with `model_type` "llama".
    Llama,
    /// Qwen3 dense: as Llama, with an RMS norm on each query and key head.
    Qwen3,
}

/// Rotary position embedding.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rope {
    /// The base of the geometric sequence of frequencies.
    pub theta: f32,
    /// How the frequencies are stretched for long contexts.
    pub scaling: RopeScaling,
}

/// Stretching of rotary frequencies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// Frequencies as trained.
    None,
    /// Every frequency divided by `factor`.
    Linear {
        /// The divisor.
        factor: f32,
    },
    /// Llama 3.1: low frequencies divided by `factor`, high ones kept, the ones between interpolated.
    Llama3 {
        /// The divisor of low frequencies.
        factor: f32,
        /// Wavelengths above `original_context / low_freq_factor` are divided.
        low_freq_factor: f32,
        /// Wavelengths below `original_context / high_freq_factor` are kept.
        high_freq_factor: f32,
        /// The context that the model was first trained with, in tokens.
        original_context: usize,
    },
}

/// Everything about a model's arithmetic except its numbers.
///
/// A value of this type made by this crate has been checked: every size is at least 1 and within bounds, `heads` is a multiple
/// of `kv_heads`, `head_dim` is even, and floats are finite and positive.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// The decoder family.
    pub architecture: Architecture,
    /// Rows of the embedding table.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Decoder layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; each serves `heads / kv_heads` query heads.
    pub kv_heads: usize,
    /// Width of one head. `heads * head_dim` need not equal `hidden`.
    pub head_dim: usize,
    /// Width of the feed-forward layer.
    pub ffn: usize,
    /// Added to the mean square in every RMS norm.
    pub rms_eps: f32,
    /// Rotary position embedding.
    pub rope: Rope,
    /// The longest sequence that the model was made for, in tokens.
    pub context: usize,
    /// Whether the output projection is the embedding table.
    pub tied: bool,
    /// Whether queries and keys are normalised per head (Qwen3).
    pub qk_norm: bool,
    /// Whether q, k, v and o have biases. Always false today: such models are refused.
    pub attention_bias: bool,
    /// Tokens that end a reply, without duplicates, the file's first one first.
    pub eos: Vec<u32>,
    /// The token that starts a text, when the model has one.
    pub bos: Option<u32>,
}

// Bounds on sizes. Each is well above every published model of these families, and low enough that no product of two of
// them overflows 64 bits, so that a hostile file cannot ask for an absurd allocation before its tensors are checked.
const MAX_VOCAB: usize = 1 << 22;
const MAX_WIDTH: usize = 1 << 17;
const MAX_FFN: usize = 1 << 20;
const MAX_LAYERS: usize = 1024;
const MAX_HEADS: usize = 1024;
const MAX_HEAD_DIM: usize = 1024;
const MAX_CONTEXT: usize = 1 << 24;
/// Elements of the largest single matrix: 2^34 f32 are 64 GiB.
const MAX_MATRIX: usize = 1 << 34;

impl ModelConfig {
    /// What the fields must satisfy together.
    fn check(&self, path: &Path, names: &Names) -> Result<()> {
        let bad = |name: &str, value: usize, rule: &'static str| {
            Err(field(
                path,
                name,
                Problem::Inconsistent {
                    value: value.to_string(),
                    rule,
                },
            ))
        };
        if !self.heads.is_multiple_of(self.kv_heads) {
            return bad(
                names.kv_heads,
                self.kv_heads,
                "it must divide the number of query heads",
            );
        }
        if !self.head_dim.is_multiple_of(2) {
            return bad(
                names.head_dim,
                self.head_dim,
                "rotary embedding needs an even width",
            );
        }
        if self.heads * self.head_dim > MAX_WIDTH {
            return bad(
                names.heads,
                self.heads,
                "heads times head width is beyond the bound",
            );
        }
        for (name, rows) in [(names.vocab, self.vocab_size), (names.ffn, self.ffn)] {
            if rows * self.hidden > MAX_MATRIX {
                return bad(name, rows, "times the hidden width it is beyond the bound");
            }
        }
        for &id in self.eos.iter().chain(&self.bos) {
            if usize::try_from(id).is_ok_and(|id| id >= self.vocab_size) {
                let value = id.to_string();
                let rule = "it must be below the vocabulary size";
                return Err(field(
                    path,
                    names.special,
                    Problem::Inconsistent { value, rule },
                ));
            }
        }
        Ok(())
    }
}

/// How each file format calls the fields that [`ModelConfig::check`] complains about.
struct Names {
    vocab: &'static str,
    heads: &'static str,
    kv_heads: &'static str,
    head_dim: &'static str,
    ffn: &'static str,
    special: &'static str,
}

fn unsupported(path: &Path, name: &str, value: impl Into<String>) -> Error {
    field(
        path,
        name,
        Problem::Unsupported {
            value: value.into(),
        },
    )
}

fn exact_ratio(path: &Path, name: &str, hidden: usize, heads: usize) -> Result<usize> {
    let dim = hidden / heads;
    if dim == 0 || dim * heads != hidden || dim > MAX_HEAD_DIM {
        let rule = "without a head width it must be a multiple of the number of heads";
        let value = hidden.to_string();
        return Err(field(path, name, Problem::Inconsistent { value, rule }));
    }
    Ok(dim)
}

/// A size between 1 and `max`.
pub(crate) fn in_range(path: &Path, name: &str, number: u64, max: usize) -> Result<usize> {
    match usize::try_from(number) {
        Ok(n) if (1..=max).contains(&n) => Ok(n),
        _ => {
            let problem = Problem::Range {
                value: number as f64,
                min: 1.0,
                max: max as f64,
            };
            Err(field(path, name, problem))
        }
    }
}

/// A finite number above `above` and at most `max`.
pub(crate) fn positive(path: &Path, name: &str, value: f64, above: f64, max: f64) -> Result<f32> {
    let single = value as f32;
    if !(value > above && value <= max && single > 0.0 && single.is_finite()) {
        return Err(field(
            path,
            name,
            Problem::Range {
                value,
                min: above,
                max,
            },
        ));
    }
    Ok(single)
}

#[cfg(test)]
mod tests;
