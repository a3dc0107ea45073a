//! Folds the ledger into the state that the loops go on from. Nothing else remembers anything over a restart.
//!
//! One walk over every record, each checked against the hash chain on the way. It decides nothing: what a loop does with
//! what it finds is the loop's business.

use std::{collections::HashMap, sync::mpsc, thread};

use ledger::{Ledger, Record, Seq};
use rl::{
    AdapterName, Feedback, FinishReason, Message, NotTrainable, PolicyVersion, Sampling, SessionId,
    TenantId, Turn, TurnId, TurnKind, VoteValue,
};
use serde::Deserialize;
use tokio::time::Instant;

use crate::{
    Error, Line, Result,
    line::JudgedHead,
    praise::{Praise, Speaker},
    records::{
        self, CLOSED, ClosedRecord, Closing, FEEDBACK, JUDGED, SPENT, STEP_REFUSED, SpentRecord,
        TURN, TurnRecord,
    },
    schedule::Rules,
    session::{SessionKey, Sessions},
    status::{Before, Status},
};

/// Records that are read at a time, and how often before they are used.
const BATCH: usize = 256;
const AHEAD: usize = 8;

/// Where the loops go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places {
    /// The judge reads closings from here.
    pub closed: Seq,
    /// The judge reads feedback from here.
    pub feedback: Seq,
    /// Turns that wait to be judged.
    pub to_judge: usize,
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
#[derive(Debug)]
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

/// A turn's record without what was sampled, which no conversation is recognised by and which is the most of it.
#[derive(Deserialize)]
struct TurnHead {
    turn: ServedHead,
    key: String,
    derived: bool,
    not_trainable: Option<NotTrainable>,
}

#[derive(Deserialize)]
struct ServedHead {
    id: TurnId,
    tenant: TenantId,
    session: SessionId,
    #[serde(default)]
    user: Option<String>,
    parent: Option<TurnId>,
    kind: TurnKind,
    adapter: Option<AdapterName>,
    version: PolicyVersion,
    messages: Vec<Message>,
    reply: Message,
    finish: FinishReason,
}

impl From<TurnHead> for TurnRecord {
    fn from(head: TurnHead) -> Self {
        let TurnHead {
            turn,
            key,
            derived,
            not_trainable,
        } = head;
        Self {
            turn: Turn {
                id: turn.id,
                tenant: turn.tenant,
                session: turn.session,
                user: turn.user,
                parent: turn.parent,
                kind: turn.kind,
                adapter: turn.adapter,
                version: turn.version,
                adapter_digest: String::new(),
                messages: turn.messages,
                tools: Vec::new(),
                prompt: Vec::new(),
                response: Vec::new(),
                logprobs: Vec::new(),
                sampling: Sampling::default(),
                reply: turn.reply,
                finish: turn.finish,
            },
            key,
            derived,
            not_trainable,
        }
    }
}

/// Reads the whole ledger.
///
/// # Errors
/// Damage, or a record that this program cannot read.
pub fn recover(ledger: &Ledger, adapter: &AdapterName, rules: Rules) -> Result<Recovered> {
    let mut fold = Fold {
        now: Instant::now(),
        turns: HashMap::new(),
        sessions: Sessions::default(),
        status: Status::default(),
        line: Line::new(ledger.clone(), adapter.clone(), rules),
        praise: Praise::default(),
    };
    let end = read(ledger, |record| fold.add(record))?;
    Ok(fold.finish(end))
}

/// Passes every record on; gives the place behind the last. Reading, checking and decrypting have a thread of their own: they
/// take as long as what is done with the records.
fn read(ledger: &Ledger, mut each: impl FnMut(&Record) -> Result<()>) -> Result<Seq> {
    let mut end = Seq::FIRST;
    thread::scope(|scope| {
        let (sender, batches) = mpsc::sync_channel::<Vec<_>>(AHEAD);
        scope.spawn(move || {
            let mut records = ledger.scan(Seq::FIRST);
            loop {
                let batch: Vec<_> = records.by_ref().take(BATCH).collect();
                let over = batch.is_empty();
                // Nobody listens any more after an error.
                if over || sender.send(batch).is_err() {
                    return;
                }
            }
        });
        for record in batches.into_iter().flatten() {
            let record = record.map_err(Error::ledger("recovery", "read the ledger"))?;
            end = record.seq.next();
            each(&record)?;
        }
        Ok(end)
    })
}

impl Fold {
    fn add(&mut self, record: &Record) -> Result<()> {
        if record.kind == JUDGED && !record.erased {
            let judged: JudgedHead = records::decode(record)?;
            self.judged(record.seq, &judged);
            self.line.hear(record.seq, judged);
            return Ok(());
        }
        self.line.add(record)?;
        if record.erased {
            return Ok(());
        }
        match record.kind.as_str() {
            TURN => self.turn(&records::decode::<TurnHead>(record)?.into()),
            CLOSED => self.closed(record.seq, &records::decode(record)?),
            FEEDBACK => {
                let feedback: Feedback = records::decode(record)?;
                self.status.feedback += 1;
                if let Some(known) = self.turns.get_mut(&feedback.turn) {
                    known.feedback = Some(record.seq);
                }
            }
            SPENT => {
                let spent: SpentRecord = records::decode(record)?;
                self.status.spent(&spent.fate);
                if let Some(known) = self.turns.get_mut(&spent.turn) {
                    known.spent = true;
                    self.forget_if_done(&spent.turn);
                }
            }
            STEP_REFUSED => self.status.steps_refused += 1,
            // Kinds of other writers, and of later programs.
            _ => {}
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
        let verdict = record.verdict.map(|verdict| verdict.value);
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
            to_judge: 0,
        };
        for known in self.turns.values().filter(|known| !known.spent) {
            let unheard = known
                .feedback
                .filter(|at| known.judged.is_none_or(|judged| judged < *at));
            let unjudged = known.closed.filter(|_| known.judged.is_none());
            places.feedback = unheard.map_or(places.feedback, |at| at.min(places.feedback));
            places.closed = unjudged.map_or(places.closed, |at| at.min(places.closed));
            places.to_judge += usize::from(unheard.is_some()) + usize::from(unjudged.is_some());
        }
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
