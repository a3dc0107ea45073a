//! The invariants of a ledger's content, each checked by reading what is there.
//!
//! The bytes and the chain are [`ledger::verify`]'s; here the records must agree with one another. Whether a replay gives the
//! weights again is [`crate::replay`]'s. Reads only; needs no model.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::Hash,
};

use ledger::{
    Ledger, Record, Seq,
    lineage::{self, Lineage, Origin, VersionRecord},
};
use rl::{AdapterName, Decider, PolicyVersion, Turn, TurnId, majority};
use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    line::learned,
    records::{
        self, CLOSED, ClosedRecord, FEEDBACK, FORGET, FORGOTTEN, Fate, ForgetRecord,
        ForgottenRecord, GATE, GateRecord, JUDGED, JudgedRecord, SPENT, SpentRecord, TURN,
        TurnRecord,
    },
    recovery,
    schedule::Rules,
};

/// Violations of one invariant that are listed; further ones are counted.
const LISTED: usize = 20;

/// One invariant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Its number, for example `I7`.
    pub id: String,
    /// What must hold.
    pub rule: String,
    /// What was looked at.
    pub checked: u64,
    /// Where it does not hold.
    pub violated: u64,
    /// The first of these, in words.
    pub violations: Vec<String>,
}

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    /// In the order of their numbers.
    pub checks: Vec<Check>,
}

impl Audit {
    /// Whether every invariant holds.
    pub fn is_sound(&self) -> bool {
        self.checks.iter().all(|check| check.violated == 0)
    }
}

/// The invariants, by number, in the order of the report.
const RULES: [(&str, &str); 13] = [
    ("I2", "an idempotency key is recorded once"),
    (
        "I3",
        "what is said about a turn comes after the turn: nothing is about a turn that never was",
    ),
    (
        "I4",
        "a checkpoint that is believed is what the records up to its place say",
    ),
    ("I5", "a verdict is the majority of its stored votes"),
    (
        "I6",
        "no vote, no verdict; no verdict and no hint, no sample",
    ),
    ("I7", "a sample is trained at most once on a line"),
    (
        "I8",
        "what is trained is what was served: tokens and log-probs, bit for bit",
    ),
    (
        "I9",
        "no sample is older than its batch's rules allow, in steps",
    ),
    (
        "I10",
        "a version is whole: its weights, and the end of each of its samples, in one place",
    ),
    (
        "I11",
        "a reply names weights that the ledger knows by the same digest",
    ),
    (
        "I12",
        "a revert has the weights and the optimizer state of its source",
    ),
    (
        "I23",
        "no number of a committed step is out of bounds, and no held version answers",
    ),
    (
        "I25",
        "order is the sequence: version numbers grow whatever the clock says",
    ),
];

struct Auditor<'a> {
    ledger: &'a Ledger,
    adapter: &'a AdapterName,
    checks: BTreeMap<&'static str, Check>,
    keys: HashSet<String>,
    turns: HashMap<TurnId, Seq>,
    served: HashMap<TurnId, (PolicyVersion, String)>,
    open: HashMap<TurnId, Turn>,
    ends: HashSet<(String, End)>,
    held: HashSet<PolicyVersion>,
    forgotten: HashSet<String>,
    /// Steps that the last request to forget took off the line, whether they knew what was forgotten or came out otherwise without
    /// it: their samples may be trained again.
    off_the_line: HashSet<PolicyVersion>,
    sample_versions: HashMap<String, PolicyVersion>,
    lineage: Lineage,
    newest: u64,
}

#[derive(PartialEq, Eq, Hash)]
enum End {
    In(PolicyVersion),
    Else,
}

