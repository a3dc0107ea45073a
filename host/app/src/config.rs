//! The whole configuration as one struct, parsed whole before anything starts; unknown keys are refused.
//!
//! Each section is the struct of the part that reads it, so a key's default and its documentation stand where
//! it is used. The resolved configuration is written as JSON beside the data.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::memory::Size;
use crate::placement::Placement;

/// `host.toml`, and the `run.toml` of every recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// The folder of the ledger and its blobs. One host at a time.
    pub data: PathBuf,
    /// Most memory that this process may hold, `"3GiB"` for example; none by default. What only saves time is made smaller to fit:
    /// kept prefixes, then versions and sequences at once, then kept activations, then what operators can have computed. When it still does not fit, the host does not start, and says what to change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Size>,
    /// Memory for a training pass's intermediate results; what does not fit is computed again, for a third more time at most.
    pub activation_bytes: u64,
    /// The base model.
    pub model: ModelSection,
    /// The HTTP side.
    pub gateway: serving::gateway::Config,
    /// Batching.
    pub engine: serving::engine::Config,
    /// The plugins.
    pub plugins: Plugins,
    /// What stands behind the capability `shell`: images, and how much a jailed machine may use.
    pub shell: sandbox::shell::Config,
    /// What stands behind the capability `browser`: sites, and how many pages there may be.
    pub browser: sandbox::browser::Config,
    /// What stands behind the capability `model`, by name: the models that simulated users speak by. None unless one is named.
    pub models: BTreeMap<String, crate::named_models::NamedModel>,
    /// What stands behind the capability `http`: the hosts that may be asked, and the secrets that they are asked with.
    pub http: sandbox::http::Config,
    /// How `nextstate rollout` practises.
    pub rollout: crate::rollout::Section,
    /// Sessions, votes, the algorithm, batches.
    pub loops: loops::Config,
    /// The optimizer.
    pub train: trainer::Config,
    /// Tenants that see the whole host: `status`, `log`. The others see which version answers. Without API keys everybody on
    /// this machine is an operator.
    pub operators: Vec<String>,
    /// Whether operators' requests may compute on this host, beside its users (blame, bisect, replay, diff, …): they need memory for versions and
    /// a learner of their own. Without, they are asked on a copy of its folder.
    pub operators_compute: bool,
    /// PEFT adapter folders that are served and never trained, by name: ask for `<base>:<name>`.
    pub adapters: BTreeMap<String, PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data: PathBuf::from("nextstate-data"),
            memory: None,
            activation_bytes: ACTIVATION_BYTES,
            model: ModelSection::default(),
            gateway: serving::gateway::Config::default(),
            engine: serving::engine::Config::default(),
            plugins: Plugins::default(),
            shell: sandbox::shell::Config::default(),
            browser: sandbox::browser::Config::default(),
            models: BTreeMap::new(),
            http: sandbox::http::Config::default(),
            rollout: crate::rollout::Section::default(),
            loops: loops::Config::default(),
            train: trainer::Config::default(),
            operators: Vec::new(),
            operators_compute: true,
            adapters: BTreeMap::new(),
        }
    }
}

/// A quarter of a thousand rows of a model of 135 million parameters: a longer pack of samples is computed again.
const ACTIVATION_BYTES: u64 = 256 << 20;

/// `[model]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ModelSection {
    /// A name known to `nextstate model`, or a path to a Hugging Face folder or a GGUF file.
    pub name: String,
    /// `bf16` halves the memory of the base weights, `q8` halves it again; `f32` keeps every bit of the file, `q8` those of a `Q8_0` file. `bf16-pairs`
    /// is `bf16`, and what is multiplied with weights is rounded to it: twice as fast where the processor has an instruction for it (AVX-512 BF16).
    pub dtype: Dtype,
    /// Compute threads; 0 takes what the machine has.
    pub threads: usize,
    /// Where it computes: `cpu`, `gpu`, `gpu:1`, or `auto`, a GPU where one can be used. On a GPU weights are bf16 whatever `dtype` says; its
    /// results are its own, not the CPU's bits.
    pub device: Placement,
    /// Tokens whose keys and values a GPU has room for; a host takes at least what its `[engine]` may hold.
    pub gpu_tokens: usize,
}

