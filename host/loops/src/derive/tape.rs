//! Everything in a ledger that the training fold needs, read once: judged turns, and what moved the fold besides them.
//!
//! It decides nothing; [`super`] runs the fold over it.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use ledger::{
    Digest, Ledger, Seq,
    lineage::{self, HeadRecord, Origin, VersionRecord},
};
use rl::{AdapterName, PolicyVersion, SampleId, TurnId};

use crate::{
    Error, Result,
    gate::GateMemory,
    gating,
    line::JudgedHead,
    records::{
        self, FORGOTTEN, Fate, ForgottenRecord, GATE, GateRecord, JUDGED, RUN, RunRecord, SPENT,
        STEP_REFUSED, SpentRecord, StepRefusedRecord,
    },
    retreat::Stride,
};

/// More batches than can be over at one place.
const ALL: u64 = 1 << 32;

/// What moves the fold besides judged turns.
pub(super) enum Event {
    Run(Box<RunRecord>),
    /// The head moved to the weights of this version, at this place.
    Moved {
        to: PolicyVersion,
        through: Seq,
        /// Something had been forgotten by then: who named a version of an older line meant its weights, not its place.
        later: bool,
    },
    /// A sample was taken out of the batch that was due at this place.
    SetAside {
        sample: SampleId,
        through: Seq,
    },
}

/// An event, and how many batches of its place were over before it: it may have come while the next one was computed.
pub(super) struct Control {
    pub(super) event: Event,
    pub(super) after: u64,
}

/// A judged turn and the sample that it gives.
pub(super) type Heard = (Seq, TurnId, Option<(SampleId, PolicyVersion)>);

/// Everything in a ledger that the fold needs.
pub(super) struct Tape {
    pub(super) judged: VecDeque<Heard>,
    pub(super) controls: VecDeque<Control>,
    /// Samples that were found too long for the host's memory, whenever that was.
    pub(super) set_aside: HashSet<SampleId>,
    /// Batches that were over when the fold stood at a place.
    pub(super) over: HashMap<Seq, u64>,
    pub(super) versions: BTreeMap<PolicyVersion, VersionRecord>,
    pub(super) gates: HashMap<PolicyVersion, Gated>,
    pub(super) trials: Trials,
    pub(super) first_run: Option<RunRecord>,
    /// Something has been forgotten.
    pub(super) forgotten: bool,
}

/// Which versions were on trial, and which have answered everybody under their own number. A trial's outcome is what users
/// did: it is taken from the ledger, like an operator's order, and says nothing of weights that are computed anew.
#[derive(Default)]
pub(super) struct Trials {
    begun: HashSet<PolicyVersion>,
    answered: HashSet<PolicyVersion>,
}

impl Trials {
    fn head(&mut self, head: &HeadRecord) {
        let set = match head.share {
            Some(_) => &mut self.begun,
            None => &mut self.answered,
        };
        set.insert(PolicyVersion::new(head.version));
    }

    pub(super) fn keeps(&self, version: PolicyVersion) -> bool {
        let lost = self.begun.contains(&version) && !self.answered.contains(&version);
        lost && !ledger::mutant::on("replay-ignores-trials")
    }
}

/// What the gate found, and what it remembers of it.
#[derive(Clone)]
pub(super) struct Gated {
    pub(super) passed: bool,
    pub(super) memory: GateMemory,
    /// Its step from the version before, in nats a reply.
    pub(super) nats: Option<f64>,
    /// So many versions were taken back with it.
    pub(super) back: usize,
}

/// A step's inputs: weights before, samples, settings.
#[derive(PartialEq, Eq, Hash)]
pub(super) struct Inputs {
    adapter: Option<Digest>,
    optimizer: Option<Digest>,
    samples: Vec<String>,
    settings: String,
}

impl Event {
    pub(super) fn place(&self) -> Seq {
        match self {
            Self::Run(run) => run.through,
            Self::Moved { through, .. } | Self::SetAside { through, .. } => *through,
        }
    }
}

