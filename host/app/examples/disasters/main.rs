//! Injects disasters into a host with the real model and measures what stops each of them, how soon, and what users got meanwhile.
//!
//! `cargo run --release -p app --example disasters [name…] [--interactions N] [--json]`. Ends with an error when a disaster was
//! not stopped, so it is a test on demand; it needs the demo's model in the cache. Start at [`catalogue`]; the host and its users
//! are in [`stage`], what is put around the seams in [`seams`], and what the ledger says afterwards in [`findings`].
#![expect(clippy::print_stdout, reason = "a command")]

mod catalogue;
mod colluder;
mod findings;
mod seams;
mod stage;

use anyhow::Context as _;
use app::config::ModelSection;
use app::host::Loaded;
use clap::Parser;
use comfy_table::{ContentArrangement, Table, presets};

use catalogue::{ALL, Disaster};
use findings::Report;

/// Columns of the table: sentences wrap.
const WIDTH: u16 = 120;

/// Injects disasters into a host with the real model.
#[derive(Debug, Parser)]
struct Args {
    /// Which ones; all of them when none is named
    names: Vec<String>,
    /// Messages of users before the disaster
    #[arg(long, default_value_t = 8)]
    from: usize,
    /// Messages of users from its injection on
    #[arg(long, default_value_t = 12)]
    interactions: usize,
    /// Held-out questions in each exam
    #[arg(long, default_value_t = 8)]
    questions: usize,
    /// The seed of every run
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The base model: a name known to `nextstate model`, or a path
    #[arg(long, default_value = "smollm2-135m-instruct")]
    model: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let chosen = chosen(&args.names)?;
    let loaded = Loaded::from_config(&ModelSection {
        name: args.model.clone(),
        ..ModelSection::default()
    })?;
    let plan = stage::Plan {
        from: args.from,
        interactions: args.interactions,
        questions: args.questions,
        seed: args.seed,
        model: args.model,
    };
    let runtime = app::commands::serve::runtime()?;
    let mut reports = Vec::new();
    for disaster in chosen {
        let run = catalogue::run(disaster, &plan, loaded.clone());
        let report = runtime
            .block_on(run)
            .with_context(|| format!("failed to play `{}`", disaster.name))?;
        if !args.json {
            println!("{}\n", table(&report));
        }
        reports.push(report);
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&reports)?);
    }
    let failed: Vec<&str> = reports
        .iter()
        .filter(|report| !report.failures.is_empty())
        .map(|report| report.disaster)
        .collect();
    anyhow::ensure!(failed.is_empty(), "not stopped: {}", failed.join(", "));
    Ok(())
}

fn chosen(names: &[String]) -> anyhow::Result<Vec<&'static Disaster>> {
    if names.is_empty() {
        return Ok(ALL.iter().collect());
    }
    let find = |name: &String| {
        let known = || ALL.map(|disaster| disaster.name).join(", ");
        ALL.iter()
            .find(|disaster| disaster.name == name)
            .with_context(|| format!("there is no disaster `{name}`: {}", known()))
    };
    names.iter().map(find).collect()
}

fn table(report: &Report) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(WIDTH);
    table.set_header([report.disaster, report.what]);
    for (name, value) in report.rows() {
        table.add_row([name.to_owned(), value]);
    }
    table
}
