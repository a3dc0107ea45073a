//! Training on its own, written a second time and as simply as can be: the samples of the turns that are left, in the order
//! in which they were judged. No line, no schedule, no head, no version: what would have been, had the others never been there.

use std::collections::HashSet;

use ledger::{Ledger, Seq, lineage::Lineage};
use loops::{
    records::{self, JUDGED, JudgedRecord, RUN, RunRecord},
    schedule::Rules,
};
use rl::{Batch, PolicyVersion, Sample, TurnId};

use crate::rig::bench;

/// The adapter at the end; `None` for the base model. `forgotten` are left out.
pub(super) fn train(ledger: &Ledger, rules: Rules, forgotten: &HashSet<TurnId>) -> Option<Vec<u8>> {
    let lineage = Lineage::read(ledger).unwrap();
    let steps_of = |v: PolicyVersion| lineage.get("main", v.get()).map_or(v.get(), |v| v.steps());
    let run = ledger.by_kind(RUN, Seq::FIRST).next()?.unwrap();
    let run: RunRecord = records::decode(&run).unwrap();
    let mut learner = bench()(&run).unwrap().learner;
    let (mut waiting, mut over) = (Vec::<Sample>::new(), HashSet::<TurnId>::new());
    let (mut steps, mut adapter) = (0, None);
    for record in ledger.by_kind(JUDGED, Seq::FIRST).map(Result::unwrap) {
        if record.erased {
            continue;
        }
        let judged: JudgedRecord = records::decode(&record).unwrap();
        if forgotten.contains(&judged.turn) || over.contains(&judged.turn) {
            continue;
        }
        let place = waiting.iter().position(|sample| sample.turn == judged.turn);
        match (place, judged.sample) {
            (Some(place), Some(sample)) => waiting[place] = sample,
            (Some(place), None) => drop(waiting.remove(place)),
            (None, Some(sample)) => waiting.push(sample),
            (None, None) => {}
        }
        while waiting.len() >= rules.batch_size {
            let old = |s: &Sample| steps - steps_of(s.version).min(steps) > rules.max_lag;
            if let Some(place) = waiting[..rules.batch_size].iter().position(old) {
                over.insert(waiting.remove(place).turn);
                continue;
            }
            let samples: Vec<Sample> = waiting.drain(..rules.batch_size).collect();
            over.extend(samples.iter().map(|sample| sample.turn.clone()));
            if let Ok(proposal) = learner.step(&Batch { samples }) {
                steps += 1;
                learner.deploy(PolicyVersion::new(steps)).unwrap();
                adapter = Some(proposal.adapter);
            }
        }
    }
    adapter
}
