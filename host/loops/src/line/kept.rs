//! A line as it lies in a checkpoint: what would have to be folded from many records. What few records say (versions, heads, names,
//! examinations, requests to forget) is read from them again; so no checkpoint holds the gate's replies.

use std::collections::VecDeque;

use ledger::{
    Ledger, Record, Seq,
    lineage::{self, VersionRecord},
};
use rl::{AdapterName, PolicyVersion, SampleId};
use serde::{Deserialize, Serialize};

use super::{Line, Staged, Unread};
use crate::{
    Error, Result,
    records::{self, FORGET, ForgetRecord, GATE, GateRecord, RunRecord},
    schedule::{Place, Rules, Schedule, Waiting},
};

/// The fold of a line.
#[derive(Serialize, Deserialize)]
pub(crate) struct Kept {
    head: Option<u64>,
    staged: Option<Staged>,
    run: Option<RunRecord>,
    rules: Rules,
    place: Place,
    stale: Vec<Waiting>,
    unread: VecDeque<Unread>,
    next: Seq,
    dropped: Vec<SampleId>,
}

impl Line {
    /// What to keep of it; nothing while something is being forgotten.
    pub(crate) fn keep(mut self) -> Option<Kept> {
        if self.forgetting.is_some() {
            return None;
        }
        // Those whose end is recorded would be taken out of it later anyway: see `take_stale`.
        let mut stale = self.schedule.take_stale();
        stale.retain(|w| !self.dropped.contains(&w.sample));
        let mut dropped: Vec<SampleId> = self.dropped.into_iter().collect();
        dropped.sort();
        Some(Kept {
            head: self.head.map(|head| head.version),
            staged: self.staged,
            run: self.run,
            rules: self.schedule.rules(),
            place: self.schedule.place(),
            stale,
            unread: self.unread,
            next: self.next,
            dropped,
        })
    }

    /// The line as it was at the record `through`.
    pub(crate) fn restore(
        kept: Kept,
        ledger: &Ledger,
        adapter: &AdapterName,
        first_rules: Rules,
        through: Seq,
    ) -> Result<Self> {
        let mut line = Self::new(ledger.clone(), adapter.clone(), first_rules);
        line.read_few(through)?;
        let schedule = Schedule::resume(kept.rules, kept.place).with_stale(kept.stale);
        line.schedule = schedule;
        line.schedule.forget(line.forgotten.iter().cloned());
        let find = |number| line.lineage.get(adapter.as_str(), number).cloned();
        line.head = kept.head.and_then(find);
        (line.staged, line.run) = (kept.staged, kept.run);
        (line.unread, line.next) = (kept.unread, kept.next);
        line.dropped = kept.dropped.into_iter().collect();
        Ok(line)
    }

    /// Everything that few records say.
    fn read_few(&mut self, through: Seq) -> Result<()> {
        let ledger = self.ledger.clone();
        let each = |kind, apply: &mut dyn FnMut(&Record) -> Result<()>| {
            for record in ledger.by_kind(kind, Seq::FIRST) {
                let record = record.map_err(Error::ledger("recovery", "read the ledger"))?;
                if record.seq > through {
                    break;
                }
                if !record.erased {
                    apply(&record)?;
                }
            }
            Ok(())
        };
        each(lineage::KIND, &mut |record| {
            let version = VersionRecord::from_record(record)
                .map_err(Error::ledger("recovery", "read a version"))?;
            if version.adapter == self.adapter.as_str() {
                let number = PolicyVersion::new(version.version);
                self.steps.insert(number, version.steps());
                self.newest = self.newest.max(number);
            }
            self.lineage.add(version);
            Ok(())
        })?;
        each(lineage::HEAD, &mut |record| {
            self.lineage.add_head(records::decode(record)?);
            Ok(())
        })?;
        each(lineage::REF, &mut |record| {
            self.lineage.add_ref(records::decode(record)?);
            Ok(())
        })?;
        each(GATE, &mut |record| {
            let gate: GateRecord = records::decode(record)?;
            if gate.adapter == self.adapter.as_str() {
                self.apply_gate(gate);
            }
            Ok(())
        })?;
        each(FORGET, &mut |record| {
            let forget: ForgetRecord = records::decode(record)?;
            if forget.adapter == self.adapter.as_str() {
                self.forgotten.extend(forget.turns);
            }
            Ok(())
        })
    }
}
