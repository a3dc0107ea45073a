//! Replay: the training fold from nothing, every step computed again and compared with what the ledger holds, bit for bit.

use std::{collections::HashSet, ops::ControlFlow};

use ledger::{Digest, Ledger, lineage::VersionRecord};
use rl::{AdapterName, PolicyVersion, TurnId};
use serde::{Deserialize, Serialize};

use crate::{
    Result,
    bench::MakeBench,
    derive::{Bank, Mode, Task},
    gate::GateConfig,
    line::{Line, Step},
    schedule::Due,
    spill::Spill,
};

/// How far, and without what.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The last version; the end of the ledger when it is not given.
    pub to: Option<PolicyVersion>,
    /// Turns to leave out, besides those that were forgotten: the result is another line, and nothing of it is kept.
    pub without: HashSet<TurnId>,
    /// Steps that the ledger holds are taken from it; only what must differ is computed.
    pub find: bool,
    /// The gate that versions are held by when they are not in the ledger.
    pub gate: GateConfig,
}

/// A step that was computed again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Again {
    /// The recorded version of the same inputs; none when the ledger holds no such step.
    pub version: Option<PolicyVersion>,
    /// Its samples.
    pub samples: Vec<String>,
    /// Whether the adapter's bytes are the recorded ones.
    pub adapter: bool,
    /// Whether the optimizer's bytes are the recorded ones.
    pub optimizer: bool,
    /// Whether the ledger only has not come to it: its batch is due on the weights that answer, and nothing came of it yet.
    #[serde(default)]
    pub pending: bool,
}

/// What a replay gave.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// Every step that was computed, in order.
    pub steps: Vec<Again>,
    /// The last version's record; its number means nothing when it is not in the ledger.
    pub head: Option<VersionRecord>,
    /// The last version's adapter; none for the base model.
    pub adapter: Option<Vec<u8>>,
    /// Its optimizer state.
    pub optimizer: Option<Vec<u8>>,
    /// Steps that the learner refused.
    pub refused: u64,
}

impl Replayed {
    /// Whether every step gave what the ledger holds. Steps that the ledger has not come to can only be the last ones.
    pub fn is_exact(&self) -> bool {
        let same = |again: &Again| again.version.is_some() && again.adapter && again.optimizer;
        let pending = self.steps.iter().rev().take_while(|again| again.pending);
        let over = self.steps.len() - pending.count();
        self.steps[..over].iter().all(same)
    }
}

/// Replays a line. Reads the ledger, writes nothing to it. `progress` hears of every step, and breaks the replay off when nobody waits for it any more.
///
/// # Errors
/// The ledger's and the learner's; [`crate::Error::Unawaited`] when it was broken off.
pub fn replay(
    line: &Line,
    bench: &MakeBench,
    options: Options,
    progress: &(dyn Fn(&str, u64, u64) -> ControlFlow<()> + Send + Sync),
) -> Result<Replayed> {
    replay_ledger(
        line.ledger(),
        line.adapter(),
        line,
        bench,
        options,
        progress,
    )
}

fn replay_ledger(
    ledger: &Ledger,
    adapter: &AdapterName,
    line: &Line,
    bench: &MakeBench,
    options: Options,
    progress: &(dyn Fn(&str, u64, u64) -> ControlFlow<()> + Send + Sync),
) -> Result<Replayed> {
    let mut without = options.without;
    without.extend(line.forgotten().iter().cloned());
    let task = Task {
        ledger,
        adapter,
        rules: line.first_rules(),
        without,
        // A ledger in which nothing was trained yet is trained as far as it goes.
        until: match line.lineage().all() {
            [] => ledger.durable(),
            _ => line.schedule().through(),
        },
        mode: if options.find {
            Mode::Find
        } else {
            Mode::Compute
        },
        bench,
        gate: &options.gate,
        last: options.to,
        progress,
    };
    let mut bank = Aside {
        ledger,
        kept: Spill::new(ledger.dir()),
        steps: Vec::new(),
        next: line.next_version(),
        line,
    };
    let derived = task.run(&mut bank)?;
    let end = match options.to {
        Some(_) => derived.line.last().cloned(),
        None => derived.head,
    };
    let weights = match &end {
        Some(version) if version.adapter_blob.is_some() => Some(bank.weights(version)?),
        _ => None,
    };
    let (adapter, optimizer) = weights.unzip();
    Ok(Replayed {
        steps: bank.steps,
        head: end,
        adapter,
        optimizer,
        refused: derived.refused,
    })
}

