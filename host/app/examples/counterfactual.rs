//! Proves an erasure from outside: makes a ledger in which a user never was, trains on it from nothing, and prints the digest
//! of the adapter. `cargo run --release -p app --example counterfactual <data folder> <user> <new folder>`.
//!
//! The data folder is one from *before* `nextstate forget --user <user>`; the digest is the one that its manifest states.
#![expect(clippy::print_stdout, reason = "a command")]

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::path::PathBuf;

use anyhow::Context as _;
use app::config::Config;
use app::host::Loaded;
use ledger::{Digest, Entry, Ledger, Seq};
use loops::Line;
use loops::records::{self, JUDGED, RUN, RunRecord, TURN, TurnRecord};
use loops::replay::{Options, replay};
use rl::AdapterName;

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let mut next = |what| args.next().with_context(|| format!("give the {what}"));
    let (data, user) = (PathBuf::from(next("data folder")?), next("user")?);
    let to = PathBuf::from(next("new folder")?);
    let config: Config = serde_json::from_slice(&std::fs::read(data.join("config.json"))?)?;
    let from = Ledger::open(data.join("ledger"), ledger::Options::default())?;
    let to = Ledger::open(to, ledger::Options::default())?;
    let (ledger, run) = without(&from, &user, to)?;

    let adapter: AdapterName = config.loops.adapter.clone();
    let loaded = Loaded::from_config(&config.model)?;
    let bench = app::training::bench(&loaded, &adapter);
    let line = Line::read(ledger, adapter, run.rules)?;
    let options = Options {
        gate: config.loops.gate,
        ..Options::default()
    };
    let tell = |what: &str, done, _: u64| {
        println!("{what}: {done}");
        ControlFlow::Continue(())
    };
    let trained = replay(&line, &bench, options, &tell)?;
    match trained.adapter {
        Some(adapter) => println!("{}", Digest::of(&adapter)),
        None => println!("the base model: nothing was trained"),
    }
    Ok(())
}

/// The settings and what everybody else said, in order.
fn without(from: &Ledger, user: &str, to: Ledger) -> anyhow::Result<(Ledger, RunRecord)> {
    let mut gone = HashSet::new();
    let mut run = None;
    for record in from.scan(Seq::FIRST) {
        let record = record?;
        if record.kind == TURN && !record.erased {
            let turn: TurnRecord = records::decode(&record)?;
            if turn.turn.user.as_deref() == Some(user) {
                gone.insert(record.subject.clone());
            }
        }
        if record.kind == RUN {
            run = Some(records::decode::<RunRecord>(&record)?);
        }
        let kept = [TURN, JUDGED, RUN].contains(&&*record.kind) && !gone.contains(&record.subject);
        if kept && !record.erased {
            let entry = Entry::new(record.kind, record.subject, record.body);
            to.append(entry).wait()?;
        }
    }
    Ok((to, run.context("the ledger names no settings")?))
}
