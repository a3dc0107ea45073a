//! The training fold run again over a ledger: from nothing, to a place, perhaps without some turns (decision 0007).
//!
//! Replay, forgetting and leaving out all are this. A step whose inputs are those of a recorded version need not be computed:
//! [`Mode::Find`] takes it from the ledger. What is read is `derive/tape.rs`'s; what becomes of a computed step is the [`Bank`]'s business.

mod tape;

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    ops::ControlFlow,
};

use ledger::{
    Digest, Ledger, Seq,
    lineage::{Origin, VersionRecord},
};
use rl::{AdapterName, Batch, PolicyVersion, SampleId, TurnId};

use self::tape::{Control, Event, Gated, Inputs, Tape, Trials, inputs};
use crate::{
    Error, Result,
    bench::{Bench, MakeBench},
    forget,
    gate::{GateConfig, GateMemory},
    gating,
    line::{self, Step, sample_at},
    records::RunRecord,
    retreat::{self, Stride},
    schedule::{Due, Place, Rules, Schedule},
};

/// Whether steps that the ledger holds are computed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Only those that the ledger does not hold.
    Find,
    /// All of them.
    Compute,
}

/// Where computed weights are kept.
pub(crate) trait Bank {
    /// Keeps a step's weights; the record says how they can be found.
    fn keep(
        &mut self,
        due: &Due,
        parent: Option<&VersionRecord>,
        step: Step,
        recorded: Option<&VersionRecord>,
    ) -> Result<VersionRecord>;

    /// The adapter's and the optimizer's bytes of a version.
    fn weights(&self, version: &VersionRecord) -> Result<(Vec<u8>, Vec<u8>)>;
}

/// What is derived.
pub(crate) struct Task<'a> {
    pub(crate) ledger: &'a Ledger,
    pub(crate) adapter: &'a AdapterName,
    /// Until the first record that says others.
    pub(crate) rules: Rules,
    /// Skipped as if they had never been.
    pub(crate) without: HashSet<TurnId>,
    /// Judged turns up to here.
    pub(crate) until: Seq,
    pub(crate) mode: Mode,
    pub(crate) bench: &'a MakeBench,
    pub(crate) gate: &'a GateConfig,
    /// Ends after the step that gives this version.
    pub(crate) last: Option<PolicyVersion>,
    /// Hears of every step, and says whether to go on.
    pub(crate) progress: &'a (dyn Fn(&str, u64, u64) -> ControlFlow<()> + Send + Sync),
}

/// What it led to.
#[derive(Debug)]
pub(crate) struct Derived {
    /// The weights at the end; `None` for the base model.
    pub(crate) head: Option<VersionRecord>,
    /// The versions on the way, held ones included, in order.
    pub(crate) line: Vec<VersionRecord>,
    /// Steps that were computed.
    pub(crate) computed: u64,
    /// Steps that were refused.
    pub(crate) refused: u64,
    /// Where the fold stands.
    pub(crate) place: Place,
}

