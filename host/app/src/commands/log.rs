//! `nextstate log`: the versions of the weights, with their lineage.

use std::path::PathBuf;

use anyhow::Context as _;
use comfy_table::{CellAlignment, Table, presets};
use ledger::lineage::{Lineage, VersionRecord};

use super::remote::Remote;

/// List the versions of the weights with their lineage and metrics, newest first.
///
/// Asks the running host; with `--data`, reads the data folder of a host that is not running.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Read this data folder instead of asking a running host
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// One JSON object a version
    #[arg(long)]
    pub json: bool,
    /// The host
    #[command(flatten)]
    pub remote: Remote,
}

/// Runs the command.
///
/// # Errors
/// There is no ledger, another process holds it, or it is damaged.
pub fn run(args: Args) -> anyhow::Result<()> {
    let versions = match &args.data {
        Some(data) => read(data)?,
        None => serde_json::from_value(args.remote.get("/v1/status")?["versions"].take()).context(
            "the host's versions have another shape: are host and command of one version?",
        )?,
    };
    if args.json {
        for version in versions.iter().rev() {
            println!("{}", serde_json::to_string(version)?);
        }
        return Ok(());
    }
    if versions.is_empty() {
        println!("no version yet: the weights on disk (v0) answer");
        return Ok(());
    }
    println!("{}", table(&versions));
    Ok(())
}

/// The versions in a data folder, oldest first.
///
/// # Errors
/// As [`run`].
pub fn read(data: &std::path::Path) -> anyhow::Result<Vec<VersionRecord>> {
    let folder = data.join("ledger");
    anyhow::ensure!(
        folder.is_dir(),
        "there is no ledger in {}: `nextstate serve` or `nextstate demo` makes one",
        data.display()
    );
    let ledger = ledger::Ledger::open(&folder, ledger::Options::default())
        .with_context(|| format!("failed to open the ledger in {}", folder.display()))?;
    Ok(Lineage::read(&ledger)?.all().to_vec())
}

fn table(versions: &[VersionRecord]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "version",
        "parent",
        "samples",
        "tokens",
        "loss",
        "KL",
        "grad norm",
        "ratio max",
        "seconds",
        "hash",
    ]);
    let short = |digest: &ledger::Digest| digest.to_string().chars().take(10).collect::<String>();
    for version in versions.iter().rev() {
        let metric = |name: &str, decimals: usize| {
            version
                .metrics
                .get(name)
                .map_or_else(|| "–".to_owned(), |x| format!("{x:.decimals$}"))
        };
        table.add_row([
            format!("{}:v{}", version.adapter, version.version),
            version
                .parent
                .as_ref()
                .map_or_else(|| "base".to_owned(), short),
            version.samples.len().to_string(),
            metric("tokens", 0),
            metric("loss", 4),
            metric("kl", 4),
            metric("grad_norm", 3),
            metric("ratio_max", 3),
            metric("seconds", 1),
            short(&version.hash()),
        ]);
    }
    for column in table.column_iter_mut().skip(2).take(7) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