impl Default for ModelSection {
    fn default() -> Self {
        // The smallest model that answers in sentences: the demo must fit a laptop.
        Self {
            name: "smollm2-135m-instruct".into(),
            dtype: Dtype::Bf16,
            threads: 0,
            device: Placement::Cpu,
            gpu_tokens: 1 << 16,
        }
    }
}

/// How the base weights are kept in memory. Everything is computed in f32 but for what `bf16-pairs` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Dtype {
    /// 16 bits, the exponent of f32.
    Bf16,
    /// 32 bits.
    F32,
    /// 8 bits and a scale for each 32 weights, as GGUF's `Q8_0`.
    Q8,
    /// 16 bits, multiplied with inputs rounded to 16 bits, two terms of a sum at a time.
    Bf16Pairs,
}

impl From<Dtype> for policy::Dtype {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::Bf16 => policy::Dtype::Bf16,
            Dtype::F32 => policy::Dtype::F32,
            Dtype::Q8 => policy::Dtype::Q8,
            Dtype::Bf16Pairs => policy::Dtype::Bf16Pairs,
        }
    }
}

/// Less than the code of a few plugins in Rust is not meant: they would take turns.
const LEAST_CACHE_BYTES: u64 = 1 << 20;

/// `[plugins]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Plugins {
    /// Reads live traffic and hosts episodes. A shipped guest by name, or a folder with `plugin.toml` and
    /// `plugin.wasm`.
    pub environment: String,
    /// Judges turns. `words` is the native word-list judge, for models too small to judge; with `none` nobody is asked, for reward
    /// rules that go by outcomes alone.
    pub judge: String,
    /// Makes rewards of votes.
    pub reward: String,
    /// Whether a plugin that changes (a folder built again, another version installed or in use) takes the old one's place at the next
    /// turn. A plugin named with its version stays as it is.
    pub reload: bool,
    /// What stands between plugins and the host, and between one plugin and another: `wasm`, or `process`, where each plugin runs in a sealed
    /// process of its own as well. For plugins of people who do not trust each other; a call takes some 40 µs longer.
    pub isolation: Isolation,
    /// How much those processes may use.
    pub workers: worker::Config,
    /// Whether compiled plugins are kept for the next start, under `~/.cache/nextstate` (`NEXTSTATE_CACHE`): without, one in Python takes
    /// half a minute each time. Only code that this user's hosts wrote is loaded.
    pub cache: bool,
    /// Most bytes that are kept; what was not used for longest goes first.
    pub cache_bytes: u64,
    /// Capabilities granted, by plugin name, beside those of the shipped plugins; `conversation = []` takes theirs away. No other
    /// plugin has any by default. What a plugin keeps in its `store` lies in the ledger, for each tenant apart, and needs no section of its own.
    #[serde(deserialize_with = "beside_the_shipped")]
    pub grants: BTreeMap<String, Vec<String>>,
    /// Each plugin's own section, checked against the schema in its manifest.
    pub config: BTreeMap<String, toml::Table>,
}

/// What stands between a plugin and everything else.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// WebAssembly.
    #[default]
    Wasm,
    /// WebAssembly, and a process that has given up everything but computing.
    Process,
}

/// Granting something to one's own plugin takes nothing from the shipped ones.
fn beside_the_shipped<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, Vec<String>>, D::Error> {
    let mut grants = Plugins::default().grants;
    grants.extend(BTreeMap::deserialize(deserializer)?);
    Ok(grants)
}

impl Default for Plugins {
    fn default() -> Self {
        let grant = |plugin: &str, capabilities: &[&str]| {
            (
                plugin.to_owned(),
                capabilities.iter().map(|c| (*c).to_owned()).collect(),
            )
        };
        Self {
            environment: "conversation".into(),
            judge: "reaction-judge".into(),
            reward: "combined-reward".into(),
            reload: true,
            isolation: Isolation::Wasm,
            workers: worker::Config::default(),
            cache: true,
            cache_bytes: crate::compiled::MOST_BYTES,
            // The shipped guests ask for nothing that reaches outside: `model` reaches what `[models]` names, and that is nothing
            // unless the operator names it. He may still take it away.
            grants: BTreeMap::from([
                grant("conversation", &["config", "model"]),
                grant("reaction-judge", &["random", "config"]),
                grant("binary-reward", &["config"]),
                grant("combined-reward", &["config"]),
                grant("outcome-reward", &["config"]),
                grant("step-wise-reward", &["config"]),
                grant("grpo-reward", &["config"]),
                grant("dr-grpo-reward", &["config"]),
                grant("rloo-reward", &["config"]),
                grant("length-guarded-reward", &["config"]),
                grant("step-judge", &["random", "config"]),
                grant("tool-call", &["config"]),
            ]),
            config: BTreeMap::new(),
        }
    }
}

