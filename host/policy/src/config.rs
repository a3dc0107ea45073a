//! The shape of a model: what `config.json` or GGUF metadata say, checked before a byte of weights is read.
//!
//! Knows Llama-family and Qwen3 dense decoders. Whatever would change the arithmetic and is not implemented (other
//! architectures, sliding windows, biases, other rotary scalings) is refused with the name of the field, never ignored.
//! Holds no weights; [`crate::checkpoint`] reads those. Start at [`ModelConfig`].

use std::path::Path;

use serde_json::Value;

use crate::checkpoint::gguf::Metadata;
use crate::error::{Error, Problem, Result, field};

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
    /// Reads a Hugging Face `config.json` and, when there is one, `generation_config.json` (for its list of end tokens).
    ///
    /// Understands both `rope_theta` + `rope_scaling` and the `rope_parameters` of transformers 5.
    ///
    /// # Errors
    /// [`Error::Field`] with the name of the field that is missing, out of bounds or not supported.
    pub fn from_hf(path: &Path, config: &Value, generation: Option<&Value>) -> Result<Self> {
        let f = Fields {
            path,
            object: config,
        };
        let architecture = f.architecture()?;
        f.refuse_unsupported(architecture)?;
        let hidden = f.size("hidden_size", None, MAX_WIDTH)?;
        let heads = f.size("num_attention_heads", None, MAX_HEADS)?;
        let head_dim = match (f.has("head_dim"), architecture) {
            (true, _) => f.size("head_dim", None, MAX_HEAD_DIM)?,
            (false, Architecture::Qwen3) => 128, // transformers' default for this family
            (false, Architecture::Llama) => exact_ratio(path, "hidden_size", hidden, heads)?,
        };
        let config = Self {
            architecture,
            vocab_size: f.size("vocab_size", None, MAX_VOCAB)?,
            hidden,
            layers: f.size("num_hidden_layers", None, MAX_LAYERS)?,
            heads,
            kv_heads: f.size("num_key_value_heads", Some(heads), MAX_HEADS)?,
            head_dim,
            ffn: f.size("intermediate_size", None, MAX_FFN)?,
            rms_eps: f.float("rms_norm_eps", Some(1e-6), 0.0, 0.1)?,
            rope: f.rope()?,
            context: f.size("max_position_embeddings", Some(2048), MAX_CONTEXT)?,
            tied: f.flag("tie_word_embeddings")?,
            qk_norm: architecture == Architecture::Qwen3,
            attention_bias: false,
            eos: end_tokens(path, config, generation)?,
            bos: f.token_ids("bos_token_id")?.first().copied(),
        };
        config.check(path, &HF_NAMES)?;
        Ok(config)
    }

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
        let head_dim = if meta.has(&key("attention.key_length")) {
            size("attention.key_length", None, MAX_HEAD_DIM)?
        } else {
            exact_ratio(path, &key("embedding_length"), hidden, heads)?
        };
        for same in ["attention.value_length", "rope.dimension_count"] {
            if size(same, Some(head_dim), MAX_HEAD_DIM)? != head_dim {
                let rule = "only the width of a whole head is supported";
                let value = size(same, None, MAX_HEAD_DIM)?.to_string();
                return Err(field(
                    path,
                    key(same),
                    Problem::Inconsistent { value, rule },
                ));
            }
        }
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

const HF_NAMES: Names = Names {
    vocab: "vocab_size",
    heads: "num_attention_heads",
    kv_heads: "num_key_value_heads",
    head_dim: "head_dim",
    ffn: "intermediate_size",
    special: "eos_token_id or bos_token_id",
};

const GGUF_NAMES: Names = Names {
    vocab: "vocab_size",
    heads: "attention.head_count",
    kv_heads: "attention.head_count_kv",
    head_dim: "attention.key_length",
    ffn: "feed_forward_length",
    special: "tokenizer.ggml.eos_token_id or bos_token_id",
};

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

/// A JSON object with the file that it came from.
#[derive(Clone, Copy)]
struct Fields<'a> {
    path: &'a Path,
    object: &'a Value,
}

