//! GGUF metadata to a [`ModelConfig`].
//!
//! Reads typed values, not bytes; [`crate::checkpoint::gguf`] made them.

use super::*;
use crate::checkpoint::gguf::Metadata;

const GGUF_NAMES: Names = Names {
    vocab: "vocab_size",
    heads: "attention.head_count",
    kv_heads: "attention.head_count_kv",
    head_dim: "attention.key_length",
    ffn: "feed_forward_length",
    special: "tokenizer.ggml.eos_token_id or bos_token_id",
};

impl ModelConfig {
    /// Reads the metadata of a GGUF file. `tied` and `rope_freqs` come from its tensor table: whether `output.weight` is absent,
    /// and the numbers of `rope_freqs.weight`, which is how llama.cpp stores Llama 3.1's scaling.
    ///
    /// # Errors
    /// [`Error::Field`] with the name of the key that is missing, out of bounds or not supported.
    pub fn from_gguf(meta: &Metadata, tied: bool, rope_freqs: Option<&[f32]>) -> Result<Self> {
        let path = meta.path();
        let name = meta.string("general.architecture")?;
        let architecture = match name {
            "llama" => Architecture::Llama,
            "qwen3" => Architecture::Qwen3,
            other => return Err(unsupported(path, "general.architecture", other)),
        };
        let key = |suffix: &str| format!("{name}.{suffix}");
        refuse_unsupported_gguf(meta, &key)?;
        let size = |suffix: &str, default: Option<usize>, max: usize| {
            meta.size(&key(suffix), default, max)
        };
        let hidden = size("embedding_length", None, MAX_WIDTH)?;
        let heads = size("attention.head_count", None, MAX_HEADS)?;
        let head_dim = gguf_head_dim(meta, &key, hidden, heads)?;
        let tokens = meta
            .strings("tokenizer.ggml.tokens")
            .map_or(0, <[String]>::len);
        let default_vocab = (tokens > 0).then_some(tokens);
        let context = size("context_length", None, MAX_CONTEXT)?;
        let theta = meta.float(&key("rope.freq_base"), Some(10_000.0), 1e-3, 1e15)?;
        let config = Self {
            architecture,
            vocab_size: size("vocab_size", default_vocab, MAX_VOCAB)?,
            hidden,
            layers: size("block_count", None, MAX_LAYERS)?,
            heads,
            kv_heads: size("attention.head_count_kv", Some(heads), MAX_HEADS)?,
            head_dim,
            ffn: size("feed_forward_length", None, MAX_FFN)?,
            rms_eps: meta.float(&key("attention.layer_norm_rms_epsilon"), None, 0.0, 0.1)?,
            rope: Rope {
                theta,
                scaling: gguf_scaling(meta, &key, theta, head_dim, rope_freqs)?,
            },
            context,
            tied,
            qk_norm: architecture == Architecture::Qwen3,
            attention_bias: false,
            eos: gguf_end_tokens(meta)?,
            bos: meta.token("tokenizer.ggml.bos_token_id")?,
        };
        config.check(path, &GGUF_NAMES)?;
        Ok(config)
    }
}

/// Width of a head: said, or what the width of the model leaves. Values and rotation must have the same.
fn gguf_head_dim(
    meta: &Metadata,
    key: &dyn Fn(&str) -> String,
    hidden: usize,
    heads: usize,
) -> Result<usize> {
    let path = meta.path();
    let size = |suffix, default| meta.size(&key(suffix), default, MAX_HEAD_DIM);
    let head_dim = if meta.has(&key("attention.key_length")) {
        size("attention.key_length", None)?
    } else {
        exact_ratio(path, &key("embedding_length"), hidden, heads)?
    };
    for same in ["attention.value_length", "rope.dimension_count"] {
        let found = size(same, Some(head_dim))?;
        if found != head_dim {
            let value = found.to_string();
            let rule = "only the width of a whole head is supported";
            return Err(field(
                path,
                key(same),
                Problem::Inconsistent { value, rule },
            ));
        }
    }
    Ok(head_dim)
}