impl Config {
    /// Reads a file. A relative `data` folder is taken from where the command runs.
    ///
    /// # Errors
    /// The file that cannot be read, or the key that is unknown, of another type or out of range.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("failed to read the configuration {}", path.display()))?;
        Self::parse(&text)
            .with_context(|| format!("failed to use the configuration {}", path.display()))
    }

    /// Parses and checks a configuration.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let config: Self = toml::from_str(text)?;
        config.validate()?;
        Ok(config)
    }

    /// Checks every range, before anything starts.
    ///
    /// # Errors
    /// The first key that is out of range.
    pub fn validate(&self) -> anyhow::Result<()> {
        self.gateway.validate().context("[gateway]")?;
        self.engine.validate().context("[engine]")?;
        self.shell.validate().context("[shell]")?;
        self.browser.validate().context("[browser]")?;
        for (name, model) in &self.models {
            model
                .validate()
                .with_context(|| format!("[models.{name}]"))?;
        }
        self.http.validate().context("[http]")?;
        let workers = &self.plugins.workers;
        workers.validate().context("[plugins.workers]")?;
        anyhow::ensure!(
            self.plugins.cache_bytes >= LEAST_CACHE_BYTES,
            "[plugins]: `cache-bytes` may be {LEAST_CACHE_BYTES} or more; with `cache = false` nothing is kept"
        );
        self.rollout.validate().context("[rollout]")?;
        self.loops.validate().context("[loops]")?;
        self.train.validate().context("[train]")?;
        let trained = self.loops.adapter.as_str();
        anyhow::ensure!(
            !self.adapters.contains_key(trained),
            "[adapters]: `{trained}` is the adapter that is trained; give the static one another name"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_configuration_is_a_host_on_loopback_with_the_small_model() {
        let config = Config::parse("").unwrap();
        assert_eq!(config, Config::default());
        assert!(config.gateway.listen.ip().is_loopback());
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        for text in [
            "[train]\nlearning-rate = 1.0",
            "[loops.judge]\nvote = 3",
            "[modle]\n",
        ] {
            let error = format!("{:#}", Config::parse(text).unwrap_err());
            let key = ["learning-rate", "vote", "modle"]
                .into_iter()
                .find(|key| error.contains(key));
            assert!(key.is_some(), "{error}");
        }
    }

    #[test]
    fn a_grant_to_one_plugin_takes_nothing_from_another() {
        let text = "[plugins.grants]\nmine = [\"random\"]\nreaction-judge = []";
        let grants = Config::parse(text).unwrap().plugins.grants;
        assert_eq!(grants["mine"], ["random"]);
        assert_eq!(grants["conversation"], ["config", "model"]);
        assert!(grants["reaction-judge"].is_empty());
    }

    #[test]
    fn a_number_out_of_range_is_refused_with_its_section() {
        let error = format!(
            "{:#}",
            Config::parse("[loops.judge]\nvotes = 0").unwrap_err()
        );
        assert!(
            error.contains("[loops]") && error.contains("votes"),
            "{error}"
        );
        let error = format!(
            "{:#}",
            Config::parse("[gateway]\nlisten = \"0.0.0.0:80\"").unwrap_err()
        );
        assert!(
            error.contains("[gateway]") && error.contains("key"),
            "{error}"
        );
        let error = Config::parse("[plugins]\ncache-bytes = 0").unwrap_err();
        assert!(error.to_string().contains("cache = false"), "{error}");
    }

    #[test]
    fn a_resolved_configuration_can_be_read_again() {
        let config = Config::default();
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<Config>(&json).unwrap(), config);
        let text = toml::to_string(&config).unwrap();
        assert_eq!(Config::parse(&text).unwrap(), config);
    }
}
