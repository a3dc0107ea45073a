//! Proves an erasure from outside: makes a ledger in which a user never was, trains on it from nothing, and prints the digest
//! of the adapter. `cargo run --release -p app --example counterfactual <data folder> <user> <new folder>`.
//!
//! The data folder is one from *before* `nextstate forget --user <user>`; the digest is the one that its manifest states.
#![expect(clippy::print_stdout, reason = "a command")]

use std::collections::HashSet;
use std::path::PathBuf;

use anyhow::Context as _;
use app::config::Config;
use app::host::Loaded;
use ledger::{Digest, Entry, Ledger, Options, Seq};
use loops::Line;
use loops::line::Step;
use loops::records::{self, JUDGED, RUN, RunRecord, TURN, TurnRecord};
use rl::{AdapterName, Batch, PolicyVersion};

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let mut next = |what| args.next().with_context(|| format!("give the {what}"));
    let (data, user) = (PathBuf::from(next("data folder")?), next("user")?);
    let to = PathBuf::from(next("new folder")?);
    let config: Config = serde_json::from_slice(&std::fs::read(data.join("config.json"))?)?;
    let from = Ledger::open(data.join("ledger"), Options::default())?;
    let (ledger, run) = without(&from, &user, Ledger::open(to, Options::default())?)?;

    let adapter: AdapterName = config.loops.adapter.clone();
    let loaded = Loaded::from_config(&config.model)?;
    let mut bench = app::training::bench(&loaded, &adapter)(&run)?;
    let mut line = Line::read(ledger, adapter, run.rules)?;
    let mut digest = String::from("the base model's: nothing was trained");
    while let Some(due) = line.due() {
        let samples = line.samples(&due)?;
        let proposal = bench.learner.step(&Batch { samples })?;
        digest = Digest::of(&proposal.adapter).to_string();
        let step = Step {
            proposal,
            seed: run.seed,
            gate: None,
        };
        let version = line.commit(&due, step)?;
        bench.learner.deploy(PolicyVersion::new(version.version))?;
        println!("v{}: adapter {digest}", version.version);
    }
    println!("{digest}");
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
        let kept = [TURN, JUDGED].contains(&&*record.kind) && !gone.contains(&record.subject);
        if kept && !record.erased {
            let entry = Entry::new(record.kind, record.subject, record.body);
            to.append(entry).wait()?;
        }
    }
    Ok((to, run.context("the ledger names no settings")?))
}