/// Weights that differ from the ledger's are kept on its disk: they are the result, or on the way to it, and a later order may go back to any.
struct Aside<'a> {
    ledger: &'a Ledger,
    kept: Spill,
    steps: Vec<Again>,
    next: PolicyVersion,
    line: &'a Line,
}

impl Aside<'_> {
    /// Whether a step that the ledger does not hold is one that it has not come to.
    fn is_pending(&self, due: &Due, parent: Option<&VersionRecord>) -> bool {
        if self.steps.last().is_some_and(|before| before.pending) {
            return true;
        }
        let blobs = |version: Option<&VersionRecord>| {
            version.map_or((None, None), |v| (v.adapter_blob, v.optimizer_blob))
        };
        let again: HashSet<u64> = self
            .steps
            .iter()
            .filter_map(|again| again.version.map(PolicyVersion::get))
            .collect();
        // A version of such a batch, or of a later one, that was not made again: then this is its place, and it differs.
        let other = |v: &VersionRecord| {
            v.adapter == self.line.adapter().as_str()
                && v.origin.is_step()
                && v.through >= Some(due.through.get())
                && !again.contains(&v.version)
        };
        blobs(parent) == blobs(self.line.head()) && !self.line.lineage().all().iter().any(other)
    }
}

impl Bank for Aside<'_> {
    fn keep(
        &mut self,
        due: &Due,
        parent: Option<&VersionRecord>,
        step: Step,
        recorded: Option<&VersionRecord>,
    ) -> Result<VersionRecord> {
        let (adapter, optimizer) = (step.proposal.adapter, step.proposal.optimizer);
        let digests = (Digest::of(&adapter), Digest::of(&optimizer));
        let is = |found: Option<Digest>, computed| found == Some(computed);
        let pending = recorded.is_none() && self.is_pending(due, parent);
        self.steps.push(Again {
            version: recorded.map(|v| PolicyVersion::new(v.version)),
            samples: due.samples.iter().map(|w| w.sample.to_string()).collect(),
            adapter: recorded.is_some_and(|v| is(v.adapter_blob, digests.0)),
            optimizer: recorded.is_some_and(|v| is(v.optimizer_blob, digests.1)),
            pending,
        });
        for (digest, bytes) in [(digests.0, adapter), (digests.1, optimizer)] {
            if !self.ledger.has_blob(&digest) {
                self.kept.put(digest, &bytes)?;
            }
        }
        let number = match recorded {
            Some(version) => version.version,
            None => {
                let number = self.next.get();
                self.next = self.next.next();
                number
            }
        };
        Ok(VersionRecord {
            version: number,
            adapter: due
                .samples
                .first()
                .map(|_| String::new())
                .unwrap_or_default(),
            parent: parent.map(VersionRecord::hash),
            samples: due.samples.iter().map(|w| w.sample.to_string()).collect(),
            adapter_blob: Some(digests.0),
            optimizer_blob: Some(digests.1),
            through: Some(due.through.get()),
            steps: Some(parent.map_or(0, VersionRecord::steps) + 1),
            adapter_digest: Some(step.proposal.adapter_digest),
            ..VersionRecord::default()
        })
    }

    fn weights(&self, version: &VersionRecord) -> Result<(Vec<u8>, Vec<u8>)> {
        let get = |digest: &Option<Digest>| match digest {
            None => Ok(Vec::new()),
            Some(digest) => match self.kept.get(digest)? {
                Some(bytes) => Ok(bytes),
                None => crate::train::get(self.ledger, digest),
            },
        };
        Ok((get(&version.adapter_blob)?, get(&version.optimizer_blob)?))
    }
}
