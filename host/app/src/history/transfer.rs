//! Adapters out and in: `export` and `import`. Formats other than PEFT's are made where the command runs.

use anyhow::Context as _;
use loops::line::Imported;
use policy::peft;

use super::moves;
use super::request::Hex;
use super::response::{Export, Moved, Tell};
use super::workbench::Workbench;

pub(crate) fn export(bench: &Workbench, version: &str) -> anyhow::Result<Export> {
    let record = bench.version(&bench.lineage()?, version)?;
    let number = record.version;
    let bytes = bench.adapter_bytes(&record)?.with_context(|| {
        format!("v{number} has the weights of the base model: there is nothing to export")
    })?;
    let model = bench.config().model.name.clone();
    Ok(Export {
        version: number,
        config: peft::config_json(&model, bench.rank(&record), bench.alpha(&record)),
        model,
        weights: Hex(bytes),
    })
}

/// An adapter that somebody gives.
#[derive(Debug)]
pub(crate) struct Given<'a> {
    pub(crate) config: &'a str,
    pub(crate) weights: &'a [u8],
    pub(crate) from: &'a str,
}

pub(crate) fn import(
    bench: &Workbench,
    given: &Given<'_>,
    (branch, promote): (Option<&str>, bool),
    progress: &mut Tell<'_>,
) -> anyhow::Result<Moved> {
    if let Some(branch) = branch {
        super::names::check(branch)?;
    }
    let loaded = bench.loaded()?;
    // Read as every adapter folder is read: with all of its checks.
    let folder = tempfile::tempdir().context("failed to make a temporary folder")?;
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(folder.path().join(name), bytes)
            .with_context(|| format!("failed to write {name} into a temporary folder"))
    };
    write(peft::CONFIG, given.config.as_bytes())?;
    write(peft::WEIGHTS, given.weights)?;
    let adapter = peft::load(folder.path(), loaded.model.config()).with_context(|| {
        format!(
            "{} is not an adapter of the model {}",
            given.from, loaded.name
        )
    })?;
    let train = &bench.config().train;
    anyhow::ensure!(
        adapter.rank() == train.rank && adapter.alpha().to_bits() == train.alpha.to_bits(),
        "{} has rank {} and alpha {}, but this host trains rank {} and alpha {}: set [train] rank and alpha to serve it",
        given.from,
        adapter.rank(),
        adapter.alpha(),
        train.rank,
        train.alpha
    );
    // Weights that are here already keep their history: a copy without one would survive a request to forget.
    let digest = adapter.digest();
    let lineage = bench.lineage()?;
    let mut known = lineage.all().iter();
    if let Some(known) = known.find(|v| v.fingerprint() == Some(digest.as_str())) {
        anyhow::bail!(
            "{} has the weights of v{n}, which is here already: `nextstate promote v{n}` lets it answer",
            given.from,
            n = known.version
        );
    }
    let weights = Imported {
        adapter: adapter.to_safetensors()?,
        optimizer: trainer::fresh_optimizer(&adapter)?,
        adapter_digest: digest,
        from: given.from.to_owned(),
    };
    moves::import(bench, weights, (branch, promote), progress)
}