/// End of sequence, end of turn, end of message (before a tool runs): each ends a reply.
fn gguf_end_tokens(meta: &Metadata) -> Result<Vec<u32>> {
    let mut eos = Vec::new();
    for name in ["eos", "eot", "eom"] {
        if let Some(id) = meta.token(&format!("tokenizer.ggml.{name}_token_id"))?
            && !eos.contains(&id)
        {
            eos.push(id);
        }
    }
    Ok(eos)
}

fn refuse_unsupported_gguf(meta: &Metadata, key: &dyn Fn(&str) -> String) -> Result<()> {
    let counts = [
        "attention.sliding_window",
        "expert_count",
        "attention.clamp_kqv",
    ];
    let scales = [
        "logit_scale",
        "residual_scale",
        "embedding_scale",
        "attention.scale",
    ];
    for suffix in counts.iter().chain(&scales) {
        let name = key(suffix);
        if let Some(value) = meta.number(&name)?
            && value != 0.0
        {
            return Err(unsupported(meta.path(), &name, value.to_string()));
        }
    }
    Ok(())
}

fn gguf_scaling(
    meta: &Metadata,
    key: &dyn Fn(&str) -> String,
    theta: f32,
    head_dim: usize,
    freqs: Option<&[f32]>,
) -> Result<RopeScaling> {
    let name = key("rope.scaling.type");
    let kind = if meta.has(&name) {
        meta.string(&name)?
    } else {
        "none"
    };
    let linear = |suffix| meta.float(&key(suffix), None, 1e-6, 1e6);
    let scaling = match kind {
        "none" if meta.has(&key("rope.scale_linear")) => RopeScaling::Linear {
            factor: linear("rope.scale_linear")?,
        },
        "none" => RopeScaling::None,
        "linear" => RopeScaling::Linear {
            factor: linear("rope.scaling.factor")?,
        },
        other => return Err(unsupported(meta.path(), &name, other)),
    };
    match (scaling, freqs) {
        (scaling, None) => Ok(scaling),
        (RopeScaling::None, Some(freqs)) => {
            llama3_from_factors(theta, head_dim, freqs).ok_or_else(|| {
                unsupported(
                    meta.path(),
                    "rope_freqs.weight",
                    "factors that are not Llama 3's",
                )
            })
        }
        (_, Some(_)) => Err(unsupported(
            meta.path(),
            &name,
            "two kinds of scaling at once",
        )),
    }
}

/// The parameters behind llama.cpp's table of divisors, when they are the published ones of Llama 3.1 to 3.3.
pub(super) fn llama3_from_factors(
    theta: f32,
    head_dim: usize,
    factors: &[f32],
) -> Option<RopeScaling> {
    let factor = factors.iter().copied().fold(1.0, f32::max);
    let scaling = RopeScaling::Llama3 {
        factor,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_context: 8192,
    };
    let expected = llama3_factors(theta, head_dim, f64::from(factor), 1.0, 4.0, 8192.0);
    let same = factors.len() == expected.len()
        && factors
            .iter()
            .zip(&expected)
            .all(|(a, b)| (f64::from(*a) - b).abs() <= 1e-4 * b.abs());
    same.then_some(scaling)
}

/// What each rotary frequency is divided by. Source: transformers' `_compute_llama3_parameters`.
pub(super) fn llama3_factors(
    theta: f32,
    dim: usize,
    factor: f64,
    low: f64,
    high: f64,
    original: f64,
) -> Vec<f64> {
    (0..dim / 2)
        .map(|i| {
            let exponent = 2.0 * i as f64 / dim as f64;
            let wavelength = std::f64::consts::TAU * f64::from(theta).powf(exponent);
            if wavelength < original / high {
                1.0
            } else if wavelength > original / low {
                factor
            } else {
                let smooth = (original / wavelength - low) / (high - low);
                1.0 / ((1.0 - smooth) / factor + smooth)
            }
        })
        .collect()
}
