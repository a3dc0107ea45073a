//! Forgetting: what somebody said is erased, and every version that learned from it is trained again without it.
//!
//! [`begin`] records the request: from then on the turns are skipped. [`finish`] destroys the keys of their text, runs the
//! training fold without them (`derive.rs`; what came before the first of them is found, not computed), moves the head to
//! the result in one group of records, and erases the weights that knew them. A kill at any point is finished at the next start.
//! The adapter afterwards is byte for byte the one of a ledger in which the turns never were. Hosted attempts that were paid in
//! relation to each other are forgotten together: in a ledger without one of them the others would have been paid otherwise. So are those
//! that read what a forgotten one had stored (`forget/chosen.rs`).

mod chosen;

use std::{
    collections::{HashMap, HashSet},
    ops::ControlFlow,
};

use ledger::{
    Digest, Ledger,
    lineage::{Origin, RefRecord, VersionRecord},
};
use rl::{PolicyVersion, SampleId, SessionId, TenantId, TurnId};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    Error, Result,
    bench::MakeBench,
    derive::{Bank, Mode, Task},
    gate::GateConfig,
    line::{Line, Step},
    records::{ForgetRecord, ForgottenRecord},
    recovery,
    schedule::Due,
};

/// What is to be forgotten.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Selector {
    /// Everything that a user said: the `user` of their requests, or the public name of their API key.
    User {
        /// Whose user; any tenant's when it is not given.
        tenant: Option<TenantId>,
        /// The name.
        user: String,
    },
    /// A conversation.
    Session {
        /// Whose; any tenant's when it is not given.
        tenant: Option<TenantId>,
        /// Its id.
        session: SessionId,
    },
    /// The turn of a sample, and the later turns of its conversation: their prompts quote it.
    Sample(SampleId),
    /// Everything of a tenant.
    Tenant(TenantId),
}

/// What forgetting would do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The turns, in the order of their records.
    pub turns: Vec<TurnId>,
    /// Hosted episodes that go with them.
    pub subjects: Vec<String>,
    /// Their samples that some version was trained on.
    pub trained: usize,
    /// Versions whose weights know them, in order: these are erased.
    pub versions: Vec<PolicyVersion>,
    /// At most so many steps are computed again.
    pub steps: u64,
    /// How long that took the first time, in seconds.
    pub seconds: f64,
}

/// What was forgotten.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Forgotten {
    /// The request.
    pub request: ForgetRecord,
    /// What became of it.
    pub record: ForgottenRecord,
    /// Keys that were destroyed.
    pub keys: u64,
    /// Weights that were erased: adapters and optimizer states.
    pub blobs: u64,
}

/// What forgetting would do; changes nothing.
///
/// # Errors
/// The ledger's; [`Error::NothingToForget`].
pub fn plan(line: &Line, selector: &Selector) -> Result<Plan> {
    let (turns, subjects) = chosen::find(line.ledger(), selector, line.forgotten())?;
    let gone: HashSet<String> = turns.iter().map(|t| format!("sample-{t}")).collect();
    let known = tainted(line, &gone);
    let versions = line.lineage().all();
    let of_ours = || {
        versions
            .iter()
            .filter(|v| v.adapter == line.adapter().as_str())
    };
    let trained = of_ours()
        .filter(|v| v.origin.is_step())
        .flat_map(|v| &v.samples)
        .filter(|s| gone.contains(*s))
        .collect::<HashSet<_>>()
        .len();
    let mut plan = Plan {
        turns,
        subjects,
        trained,
        versions: Vec::new(),
        steps: 0,
        seconds: 0.0,
    };
    for version in of_ours().filter(|v| known.contains(&PolicyVersion::new(v.version))) {
        plan.versions.push(PolicyVersion::new(version.version));
        if version.origin.is_step() {
            plan.steps += 1;
            plan.seconds += version.metrics.get("seconds").copied().unwrap_or(0.0);
        }
    }
    Ok(plan)
}

/// Records the request. From here on the turns are skipped, and nothing is trained until [`finish`] is through.
///
/// # Errors
/// As [`plan`]; [`Error::Unsealed`] for a ledger whose older text cannot be erased; [`Error::Forgetting`] when another request is not finished yet.
pub fn begin(line: &mut Line, selector: &Selector) -> Result<()> {
    if let Some(other) = line.forgetting() {
        return Err(Error::Forgetting {
            id: other.id.clone(),
        });
    }
    // Better no than a promise that the disk does not keep.
    if line.ledger().dir().join("ledger.db.v1").exists() {
        return Err(Error::Unsealed);
    }
    let plan = plan(line, selector)?;
    let id = short(&format!(
        "{}/{:?}/{:?}",
        line.ledger().durable(),
        selector,
        plan.turns
    ));
    let (name, what) = match selector {
        Selector::User { tenant, user } => ("user", format!("{}/{user}", all(tenant.as_ref()))),
        Selector::Session { tenant, session } => {
            ("session", format!("{}/{session}", all(tenant.as_ref())))
        }
        Selector::Sample(sample) => ("sample", format!("/{sample}")),
        Selector::Tenant(tenant) => ("tenant", format!("{tenant}/")),
    };
    line.begin_forgetting(ForgetRecord {
        commitment: hex(&format!("{id}/{name}/{what}")),
        selector: name.to_owned(),
        id,
        adapter: line.adapter().to_string(),
        turns: plan.turns,
        subjects: plan.subjects,
    })
}

