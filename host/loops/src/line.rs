//! The line of one adapter: its versions, the one that is live, and the fold that says which batch comes next (decision 0007).
//!
//! [`Line::read`] makes it from a ledger and every operation on it is one group of records (`line/commit.rs`), after which it is what
//! reading the ledger again would give. It computes no step and sees no weights; [`crate::train`] drives it, and so do replay and
//! forgetting, on a host that runs or on a folder.

mod commit;
mod kept;

use std::collections::{HashMap, HashSet, VecDeque};

use ledger::{
    Digest, Ledger, Record, Seq,
    lineage::{self, HeadRecord, Lineage, Origin, RefRecord, VersionRecord},
};
use rl::{AdapterName, NotTrainable, PolicyVersion, Sample, SampleId, TurnId, VoteValue};
use serde::{Deserialize, Serialize};

pub(crate) use commit::check;
pub use commit::{Imported, Step};
pub(crate) use kept::Kept;

use crate::{
    Error, Result,
    queue::Work,
    records::{
        self, FORGET, FORGOTTEN, Fate, ForgetRecord, ForgottenRecord, GATE, GateRecord, JUDGED,
        JudgedRecord, RUN, RunRecord, SPENT, STEP_REFUSED, SpentRecord, StepRefusedRecord,
    },
    retreat::Stride,
    schedule::{Due, Rules, Schedule},
};

/// A judged turn that the fold has not read yet.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Unread {
    at: Seq,
    turn: TurnId,
    sample: Option<(SampleId, PolicyVersion)>,
}

/// A version that answers a share of the sessions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Staged {
    /// The version.
    pub version: PolicyVersion,
    /// The share.
    pub share: f64,
    /// What its trial has seen lies behind this record.
    pub at: Seq,
}

/// As much of a judged turn as the fold and the counts need: a whole ledger is read at every start.
#[derive(Deserialize)]
pub(crate) struct JudgedHead {
    pub(crate) turn: TurnId,
    pub(crate) revision: u32,
    votes: Vec<VoteHead>,
    verdict: Option<VoteHead>,
    pub(crate) sample: Option<SampleHead>,
    pub(crate) not_trainable: Option<NotTrainable>,
}

#[derive(Deserialize)]
struct VoteHead {
    value: Option<VoteValue>,
}

#[derive(Deserialize)]
pub(crate) struct SampleHead {
    pub(crate) id: SampleId,
    pub(crate) adapter: AdapterName,
    pub(crate) version: PolicyVersion,
}

impl JudgedHead {
    pub(crate) fn verdict(&self) -> Option<VoteValue> {
        self.verdict.as_ref()?.value
    }

    /// Votes that are there, and absent ones.
    pub(crate) fn votes(&self) -> (u64, u64) {
        let present = self
            .votes
            .iter()
            .filter(|vote| vote.value.is_some())
            .count();
        (present as u64, (self.votes.len() - present) as u64)
    }
}

/// The line of one adapter.
#[derive(Debug)]
pub struct Line {
    ledger: Ledger,
    adapter: AdapterName,
    lineage: Lineage,
    head: Option<VersionRecord>,
    staged: Option<Staged>,
    run: Option<RunRecord>,
    steps: HashMap<PolicyVersion, u64>,
    newest: PolicyVersion,
    schedule: Schedule,
    unread: VecDeque<Unread>,
    /// Judged turns are read from here.
    next: Seq,
    gates: HashMap<PolicyVersion, GateRecord>,
    last_gate: Option<PolicyVersion>,
    first_rules: Rules,
    /// A request to forget that has begun and is not over.
    forgetting: Option<ForgetRecord>,
    forgotten: Vec<TurnId>,
    /// Samples that were recorded as too old: the fold finds them again, nobody counts them again.
    dropped: HashSet<SampleId>,
}

impl Line {
    /// A line of which nothing is known yet; [`Line::add`] tells it.
    pub fn new(ledger: Ledger, adapter: AdapterName, rules: Rules) -> Self {
        Self {
            ledger,
            adapter,
            lineage: Lineage::default(),
            head: None,
            staged: None,
            run: None,
            steps: HashMap::new(),
            newest: PolicyVersion::BASE,
            schedule: Schedule::new(rules),
            unread: VecDeque::new(),
            next: Seq::FIRST,
            gates: HashMap::new(),
            last_gate: None,
            first_rules: rules,
            forgetting: None,
            forgotten: Vec::new(),
            dropped: HashSet::new(),
        }
    }

    /// Reads a whole ledger. `rules` hold until the first record that says others.
    ///
    /// # Errors
    /// Damage, or a record that this program cannot read.
    pub fn read(ledger: Ledger, adapter: AdapterName, rules: Rules) -> Result<Self> {
        let mut line = Self::new(ledger.clone(), adapter, rules);
        for record in ledger.scan(Seq::FIRST) {
            line.add(&record.map_err(Error::ledger("train", "read the ledger"))?)?;
        }
        Ok(line)
    }

