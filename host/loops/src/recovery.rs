//! Folds the ledger into the state that the loops go on from. Nothing else remembers anything over a restart.
//!
//! One walk over the records, each checked against the hash chain on the way, from the first one or from the last checkpoint
//! (`recovery/checkpoint.rs`). It decides nothing: what a loop does with what it finds is the loop's business.

mod checkpoint;
mod keeping;
mod reading;

use std::collections::HashMap;

use ledger::{Ledger, Seq};
use rl::{AdapterName, TurnId, VoteValue};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

pub(crate) use self::checkpoint::{agree, erase};
pub(crate) use self::keeping::Keeper;
pub use self::keeping::{Config, write_down};
use self::reading::Heard;
use crate::{
    Line, Result,
    line::JudgedHead,
    praise::{Praise, Speaker},
    queue::Work,
    records::{CLOSED, ClosedRecord, Closing, FEEDBACK, STEP_REFUSED, TurnRecord},
    schedule::Rules,
    session::{SessionKey, Sessions},
    status::{Before, Status},
};

/// Where the loops go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The judge reads closings from here.
    pub closed: Seq,
    /// The judge reads feedback from here.
    pub feedback: Seq,
    /// What waits to be judged: closings and feedback.
    pub to_judge: Vec<Work>,
}

/// What a ledger says.
#[derive(Debug)]
pub struct Recovered {
    /// The conversations that were going on.
    pub sessions: Sessions,
    /// Where the loops go on.
    pub places: Places,
    /// The counts, and the newest version.
    pub status: Status,
    /// The adapter's line: its versions, the live one, and the batch that comes next.
    pub line: Line,
    /// What every speaker's praise is worth.
    pub(crate) praise: Praise,
}

/// What is known of a turn that may still be trained.
#[derive(Debug, Serialize, Deserialize)]
struct Known {
    key: SessionKey,
    speaker: Speaker,
    verdict: Option<VoteValue>,
    closed: Option<Seq>,
    feedback: Option<Seq>,
    judged: Option<Seq>,
    before: Before,
    spent: bool,
}

struct Fold {
    now: Instant,
    turns: HashMap<TurnId, Known>,
    sessions: Sessions,
    status: Status,
    line: Line,
    praise: Praise,
}

/// Reads the ledger, or what of it came after the last checkpoint.
///
/// # Errors
/// Damage, or a record that this program cannot read.
pub fn recover(ledger: &Ledger, adapter: &AdapterName, rules: Rules) -> Result<Recovered> {
    let (mut fold, unread) = checkpoint::begin(ledger, (adapter, rules))?;
    reading::read(ledger, unread, reading::MOST_WORKERS, |said| fold.add(said))?;
    Ok(fold.finish(unread.through.next()))
}

impl Fold {
    fn new(ledger: &Ledger, adapter: &AdapterName, rules: Rules) -> Self {
        Self {
            now: Instant::now(),
            turns: HashMap::new(),
            sessions: Sessions::default(),
            status: Status::default(),
            line: Line::new(ledger.clone(), adapter.clone(), rules),
            praise: Praise::default(),
        }
    }

    fn add(&mut self, heard: Heard) -> Result<()> {
        match heard {
            Heard::Turn(record) => self.turn(&record),
            Heard::Closed(seq, record) => self.closed(seq, &record),
            Heard::Feedback(seq, feedback) => {
                self.status.feedback += 1;
                if let Some(known) = self.turns.get_mut(&feedback.turn) {
                    known.feedback = Some(seq);
                }
            }
            Heard::Judged(seq, judged) => {
                self.judged(seq, &judged);
                self.line.hear(seq, judged);
            }
            Heard::Spent(spent) => {
                self.status.spent(&spent.fate);
                if let Some(known) = self.turns.get_mut(&spent.turn) {
                    known.spent = true;
                    self.forget_if_done(&spent.turn);
                }
                self.line.spent(spent);
            }
            Heard::Other(record) => {
                if record.kind == STEP_REFUSED && !record.erased {
                    self.status.steps_refused += 1;
                }
                self.line.add(&record)?;
            }
        }
        Ok(())
    }

    fn turn(&mut self, record: &TurnRecord) {
        let turn = &record.turn;
        self.status.turn(turn.kind, record.not_trainable);
        if turn.kind == rl::TurnKind::Main {
            let open = record.not_trainable.is_none();
            self.sessions
                .served(&record.key, record.derived, turn, open, self.now);
        }
        if record.not_trainable.is_none() {
            let key = SessionKey {
                tenant: turn.tenant.clone(),
                session: turn.session.clone(),
            };
            let known = Known {
                key,
                speaker: Speaker::of(turn),
                verdict: None,
                closed: None,
                feedback: None,
                judged: None,
                before: Before::default(),
                spent: false,
            };
            self.turns.insert(turn.id.clone(), known);
        }
    }

    fn closed(&mut self, seq: Seq, record: &ClosedRecord) {
        let Some(known) = self.turns.get_mut(&record.turn) else {
            return;
        };
        let judged = known.judged.is_some();
        self.status.closed(&record.closing, judged);
        self.sessions.closed(&known.key, &record.turn);
        match &record.closing {
            Closing::Next(_) => {
                known.closed = Some(seq);
                self.forget_if_done(&record.turn);
            }
            Closing::Without(reason) => {
                if !judged {
                    known.before.reason = Some(*reason);
                }
                self.sessions.forget_if_finished(&known.key);
            }
        }
    }

    fn judged(&mut self, seq: Seq, record: &JudgedHead) {
        let Some(known) = self.turns.get_mut(&record.turn) else {
            return;
        };
        self.status
            .judged(&record.into(), &known.key.session, known.before);
        known.judged = Some(seq);
        let verdict = record.verdict();
        self.praise.heard(&known.speaker, known.verdict, verdict);
        known.verdict = verdict;
        known.before = Before {
            reason: record.not_trainable,
            sample: record.sample.is_some(),
        };
    }

    /// A turn that is closed and spent has nothing more to say.
    fn forget_if_done(&mut self, turn: &TurnId) {
        if self
            .turns
            .get(turn)
            .is_some_and(|known| known.spent && known.closed.is_some())
        {
            self.turns.remove(turn);
        }
    }

    fn finish(mut self, end: Seq) -> Recovered {
        self.sessions.forget_finished();
        let mut places = Places {
            closed: end,
            feedback: end,
            to_judge: Vec::new(),
        };
        for known in self.turns.values().filter(|known| !known.spent) {
            let unheard = known
                .feedback
                .filter(|at| known.judged.is_none_or(|judged| judged < *at));
            let unjudged = known.closed.filter(|_| known.judged.is_none());
            places.feedback = unheard.map_or(places.feedback, |at| at.min(places.feedback));
            places.closed = unjudged.map_or(places.closed, |at| at.min(places.closed));
            places.to_judge.extend(unheard.map(|at| (FEEDBACK, at)));
            places.to_judge.extend(unjudged.map(|at| (CLOSED, at)));
        }
        places.to_judge.sort_unstable();
        self.status.version = self.line.version();
        self.status.ledger_records = end.get().saturating_sub(1);
        Recovered {
            sessions: self.sessions,
            places,
            status: self.status,
            line: self.line,
            praise: self.praise,
        }
    }
}