/// Destroys the keys of the text of the request that was begun: nobody can read it any more. Gives how many there were.
///
/// # Errors
/// The ledger's; [`Error::NothingToForget`] when nothing was begun.
pub fn erase(line: &Line, progress: &(dyn Fn(&str, u64, u64) + Send + Sync)) -> Result<u64> {
    let request = line.forgetting().ok_or(Error::NothingToForget)?;
    let ledger = line.ledger();
    let mut subjects: Vec<String> = request.turns.iter().map(ToString::to_string).collect();
    subjects.extend(request.subjects.iter().cloned());
    progress("keys", 0, subjects.len() as u64);
    subjects.retain(|_| !ledger::mutant::on("forget-keeps-keys"));
    // First: what was folded of the text must not be left when only the text is gone.
    recovery::erase(ledger)?;
    let keys = ledger
        .destroy_keys(&subjects)
        .map_err(Error::ledger("train", "destroy the keys of forgotten text"))?;
    progress("keys", keys, subjects.len() as u64);
    Ok(keys)
}

/// Finishes the request that was begun. Can be called again after it was interrupted: what it has computed is found.
///
/// # Errors
/// The ledger's and the learner's; [`Error::NothingToForget`] when nothing was begun.
pub fn finish(
    line: &mut Line,
    bench: &MakeBench,
    gate: &GateConfig,
    progress: &(dyn Fn(&str, u64, u64) + Send + Sync),
) -> Result<Forgotten> {
    let request = line.forgetting().cloned().ok_or(Error::NothingToForget)?;
    let ledger = line.ledger().clone();
    let keys = erase(line, progress)?;

    let before = line.version();
    let adapter = line.adapter().clone();
    // It is never broken off.
    let progress = |what: &str, done, total| {
        progress(what, done, total);
        ControlFlow::Continue(())
    };
    let task = Task {
        ledger: &ledger,
        adapter: &adapter,
        rules: line.first_rules(),
        without: line.forgotten().iter().cloned().collect(),
        until: line.schedule().through(),
        mode: Mode::Find,
        bench,
        gate,
        last: None,
        progress: &progress,
    };
    let derived = task.run(&mut Aside {
        line: &mut *line,
        forget: &request.id,
    })?;
    let gone: HashSet<String> = line
        .forgotten()
        .iter()
        .map(|t| format!("sample-{t}"))
        .collect();
    let tainted = tainted(line, &gone);
    let mut erased: Vec<PolicyVersion> = tainted.iter().copied().collect();
    erased.sort();
    let after = match &derived.head {
        _ if ledger::mutant::on("forget-keeps-the-head") => before,
        // The same weights as those that answer: nothing moves.
        Some(head)
            if line.head().is_some_and(|now| {
                now.adapter_blob == head.adapter_blob && now.optimizer_blob == head.optimizer_blob
            }) =>
        {
            before
        }
        Some(head) => PolicyVersion::new(head.version),
        None if line.head().is_none_or(|now| now.adapter_blob.is_none()) => before,
        // The base model again: a version of its own, so that numbers only grow.
        None => line.base_aside(&request.id)?,
    };
    // What the gate wrote down about them holds replies of weights that knew.
    let examined: Vec<String> = erased
        .iter()
        .map(|version| format!("{adapter}:{}", version.get()))
        .collect();
    ledger
        .destroy_keys(&examined)
        .map_err(Error::ledger("train", "destroy the keys of examinations"))?;
    let names = moved(line, &tainted, &derived.line);
    let record = ForgottenRecord {
        id: request.id.clone(),
        adapter: adapter.to_string(),
        before,
        after,
        erased,
        line: derived
            .line
            .iter()
            .map(|v| PolicyVersion::new(v.version))
            .collect(),
        computed: derived.computed,
        place: derived.place,
    };
    line.end_forgetting(record.clone(), names)?;
    let blobs = sweep(line)?;
    Ok(Forgotten {
        request,
        record,
        keys,
        blobs,
    })
}

