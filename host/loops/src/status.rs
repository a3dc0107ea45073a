//! What an operator asks first: which loops run, what waits, which version is live, and why turns are not trained.
//!
//! [`Board`] is where the loops write it down; nothing is decided from it.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use rl::{NotTrainable, PolicyVersion, SessionId, StepMetrics, TurnId, TurnKind, Verdict, Vote};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::{
    line::JudgedHead,
    metrics::{Metrics, label},
    queue::{Changed, Depth, QueueStatus},
    records::{Closing, Fate, JudgedRecord},
};

/// How a loop is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LoopState {
    /// It runs.
    Running,
    /// It failed and will be started again.
    Failed {
        /// Why, with causes.
        why: String,
        /// How often it has been started again.
        restarts: u32,
    },
    /// It has ended because the host stops.
    Stopped,
}

/// The turn that was last found to be trainable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastTrainable {
    /// The turn.
    pub turn: TurnId,
    /// Its session.
    pub session: SessionId,
}

/// Everything at a moment. Counts are over the whole ledger, not since the start.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
pub struct Status {
    /// The loops.
    pub loops: BTreeMap<String, LoopState>,
    /// The queues: `judge` (turns to be judged) and `train` (samples to be trained).
    pub queues: BTreeMap<String, QueueStatus>,
    /// The version that is committed as the one to answer.
    pub version: PolicyVersion,
    /// The version that is live.
    pub live: PolicyVersion,
    /// The version that is on trial, and the share of the sessions that get it.
    #[serde(default)]
    pub trial: Option<(PolicyVersion, f64)>,
    /// The turn that was last found to be trainable.
    pub last_trainable: Option<LastTrainable>,
    /// Turns by kind.
    pub turns: BTreeMap<TurnKindName, u64>,
    /// Turns that wait for their next state.
    pub waiting: u64,
    /// Turns whose next state came.
    pub reacted: u64,
    /// Turns that were judged.
    pub judged: u64,
    /// Samples made.
    pub samples: u64,
    /// Samples trained.
    pub trained: u64,
    /// Steps that were refused.
    pub steps_refused: u64,
    /// What training waits for, when something is due that it cannot do now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training_waits: Option<String>,
    /// Versions that a live guard took back, since the start.
    #[serde(default)]
    pub trips: u64,
    /// Feedback calls.
    pub feedback: u64,
    /// Votes that were present.
    pub votes_present: u64,
    /// Votes that were absent.
    pub votes_absent: u64,
    /// Why turns were not trained.
    pub not_trainable: BTreeMap<NotTrainable, u64>,
    /// The last record of the ledger.
    pub ledger_records: u64,
    /// Why the ledger stopped accepting, if it did.
    pub ledger_error: Option<String>,
}

/// A turn's kind as a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TurnKindName {
    /// See [`TurnKind::Main`].
    Main,
    /// See [`TurnKind::Side`].
    Side,
    /// See [`TurnKind::Unclassified`].
    Unclassified,
}

impl From<TurnKind> for TurnKindName {
    fn from(kind: TurnKind) -> Self {
        match kind {
            TurnKind::Main => Self::Main,
            TurnKind::Side => Self::Side,
            TurnKind::Unclassified => Self::Unclassified,
        }
    }
}

/// What is counted of a judged turn.
pub(crate) struct Outline<'a> {
    pub(crate) turn: &'a TurnId,
    pub(crate) revision: u32,
    /// Those that are there, and absent ones.
    pub(crate) votes: (u64, u64),
    pub(crate) sample: bool,
    pub(crate) not_trainable: Option<NotTrainable>,
}

impl<'a> From<&'a JudgedRecord> for Outline<'a> {
    fn from(record: &'a JudgedRecord) -> Self {
        let present = |vote: &&Vote| vote.value.is_some();
        let present = record.votes.iter().filter(present).count();
        Self {
            turn: &record.turn,
            revision: record.revision,
            votes: (present as u64, (record.votes.len() - present) as u64),
            sample: record.sample.is_some(),
            not_trainable: record.not_trainable,
        }
    }
}

impl<'a> From<&'a JudgedHead> for Outline<'a> {
    fn from(head: &'a JudgedHead) -> Self {
        Self {
            turn: &head.turn,
            revision: head.revision,
            votes: head.votes(),
            sample: head.sample.is_some(),
            not_trainable: head.not_trainable,
        }
    }
}

/// What was known of a turn before it was judged anew: it is counted once.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Before {
    /// The reason that had been counted.
    pub(crate) reason: Option<NotTrainable>,
    /// Whether it had a sample.
    pub(crate) sample: bool,
}

