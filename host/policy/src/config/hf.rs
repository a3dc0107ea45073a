//! `config.json` and `generation_config.json` of a Hugging Face folder to a [`ModelConfig`].
//!
//! Reads JSON values, not files. Every switch that would change the arithmetic and is not implemented is refused here.

use std::path::Path;

use serde_json::Value;

use super::*;

const HF_NAMES: Names = Names {
    vocab: "vocab_size",
    heads: "num_attention_heads",
    kv_heads: "num_key_value_heads",
    head_dim: "head_dim",
    ffn: "intermediate_size",
    special: "eos_token_id or bos_token_id",
};

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
        let scaling = scaling.rope_scaling()?;
        Ok(Rope { theta, scaling })
    }

    /// The scaling that this object (`rope_parameters`, `rope_scaling`) describes.
    fn rope_scaling(&self) -> Result<RopeScaling> {
        let kind = self
            .text("rope_type")?
            .or(self.text("type")?)
            .unwrap_or("default");
        let factor = || self.float("factor", None, 1e-6, 1e6);
        let scaling = match kind {
            "default" => RopeScaling::None,
            "linear" => RopeScaling::Linear { factor: factor()? },
            "llama3" => RopeScaling::Llama3 {
                factor: factor()?,
                low_freq_factor: self.float("low_freq_factor", None, 1e-6, 1e6)?,
                high_freq_factor: self.float("high_freq_factor", None, 1e-6, 1e6)?,
                original_context: self.size(
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
        Ok(scaling)
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