/// Erases weights that know what was forgotten, as far as no other version has the same. Gives how many.
///
/// # Errors
/// The ledger's.
pub fn sweep(line: &Line) -> Result<u64> {
    let gone: HashSet<String> = line
        .forgotten()
        .iter()
        .map(|t| format!("sample-{t}"))
        .collect();
    if gone.is_empty() || line.forgetting().is_some() || ledger::mutant::on("forget-keeps-weights")
    {
        return Ok(0);
    }
    let tainted = tainted(line, &gone);
    let (mut keep, mut drop) = (HashSet::new(), HashSet::new());
    for version in line.lineage().all() {
        let blobs = [version.adapter_blob, version.optimizer_blob];
        let ours = version.adapter == line.adapter().as_str();
        let bad = ours && tainted.contains(&PolicyVersion::new(version.version));
        let set: &mut HashSet<Digest> = if bad { &mut drop } else { &mut keep };
        set.extend(blobs.into_iter().flatten());
    }
    let mut count = 0;
    for digest in drop.difference(&keep) {
        let removed = line
            .ledger()
            .remove_blob(digest)
            .map_err(Error::ledger("train", "erase a version's weights"))?;
        count += u64::from(removed);
    }
    Ok(count)
}

/// Versions whose weights were made with any of these samples.
fn tainted(line: &Line, samples: &HashSet<String>) -> HashSet<PolicyVersion> {
    let ours = |v: &&VersionRecord| v.adapter == line.adapter().as_str();
    knowing(line.lineage().all().iter().filter(ours), samples)
}

/// The same, of one adapter's versions in the order of their commits.
pub(crate) fn knowing<'a>(
    versions: impl Iterator<Item = &'a VersionRecord>,
    samples: &HashSet<String>,
) -> HashSet<PolicyVersion> {
    let mut knowing: HashSet<PolicyVersion> = HashSet::new();
    let mut numbers: HashMap<Digest, PolicyVersion> = HashMap::new();
    for version in versions {
        let number = PolicyVersion::new(version.version);
        numbers.insert(version.hash(), number);
        let bad = match version.origin {
            Origin::Reverted { to: of } | Origin::Promoted { from: of } => {
                knowing.contains(&PolicyVersion::new(of))
            }
            _ => {
                let parent = version.parent.and_then(|hash| numbers.get(&hash));
                parent.is_some_and(|parent| knowing.contains(parent))
                    || version.samples.iter().any(|s| samples.contains(s))
            }
        };
        if bad {
            knowing.insert(number);
        }
    }
    knowing
}

/// Names of erased versions go to the weights as of the same place, or away.
fn moved(
    line: &Line,
    tainted: &HashSet<PolicyVersion>,
    derived: &[VersionRecord],
) -> Vec<RefRecord> {
    let mut names = Vec::new();
    for name in line.lineage().refs(line.adapter().as_str()) {
        let Some(number) = name.version else { continue };
        if !tainted.contains(&PolicyVersion::new(number)) {
            continue;
        }
        let old = line.lineage().get(line.adapter().as_str(), number);
        let through = old.and_then(|v| v.through);
        let same = derived.iter().rev().find(|v| v.through <= through);
        names.push(RefRecord {
            version: same.map(|v| v.version),
            ..name.clone()
        });
    }
    names
}

/// Keeps computed weights as versions that do not answer yet.
struct Aside<'a> {
    line: &'a mut Line,
    forget: &'a str,
}

impl Bank for Aside<'_> {
    fn keep(
        &mut self,
        due: &Due,
        parent: Option<&VersionRecord>,
        step: Step,
        _recorded: Option<&VersionRecord>,
    ) -> Result<VersionRecord> {
        self.line.commit_aside(due, step, parent, self.forget)
    }

    fn weights(&self, version: &VersionRecord) -> Result<(Vec<u8>, Vec<u8>)> {
        weights(self.line.ledger(), version)
    }
}

/// A version's bytes.
pub(crate) fn weights(ledger: &Ledger, version: &VersionRecord) -> Result<(Vec<u8>, Vec<u8>)> {
    let get = |digest: &Option<Digest>| match digest {
        Some(digest) => crate::train::get(ledger, digest),
        None => Ok(Vec::new()),
    };
    Ok((get(&version.adapter_blob)?, get(&version.optimizer_blob)?))
}

fn all(tenant: Option<&TenantId>) -> &str {
    tenant.map_or("", TenantId::as_str)
}

fn hex(text: &str) -> String {
    Sha256::digest(text.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn short(text: &str) -> String {
    hex(text).chars().take(12).collect()
}

/// Whether a commitment in a [`ForgetRecord`] was made to this name.
///
/// ```
/// use loops::forget::is_meant;
/// # let record = loops::records::ForgetRecord { id: "1".into(), adapter: "main".into(), selector: "user".into(),
/// #     commitment: "no".into(), turns: vec![], subjects: vec![] };
/// assert!(!is_meant(&record, "tenant", "somebody"));
/// ```
pub fn is_meant(record: &ForgetRecord, tenant: &str, name: &str) -> bool {
    hex(&format!(
        "{}/{}/{tenant}/{name}",
        record.id, record.selector
    )) == record.commitment
}
