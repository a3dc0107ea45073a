//! `nextstate export` and `nextstate import`: adapters as folders of PEFT, whole models as folders or files.
//!
//! The host gives and takes adapters only. A whole model is made here, where its base model is.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use policy::{Adapter, Checkpoint, peft};

use super::place::{Place, say};
use crate::history::{Export, Hex, Request, Response};

/// What an export is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// An adapter folder for PEFT: adapter_config.json, adapter_model.safetensors
    Peft,
    /// The whole model, the adapter merged into it, as a Hugging Face folder in BF16
    Safetensors,
    /// The whole model as a GGUF file like the base model's, the adapted matrices in BF16
    Gguf,
}

/// Writes a version's weights to files.
#[derive(Debug, clap::Args)]
pub struct ExportArgs {
    /// The version: 7, v7, head, a name, or the first digits of a hash
    #[arg(default_value = "head")]
    version: String,
    /// As what
    #[arg(long, value_enum, default_value_t = Format::Peft)]
    format: Format,
    /// The folder or file to write; it must not be there yet
    #[arg(long, value_name = "PATH")]
    out: PathBuf,
    /// For whole models: the base model that the adapter belongs to, when it is not here under the name that the host uses
    #[arg(long, value_name = "PATH|NAME")]
    base: Option<String>,
    #[command(flatten)]
    place: Place,
}

/// Runs `nextstate export`.
///
/// # Errors
/// As [`crate::history::run`]; something is in the way; the file system's.
pub fn export(args: ExportArgs) -> anyhow::Result<()> {
    let out = &args.out;
    anyhow::ensure!(
        !out.exists(),
        "{} is there already; name another --out",
        out.display()
    );
    let response = args.place.ask(Request::Export {
        version: args.version,
    })?;
    let Response::Export(export) = response else {
        anyhow::bail!(
            "the host answered something else than an adapter: are host and command of one version?"
        );
    };
    match args.format {
        Format::Peft => write_peft(out, &export)?,
        Format::Safetensors | Format::Gguf => {
            let given = args.base.as_deref().or(args.place.model.as_deref());
            let bar = progress_bar(args.place.json);
            write_whole(args.format, out, &export, given, &bar)?;
            bar.finish_and_clear();
        }
    }
    if args.place.json {
        let said =
            serde_json::json!({"version": export.version, "out": out, "model": export.model});
        say(&format!("{said}\n"))
    } else {
        say(&format!(
            "v{} written to {}\n",
            export.version,
            out.display()
        ))
    }
}

/// Writes a folder beside the place and then moves it there, so that a half-written one is never taken for an adapter.
fn write_peft(out: &Path, export: &Export) -> anyhow::Result<()> {
    let parent = out.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent)
        .with_context(|| format!("failed to create {}", parent.display()))?;
    let part = tempfile::tempdir_in(parent)
        .with_context(|| format!("failed to make a folder in {}", parent.display()))?;
    for (name, bytes) in [
        (peft::CONFIG, export.config.as_bytes()),
        (peft::WEIGHTS, export.weights.0.as_slice()),
    ] {
        let path = part.path().join(name);
        std::fs::write(&path, bytes)
            .with_context(|| format!("failed to write {}", path.display()))?;
    }
    let part = part.keep();
    std::fs::rename(&part, out).with_context(|| format!("failed to write {}", out.display()))
}

/// Merges the adapter into its base model, of which only the sizes can be checked.
fn write_whole(
    format: Format,
    out: &Path,
    export: &Export,
    base: Option<&str>,
    bar: &ProgressBar,
) -> anyhow::Result<()> {
    let name = base.unwrap_or(&export.model);
    let base = crate::models::resolve(name)
        .and_then(|path| Ok(Checkpoint::open(&path)?))
        .with_context(|| {
            format!(
                "the base model `{name}` is needed to write a whole model; --base PATH says where else it is"
            )
        })?;
    let settings = serde_json::from_str(&export.config)
        .with_context(|| format!("the host's {} is not JSON", peft::CONFIG))?;
    let settings = peft::parse_config(&settings, Path::new(peft::CONFIG))?;
    let version = export.version;
    let adapter = Adapter::from_safetensors(&export.weights.0, &base.config, settings.alpha)
        .with_context(|| {
            format!("the adapter of v{version} does not fit the model {name}; --base says which it was trained on")
        })?;
    let progress = |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    };
    let written = if format == Format::Gguf {
        policy::export::merged_gguf(&base, &adapter, out, &progress)
    } else {
        policy::export::merged_safetensors(&base, &adapter, out, &progress)
    };
    written.with_context(|| format!("failed to write v{version} to {}", out.display()))
}

/// On standard error; nothing for programs and where that is not a terminal.
fn progress_bar(quiet: bool) -> ProgressBar {
    if quiet {
        return ProgressBar::hidden();
    }
    let template = "merging {wide_bar} {bytes}/{total_bytes} eta {eta}";
    // The template is a constant, and without it the bar has its default look.
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(0).with_style(style)
}

/// Takes an adapter folder of PEFT in as a version.
#[derive(Debug, clap::Args)]
pub struct ImportArgs {
    /// The folder: adapter_config.json, adapter_model.safetensors
    folder: PathBuf,
    /// A branch that shall point to the new version
    #[arg(long, value_name = "NAME")]
    branch: Option<String>,
    /// Let it answer at once
    #[arg(long)]
    promote: bool,
    #[command(flatten)]
    place: Place,
}

/// Runs `nextstate import`.
///
/// # Errors
/// As [`crate::history::run`]; the folder cannot be read.
pub fn import(args: ImportArgs) -> anyhow::Result<()> {
    let read = |name: &str| {
        let path = args.folder.join(name);
        std::fs::read(&path).with_context(|| {
            format!(
                "failed to read {}: an adapter folder of PEFT has it",
                path.display()
            )
        })
    };
    let config = String::from_utf8(read(peft::CONFIG)?)
        .with_context(|| format!("{} is not text", peft::CONFIG))?;
    let response = args.place.ask(Request::Import {
        config,
        weights: Hex(read(peft::WEIGHTS)?),
        from: args.folder.display().to_string(),
        branch: args.branch,
        promote: args.promote,
    })?;
    args.place.show(&response)
}