impl<'a> Fields<'a> {
    /// The value, unless it is absent or null.
    fn get(&self, name: &str) -> Option<&'a Value> {
        self.object.get(name).filter(|v| !v.is_null())
    }

    fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    fn fail<T>(&self, name: &str, problem: Problem) -> Result<T> {
        Err(field(self.path, name, problem))
    }

    fn size(&self, name: &str, default: Option<usize>, max: usize) -> Result<usize> {
        let Some(value) = self.get(name) else {
            return default.map_or_else(|| self.fail(name, Problem::Missing), Ok);
        };
        let Some(number) = value.as_u64() else {
            return self.fail(
                name,
                Problem::Type {
                    expected: "a non-negative integer",
                },
            );
        };
        in_range(self.path, name, number, max)
    }

    fn float(&self, name: &str, default: Option<f64>, above: f64, max: f64) -> Result<f32> {
        let value = match self.get(name) {
            Some(value) => value.as_f64(),
            None if default.is_none() => return self.fail(name, Problem::Missing),
            None => default,
        };
        let Some(value) = value else {
            return self.fail(
                name,
                Problem::Type {
                    expected: "a number",
                },
            );
        };
        positive(self.path, name, value, above, max)
    }

    fn flag(&self, name: &str) -> Result<bool> {
        match self.get(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => self.fail(
                name,
                Problem::Type {
                    expected: "true or false",
                },
            ),
        }
    }

    fn text(&self, name: &str) -> Result<Option<&'a str>> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => self.fail(
                name,
                Problem::Type {
                    expected: "a string",
                },
            ),
        }
    }

    /// One id or a list of ids.
    fn token_ids(&self, name: &str) -> Result<Vec<u32>> {
        let one = |value: &Value| match value.as_u64().map(u32::try_from) {
            Some(Ok(id)) => Ok(id),
            _ => self.fail(
                name,
                Problem::Type {
                    expected: "a token id or a list of them",
                },
            ),
        };
        match self.get(name) {
            None => Ok(Vec::new()),
            Some(Value::Array(list)) if list.len() <= 256 => list.iter().map(one).collect(),
            Some(value) => Ok(vec![one(value)?]),
        }
    }

    fn architecture(&self) -> Result<Architecture> {
        let architecture = match self.text("model_type")? {
            Some("llama") => Architecture::Llama,
            Some("qwen3") => Architecture::Qwen3,
            Some(other) => return Err(unsupported(self.path, "model_type", other)),
            None => return self.fail("model_type", Problem::Missing),
        };
        // A fine-tune with another head (a classifier, a reward model) has the same model_type.
        let expected = match architecture {
            Architecture::Llama => "LlamaForCausalLM",
            Architecture::Qwen3 => "Qwen3ForCausalLM",
        };
        if let Some(Value::Array(list)) = self.get("architectures")
            && let Some(other) = list.iter().find(|name| name.as_str() != Some(expected))
        {
            return Err(unsupported(self.path, "architectures", other.to_string()));
        }
        Ok(architecture)
    }

    /// Refuses every switch that would change the arithmetic in a way that is not implemented.
    fn refuse_unsupported(&self, architecture: Architecture) -> Result<()> {
        for name in [
            "attention_bias",
            "mlp_bias",
            "use_sliding_window",
            "attention_out_bias",
        ] {
            if self.flag(name)? {
                return Err(unsupported(self.path, name, "true"));
            }
        }
        // Qwen3's files carry a window with `use_sliding_window: false`; in a Llama file the key itself switches it on.
        if architecture == Architecture::Llama
            && !matches!(self.get("use_sliding_window"), Some(Value::Bool(false)))
            && let Some(window) = self.get("sliding_window")
        {
            return Err(unsupported(
                self.path,
                "sliding_window",
                format!("a window of {window}"),
            ));
        }
        if let Some(Value::Array(types)) = self.get("layer_types")
            && let Some(other) = types.iter().find(|t| t.as_str() != Some("full_attention"))
        {
            return Err(unsupported(self.path, "layer_types", other.to_string()));
        }
        match self.text("hidden_act")? {
            None | Some("silu" | "swish") => {}
            Some(other) => return Err(unsupported(self.path, "hidden_act", other)),
        }
        for name in ["quantization_config", "text_config", "no_rope_layers"] {
            if self.has(name) {
                return Err(unsupported(self.path, name, "a variant of the model"));
            }
        }
        for name in ["partial_rotary_factor", "pretraining_tp"] {
            if let Some(value) = self.get(name)
                && value.as_f64() != Some(1.0)
            {
                return Err(unsupported(self.path, name, value.to_string()));
            }
        }
        Ok(())
    }

    fn rope(&self) -> Result<Rope> {
        let within = |name: &'static str| match self.get(name) {
            None => Ok(None),
            Some(object) if object.is_object() => Ok(Some(Fields {
                path: self.path,
                object,
            })),
            Some(_) => self.fail(
                name,
                Problem::Type {
                    expected: "an object",
                },
            ),
        };
        let new = within("rope_parameters")?;
        let scaling = if new.is_some() {
            new
        } else {
            within("rope_scaling")?
        };
        let theta_from = new.filter(|f| f.has("rope_theta")).unwrap_or(*self);
        let theta = theta_from.float("rope_theta", Some(10_000.0), 1e-3, 1e15)?;
        let Some(scaling) = scaling else {
            return Ok(Rope {
                theta,
                scaling: RopeScaling::None,
            });
        };
        if let Some(factor) = scaling.get("partial_rotary_factor")
            && factor.as_f64() != Some(1.0)
        {
            return Err(unsupported(
                self.path,
                "partial_rotary_factor",
                factor.to_string(),
            ));
        }
        if let Some((name, _)) = scaling
            .object
            .as_object()
            .into_iter()
            .flatten()
            .find(|(_, v)| v.is_object())
        {
            let name = format!("rope_parameters.{name}");
            return Err(unsupported(
                self.path,
                &name,
                "a different rotation per layer type",
            ));
        }
        let kind = scaling
            .text("rope_type")?
            .or(scaling.text("type")?)
            .unwrap_or("default");
        let factor = || scaling.float("factor", None, 1e-6, 1e6);
        let scaling = match kind {
            "default" => RopeScaling::None,
            "linear" => RopeScaling::Linear { factor: factor()? },
            "llama3" => RopeScaling::Llama3 {
                factor: factor()?,
                low_freq_factor: scaling.float("low_freq_factor", None, 1e-6, 1e6)?,
                high_freq_factor: scaling.float("high_freq_factor", None, 1e-6, 1e6)?,
                original_context: scaling.size(
                    "original_max_position_embeddings",
                    None,
                    MAX_CONTEXT,
                )?,
            },
            other => return Err(unsupported(self.path, "rope_type", other)),
        };
        if let RopeScaling::Llama3 {
            low_freq_factor,
            high_freq_factor,
            ..
        } = scaling
            && high_freq_factor <= low_freq_factor
        {
            let rule = "it must be above low_freq_factor";
            let value = high_freq_factor.to_string();
            return self.fail("high_freq_factor", Problem::Inconsistent { value, rule });
        }
        Ok(Rope { theta, scaling })
    }
}

fn end_tokens(path: &Path, config: &Value, generation: Option<&Value>) -> Result<Vec<u32>> {
    let own = Fields {
        path,
        object: config,
    }
    .token_ids("eos_token_id")?;
    let listed = match generation {
        Some(object) => Fields { path, object }.token_ids("eos_token_id")?,
        None => Vec::new(),
    };
    let mut eos = Vec::new();
    for id in listed.into_iter().chain(own) {
        if !eos.contains(&id) {
            eos.push(id);
        }
    }
    Ok(eos)
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
fn llama3_from_factors(theta: f32, head_dim: usize, factors: &[f32]) -> Option<RopeScaling> {
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
fn llama3_factors(
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