/// Checks a ledger.
///
/// # Errors
/// Damage, or a record that this program cannot read: what cannot be read cannot be audited.
pub fn audit(ledger: &Ledger, adapter: &AdapterName) -> Result<Audit> {
    let check = |(id, rule): &(&'static str, &'static str)| {
        let check = Check {
            id: (*id).to_owned(),
            rule: (*rule).to_owned(),
            checked: 0,
            violated: 0,
            violations: Vec::new(),
        };
        (*id, check)
    };
    let mut auditor = Auditor {
        ledger,
        adapter,
        checks: RULES.iter().map(check).collect(),
        keys: HashSet::new(),
        turns: HashMap::new(),
        served: HashMap::new(),
        open: HashMap::new(),
        ends: HashSet::new(),
        held: HashSet::new(),
        forgotten: HashSet::new(),
        off_the_line: HashSet::new(),
        sample_versions: HashMap::new(),
        lineage: Lineage::default(),
        newest: 0,
    };
    for record in ledger.scan(Seq::FIRST) {
        auditor.add(&record.map_err(Error::ledger("audit", "read the ledger"))?)?;
    }
    auditor.checkpoints()?;
    auditor.versions();
    auditor.replies();
    let mut checks = auditor.checks;
    Ok(Audit {
        checks: RULES
            .iter()
            .filter_map(|(id, _)| checks.remove(id))
            .collect(),
    })
}

