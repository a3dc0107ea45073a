//! `nextstate log`: the versions of the weights, with their lineage.

use super::place::{Place, say};
use crate::history::{Request, Response, Row, render};

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
        let mut lines = String::new();
        for row in &log.versions {
            lines.push_str(&flat(row)?.to_string());
            lines.push('\n');
        }
        say(&lines)
    } else if args.graph {
        say(&render::graph(log))
    } else {
        say(&render::table(log))
    }
}

/// A version's record with what else is known about it beside its fields.
fn flat(row: &Row) -> anyhow::Result<serde_json::Value> {
    let mut more = serde_json::to_value(row)?;
    let mut flat = more["record"].take();
    if let (Some(flat), serde_json::Value::Object(more)) = (flat.as_object_mut(), more) {
        for (name, value) in more {
            // The record's own `parent` is a hash.
            let name = match name.as_str() {
                "record" => continue,
                "parent" => "parent_version".to_owned(),
                _ => name,
            };
            flat.insert(name, value);
        }
    }
    Ok(flat)
}
