//! `ledger verify` and `ledger repair`: every byte checked, the invariants counted, what is sound copied.
//!
//! Verifying opens nothing that could change: it works on a folder that a host has open, and on a damaged one.

use std::path::Path;

use anyhow::Context as _;

use super::moves;
use super::response::{Invariant, Progress, Repaired, Verify};
use super::workbench::Workbench;

pub(crate) fn verify(
    bench: &Workbench,
    with_replay: bool,
    progress: &mut dyn FnMut(Progress),
) -> anyhow::Result<Verify> {
    let folder = bench.folder();
    progress(Progress {
        what: "checking every byte".into(),
        done: 0,
        total: 0,
    });
    let report = ledger::verify(folder)
        .with_context(|| format!("failed to examine the ledger {}", folder.display()))?;
    let damage = report.damage.iter();
    let mut found = Verify {
        sound: report.is_sound(),
        records: report.records,
        blobs: report.blobs,
        versions: report.versions,
        hash: report.hash.map(|hash| hash.to_string()),
        damage: damage
            .map(|damage| (damage.place.clone(), causes(&damage.error)))
            .collect(),
        invariants: Vec::new(),
        replay: None,
    };
    if !found.sound {
        // What cannot be read cannot be counted.
        return Ok(found);
    }
    match bench.ledger() {
        Ok(ledger) => {
            let audit = loops::audit::audit(ledger, &bench.config().loops.adapter)?;
            found.sound &= audit.is_sound();
            found.invariants = audit
                .checks
                .into_iter()
                .map(|check| Invariant {
                    name: check.id,
                    says: check.rule,
                    cases: check.checked,
                    violated: check.violated,
                    broken: check.violations,
                })
                .collect();
        }
        // The bytes could be checked; the rest needs the folder to oneself, or the host.
        Err(error) if !with_replay => {
            found
                .damage
                .push(("invariants".into(), format!("not looked at: {error:#}")));
        }
        Err(error) => return Err(error),
    }
    if with_replay {
        let replay = moves::replay(bench, None, progress)?;
        found.sound &= replay.exact;
        found.replay = Some(replay);
    }
    Ok(found)
}

pub(crate) fn repair(bench: &Workbench, to: &Path) -> anyhow::Result<Repaired> {
    anyhow::bail!(
        "repairing {} into {} is not there yet",
        bench.folder().display(),
        to.display()
    )
}

fn causes(error: &ledger::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(source) = cause {
        text.push_str(": ");
        text.push_str(&source.to_string());
        cause = source.source();
    }
    text
}