impl Auditor<'_> {
    fn hold(&mut self, id: &'static str, holds: bool, otherwise: impl FnOnce() -> String) {
        if let Some(check) = self.checks.get_mut(id) {
            check.checked += 1;
            if !holds {
                check.violated += 1;
                if check.violations.len() < LISTED {
                    check.violations.push(otherwise());
                }
            }
        }
    }

    fn add(&mut self, record: &Record) -> Result<()> {
        let seq = record.seq;
        if let Some(key) = &record.key {
            let fresh = self.keys.insert(key.clone());
            self.hold("I2", fresh, || {
                format!("record {seq}: key {key} is there already")
            });
        }
        if record.erased {
            if record.kind == TURN {
                self.turns.insert(record.subject.as_str().into(), seq);
            }
            return Ok(());
        }
        match record.kind.as_str() {
            TURN => self.turn(seq, records::decode(record)?),
            CLOSED => {
                let closed: ClosedRecord = records::decode(record)?;
                self.about(seq, &closed.turn);
            }
            FEEDBACK => {
                let feedback: rl::Feedback = records::decode(record)?;
                self.about(seq, &feedback.turn);
            }
            JUDGED => self.judged(seq, &records::decode(record)?),
            SPENT => {
                let spent: SpentRecord = records::decode(record)?;
                self.about(seq, &spent.turn);
                let fate = match spent.fate {
                    Fate::Trained(version) | Fate::Held(version) => End::In(version),
                    _ => End::Else,
                };
                self.ends.insert((spent.sample.to_string(), fate));
            }
            GATE => {
                let gate: GateRecord = records::decode(record)?;
                if !gate.passed && gate.adapter == self.adapter.as_str() {
                    self.held.insert(gate.version);
                }
            }
            FORGET => {
                let forget: ForgetRecord = records::decode(record)?;
                let samples = forget.turns.iter().map(|turn| format!("sample-{turn}"));
                self.forgotten.extend(samples);
            }
            FORGOTTEN => {
                let forgotten: ForgottenRecord = records::decode(record)?;
                if forgotten.adapter == self.adapter.as_str() {
                    let line: HashSet<PolicyVersion> = forgotten.line.into_iter().collect();
                    let all = self.lineage.all().iter();
                    let steps =
                        all.filter(|v| v.adapter == forgotten.adapter && v.origin.is_step());
                    let numbers = steps.map(|v| PolicyVersion::new(v.version));
                    self.off_the_line = numbers.filter(|number| !line.contains(number)).collect();
                }
            }
            lineage::KIND => {
                let version = VersionRecord::from_record(record)
                    .map_err(Error::ledger("audit", "read a version"))?;
                if version.adapter == self.adapter.as_str() {
                    let (number, newest) = (version.version, self.newest);
                    self.hold("I25", number > newest, || {
                        format!("record {seq}: v{number} comes after v{newest}")
                    });
                    self.newest = number;
                }
                self.lineage.add(version);
            }
            lineage::HEAD => self.lineage.add_head(records::decode(record)?),
            _ => {}
        }
        Ok(())
    }

    fn about(&mut self, seq: Seq, turn: &TurnId) {
        let known = self.turns.contains_key(turn);
        self.hold("I3", known, || {
            format!("record {seq} is about {turn}, which was never served")
        });
    }

    fn turn(&mut self, seq: Seq, record: TurnRecord) {
        let turn = record.turn;
        self.turns.insert(turn.id.clone(), seq);
        if turn.adapter.as_ref() == Some(self.adapter) {
            let of = (turn.version, turn.adapter_digest.clone());
            self.served.insert(turn.id.clone(), of);
        }
        self.open.insert(turn.id.clone(), turn);
    }

    fn judged(&mut self, seq: Seq, judged: &JudgedRecord) {
        self.about(seq, &judged.turn);
        let id = &judged.turn;
        let votes = majority(judged.votes.iter().map(|vote| vote.value));
        if let Some(verdict) = judged.verdict
            && verdict.by == Decider::Judge
        {
            self.hold("I5", votes == Some(verdict.value), || {
                format!(
                    "record {seq}: the verdict on {id} is {:?}, its votes give {votes:?}",
                    verdict.value
                )
            });
        }
        let reward = judged.reward.and_then(|reward| reward.reward);
        let sign = judged.verdict.map_or(0.0, |verdict| verdict.value.sign());
        // A whole episode is paid by its outcome, too, and that outranks the judge.
        let alone = judged.paid.is_none();
        self.hold("I5", !alone || reward.unwrap_or(0.0) * sign >= 0.0, || {
            format!("record {seq}: {id} has a reward of {reward:?} for the opposite verdict")
        });
        let judged_by_nobody = judged.verdict.is_none() && votes.is_none();
        let by_outcome = judged
            .paid
            .as_ref()
            .is_some_and(|paid| paid.outcome.is_some());
        let by_nobody = judged_by_nobody && !by_outcome;
        self.hold("I6", !(by_nobody && reward.is_some()), || {
            format!("record {seq}: {id} has a reward of {reward:?} and no verdict")
        });
        let Some(sample) = &judged.sample else { return };
        let told = judged.verdict.is_some() || !judged.teachers.is_empty() || by_outcome;
        self.hold("I6", told, || {
            format!("record {seq}: {id} has a sample, and neither a verdict nor a hint")
        });
        self.sample_versions
            .insert(sample.id.to_string(), sample.version);
        let Some(turn) = self.open.get(id) else {
            return;
        };
        let bits = |xs: &[f32]| xs.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        let same = sample.prompt == turn.prompt
            && sample.response == turn.response
            && bits(&sample.behaviour) == bits(&turn.logprobs)
            && sample.version == turn.version;
        self.hold("I8", same, || {
            format!("record {seq}: the sample of {id} is not what was served")
        });
    }

    fn checkpoints(&mut self) -> Result<()> {
        for (through, agrees) in recovery::agree(self.ledger)? {
            self.hold("I4", agrees, || {
                format!("the checkpoint at record {through} is not what its records say")
            });
        }
        Ok(())
    }

    fn versions(&mut self) {
        let all: Vec<VersionRecord> = self.lineage.all().to_vec();
        let ours = all.iter().filter(|v| v.adapter == self.adapter.as_str());
        let ours: Vec<&VersionRecord> = ours.collect();
        for version in &ours {
            self.line_of(version);
            self.whole(version);
            self.copy(version);
            self.age(version);
            let finite = version.metrics.values().all(|value| value.is_finite());
            self.hold("I23", finite, || {
                format!("v{} has a number that is not finite", version.version)
            });
        }
        let heads = self.lineage.heads().to_vec();
        for head in heads.iter().filter(|h| h.adapter == self.adapter.as_str()) {
            let held = self.held.contains(&PolicyVersion::new(head.version));
            self.hold("I23", !held, || {
                format!("v{} was held by the gate and answered", head.version)
            });
        }
    }

    /// A line is followed twice: as it was recorded, and as its weights came to be, which goes through copies to their source.
    fn line_of(&mut self, version: &VersionRecord) {
        let recorded = self
            .lineage
            .ancestors(version)
            .filter(|v| v.origin.is_step())
            .filter(|v| !self.off_the_line.contains(&PolicyVersion::new(v.version)))
            .flat_map(|v| &v.samples);
        let twice = repeated(recorded).cloned();
        let find = |number| self.lineage.get(&version.adapter, number);
        let learned = learned(Some(version), &find, &|hash| self.lineage.by_hash(hash));
        let twice = twice.or_else(|| repeated(&learned).map(ToString::to_string));
        self.hold("I7", twice.is_none(), || {
            format!(
                "{} is trained twice on the line of v{}",
                twice.unwrap_or_default(),
                version.version
            )
        });
    }

    fn whole(&mut self, version: &VersionRecord) {
        let number = PolicyVersion::new(version.version);
        let blobs = [version.adapter_blob, version.optimizer_blob];
        let there = blobs
            .iter()
            .flatten()
            .all(|digest| self.ledger.has_blob(digest));
        let erased = self.knows_forgotten(version);
        self.hold("I10", there || erased, || {
            format!("the weights of {number} are not there, and nobody erased them")
        });
        if version.origin == Origin::Trained {
            for sample in &version.samples {
                let ended = self.ends.contains(&(sample.clone(), End::In(number)));
                self.hold("I10", ended, || {
                    format!("{number} was trained on {sample}, whose end is not recorded")
                });
            }
        }
    }

    fn knows_forgotten(&self, version: &VersionRecord) -> bool {
        let find = |number| self.lineage.get(&version.adapter, number);
        let learned = learned(Some(version), &find, &|hash| self.lineage.by_hash(hash));
        learned
            .iter()
            .any(|sample| self.forgotten.contains(sample.as_str()))
    }

    fn copy(&mut self, version: &VersionRecord) {
        let (Origin::Reverted { to: of } | Origin::Promoted { from: of }) = version.origin else {
            return;
        };
        let source = self.lineage.get(&version.adapter, of);
        let blobs = |v: &VersionRecord| (v.adapter_blob, v.optimizer_blob);
        let same = match source {
            Some(source) => blobs(source) == blobs(version),
            None => of == 0 && version.adapter_blob.is_none(),
        };
        self.hold("I12", same, || {
            format!(
                "v{} does not have the weights of v{of}, which it went back to",
                version.version
            )
        });
    }

    fn age(&mut self, version: &VersionRecord) {
        let rules: Option<Rules> =
            serde_json::from_value(version.settings["rules"].clone()).unwrap_or_default();
        let Some(rules) = rules else { return };
        let before = version.steps().saturating_sub(1);
        for sample in &version.samples {
            let Some(served) = self.sample_versions.get(sample) else {
                continue;
            };
            let of = self.lineage.get(&version.adapter, served.get());
            let lag = before.saturating_sub(of.map_or(served.get(), VersionRecord::steps));
            self.hold("I9", lag <= rules.max_lag, || {
                format!(
                    "{sample} is {lag} steps behind in v{}, {} are allowed",
                    version.version, rules.max_lag
                )
            });
        }
    }

    fn replies(&mut self) {
        let served: Vec<_> = self.served.drain().collect();
        for (turn, (version, digest)) in served {
            let of = self.lineage.get(self.adapter.as_str(), version.get());
            let expected = of.and_then(VersionRecord::fingerprint).unwrap_or_default();
            let known = of.is_some() || version == PolicyVersion::BASE;
            let same = digest.is_empty() || digest == expected;
            let expected = expected.to_owned();
            self.hold("I11", known && same, || {
                format!("{turn} was served by {version} as {digest:?}; the ledger has {expected:?}")
            });
        }
    }
}