impl Tape {
    pub(super) fn read(ledger: &Ledger, adapter: &AdapterName, until: Seq) -> Result<Self> {
        let mut tape = Self {
            judged: VecDeque::new(),
            controls: VecDeque::new(),
            set_aside: HashSet::new(),
            over: HashMap::new(),
            versions: BTreeMap::new(),
            gates: HashMap::new(),
            trials: Trials::default(),
            first_run: None,
            forgotten: false,
        };
        for record in ledger.scan(Seq::FIRST) {
            let record = record.map_err(Error::ledger("train", "read the ledger"))?;
            if record.erased {
                continue;
            }
            match record.kind.as_str() {
                JUDGED if record.seq <= until => {
                    let judged: JudgedHead = records::decode(&record)?;
                    let ours = judged.sample.filter(|s| s.adapter == *adapter);
                    let sample = ours.map(|s| (s.id, s.version));
                    tape.judged.push_back((record.seq, judged.turn, sample));
                }
                RUN => {
                    let run: RunRecord = records::decode(&record)?;
                    if run.adapter == adapter.as_str() {
                        tape.first_run.get_or_insert_with(|| run.clone());
                        tape.control(Event::Run(Box::new(run)));
                    }
                }
                GATE => {
                    let gate: GateRecord = records::decode(&record)?;
                    if gate.adapter == adapter.as_str() {
                        let gated = Gated {
                            passed: gate.passed,
                            memory: gating::remembered(&gate),
                            nats: Stride::of(&gate.examination).nats,
                            back: gate.back,
                        };
                        tape.gates.insert(gate.version, gated);
                    }
                }
                lineage::HEAD => {
                    let head: HeadRecord = records::decode(&record)?;
                    if head.adapter == adapter.as_str() {
                        tape.trials.head(&head);
                    }
                }
                STEP_REFUSED if record.subject == adapter.as_str() => {
                    let refused: StepRefusedRecord = records::decode(&record)?;
                    if let Some(through) = refused.through {
                        tape.is_over(through);
                    }
                }
                SPENT => tape.spent(records::decode(&record)?),
                FORGOTTEN => {
                    let forgotten: ForgottenRecord = records::decode(&record)?;
                    if forgotten.adapter == adapter.as_str() {
                        // Whatever was due where the new line stood was over before anything that came later.
                        let over = tape.over.entry(forgotten.place.through).or_default();
                        *over = (*over / ALL + 1) * ALL;
                        tape.forgotten = true;
                    }
                }
                lineage::KIND => {
                    let version = VersionRecord::from_record(&record)
                        .map_err(Error::ledger("train", "read a version"))?;
                    if version.adapter == adapter.as_str() {
                        tape.version(version);
                    }
                }
                _ => {}
            }
        }
        Ok(tape)
    }

    fn version(&mut self, version: VersionRecord) {
        let to = match version.origin {
            Origin::Reverted { to } => Some(to),
            Origin::Promoted { from } => Some(from),
            _ => None,
        };
        if let Some(to) = to {
            self.control(Event::Moved {
                to: PolicyVersion::new(to),
                through: Seq::new(version.through.unwrap_or(0)),
                later: self.forgotten,
            });
        }
        if let (Origin::Trained, Some(through)) = (&version.origin, version.through) {
            self.is_over(Seq::new(through));
        }
        self.versions
            .insert(PolicyVersion::new(version.version), version);
    }

    fn spent(&mut self, spent: SpentRecord) {
        let SpentRecord { sample, fate, .. } = spent;
        let is_it = |heard: &Heard| heard.2.as_ref().is_some_and(|(id, _)| *id == sample);
        // Another adapter's places say nothing of this line's.
        if let Fate::TooLong { through } = fate
            && self.judged.iter().any(is_it)
        {
            self.set_aside.insert(sample.clone());
            self.control(Event::SetAside { sample, through });
        }
    }

    fn is_over(&mut self, through: Seq) {
        let over = self.over.entry(through).or_default();
        *over += 1;
    }

    fn control(&mut self, event: Event) {
        let after = self.over.get(&event.place()).copied().unwrap_or(0);
        self.controls.push_back(Control { event, after });
    }

    /// Every recorded step by its inputs.
    pub(super) fn known(&self) -> HashMap<Inputs, PolicyVersion> {
        let by_hash: HashMap<Digest, &VersionRecord> =
            self.versions.values().map(|v| (v.hash(), v)).collect();
        let mut known = HashMap::new();
        for (number, version) in &self.versions {
            let parent = version.parent.and_then(|hash| by_hash.get(&hash).copied());
            if version.origin.is_step() && (version.parent.is_none() || parent.is_some()) {
                let inputs = inputs(parent, &version.samples, &version.settings["learner"]);
                known.insert(inputs, *number);
            }
        }
        known
    }
}

pub(super) fn inputs(
    parent: Option<&VersionRecord>,
    samples: &[String],
    settings: &serde_json::Value,
) -> Inputs {
    Inputs {
        adapter: parent.and_then(|v| v.adapter_blob),
        optimizer: parent.and_then(|v| v.optimizer_blob),
        samples: samples.to_vec(),
        settings: settings.to_string(),
    }
}
