//! `nextstate log`: the versions of the weights, with their lineage.

use super::history::Place;
use crate::history::{Request, Response, render};

/// List the versions of the weights with their parents, names, metrics and what the gate found, newest first.
///
/// Asks the running host; with `--data`, reads the data folder of a host that is not running.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Draw the line of versions and what branched off it
    #[arg(long)]
    pub graph: bool,
    /// At most so many versions
    #[arg(long, short = 'n', value_name = "N")]
    pub limit: Option<usize>,
    /// Where the history is; with --json, one JSON object a version
    #[command(flatten)]
    pub place: Place,
}

/// Runs the command.
///
/// # Errors
/// There is no ledger, another process holds it, or it is damaged.
pub fn run(args: Args) -> anyhow::Result<()> {
    let response = args.place.ask(Request::Log { limit: args.limit })?;
    let Response::Log(log) = &response else {
        anyhow::bail!(
            "the host answered something else than a log: are host and command of one version?"
        );
    };
    if args.place.json {
        for row in &log.versions {
            println!("{}", serde_json::to_string(row)?);
        }
    } else if args.graph {
        print!("{}", render::graph(log));
    } else {
        print!("{}", render::table(log));
    }
    Ok(())
}