/// Where the loops write down what happened. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Board {
    status: Arc<Mutex<Status>>,
    changed: Changed,
    pub(crate) metrics: Metrics,
    /// Turns to be judged.
    pub(crate) judge: Depth,
    /// Samples to be trained.
    pub(crate) train: Depth,
}

impl Board {
    /// A board that starts with what the ledger says.
    pub fn new(metrics: Metrics, recovered: Status) -> Self {
        metrics
            .version
            .set(i64::try_from(recovered.version.get()).unwrap_or(i64::MAX));
        let changed = Changed::default();
        Self {
            status: Arc::new(Mutex::new(recovered)),
            metrics,
            judge: Depth::watched(changed.clone()),
            train: Depth::watched(changed.clone()),
            changed,
        }
    }

    /// What it says now; also brings the gauges up to date.
    pub fn status(&self) -> Status {
        let mut status = self.status.lock().clone();
        for (name, depth) in [("judge", &self.judge), ("train", &self.train)] {
            let queue = depth.status();
            let depth = i64::try_from(queue.depth).unwrap_or(i64::MAX);
            self.metrics.depth.get_or_create(&label(name)).set(depth);
            self.metrics
                .oldest
                .get_or_create(&label(name))
                .set(queue.oldest_seconds);
            status.queues.insert(name.to_owned(), queue);
        }
        status
    }

    /// Waits until the status is as wanted.
    pub(crate) async fn until(&self, wanted: impl Fn(&Status) -> bool + Send) -> Status {
        let mut changed = self.changed.watch();
        loop {
            changed.mark_unchanged();
            let status = self.status();
            // The sender lives as long as the board, so the wait cannot fail.
            if wanted(&status) || changed.changed().await.is_err() {
                return status;
            }
        }
    }

    /// Rings whenever a loop has written something down.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.watch()
    }

    fn edit(&self, edit: impl FnOnce(&mut Status)) {
        edit(&mut self.status.lock());
        self.changed.ring();
    }

    pub(crate) fn turn(&self, kind: TurnKind, not_trainable: Option<NotTrainable>) {
        self.edit(|status| status.turn(kind, not_trainable));
        self.metrics
            .turns
            .get_or_create(&label(name(&TurnKindName::from(kind))))
            .inc();
        self.reason(not_trainable);
    }

    pub(crate) fn closed(&self, closing: &Closing, judged: bool) {
        self.edit(|status| status.closed(closing, judged));
        let (how, reason) = match closing {
            Closing::Next(_) => ("next-state".to_owned(), None),
            Closing::Without(reason) => (name(reason), (!judged).then_some(*reason)),
        };
        self.metrics.closed.get_or_create(&label(how)).inc();
        self.reason(reason);
    }

    pub(crate) fn judged(&self, record: &JudgedRecord, session: &SessionId, before: Before) {
        self.edit(|status| status.judged(&record.into(), session, before));
        if record.revision == 0 {
            for vote in &record.votes {
                let value = vote
                    .value
                    .map_or_else(|| "absent".to_owned(), |value| name(&value));
                self.metrics.votes.get_or_create(&label(value)).inc();
            }
        }
        let verdict = match record.verdict {
            Some(Verdict { value, by }) => format!("{} by {}", name(&value), name(&by)),
            None => "none".to_owned(),
        };
        self.metrics.verdicts.get_or_create(&label(verdict)).inc();
        for ask in &record.asks {
            let fate = match (&ask.hint, &ask.refused) {
                (Some(_), None) => "accepted",
                (Some(_), Some(_)) => "refused",
                (None, _) => "none",
            };
            self.metrics.hints.get_or_create(&label(fate)).inc();
        }
        if record.sample.is_some() {
            self.metrics.samples.inc();
        }
        self.reason(record.not_trainable);
    }

    pub(crate) fn spent(&self, fate: &Fate) {
        self.edit(|status| status.spent(fate));
        match fate {
            Fate::Trained(_) => {
                self.metrics.trained.inc();
            }
            Fate::Stale { .. } => self.reason(Some(NotTrainable::Stale)),
            Fate::StepRefused => self.reason(Some(NotTrainable::StepRefused)),
            Fate::Held(_) => self.reason(Some(NotTrainable::Held)),
            Fate::TooLong { .. } => self.reason(Some(NotTrainable::TooLong)),
        }
    }

    pub(crate) fn step(&self, outcome: &str) {
        self.metrics.steps.get_or_create(&label(outcome)).inc();
        if outcome == "refused" {
            self.edit(|status| status.steps_refused += 1);
        }
    }

    /// What a step from `version` found out about the tokens of its batch: whether they are computed as they were served.
    pub(crate) fn recomputed(&self, version: PolicyVersion, step: &StepMetrics) {
        let (fresh, rechecked, mismatched) = (step.fresh, step.rechecked, step.mismatched);
        self.metrics.fresh_tokens.inc_by(fresh);
        self.metrics.rechecked_tokens.inc_by(rechecked);
        self.metrics.mismatched_tokens.inc_by(mismatched);
        self.uncompared(step.uncompared);
        if mismatched > 0 {
            tracing::error!(
                %version, fresh, rechecked, mismatched,
                "training computes other log-probs than were served; `nextstate verify on-policy` finds out where"
            );
        }
    }

    /// Tokens of a batch for which nothing was compared.
    pub(crate) fn uncompared(&self, tokens: u64) {
        self.metrics.uncompared_tokens.inc_by(tokens);
    }

    /// A reply's fingerprint was compared with the ledger's.
    pub(crate) fn fingerprint(&self, outcome: &str) {
        self.metrics
            .fingerprints
            .get_or_create(&label(outcome))
            .inc();
    }

    pub(crate) fn tripped(&self) {
        self.metrics.steps.get_or_create(&label("tripped")).inc();
        self.edit(|status| status.trips += 1);
    }

    pub(crate) fn committed(&self, version: PolicyVersion) {
        self.edit(|status| status.version = version);
        self.metrics
            .version
            .set(i64::try_from(version.get()).unwrap_or(i64::MAX));
    }

    pub(crate) fn live(&self, version: PolicyVersion) {
        self.edit(|status| status.live = version);
    }

    pub(crate) fn trial(&self, trial: Option<(PolicyVersion, f64)>) {
        self.edit(|status| status.trial = trial);
    }

    /// What training waits for; `None` when it goes on.
    pub(crate) fn training_waits(&self, why: Option<String>) {
        if self.status.lock().training_waits != why {
            self.edit(|status| status.training_waits = why);
        }
    }

    pub(crate) fn feedback(&self) {
        self.edit(|status| status.feedback += 1);
        self.metrics.feedback.inc();
    }

    pub(crate) fn plugin_failed(&self, function: &str) {
        self.metrics
            .plugin_failures
            .get_or_create(&label(function))
            .inc();
    }

    pub(crate) fn loop_is(&self, name: &str, state: LoopState) {
        if let LoopState::Failed { .. } = state {
            self.metrics.restarts.get_or_create(&label(name)).inc();
        }
        self.edit(|status| {
            status.loops.insert(name.to_owned(), state);
        });
    }

    fn reason(&self, reason: Option<NotTrainable>) {
        if let Some(reason) = reason {
            self.metrics
                .not_trainable
                .get_or_create(&label(name(&reason)))
                .inc();
        }
    }
}