impl Task<'_> {
    pub(crate) fn run(self, bank: &mut dyn Bank) -> Result<Derived> {
        let tape = Tape::read(self.ledger, self.adapter, self.until)?;
        let known = tape.known();
        let total = tape
            .versions
            .values()
            .filter(|v| v.origin.is_step())
            .count() as u64;
        let gone = self.without.iter().map(|turn| format!("sample-{turn}"));
        let gone = gone.collect();
        let mut schedule = Schedule::new(self.rules);
        if !ledger::mutant::on("forgotten-derived-again") {
            schedule.forget(self.without.iter().cloned());
        }
        let mut fold = Fold {
            run: tape.first_run.clone(),
            steps: tape.versions.iter().map(|(n, v)| (*n, v.steps())).collect(),
            knowing: forget::knowing(tape.versions.values(), &gone),
            by_hash: tape.versions.iter().map(|(n, v)| (v.hash(), *n)).collect(),
            versions: tape.versions,
            gates: tape.gates,
            trials: tape.trials,
            memory: GateMemory::default(),
            known,
            task: &self,
            bank,
            schedule,
            set_aside: tape.set_aside,
            over: (Seq::ZERO, 0),
            head: None,
            path: Vec::new(),
            line: Vec::new(),
            bench: None,
            computed: 0,
            refused: 0,
            total,
        };
        let (mut judged, mut controls) = (tape.judged, tape.controls);
        loop {
            if fold.finished() {
                break;
            }
            let at = controls.front().map(|control| control.event.place());
            let next = judged.front().map(|(seq, ..)| *seq);
            match (at, next) {
                (Some(at), next) if next.is_none_or(|next| next > at) => {
                    if let Some(control) = controls.pop_front() {
                        // Nothing is due here any more: whatever was over before it in the ledger is.
                        fold.reach(at, control.after);
                        fold.control(control.event);
                        if !ledger::mutant::on("replay-waits-for-the-next-turn") {
                            fold.settle(at, &mut controls)?;
                        }
                    }
                }
                (_, Some(_)) => {
                    if let Some((seq, turn, sample)) = judged.pop_front() {
                        fold.schedule.judged(seq, &turn, sample);
                        fold.settle(seq, &mut controls)?;
                    }
                }
                _ => break,
            }
        }
        Ok(Derived {
            head: fold.head,
            line: fold.line,
            computed: fold.computed,
            refused: fold.refused,
            place: fold.schedule.place(),
        })
    }
}

struct Fold<'a> {
    task: &'a Task<'a>,
    bank: &'a mut dyn Bank,
    run: Option<RunRecord>,
    versions: BTreeMap<PolicyVersion, VersionRecord>,
    by_hash: HashMap<Digest, PolicyVersion>,
    /// Those whose weights knew what is left out.
    knowing: HashSet<PolicyVersion>,
    gates: HashMap<PolicyVersion, Gated>,
    trials: Trials,
    memory: GateMemory,
    known: HashMap<Inputs, PolicyVersion>,
    steps: HashMap<PolicyVersion, u64>,
    schedule: Schedule,
    /// Never trained, wherever they come to be due: without what is left out that may be earlier than it was.
    set_aside: HashSet<SampleId>,
    /// Batches that are over at the place where the fold stands.
    over: (Seq, u64),
    head: Option<VersionRecord>,
    /// The versions that led to the head, as [`crate::Line::strides`], the oldest first.
    path: Vec<(VersionRecord, Option<f64>)>,
    line: Vec<VersionRecord>,
    bench: Option<OnBench>,
    computed: u64,
    refused: u64,
    total: u64,
}

struct OnBench {
    bench: Bench,
    run: RunRecord,
    /// The weights that the learner holds.
    at: Option<(Option<Digest>, Option<Digest>)>,
    number: u64,
}

