//! Which samples make which batch: a pure function of the records, in their order (decision 0007).
//!
//! [`Schedule`] is told of judged turns and of what became of batches; it says when a batch is due and what is in it. The live
//! train loop, recovery, replay and forgetting all run this same code. It reads no ledger and holds no sample, only where each
//! one lies. Start at [`Schedule::judged`].

use std::collections::{HashSet, VecDeque};

use ledger::Seq;
use rl::{PolicyVersion, SampleId, TurnId};
use serde::{Deserialize, Serialize};

/// When a batch is due and which samples are too old for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Rules {
    /// Effective samples in a batch.
    pub batch_size: usize,
    /// Optimizer steps that may lie between the weights that served a sample and those that it would train.
    pub max_lag: u64,
}

/// A sample that waits to be trained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// The turn that it was made from.
    pub turn: TurnId,
    /// Its id.
    pub sample: SampleId,
    /// The version that served it.
    pub version: PolicyVersion,
    /// The record that holds it.
    pub at: Seq,
}

/// A batch that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// The last record that the decision has read.
    pub through: Seq,
    /// Its samples, in order.
    pub samples: Vec<Waiting>,
}

/// Where a fold stands: enough to go on from there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The last record that was read.
    pub through: Seq,
    /// What waits, in order.
    pub waiting: Vec<Waiting>,
    /// Turns whose sample is in a batch, or was too old for one.
    pub spent: Vec<TurnId>,
}

/// What the schedule must know about versions: how many optimizer steps lie behind each.
pub trait Steps {
    /// The steps behind a version; a version that this line does not know counts as its number.
    fn steps(&self, version: PolicyVersion) -> u64;
}

impl<F: Fn(PolicyVersion) -> u64> Steps for F {
    fn steps(&self, version: PolicyVersion) -> u64 {
        self(version)
    }
}

/// The state of the fold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    rules: Rules,
    waiting: VecDeque<Waiting>,
    /// Turns whose sample is in a batch, or was too old for one: a later word about them changes nothing.
    spent: HashSet<TurnId>,
    /// Turns that are skipped as if they had never been.
    forgotten: HashSet<TurnId>,
    through: Seq,
    stale: Vec<Waiting>,
}

