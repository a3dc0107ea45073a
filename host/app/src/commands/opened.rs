//! A model opened for a command that runs it directly: `score`, `generate`, `train`.
//!
//! No server, no queue; the engine of `serve` is wired in [`crate::host`].

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use policy::local::Local;
use policy::{Adapter, Checkpoint, Deployed, Model, Slot, peft};
use rl::{AdapterName, PolicyVersion, Weights};

use crate::config::Dtype;
use crate::placement::{self, Placement};

/// Which model, and how it is run.
#[derive(Clone, Debug, clap::Args)]
pub struct ModelArgs {
    /// A Hugging Face folder, a .gguf file, or the name of a model in the cache (`nextstate model list`)
    #[arg(long, value_name = "PATH|NAME")]
    pub(super) model: String,
    /// Numbers in which the base weights are kept; f32 is exact, bf16 takes half the memory, q8 a quarter; bf16-pairs multiplies in bf16, too
    #[arg(long, value_enum, default_value_t = Dtype::Bf16)]
    pub(super) dtype: Dtype,
    /// Where it computes: cpu, gpu, gpu:1, or auto, a GPU where one can be used
    #[arg(long, value_name = "DEVICE", default_value_t)]
    pub(super) device: Placement,
    /// Compute threads; all cores by default. Never changes a result
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) threads: Option<u16>,
}

/// A model in memory and what turns text into its tokens.
#[derive(Debug)]
pub(super) struct Opened {
    /// The weights.
    pub(super) model: Arc<Model>,
    /// The same, as the loops see a policy.
    pub(super) policy: Local,
}

/// The line under which a command's `--adapter` is registered.
const ADAPTER: &str = "adapter";

impl ModelArgs {
    /// Loads the model, and the adapter when there is one; says which of both the replies come from.
    ///
    /// # Errors
    /// When the model is not there or damaged, or the adapter does not fit it.
    pub(super) fn open(&self, adapter: Option<&Path>) -> anyhow::Result<(Opened, Weights)> {
        let path = crate::models::resolve(&self.model)?;
        let checkpoint =
            Checkpoint::open(&path).with_context(|| format!("open the model {}", self.model))?;
        let threads = self
            .threads
            .map_or_else(kernels::Pool::default_threads, usize::from);
        let pool = Arc::new(kernels::Pool::new(threads)?);
        let place = (self.device, checkpoint.config.context.min(8192));
        let model = placement::load(&checkpoint, place, self.dtype.into(), pool)
            .with_context(|| format!("load the model {}", path.display()))?;
        let model = Arc::new(model);
        let tokenizer = checkpoint
            .tokenizer()
            .context("read the model's tokenizer")?;
        let template = checkpoint
            .template()
            .context("read the model's chat template")?;
        let mut policy = Local::new(&checkpoint.name, Arc::clone(&model), tokenizer, template);
        let mut weights = Weights::Base;
        if let Some(folder) = adapter {
            let adapter = load_adapter(&model, folder)?;
            let name = AdapterName::from(ADAPTER);
            let slot = Slot::new(Deployed {
                version: PolicyVersion::BASE,
                adapter: Some(Arc::new(adapter)),
            });
            policy = policy.with_adapter(name.clone(), Arc::new(slot));
            weights = Weights::Adapter(name);
        }
        Ok((Opened { model, policy }, weights))
    }
}

/// Reads a PEFT adapter folder for this model.
fn load_adapter(model: &Model, folder: &Path) -> anyhow::Result<Adapter> {
    peft::load(folder, model.config())
        .with_context(|| format!("load the adapter {}", folder.display()))
}

/// The adapter argument of `score` and `generate`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct AdapterArgs {
    /// A PEFT adapter folder (adapter_config.json, adapter_model.safetensors); without it the base model answers
    #[arg(long, value_name = "DIR")]
    pub(super) adapter: Option<PathBuf>,
}
