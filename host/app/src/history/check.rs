//! `ledger verify` and `ledger repair`: every byte checked, the invariants counted, what is sound copied.
//!
//! Verifying opens nothing that could change: it works on a folder that a host has open, and on a damaged one.

use std::collections::HashSet;
use std::path::Path;

use anyhow::Context as _;
use ledger::lineage::Lineage;
use ledger::{Digest, Ledger, Report, Seq};
use loops::records::{self, FORGOTTEN, ForgottenRecord};
use rl::PolicyVersion;

use super::moves;
use super::response::{Invariant, Progress, Repaired, Tell, Verify};
use super::workbench::Workbench;

pub(crate) fn verify(
    bench: &Workbench,
    with_replay: bool,
    progress: &mut Tell<'_>,
) -> anyhow::Result<Verify> {
    let folder = bench.folder();
    progress(Progress {
        what: "checking every byte".into(),
        done: 0,
        total: 0,
    })?;
    let mut report = ledger::verify(folder)
        .with_context(|| format!("failed to examine the ledger {}", folder.display()))?;
    let held = match bench.ledger() {
        Ok(ledger) => {
            without_erased(&mut report, ledger, bench.adapter_name())?;
            None
        }
        Err(error) => Some(error),
    };
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
    match (bench.ledger(), held) {
        // What cannot be read cannot be counted.
        _ if !found.sound => {}
        (Ok(ledger), None) => {
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
        (_, Some(error)) | (Err(error), None) => {
            anyhow::ensure!(!with_replay, "{error:#}");
            let why = format!("not looked at: {error:#}");
            found.damage.push(("invariants".into(), why));
        }
    }
    if with_replay && found.sound {
        let replay = moves::replay(bench, None, progress)?;
        found.sound &= replay.exact;
        found.replay = Some(replay);
    }
    Ok(found)
}

/// Weights that were erased on request are gone as they should be: they are no damage.
fn without_erased(report: &mut Report, ledger: &Ledger, adapter: &str) -> anyhow::Result<()> {
    let mut erased: HashSet<PolicyVersion> = HashSet::new();
    for record in ledger.by_kind(FORGOTTEN, Seq::FIRST) {
        let forgotten: ForgottenRecord = records::decode(&record?)?;
        if forgotten.adapter == adapter {
            erased.extend(forgotten.erased);
        }
    }
    if erased.is_empty() {
        return Ok(());
    }
    let mut gone: HashSet<Digest> = HashSet::new();
    let mut missing = 0;
    for version in Lineage::read(ledger)?.all() {
        let number = PolicyVersion::new(version.version);
        if version.adapter == adapter && erased.contains(&number) {
            let blobs = [version.adapter_blob, version.optimizer_blob];
            let blobs = blobs.into_iter().flatten();
            for digest in blobs.filter(|digest| !ledger.has_blob(digest)) {
                gone.insert(digest);
                missing += 1;
            }
        }
    }
    report.damaged = report.damaged.saturating_sub(missing);
    report.damage.retain(|damage| {
        !matches!(&damage.error, ledger::Error::NoBlob { digest } if gone.contains(digest))
    });
    Ok(())
}

/// Copies what is sound into a new data folder; what belongs to the old one besides its ledger comes along.
pub(crate) fn repair(bench: &Workbench, to: &Path) -> anyhow::Result<Repaired> {
    let (from, data) = (bench.folder(), bench.data());
    std::fs::create_dir_all(to).with_context(|| format!("failed to create {}", to.display()))?;
    let report = ledger::repair(from, &to.join("ledger")).with_context(|| {
        format!(
            "failed to copy what is sound of {} to {}",
            from.display(),
            to.display()
        )
    })?;
    for name in ["config.json", "identity"] {
        copy(&data.join(name), &to.join(name))?;
    }
    let manifests = data.join("forgotten");
    if manifests.is_dir() {
        let new = to.join("forgotten");
        std::fs::create_dir_all(&new)
            .with_context(|| format!("failed to create {}", new.display()))?;
        let entries = std::fs::read_dir(&manifests)
            .with_context(|| format!("failed to list {}", manifests.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("failed to list {}", manifests.display()))?;
            copy(&entry.path(), &new.join(entry.file_name()))?;
        }
    }
    let records = report.lost.iter().map(|lost| {
        let last = lost.seq.get() + lost.records.saturating_sub(1);
        let place = match lost.records {
            1 => format!("record {}", lost.seq),
            _ => format!("records {} to {last}", lost.seq),
        };
        (
            place,
            format!("damaged in {} at byte {}", lost.file, lost.offset),
        )
    });
    let weights = report.lost_blobs.iter().map(|digest| {
        let why = "its bytes are not those that its name says";
        (format!("blob {digest}"), why.to_owned())
    });
    Ok(Repaired {
        to: to.display().to_string(),
        records: report.records,
        blobs: report.blobs,
        lost: records.chain(weights).collect(),
    })
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    if !from.is_file() {
        return Ok(());
    }
    std::fs::copy(from, to)
        .map(drop)
        .with_context(|| format!("failed to copy {} to {}", from.display(), to.display()))
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