fn repeated<T: Eq + Hash>(items: impl IntoIterator<Item = T>) -> Option<T> {
    let mut seen = HashSet::new();
    items
        .into_iter()
        .find_map(|item| match seen.contains(&item) {
            true => Some(item),
            false => {
                seen.insert(item);
                None
            }
        })
}

#[cfg(test)]
mod tests {
    use ledger::{Entry, Options};

    use super::*;

    fn violated(entries: Vec<Entry>) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path(), Options::default()).unwrap();
        ledger.append_all(entries).wait().unwrap();
        let audit = audit(&ledger, &"main".into()).unwrap();
        let bad = audit.checks.into_iter().filter(|c| c.violated > 0);
        bad.map(|c| c.id).collect()
    }

    fn version(number: u64, samples: &[&str], parent: Option<&VersionRecord>) -> VersionRecord {
        VersionRecord {
            version: number,
            adapter: "main".to_owned(),
            parent: parent.map(VersionRecord::hash),
            samples: samples.iter().map(|s| (*s).to_owned()).collect(),
            ..VersionRecord::default()
        }
    }

    fn ended(sample: &str, version: u64) -> Entry {
        SpentRecord {
            sample: sample.into(),
            turn: "t".into(),
            fate: Fate::Trained(PolicyVersion::new(version)),
        }
        .to_entry()
        .unwrap()
    }

    #[test]
    fn an_empty_ledger_breaks_nothing() {
        assert!(violated(Vec::new()).is_empty());
    }

    #[test]
    fn a_sample_that_is_trained_twice_on_a_line_is_found() {
        let first = version(1, &["s"], None);
        let second = version(2, &["s"], Some(&first));
        let entries = vec![
            first.to_entry().unwrap(),
            ended("s", 1),
            second.to_entry().unwrap(),
            ended("s", 2),
        ];
        assert_eq!(violated(entries), ["I3", "I7"]);
    }

    #[test]
    fn a_sample_of_a_step_that_forgetting_took_off_the_line_may_be_trained_again() {
        // The step came out otherwise without what was forgotten; the revert behind it stayed, with weights that never had it.
        let first = version(1, &["s"], None);
        let back = VersionRecord {
            origin: Origin::Reverted { to: 0 },
            ..version(2, &[], Some(&first))
        };
        let third = version(3, &["s"], Some(&back));
        let all = |line: &[u64]| {
            let forgotten = ForgottenRecord {
                id: "f".into(),
                adapter: "main".into(),
                before: PolicyVersion::new(2),
                after: PolicyVersion::new(2),
                erased: Vec::new(),
                line: line.iter().copied().map(PolicyVersion::new).collect(),
                computed: 0,
                place: crate::schedule::Schedule::new(crate::train::Config::default().rules())
                    .place(),
            };
            violated(vec![
                first.to_entry().unwrap(),
                ended("s", 1),
                back.to_entry().unwrap(),
                records::encode(FORGOTTEN, "main", &forgotten).unwrap(),
                third.to_entry().unwrap(),
                ended("s", 3),
            ])
        };
        assert_eq!(all(&[]), ["I3"], "whose turn never was");
        assert_eq!(all(&[1]), ["I3", "I7"]);
    }

    #[test]
    fn a_version_whose_samples_have_no_end_or_whose_weights_are_gone_is_found() {
        let first = version(1, &["s"], None);
        assert_eq!(violated(vec![first.to_entry().unwrap()]), ["I10"]);
        let lost = VersionRecord {
            adapter_blob: Some(ledger::Digest::of(b"gone")),
            ..version(1, &[], None)
        };
        assert_eq!(violated(vec![lost.to_entry().unwrap()]), ["I10"]);
    }

    #[test]
    fn weights_that_a_copy_brought_back_may_be_erased_with_their_source() {
        let gone = || Some(ledger::Digest::of(b"gone"));
        let first = VersionRecord {
            adapter_blob: gone(),
            ..version(1, &["sample-t"], None)
        };
        let back = VersionRecord {
            origin: Origin::Reverted { to: 1 },
            adapter_blob: gone(),
            ..version(2, &[], None)
        };
        let forget = ForgetRecord {
            id: "f".into(),
            adapter: "main".into(),
            selector: "user".into(),
            commitment: String::new(),
            turns: vec!["t".into()],
            subjects: Vec::new(),
        };
        let all = |forget: Option<&ForgetRecord>| {
            let mut entries = vec![first.to_entry().unwrap(), back.to_entry().unwrap()];
            entries.push(ended("sample-t", 1));
            entries.extend(forget.map(|f| records::encode(FORGET, "main", f).unwrap()));
            violated(entries)
        };
        assert_eq!(all(Some(&forget)), ["I3"], "whose turn never was");
        assert_eq!(all(None), ["I3", "I10"]);
    }

    #[test]
    fn a_revert_with_other_weights_than_its_source_and_a_shrinking_number_are_found() {
        let second = VersionRecord {
            adapter_blob: None,
            ..version(2, &[], None)
        };
        let wrong = VersionRecord {
            origin: Origin::Reverted { to: 7 },
            ..version(1, &[], Some(&second))
        };
        let entries = vec![second.to_entry().unwrap(), wrong.to_entry().unwrap()];
        assert_eq!(violated(entries), ["I12", "I25"]);
    }
}
