//! `nextstate plugin replay`: recorded episodes, played to another build of the plugin.

use std::path::PathBuf;

use anyhow::ensure;
use plugin::{GuestEnvironment, Manifest};
use rl::Seed;
use serde_json::Value;

use super::crossings::{self, Parting};
use super::source::{Source, section};
use crate::compiled;

/// `nextstate plugin replay`
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Record with: nextstate rollout --config RECIPE --record DIR")]
pub struct ReplayArgs {
    /// A folder, or the name of a shipped or installed environment
    pub plugin: String,
    /// Recordings: files, or folders of them
    #[arg(required = true)]
    pub recordings: Vec<PathBuf>,
    /// A key of its config, as in the recipe that was recorded: --set difficulty=1
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

pub(super) fn run(args: &ReplayArgs) -> anyhow::Result<()> {
    let source = Source::find(&args.plugin)?;
    let host = compiled::host(crossings::offers_of_a_replay())?;
    let grants = Manifest::parse(&source.manifest)?.capabilities;
    let plugin = source.load(&host, &grants, &section(&args.set)?)?;
    // Live traffic is not replayed, and nothing else depends on this seed.
    let environment = GuestEnvironment::new(&plugin, Seed::default())?;
    let files = files(&args.recordings)?;
    let mut parted = 0;
    for file in &files {
        let crossings = crossings::read(file)?;
        match crossings::replay(&environment, &crossings)? {
            None => println!("{}: {} calls, the same", file.display(), crossings.len()),
            Some(parting) => {
                parted += 1;
                println!("{}: {}", file.display(), said(&parting));
            }
        }
    }
    ensure!(
        parted == 0,
        "{} answers {parted} of {} episodes otherwise than they were recorded",
        plugin.name(),
        files.len()
    );
    println!("{}: {} episodes, all the same", plugin.name(), files.len());
    Ok(())
}

fn said(parting: &Parting) -> String {
    let shown = |answer: &Result<Value, String>| match answer {
        Ok(value) => value.to_string(),
        Err(why) => format!("failed: {why}"),
    };
    format!(
        "line {}, {}\n  recorded  {}\n  now       {}",
        parting.line,
        parting.call,
        shown(&parting.recorded),
        shown(&parting.now)
    )
}

fn files(given: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in given {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let mut inside = Vec::new();
        for entry in std::fs::read_dir(path)? {
            let path = entry?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "jsonl")
            {
                inside.push(path);
            }
        }
        inside.sort();
        files.append(&mut inside);
    }
    ensure!(
        !files.is_empty(),
        "there is no recording (*.jsonl) in what was given"
    );
    Ok(files)
}