/// The word that a unit variant is written with.
fn name(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => name,
        _ => "other".to_owned(),
    }
}

/// The same arithmetic for what happens now and for what the ledger says has happened.
impl Status {
    pub(crate) fn turn(&mut self, kind: TurnKind, not_trainable: Option<NotTrainable>) {
        *self.turns.entry(kind.into()).or_default() += 1;
        match not_trainable {
            Some(reason) => self.count(reason),
            None => self.waiting += 1,
        }
    }

    /// A turn that feedback had judged already has its reason, or needs none.
    pub(crate) fn closed(&mut self, closing: &Closing, judged: bool) {
        self.waiting = self.waiting.saturating_sub(1);
        match closing {
            Closing::Next(_) => self.reacted += 1,
            Closing::Without(reason) if !judged => self.count(*reason),
            Closing::Without(_) => {}
        }
    }

    pub(crate) fn judged(&mut self, outline: &Outline<'_>, session: &SessionId, before: Before) {
        if let Some(reason) = before.reason
            && let Some(count) = self.not_trainable.get_mut(&reason)
        {
            *count = count.saturating_sub(1);
        }
        if before.sample {
            self.samples = self.samples.saturating_sub(1);
        }
        if outline.revision == 0 {
            self.judged += 1;
            self.votes_present += outline.votes.0;
            self.votes_absent += outline.votes.1;
        }
        if outline.sample {
            self.samples += 1;
            self.last_trainable = Some(LastTrainable {
                turn: outline.turn.clone(),
                session: session.clone(),
            });
        }
        if let Some(reason) = outline.not_trainable {
            self.count(reason);
        }
    }

    pub(crate) fn spent(&mut self, fate: &Fate) {
        match fate {
            Fate::Trained(_) => self.trained += 1,
            Fate::Stale { .. } => self.count(NotTrainable::Stale),
            Fate::StepRefused => self.count(NotTrainable::StepRefused),
            Fate::Held(_) => self.count(NotTrainable::Held),
            Fate::TooLong { .. } => self.count(NotTrainable::TooLong),
        }
    }

    fn count(&mut self, reason: NotTrainable) {
        *self.not_trainable.entry(reason).or_default() += 1;
    }
}
