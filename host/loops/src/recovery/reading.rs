//! Reads a ledger on all cores, and hands on in order what the fold needs of it.
//!
//! Checking, decrypting and decoding take several times as long as the fold. Each worker takes every n-th stretch of records;
//! a stretch's first record is checked against the hash that the record before it has on the disk, which the worker of that
//! one checks in turn, so no link of the chain is left out.

use std::{sync::mpsc, thread};

use ledger::{Ledger, Record, Seq};
use rl::{
    AdapterName, Feedback, FinishReason, Message, NotTrainable, PolicyVersion, Sampling, SessionId,
    TenantId, Turn, TurnId, TurnKind,
};
use serde::Deserialize;

use super::checkpoint::Unread;
use crate::{
    Error, Result,
    line::JudgedHead,
    records::{self, CLOSED, ClosedRecord, FEEDBACK, JUDGED, SPENT, SpentRecord, TURN, TurnRecord},
};

/// Records of a stretch, and how many stretches a worker may be ahead of the fold. Together with [`MOST_WORKERS`] they bound what is
/// held at once to about 1,200 records: one can have a megabyte, and what a client sends must not keep a host from starting.
const STRETCH: u64 = 128;
const AHEAD: usize = 1;
/// More do not help: the fold is behind then.
pub(super) const MOST_WORKERS: usize = 4;

/// What one record says to the fold.
pub(super) enum Heard {
    Turn(Box<TurnRecord>),
    Closed(Seq, ClosedRecord),
    Feedback(Seq, Feedback),
    Judged(Seq, JudgedHead),
    Spent(SpentRecord),
    /// Erased, or of a kind that is only the line's business, or nobody's.
    Other(Record),
}

impl Heard {
    /// What a record says; none when the record itself must be passed on.
    fn of(record: &Record) -> Result<Option<Self>> {
        if record.erased {
            return Ok(None);
        }
        Ok(Some(match record.kind.as_str() {
            TURN => Self::Turn(Box::new(records::decode::<TurnHead>(record)?.into())),
            CLOSED => Self::Closed(record.seq, records::decode(record)?),
            FEEDBACK => Self::Feedback(record.seq, records::decode(record)?),
            JUDGED => Self::Judged(record.seq, records::decode(record)?),
            SPENT => Self::Spent(records::decode(record)?),
            _ => return Ok(None),
        }))
    }
}

/// Passes on what every one of these records says, in order. Takes as many threads as there are cores, and `most` at most.
pub(super) fn read(
    ledger: &Ledger,
    Unread {
        after,
        through: end,
    }: Unread,
    most: usize,
    mut each: impl FnMut(Heard) -> Result<()>,
) -> Result<()> {
    let stretches = end.get().saturating_sub(after.get()).div_ceil(STRETCH);
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let workers = cores.min(most);
    thread::scope(|scope| {
        let heard: Vec<_> = (0..workers)
            .map(|worker| {
                let (sender, heard) = mpsc::sync_channel(AHEAD);
                scope.spawn(move || {
                    for stretch in (worker as u64..stretches).step_by(workers) {
                        // Nobody listens any more after an error.
                        let first = Seq::new(after.next().get() + stretch * STRETCH);
                        if sender.send(listen(ledger, first, end)).is_err() {
                            return;
                        }
                    }
                });
                heard
            })
            .collect();
        for stretch in heard.iter().cycle().zip(0..stretches) {
            let stretch = stretch.0.recv().map_err(|_| Error::Panicked {
                what: "reading the ledger".to_owned(),
            })?;
            stretch?.into_iter().try_for_each(&mut each)?;
        }
        Ok(())
    })
}

fn listen(ledger: &Ledger, first: Seq, end: Seq) -> Result<Vec<Heard>> {
    let last = Seq::new(first.get() + STRETCH - 1).min(end);
    let mut records = ledger.scan_to(first, last);
    let mut heard = Vec::with_capacity(usize::try_from(STRETCH).unwrap_or(0));
    while let Some(record) = records.next() {
        let record = record.map_err(Error::ledger("recovery", "read the ledger"))?;
        match Heard::of(&record)? {
            Some(said) => {
                heard.push(said);
                records.reuse(record);
            }
            None => heard.push(Heard::Other(record)),
        }
    }
    Ok(heard)
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

#[cfg(test)]
mod tests {
    use ledger::{Entry, Options};
    use rl::SampleId;

    use super::*;
    use crate::records::Fate;

    const RECORDS: u64 = 5 * STRETCH + 7;

    fn filled(dir: &std::path::Path, broken: Option<u64>) -> Ledger {
        let ledger = Ledger::open(dir, Options::default()).unwrap();
        let entry = |number: u64| match broken {
            Some(at) if at == number => Entry::new(SPENT, "turn", b"{".to_vec()),
            _ => SpentRecord {
                sample: SampleId::new(number.to_string()),
                turn: TurnId::new("turn"),
                fate: Fate::StepRefused,
            }
            .to_entry()
            .unwrap(),
        };
        let entries = (0..RECORDS).map(entry).collect::<Vec<_>>();
        ledger.append_all(entries).wait().unwrap();
        ledger
    }

    fn all(ledger: &Ledger) -> Unread {
        Unread {
            after: Seq::ZERO,
            through: ledger.durable(),
        }
    }

    #[test]
    fn records_come_in_order_however_many_read_them() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = filled(dir.path(), None);
        for (after, most) in [(0, MOST_WORKERS), (0, 1), (STRETCH / 2, 3), (RECORDS, 2)] {
            let mut heard = Vec::new();
            let after = Seq::new(after);
            let unread = Unread {
                after,
                through: ledger.durable(),
            };
            let done = read(&ledger, unread, most, |said| {
                if let Heard::Spent(spent) = said {
                    heard.push(spent.sample.to_string());
                }
                Ok(())
            });
            done.unwrap();
            let all: Vec<String> = (after.get()..RECORDS).map(|n| n.to_string()).collect();
            assert_eq!(heard, all);
        }
    }

    #[test]
    fn a_record_that_cannot_be_read_ends_it_after_the_stretches_before_and_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = filled(dir.path(), Some(3 * STRETCH + 5));
        let mut heard = 0;
        let error = read(&ledger, all(&ledger), MOST_WORKERS, |_| {
            heard += 1;
            Ok(())
        })
        .unwrap_err();
        assert_eq!(heard, 3 * STRETCH);
        let seq = (3 * STRETCH + 6).to_string();
        assert!(error.chain().contains(&seq), "{error}");
    }

    #[test]
    fn an_empty_ledger_is_read_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path(), Options::default()).unwrap();
        let nothing = |_| panic!("nothing was said");
        read(&ledger, all(&ledger), MOST_WORKERS, nothing).unwrap();
    }
}