impl Schedule {
    /// A fold that has read nothing.
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            waiting: VecDeque::new(),
            spent: HashSet::new(),
            forgotten: HashSet::new(),
            through: Seq::ZERO,
            stale: Vec::new(),
        }
    }

    /// A fold that goes on from where another one stood: what waited, and whose sample was in a batch or too old for one.
    pub fn resume(rules: Rules, place: Place) -> Self {
        Self {
            waiting: place.waiting.into(),
            spent: place.spent.into_iter().collect(),
            through: place.through,
            ..Self::new(rules)
        }
    }

    /// The same with samples that were found too old, and that nobody has taken.
    pub(crate) fn with_stale(mut self, stale: Vec<Waiting>) -> Self {
        self.stale = stale;
        self
    }

    /// Where the fold stands.
    pub fn place(&self) -> Place {
        let mut spent: Vec<TurnId> = self.spent.iter().cloned().collect();
        spent.sort();
        Place {
            through: self.through,
            waiting: self.waiting.iter().cloned().collect(),
            spent,
        }
    }

    /// These turns are skipped from now on; what waits of them no longer does.
    pub fn forget(&mut self, turns: impl IntoIterator<Item = TurnId>) {
        self.forgotten.extend(turns);
        let forgotten = &self.forgotten;
        self.waiting.retain(|w| !forgotten.contains(&w.turn));
    }

    /// Other rules from here on.
    pub fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// The rules now.
    pub fn rules(&self) -> Rules {
        self.rules
    }

    /// A turn was judged, or judged anew: `sample` is what it gives, if anything.
    pub fn judged(&mut self, at: Seq, turn: &TurnId, sample: Option<(SampleId, PolicyVersion)>) {
        self.through = at;
        let spent = self.spent.contains(turn) && !ledger::mutant::on("revision-trained-again");
        if spent || self.forgotten.contains(turn) {
            return;
        }
        let place = self.waiting.iter().position(|w| w.turn == *turn);
        match (place, sample) {
            (Some(place), Some((sample, version))) => {
                let waiting = &mut self.waiting[place];
                (waiting.sample, waiting.version, waiting.at) = (sample, version, at);
            }
            (Some(place), None) => {
                self.waiting.remove(place);
            }
            (None, Some((sample, version))) => self.waiting.push_back(Waiting {
                turn: turn.clone(),
                sample,
                version,
                at,
            }),
            (None, None) => {}
        }
    }

    /// The batch that is due for weights with `head` optimizer steps behind them, if one is. Samples that are too old are
    /// taken out on the way: see [`Schedule::take_stale`].
    pub fn due(&mut self, head: u64, steps: &impl Steps) -> Option<Due> {
        let size = self.rules.batch_size;
        while self.waiting.len() >= size {
            let fresh = |w: &Waiting| {
                head.saturating_sub(steps.steps(w.version)) <= self.rules.max_lag
                    || ledger::mutant::on("stale-sample-trained")
            };
            let old: Vec<usize> = (0..size).filter(|i| !fresh(&self.waiting[*i])).collect();
            if old.is_empty() {
                let samples = self.waiting.iter().take(size).cloned().collect();
                return Some(Due {
                    through: self.through,
                    samples,
                });
            }
            for place in old.into_iter().rev() {
                if let Some(waiting) = self.waiting.remove(place) {
                    self.spent.insert(waiting.turn.clone());
                    self.stale.push(waiting);
                }
            }
        }
        None
    }

    /// These samples' batch is over, whatever became of it.
    pub fn done<'a>(&mut self, samples: impl IntoIterator<Item = &'a SampleId>) {
        let ids: HashSet<&SampleId> = samples.into_iter().collect();
        for waiting in self.waiting.iter().filter(|w| ids.contains(&w.sample)) {
            self.spent.insert(waiting.turn.clone());
        }
        self.waiting.retain(|w| !ids.contains(&w.sample));
    }

    /// Samples that were found too old since the last call.
    pub fn take_stale(&mut self) -> Vec<Waiting> {
        std::mem::take(&mut self.stale)
    }

    /// What waits, in order.
    pub fn waiting(&self) -> impl ExactSizeIterator<Item = &Waiting> {
        self.waiting.iter()
    }

    /// The last record that the fold has read.
    pub fn through(&self) -> Seq {
        self.through
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULES: Rules = Rules {
        batch_size: 2,
        max_lag: 1,
    };

    fn number(version: PolicyVersion) -> u64 {
        version.get()
    }

    fn judge(schedule: &mut Schedule, at: u64, turn: &str, version: u64) {
        let sample = SampleId::new(format!("sample-{turn}"));
        let sample = Some((sample, PolicyVersion::new(version)));
        schedule.judged(Seq::new(at), &TurnId::from(turn), sample);
    }

    fn ids(due: &Due) -> Vec<&str> {
        due.samples.iter().map(|w| w.turn.as_str()).collect()
    }

    #[test]
    fn a_batch_is_due_at_the_record_that_completes_it() {
        let mut s = Schedule::new(RULES);
        judge(&mut s, 3, "a", 0);
        assert_eq!(s.due(0, &number), None);
        judge(&mut s, 7, "b", 0);
        let due = s.due(0, &number).unwrap();
        assert_eq!((ids(&due), due.through), (vec!["a", "b"], Seq::new(7)));
        s.done(due.samples.iter().map(|w| &w.sample));
        assert_eq!(s.due(1, &number), None);
    }

    #[test]
    fn a_sample_that_is_too_old_makes_room_for_the_next() {
        let mut s = Schedule::new(RULES);
        judge(&mut s, 1, "old", 1);
        judge(&mut s, 2, "b", 3);
        assert_eq!(s.due(3, &number), None);
        assert_eq!(s.take_stale()[0].turn.as_str(), "old");
        judge(&mut s, 3, "c", 2);
        assert_eq!(ids(&s.due(3, &number).unwrap()), ["b", "c"]);
        judge(&mut s, 4, "old", 3);
        assert_eq!(
            ids(&s.due(3, &number).unwrap()),
            ["b", "c"],
            "and it stays out"
        );
    }

    #[test]
    fn a_revision_counts_until_its_batch_is_over_and_never_after() {
        let mut s = Schedule::new(RULES);
        judge(&mut s, 1, "a", 0);
        s.judged(Seq::new(2), &TurnId::from("a"), None);
        judge(&mut s, 3, "b", 0);
        assert_eq!(s.due(0, &number), None);
        judge(&mut s, 4, "a", 0);
        let due = s.due(0, &number).unwrap();
        assert_eq!(ids(&due), ["b", "a"]);
        s.done(due.samples.iter().map(|w| &w.sample));
        judge(&mut s, 5, "a", 0);
        assert_eq!(s.waiting().len(), 0);
    }

    proptest! {
        /// The fold of what is left is the fold of a world in which the forgotten turns never were.
        #[test]
        fn skipping_turns_is_the_same_as_never_having_seen_them(
            events in proptest::collection::vec((0..12u8, any::<bool>(), 0..6u64), 0..60),
            gone in proptest::collection::hash_set(0..12u8, 0..5),
        ) {
            let run = |skip: bool| {
                let mut s = Schedule::new(Rules { batch_size: 3, max_lag: 2 });
                if skip {
                    s.forget(gone.iter().map(|t| TurnId::new(t.to_string())));
                }
                let mut batches = Vec::new();
                for (at, (turn, some, version)) in events.iter().enumerate() {
                    if !skip && gone.contains(turn) { continue; }
                    let id = SampleId::new(format!("s{turn}"));
                    let sample = some.then(|| (id, PolicyVersion::new(*version)));
                    s.judged(Seq::new(at as u64 + 1), &TurnId::new(turn.to_string()), sample);
                    while let Some(due) = s.due(batches.len() as u64, &number) {
                        s.done(due.samples.iter().map(|w| &w.sample));
                        batches.push(due.samples);
                    }
                }
                (batches, s.waiting().cloned().collect::<Vec<_>>())
            };
            prop_assert_eq!(run(true), run(false));
        }
    }
}
