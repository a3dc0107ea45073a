//! Where a model computes: on this machine's cores, or on a GPU.
//!
//! Knows nothing of what is computed. Start at [`Placement`], which configurations and command lines spell; [`load`] puts a model there.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::Context as _;
use kernels::cuda::devices;
use policy::{Checkpoint, Dtype, Model, ModelConfig, Pool};
use serde::{Deserialize, Serialize};

/// `cpu`, `gpu`, `gpu:1`, or `auto`: a GPU where one can be used.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Placement {
    /// The cores.
    #[default]
    Cpu,
    /// The GPU of this number.
    Gpu(usize),
    /// The first GPU, or the cores when none can be used or the model does not run on it.
    Auto,
}

impl FromStr for Placement {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "cpu" => return Ok(Placement::Cpu),
            "gpu" => return Ok(Placement::Gpu(0)),
            "auto" => return Ok(Placement::Auto),
            _ => {}
        }
        text.strip_prefix("gpu:")
            .and_then(|number| number.parse().ok())
            .map(Placement::Gpu)
            .ok_or_else(|| {
                format!(
                    "`{text}` is no device: say cpu, gpu, gpu:1 (see `nextstate devices`) or auto"
                )
            })
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Placement::Cpu => write!(f, "cpu"),
            Placement::Gpu(number) => write!(f, "gpu:{number}"),
            Placement::Auto => write!(f, "auto"),
        }
    }
}

impl TryFrom<String> for Placement {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Placement> for String {
    fn from(placement: Placement) -> String {
        placement.to_string()
    }
}

/// Tokens whose keys and values a GPU must have room for, so that an engine never asks for a page that is not there: such a step fails, and
/// with it the requests of everybody who is in it.
///
/// The engine counts blocks of 32 tokens in f32, a page has 64; and whoever goes on from a page that others have gets one of his own.
pub fn tokens_of(engine: &serving::engine::Config, model: &ModelConfig) -> usize {
    let token = model.layers * model.kv_heads * model.head_dim * 2 * size_of::<f32>();
    let held = (engine.kv_bytes + engine.prefix_bytes) / (token as u64).max(1);
    let held = usize::try_from(held).unwrap_or(usize::MAX);
    held.saturating_mul(2)
        .saturating_add(engine.max_sequences.saturating_mul(128))
}

/// Loads a model where it is to compute. On a GPU weights are bf16, and there is room for the keys and values of `tokens` tokens.
///
/// # Errors
/// The files are damaged; there is no such GPU, its memory does not suffice, or no kernel is made for the model's sizes: with `auto` the
/// cores take over, and a warning says why.
pub fn load(
    checkpoint: &Checkpoint,
    (placement, tokens): (Placement, usize),
    dtype: Dtype,
    pool: Arc<Pool>,
) -> anyhow::Result<Model> {
    let gpu = match placement {
        Placement::Cpu => None,
        Placement::Gpu(number) => Some(number),
        Placement::Auto => devices::find().is_ok().then_some(0),
    };
    let Some(number) = gpu else {
        return Ok(Model::load(checkpoint, dtype, pool)?);
    };
    let model = Model::load_on_gpu(checkpoint, number, tokens, Arc::clone(&pool))
        .with_context(|| format!("put the model on GPU {number} (`nextstate devices` lists them)"));
    match model {
        Err(error) if placement == Placement::Auto => {
            tracing::warn!("computing on the cores: {error:#}");
            Ok(Model::load(checkpoint, dtype, pool)?)
        }
        model => model,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_has_a_page_for_every_block_that_an_engine_may_hold() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let model = Checkpoint::open(&path.join("../policy/fixtures/tiny-llama")).unwrap();
        let model = model.config;
        let token = (model.layers * model.kv_heads * model.head_dim * 8) as u64;
        let engine = |blocks: u64, prefixes: u64, max_sequences| serving::engine::Config {
            kv_bytes: blocks * 32 * token,
            prefix_bytes: prefixes * 32 * token,
            max_sequences,
            ..serving::engine::Config::default()
        };
        // Three sequences and two prefixes of a block each take a page each; a sequence that goes on needs another.
        let tokens = tokens_of(&engine(3, 2, 3), &model);
        assert!(tokens >= (3 + 2 + 3) * kernels::cuda::kv::PAGE, "{tokens}");
        assert_eq!(tokens_of(&engine(0, 0, 1), &model), 128);
    }

    #[test]
    fn a_device_is_spelled_as_it_is_shown() {
        for (text, placement) in [
            ("cpu", Placement::Cpu),
            ("auto", Placement::Auto),
            ("gpu:3", Placement::Gpu(3)),
        ] {
            assert_eq!(text.parse(), Ok(placement));
            assert_eq!(placement.to_string(), text);
        }
        assert_eq!("gpu".parse(), Ok(Placement::Gpu(0)));
        for wrong in ["", "gpu:", "gpu:-1", "cuda", "GPU"] {
            let said = wrong.parse::<Placement>().unwrap_err();
            assert!(said.contains("nextstate devices"), "{said}");
        }
    }
}