    /// The next record of the ledger.
    ///
    /// # Errors
    /// A record that this program cannot read.
    pub fn add(&mut self, record: &Record) -> Result<()> {
        if record.erased {
            if record.kind == JUDGED {
                self.next = self.next.max(record.seq.next());
            }
            return Ok(());
        }
        match record.kind.as_str() {
            JUDGED => self.hear(record.seq, records::decode(record)?),
            RUN => {
                let run: RunRecord = records::decode(record)?;
                if run.adapter == self.adapter.as_str() {
                    self.apply_run(run);
                }
            }
            lineage::KIND => {
                let version = VersionRecord::from_record(record)
                    .map_err(Error::ledger("train", "read a version"))?;
                self.apply_version(version);
            }
            lineage::HEAD => self.apply_head(records::decode(record)?, record.seq),
            lineage::REF => self.lineage.add_ref(records::decode(record)?),
            GATE => {
                let gate: GateRecord = records::decode(record)?;
                if gate.adapter == self.adapter.as_str() {
                    self.apply_gate(gate);
                }
            }
            STEP_REFUSED if record.subject == self.adapter.as_str() => {
                self.apply_refused(&records::decode(record)?);
            }
            SPENT => self.spent(records::decode(record)?),
            FORGET => {
                let forget: ForgetRecord = records::decode(record)?;
                if forget.adapter == self.adapter.as_str() {
                    self.apply_forget(forget);
                }
            }
            FORGOTTEN => {
                let forgotten: ForgottenRecord = records::decode(record)?;
                if forgotten.adapter == self.adapter.as_str() {
                    self.apply_forgotten(forgotten);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Reads the judged turns that have been recorded since.
    ///
    /// # Errors
    /// The ledger's.
    pub fn pull(&mut self) -> Result<()> {
        for record in self.ledger.by_kind(JUDGED, self.next) {
            let record = record.map_err(Error::ledger("train", "read the ledger"))?;
            self.add(&record)?;
        }
        Ok(())
    }

    /// The batch that is due now; reads on just as far as it must. None while a version is on trial.
    pub fn due(&mut self) -> Option<Due> {
        if self.waits_for_a_trial() {
            return None;
        }
        loop {
            if let Some(due) = self.due_here() {
                return Some(due);
            }
            let next = self.unread.pop_front()?;
            self.schedule.judged(next.at, &next.turn, next.sample);
        }
    }

    /// The samples of a batch.
    ///
    /// # Errors
    /// The ledger's, or a record that holds no such sample any more.
    pub fn samples(&self, due: &Due) -> Result<Vec<Sample>> {
        let load = |w: &crate::schedule::Waiting| sample_at(&self.ledger, w.at, &w.sample);
        due.samples.iter().map(load).collect()
    }

    /// The version that is live and that the next step starts from; `None` while it is the base model.
    pub fn head(&self) -> Option<&VersionRecord> {
        self.head.as_ref()
    }

    /// The version that is on trial beside the head, if one is. Nothing is due until its trial is over.
    pub fn staged(&self) -> Option<&Staged> {
        self.staged.as_ref()
    }

    /// Whether the weights that answer were made from this version's, or are its own.
    pub(crate) fn is_made_from(&self, version: PolicyVersion) -> bool {
        self.made_from().iter().any(|v| v.version == version.get())
    }

    /// The versions by which the weights that answer came to be, the newest first, copies included.
    pub(crate) fn made_from(&self) -> Vec<&VersionRecord> {
        let find = |number| self.lineage.get(self.adapter.as_str(), number);
        weights(self.head(), &find, &|hash| self.lineage.by_hash(hash))
    }

    /// The versions that led to what answers, the newest first, each with its step from the one before in nats a reply: up to one that
    /// was not measured, or that somebody went to, by an order or because a guard tripped.
    pub(crate) fn strides(&self) -> Vec<(PolicyVersion, Option<f64>)> {
        let mut strides = Vec::new();
        for version in self.made_from() {
            let number = PolicyVersion::new(version.version);
            let gate = self.gate(number).filter(|_| version.origin.is_step());
            let nats = gate.and_then(|gate| Stride::of(&gate.examination).nats);
            strides.push((number, nats));
            if nats.is_none() {
                break;
            }
        }
        strides
    }

    pub(crate) fn waits_for_a_trial(&self) -> bool {
        self.staged.is_some() && !ledger::mutant::on("trained-during-a-trial")
    }

    /// The head's number.
    pub fn version(&self) -> PolicyVersion {
        self.head
            .as_ref()
            .map_or(PolicyVersion::BASE, |v| PolicyVersion::new(v.version))
    }

    /// The number of the next version.
    pub fn next_version(&self) -> PolicyVersion {
        self.newest.next()
    }

    /// All versions, heads and names.
    pub fn lineage(&self) -> &Lineage {
        &self.lineage
    }

    /// The adapter.
    pub fn adapter(&self) -> &AdapterName {
        &self.adapter
    }

    /// The ledger.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The settings that training goes by, once they have been recorded.
    pub fn run(&self) -> Option<&RunRecord> {
        self.run.as_ref()
    }

    /// What the gate found about a version.
    pub fn gate(&self, version: PolicyVersion) -> Option<&GateRecord> {
        self.gates.get(&version)
    }

    pub(crate) fn last_gate(&self) -> Option<&GateRecord> {
        self.gates.get(&self.last_gate?)
    }

    /// The rules that held before the first record that says others.
    pub(crate) fn first_rules(&self) -> Rules {
        self.first_rules
    }

    /// A request to forget that has begun and is not over: it must be finished before anything is trained.
    pub fn forgetting(&self) -> Option<&ForgetRecord> {
        self.forgetting.as_ref()
    }

    /// Turns that were forgotten, by every request so far.
    pub fn forgotten(&self) -> &[TurnId] {
        &self.forgotten
    }

    /// The fold.
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// Samples that wait to be trained, those that the fold has not read yet included.
    pub fn waiting(&self) -> usize {
        let unread = self.unread.iter().filter_map(|u| u.sample.as_ref());
        let waiting = self.schedule.waiting().map(|w| &w.sample);
        waiting
            .chain(unread.map(|(sample, _)| sample))
            .filter(|sample| !self.dropped.contains(*sample))
            .count()
    }

    /// Where it reads judged turns from.
    pub(crate) fn place(&self) -> Work {
        (JUDGED, self.next)
    }

    pub(crate) fn take_stale(&mut self) -> Vec<crate::schedule::Waiting> {
        let mut stale = self.schedule.take_stale();
        stale.retain(|w| self.dropped.insert(w.sample.clone()));
        stale
    }

    fn due_here(&mut self) -> Option<Due> {
        let head = self.steps_of(self.version());
        let steps = &self.steps;
        let count = |v: PolicyVersion| steps.get(&v).copied().unwrap_or(v.get());
        self.schedule.due(head, &count)
    }

    fn steps_of(&self, version: PolicyVersion) -> u64 {
        self.steps.get(&version).copied().unwrap_or(version.get())
    }

    /// A judged turn that was decoded already.
    pub(crate) fn hear(&mut self, at: Seq, judged: JudgedHead) {
        self.next = at.next();
        let ours = judged.sample.filter(|s| s.adapter == self.adapter);
        self.unread.push_back(Unread {
            at,
            turn: judged.turn,
            sample: ours.map(|s| (s.id, s.version)),
        });
    }

    pub(crate) fn spent(&mut self, spent: SpentRecord) {
        match spent.fate {
            Fate::Stale { .. } => drop(self.dropped.insert(spent.sample)),
            Fate::TooLong { through } if self.knows(&spent.sample) => {
                self.read_through(through);
                self.schedule.done([&spent.sample]);
            }
            _ => {}
        }
    }

    /// Whether a sample waits on this line: the ledger may hold other adapters'.
    fn knows(&self, sample: &SampleId) -> bool {
        let unread = self.unread.iter().filter_map(|u| u.sample.as_ref());
        let waiting = self.schedule.waiting().map(|w| &w.sample);
        waiting
            .chain(unread.map(|(id, _)| id))
            .any(|id| id == sample)
    }

    /// Reads on to a place, as the decision did that was made there.
    fn read_through(&mut self, through: Seq) {
        while self.unread.front().is_some_and(|u| u.at <= through) {
            // Takes out what is too old, as it was then.
            let _ = self.due_here();
            if let Some(next) = self.unread.pop_front() {
                self.schedule.judged(next.at, &next.turn, next.sample);
            }
        }
        let _ = self.due_here();
    }

    fn apply_run(&mut self, run: RunRecord) {
        self.read_through(run.through);
        self.schedule.set_rules(run.rules);
        self.run = Some(run);
    }

    fn apply_version(&mut self, version: VersionRecord) {
        if version.adapter != self.adapter.as_str() {
            self.lineage.add(version);
            return;
        }
        let number = PolicyVersion::new(version.version);
        self.steps.insert(number, version.steps());
        self.newest = self.newest.max(number);
        match version.origin {
            // It counts when the request to forget is over: see `apply_forgotten`.
            Origin::Rederived { .. } => {}
            _ => self.apply_outcome(&version),
        }
        self.lineage.add(version);
    }

    fn apply_outcome(&mut self, version: &VersionRecord) {
        let samples: Vec<SampleId> = version.samples.iter().map(|s| s.as_str().into()).collect();
        match version.through {
            Some(through) => self.read_through(Seq::new(through)),
            // Ledgers of the first programs: as far as its own samples lie, and it went live by being there.
            None => {
                let of = |u: &&Unread| matches!(&u.sample, Some((id, _)) if samples.contains(id));
                let last = self.unread.iter().filter(of).map(|u| u.at).max();
                self.read_through(last.unwrap_or(Seq::ZERO));
                self.head = Some(version.clone());
            }
        }
        if !ledger::mutant::on("trained-again-after-restart") {
            self.schedule.done(&samples);
        }
        if let Origin::Reverted { to: of } | Origin::Promoted { from: of } = version.origin
            && !ledger::mutant::on("moved-to-what-is-trained-again")
        {
            let find = |number| self.lineage.get(self.adapter.as_str(), number);
            let learned = learned(find(of), &find, &|hash| self.lineage.by_hash(hash));
            self.schedule.done(&learned);
        }
    }

    fn apply_head(&mut self, head: HeadRecord, at: Seq) {
        let ours = head.adapter == self.adapter.as_str();
        match head.share {
            Some(share) if ours && !ledger::mutant::on("trial-forgotten-at-restart") => {
                let version = PolicyVersion::new(head.version);
                self.staged = Some(Staged { version, share, at });
            }
            None if ours
                && !(ledger::mutant::on("revert-forgotten-at-restart")
                    && head.why != "trained") =>
            {
                self.head = self.lineage.get(&head.adapter, head.version).cloned();
                self.staged = None;
            }
            _ => {}
        }
        self.lineage.add_head(head);
    }

    fn apply_gate(&mut self, gate: GateRecord) {
        self.last_gate = Some(gate.version);
        self.gates.insert(gate.version, gate);
    }

    fn apply_ref(&mut self, name: RefRecord) {
        self.lineage.add_ref(name);
    }

    fn apply_refused(&mut self, refused: &StepRefusedRecord) {
        if let Some(through) = refused.through {
            self.read_through(through);
        }
        self.schedule.done(&refused.samples);
    }

    fn apply_forget(&mut self, forget: ForgetRecord) {
        self.forgotten.extend(forget.turns.iter().cloned());
        self.forgetting = Some(forget);
    }

    fn apply_forgotten(&mut self, forgotten: ForgottenRecord) {
        let rules = self.schedule.rules();
        let through = forgotten.place.through;
        self.unread.retain(|u| u.at > through);
        self.schedule = Schedule::resume(rules, forgotten.place);
        self.schedule.forget(self.forgotten.iter().cloned());
        self.forgetting = None;
        let staged = self.staged.map(|staged| staged.version);
        if staged.is_some_and(|version| forgotten.erased.contains(&version)) {
            self.staged = None;
        }
    }
}

/// How these weights came to be, the newest first: a copy's source comes before it, whatever was live in between.
pub(crate) fn weights<'a>(
    version: Option<&'a VersionRecord>,
    by_number: &dyn Fn(u64) -> Option<&'a VersionRecord>,
    by_hash: &dyn Fn(&Digest) -> Option<&'a VersionRecord>,
) -> Vec<&'a VersionRecord> {
    let mut line = Vec::new();
    let mut next = version;
    while let Some(version) = next {
        line.push(version);
        next = match version.origin {
            Origin::Reverted { to: of } | Origin::Promoted { from: of } => by_number(of),
            _ => version.parent.and_then(|hash| by_hash(&hash)),
        };
    }
    line
}

/// The samples that these weights have learned from. After something was forgotten some of them may wait on the new line: whoever
/// goes on from weights that know them must not train them again.
pub(crate) fn learned<'a>(
    version: Option<&'a VersionRecord>,
    by_number: &dyn Fn(u64) -> Option<&'a VersionRecord>,
    by_hash: &dyn Fn(&Digest) -> Option<&'a VersionRecord>,
) -> Vec<SampleId> {
    let line = weights(version, by_number, by_hash).into_iter();
    line.flat_map(|v| v.samples.iter().map(|s| SampleId::from(s.as_str())))
        .collect()
}

/// The sample that lies in a record.
pub(crate) fn sample_at(ledger: &Ledger, at: Seq, id: &SampleId) -> Result<Sample> {
    let record = ledger
        .get(at)
        .map_err(Error::ledger("train", "read a sample"))?
        .filter(|record| !record.erased && record.kind == JUDGED);
    let judged = record.as_ref().map(records::decode::<JudgedRecord>);
    let sample = judged.transpose()?.and_then(|judged| judged.sample);
    sample
        .filter(|sample| sample.id == *id)
        .ok_or_else(|| Error::NoSample {
            sample: id.to_string(),
            at,
        })
}