impl Fold<'_> {
    fn finished(&self) -> bool {
        let last = self.line.last().map(|v| PolicyVersion::new(v.version));
        self.task.last.is_some() && last == self.task.last
    }

    fn control(&mut self, event: Event) {
        match event {
            Event::Run(run) => {
                self.schedule.set_rules(run.rules);
                self.run = Some(*run);
            }
            Event::Moved { to, later, .. } => {
                self.head = self.named(to, later);
                self.path = self.head.iter().map(|head| (head.clone(), None)).collect();
                let find = |number| self.versions.get(&PolicyVersion::new(number));
                let by_hash =
                    |hash: &Digest| self.by_hash.get(hash).and_then(|n| self.versions.get(n));
                let learned = line::learned(self.head.as_ref(), &find, &by_hash);
                self.schedule.done(&learned);
            }
            Event::SetAside { sample, .. } => self.schedule.done([&sample]),
        }
    }

    /// What was meant by a version's number: see [`Event::Moved`].
    fn named(&self, version: PolicyVersion, later: bool) -> Option<VersionRecord> {
        let known = self.versions.get(&version);
        match known.filter(|_| later && !self.knowing.contains(&version)) {
            Some(exactly) => exactly.adapter_blob.is_some().then(|| exactly.clone()),
            None => self.counterpart(version),
        }
    }

    /// What a version of the old line is on this one: itself when it is on it, else the weights as of the same place.
    fn counterpart(&self, version: PolicyVersion) -> Option<VersionRecord> {
        let number = version.get();
        if let Some(same) = self.line.iter().find(|v| v.version == number) {
            return Some(same.clone());
        }
        let old = self.versions.get(&version)?;
        // The base model under a number of its own: it is the same on every line.
        old.adapter_blob?;
        match old.origin {
            Origin::Imported { .. } => Some(old.clone()),
            Origin::Reverted { to } => self.counterpart(PolicyVersion::new(to)),
            Origin::Promoted { from } => self.counterpart(PolicyVersion::new(from)),
            _ => {
                let before = |v: &&VersionRecord| v.through <= old.through;
                self.line.iter().rev().find(before).cloned()
            }
        }
    }

    /// At least so many batches are over at this place.
    fn reach(&mut self, at: Seq, over: u64) {
        if self.over.0 != at {
            self.over = (at, 0);
        }
        self.over.1 = self.over.1.max(over);
    }

    /// Computes what is due at a place, except for what an event came before. Other rules can make a batch due that was not.
    fn settle(&mut self, at: Seq, controls: &mut VecDeque<Control>) -> Result<()> {
        self.reach(at, 0);
        while !self.finished() {
            let head = self.head.as_ref().map_or(0, VersionRecord::steps);
            let steps = &self.steps;
            let count = |v: PolicyVersion| steps.get(&v).copied().unwrap_or(v.get());
            let Some(due) = self.schedule.due(head, &count) else {
                return Ok(());
            };
            let over = self.over.1;
            let before = |c: &mut Control| c.event.place() == at && c.after <= over;
            if let Some(next) = controls.pop_front_if(before) {
                self.control(next.event);
                continue;
            }
            let samples = || due.samples.iter().map(|w| &w.sample);
            let mut long = samples()
                .filter(|sample| self.set_aside.contains(*sample))
                .peekable();
            if long.peek().is_some() {
                self.schedule.done(long);
                continue;
            }
            self.step(&due)?;
            self.schedule.done(samples());
            self.over.1 = over.saturating_add(1);
        }
        Ok(())
    }

    fn step(&mut self, due: &Due) -> Result<()> {
        let samples: Vec<String> = due.samples.iter().map(|w| w.sample.to_string()).collect();
        let settings = self.run.as_ref().map(|run| run.learner.clone());
        let key = inputs(
            self.head.as_ref(),
            &samples,
            &settings.unwrap_or(serde_json::Value::Null),
        );
        let found = self.known.get(&key).and_then(|n| self.versions.get(n));
        let found = found.cloned();
        let whole = |v: &VersionRecord| {
            let blobs = [v.adapter_blob, v.optimizer_blob];
            blobs.iter().flatten().all(|d| self.task.ledger.has_blob(d))
        };
        let version = match found {
            Some(found) if self.task.mode == Mode::Find && whole(&found) => found,
            found => match self.compute(due, found.as_ref())? {
                Some(version) => version,
                None => return Ok(()),
            },
        };
        let number = PolicyVersion::new(version.version);
        let told = (self.task.progress)("steps", self.line.len() as u64 + 1, self.total);
        if told.is_break() {
            return Err(Error::Unawaited);
        }
        let gated = self.gates.get(&number);
        if let Some(gated) = gated {
            self.memory = gated.memory.clone();
        }
        let back = gated.map_or(0, |gated| gated.back);
        if gated.is_none_or(|gated| gated.passed) {
            if !self.trials.keeps(number) {
                let nats = gated.and_then(|gated| gated.nats);
                self.head = Some(version.clone());
                self.path.push((version.clone(), nats));
            }
        } else if back > 0 {
            self.path.truncate(self.path.len().saturating_sub(back));
            self.head = self.path.last().map(|(version, _)| version.clone());
        }
        self.line.push(version);
        Ok(())
    }

    /// Computes a step; `None` when the learner refuses it.
    fn compute(
        &mut self,
        due: &Due,
        recorded: Option<&VersionRecord>,
    ) -> Result<Option<VersionRecord>> {
        let load = |w: &crate::schedule::Waiting| sample_at(self.task.ledger, w.at, &w.sample);
        let samples = due.samples.iter().map(load).collect::<Result<_>>()?;
        let seed = self.prepare()?;
        let Some(on) = self.bench.as_mut() else {
            return Err(Error::NoRun);
        };
        self.computed += 1;
        let proposal = match on.bench.learner.step(&Batch { samples }) {
            Ok(proposal) => proposal,
            Err(rl::Error::Refused { .. }) => {
                self.refused += 1;
                return Ok(None);
            }
            Err(error) => return Err(Error::seam("train", "compute a step again")(error)),
        };
        if line::check(&proposal, on.bench.learner.version()).is_err() {
            self.refused += 1;
            return Ok(None);
        }
        let gate = match recorded {
            Some(version) => self
                .gates
                .get(&PolicyVersion::new(version.version))
                .map(|gated| (gated.passed, serde_json::Value::Null)),
            None if self.task.gate.enabled => {
                let asked = gating::Asked {
                    config: self.task.gate.clone(),
                    adapter: self.task.adapter.clone(),
                    memory: self.memory.clone(),
                    steps: self.head.as_ref().map_or(0, VersionRecord::steps),
                };
                let examined = asked.examine(&mut *on.bench.learner, &*on.bench.policy);
                Some(examined.map_err(Error::seam("train", "examine a version"))?)
            }
            None => None,
        };
        let passed = gate.as_ref().is_none_or(|(passed, _)| *passed);
        let fresh = gate.as_ref().filter(|(_, found)| !found.is_null());
        let fresh = fresh.map(|(_, found)| (found["memory"].clone(), Stride::of(found)));
        let held = fresh.as_ref().filter(|_| !passed);
        let back = held.map_or(0, |(_, stride)| self.back(*stride));
        let Some(on) = self.bench.as_mut() else {
            return Err(Error::NoRun);
        };
        let step = Step {
            proposal,
            seed,
            gate,
            back,
            share: None,
        };
        let version = self.bank.keep(due, self.head.as_ref(), step, recorded)?;
        let number = PolicyVersion::new(version.version);
        if let Some((memory, stride)) = fresh {
            let gated = Gated {
                passed,
                memory: serde_json::from_value(memory).unwrap_or_default(),
                nats: stride.nats,
                back,
            };
            self.gates.insert(number, gated);
        }
        self.steps.insert(number, version.steps());
        if passed && !self.trials.keeps(number) {
            on.number += 1;
            let deployed = PolicyVersion::new(on.number);
            on.bench
                .learner
                .deploy(deployed)
                .map_err(Error::seam("train", "go on from a step"))?;
            on.at = Some((version.adapter_blob, version.optimizer_blob));
        }
        Ok(Some(version))
    }

    /// How many versions are taken back with one that is held, as the train loop decides it.
    fn back(&self, held: Stride) -> usize {
        let mut before = Vec::new();
        for (_, nats) in self.path.iter().rev() {
            before.push(*nats);
            if nats.is_none() {
                break;
            }
        }
        retreat::versions(held, &before, self.task.gate.retreat)
    }

    /// A learner of this run that holds the head's weights.
    fn prepare(&mut self) -> Result<rl::Seed> {
        let run = self.run.clone().ok_or(Error::NoRun)?;
        if self.bench.as_ref().is_none_or(|on| on.run != run) {
            // There is memory for one: another run's is gone before.
            self.bench = None;
            let bench = (self.task.bench)(&run).map_err(Error::seam("train", "set up a bench"))?;
            self.bench = Some(OnBench {
                bench,
                run: run.clone(),
                at: None,
                number: 0,
            });
        }
        let weights = self
            .head
            .as_ref()
            .map(|v| (v.adapter_blob, v.optimizer_blob));
        let weights = weights.unwrap_or((None, None));
        if let Some(on) = self.bench.as_mut()
            && on.at != Some(weights)
        {
            on.number += 1;
            let number = PolicyVersion::new(on.number);
            let restored = match &self.head {
                Some(head) if head.adapter_blob.is_some() => {
                    let (adapter, optimizer) = self.bank.weights(head)?;
                    on.bench.learner.restore(number, &adapter, &optimizer)
                }
                _ => on.bench.learner.reset(number),
            };
            restored.map_err(Error::seam("train", "go on from a version"))?;
            on.at = Some(weights);
        }
        Ok(run.seed)
    }
}
