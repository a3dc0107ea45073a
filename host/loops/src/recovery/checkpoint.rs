//! A fold that was written down, so that a start reads only what came after it.
//!
//! It only ever saves time: without one, or with one that is not believed, everything is read, and the state is the same. It is
//! a blob, sealed under a key of its own; the key lies in a sealed record `checkpoint`, beside the place that was read to and that
//! record's hash. Whatever is not of this very chain, of these rules and of this program's fold is not believed, nor is what was
//! read before somebody asked to be forgotten. Forgetting destroys the keys of all checkpoints before those of the text,
//! so that none outlives what it was made of, in no copy of the folder. When one is made is `keeping.rs`'s business.
//!
//! Records before a checkpoint are not looked at by a start: damage in them is met by whoever reads them, and found by `ledger verify`.
//!
//! Start at [`begin`] and [`save`].

use ledger::{Digest, Entry, Ledger, Seq, open_blob, seal_blob};
use rl::{AdapterName, TurnId};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{Fold, Known, reading};
use crate::{
    Error, Line, Result, line,
    praise::{Praise, Speaker, Tally},
    records::{self, CHECKPOINT, CheckpointRecord, FORGET},
    schedule::Rules,
    session::{self, Sessions},
    status::Status,
};

/// Which fold this is: raised whenever the same records would give another state, or one that is written otherwise. A test compares
/// the bytes that a fixed ledger gives.
const FOLD: u32 = 1;

/// A fold at rest.
#[derive(Serialize, Deserialize)]
struct Kept {
    turns: Vec<(TurnId, Known)>,
    sessions: session::Kept,
    status: Status,
    line: line::Kept,
    praise: Vec<(Speaker, Tally)>,
}

/// The adapter, and the rules that a fold begins with.
pub(super) type Of<'a> = (&'a AdapterName, Rules);

/// Records after one, up to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unread {
    pub(super) after: Seq,
    pub(super) through: Seq,
}

/// A checkpoint that can still be read.
struct Found {
    subject: String,
    record: CheckpointRecord,
}

impl Fold {
    /// The bytes to keep of it; none while something is being forgotten.
    fn keep(self) -> Option<Vec<u8>> {
        let mut turns: Vec<(TurnId, Known)> = self.turns.into_iter().collect();
        turns.sort_by(|a, b| a.0.cmp(&b.0));
        let kept = Kept {
            turns,
            sessions: self.sessions.keep(),
            status: self.status,
            line: self.line.keep()?,
            praise: self.praise.keep(),
        };
        serde_json::to_vec(&kept).ok()
    }

    fn restore(ledger: &Ledger, bytes: &[u8], record: &CheckpointRecord) -> Result<Option<Self>> {
        let Ok(kept) = serde_json::from_slice::<Kept>(bytes) else {
            return Ok(None);
        };
        let now = Instant::now();
        let Some(sessions) = Sessions::restore(kept.sessions, now) else {
            return Ok(None);
        };
        let (adapter, rules) = (&record.adapter, record.rules);
        Ok(Some(Self {
            now,
            turns: kept.turns.into_iter().collect(),
            sessions,
            status: kept.status,
            line: Line::restore(kept.line, ledger, adapter, rules, record.through)?,
            praise: Praise::restore(kept.praise),
        }))
    }
}

/// A fold of what the ledger holds now, and the records that it must still read: those after the newest checkpoint that is believed.
///
/// The end is fixed before anything is believed. Otherwise somebody could be forgotten in between, who would be in the checkpoint
/// that was read, and whose request would be among the records that follow it.
pub(super) fn begin(ledger: &Ledger, (adapter, rules): Of<'_>) -> Result<(Fold, Unread)> {
    let through = ledger.durable();
    for found in readable(ledger)?.into_iter().rev() {
        let record = &found.record;
        if !is_of(record, (adapter, rules)) || !is_believed(ledger, record)? {
            continue;
        }
        match bytes(ledger, &found) {
            Some(bytes) => match Fold::restore(ledger, &bytes, record)? {
                Some(fold) => {
                    let after = record.through;
                    return Ok((fold, Unread { after, through }));
                }
                None => tracing::warn!(through = %record.through, "a checkpoint is not one"),
            },
            None => tracing::warn!(through = %record.through, "a checkpoint cannot be read"),
        }
    }
    let after = Seq::ZERO;
    Ok((Fold::new(ledger, adapter, rules), Unread { after, through }))
}

/// The place of the checkpoint that a fold would begin at, if its blob is whole.
pub(super) fn last(ledger: &Ledger, of: Of<'_>) -> Result<Seq> {
    for found in readable(ledger)?.into_iter().rev() {
        let there = blob(&found.subject).is_some_and(|blob| ledger.has_blob(&blob));
        if there && is_of(&found.record, of) && is_believed(ledger, &found.record)? {
            return Ok(found.record.through);
        }
    }
    Ok(Seq::ZERO)
}

/// Writes down a fold that has read everything up to `through`; it takes the place of every earlier one. False when something was
/// being forgotten meanwhile.
///
/// # Errors
/// The ledger's.
pub(super) fn save(
    ledger: &Ledger,
    (adapter, rules): Of<'_>,
    fold: Fold,
    through: Seq,
) -> Result<bool> {
    let read = ledger.get(through).map_err(failed("read the ledger"))?;
    let (Some(at), Some(bytes)) = (read, fold.keep()) else {
        return Ok(false);
    };
    let (key, sealed) = seal_blob(&bytes).map_err(failed("seal a checkpoint"))?;
    drop(bytes);
    let record = CheckpointRecord {
        adapter: adapter.clone(),
        fold: FOLD,
        rules,
        through,
        hash: at.hash,
        key,
    };
    let subject = subject(&Digest::of(&sealed));
    let entry: Entry = records::encode(CHECKPOINT, &subject, &record)?.sealed();
    // The record first: whoever has begun to forget something since this was read is seen here, and whoever begins later sees the
    // record and destroys its key. So what forgetting has ended never finds it readable, wherever a process dies.
    let appended = ledger.append(entry).wait();
    appended.map_err(failed("record a checkpoint"))?;
    let late = is_forgotten_from(ledger, through)?;
    if !late {
        let put = ledger.put_blob(&sealed);
        put.map_err(failed("store a checkpoint"))?;
    }
    let kept = !late && !is_forgotten_from(ledger, through)?;
    erase_all_but(ledger, kept.then_some(&subject))?;
    Ok(kept)
}

/// Makes every checkpoint unreadable: durable on return.
///
/// # Errors
/// The ledger's.
pub(crate) fn erase(ledger: &Ledger) -> Result<()> {
    if ledger::mutant::on("checkpoint-keeps-the-forgotten") {
        return Ok(());
    }
    erase_all_but(ledger, None)
}

/// Whether each checkpoint that can be read, and would be believed, is what its records say.
///
/// # Errors
/// The ledger's.
pub(crate) fn agree(ledger: &Ledger) -> Result<Vec<(Seq, bool)>> {
    let mut agree = Vec::new();
    for found in readable(ledger)? {
        let record = &found.record;
        let (true, Some(bytes)) = (is_believed(ledger, record)?, bytes(ledger, &found)) else {
            continue;
        };
        let mut fold = Fold::new(ledger, &record.adapter, record.rules);
        let (after, through) = (Seq::ZERO, record.through);
        reading::read(ledger, Unread { after, through }, 1, |said| fold.add(said))?;
        agree.push((
            record.through,
            fold.keep().is_some_and(|kept| kept == bytes),
        ));
    }
    Ok(agree)
}

fn is_of(record: &CheckpointRecord, (adapter, rules): Of<'_>) -> bool {
    record.adapter == *adapter && record.rules == rules
}

fn is_believed(ledger: &Ledger, record: &CheckpointRecord) -> Result<bool> {
    if ledger::mutant::on("stale-checkpoint-believed") {
        return Ok(true);
    }
    if record.fold != FOLD || is_forgotten_from(ledger, record.through)? {
        return Ok(false);
    }
    let at = ledger
        .get(record.through)
        .map_err(failed("read the ledger"))?;
    Ok(at.is_some_and(|at| at.hash == record.hash))
}

/// Whether somebody asked to forget something after this record.
fn is_forgotten_from(ledger: &Ledger, through: Seq) -> Result<bool> {
    let asked = ledger.by_kind(FORGET, through.next()).next().transpose();
    Ok(asked.map_err(failed("read the ledger"))?.is_some())
}

/// In the order of their making.
fn readable(ledger: &Ledger) -> Result<Vec<Found>> {
    let mut all = Vec::new();
    for record in ledger.by_kind(CHECKPOINT, Seq::FIRST) {
        let found = record.map_err(failed("read the ledger"))?;
        if !found.erased {
            let record = records::decode(&found)?;
            let subject = found.subject;
            all.push(Found { subject, record });
        }
    }
    Ok(all)
}

/// The fold's bytes; none when they are not there, or not what was written.
fn bytes(ledger: &Ledger, found: &Found) -> Option<Vec<u8>> {
    let sealed = ledger.get_blob(&blob(&found.subject)?).ok()?;
    open_blob(&found.record.key, &sealed)
}

fn erase_all_but(ledger: &Ledger, keep: Option<&String>) -> Result<()> {
    let mut others = Vec::new();
    for record in ledger.by_kind(CHECKPOINT, Seq::FIRST) {
        let record = record.map_err(failed("read the ledger"))?;
        if Some(&record.subject) != keep {
            others.push((record.subject, record.erased));
        }
    }
    let readable = others.iter().filter(|(_, erased)| !erased);
    let subjects: Vec<String> = readable.map(|(subject, _)| subject.clone()).collect();
    ledger
        .destroy_keys(&subjects)
        .map_err(failed("destroy the keys of checkpoints"))?;
    // Also of those whose key is gone already: a process may have died between the two.
    for blob in others.iter().filter_map(|(subject, _)| blob(subject)) {
        if ledger.has_blob(&blob) {
            ledger
                .remove_blob(&blob)
                .map_err(failed("remove a checkpoint"))?;
        }
    }
    Ok(())
}

/// The subject of a checkpoint's record names its blob, so that it is found, and no key is ever used twice.
fn subject(blob: &Digest) -> String {
    format!("{CHECKPOINT}/{blob}")
}

fn blob(subject: &str) -> Option<Digest> {
    subject.split_once('/')?.1.parse().ok()
}

fn failed(action: &'static str) -> impl Fn(ledger::Error) -> Error {
    move |error| Error::ledger("recovery", action)(error)
}

#[cfg(test)]
mod tests {
    use ledger::{
        Options,
        lineage::{HEAD, HeadRecord, VersionRecord},
    };
    use serde_json::{Value, json};

    use super::*;
    use crate::records::{CLOSED, FEEDBACK, FORGOTTEN, GATE, JUDGED, RUN, SPENT, TURN};

    const RULES: Rules = Rules {
        batch_size: 1,
        max_lag: 4,
    };

    /// Ann is trained, Bob waits in a conversation without a name, Eve is judged and nobody has read it yet.
    fn filled(dir: &std::path::Path) -> Ledger {
        let ledger = Ledger::open(dir, Options::default()).unwrap();
        let add = |kind: &str, subject: &str, body: Value| {
            let entry = Entry::new(kind, subject, body.to_string().into_bytes());
            ledger.append(entry).wait().unwrap();
        };
        let turn = |who: &str| {
            let turn = rl::seam::conformance::turn("What is it?", &format!("{who} asks."));
            let mut turn = serde_json::to_value(turn).unwrap();
            (turn["id"], turn["session"]) = (json!(who), json!(format!("of {who}")));
            turn["user"] = json!(who);
            let derived = who == "bob";
            add(
                TURN,
                who,
                json!({"turn": turn, "key": "k", "derived": derived, "not_trainable": null}),
            );
        };
        let judged = |who: &str| {
            let sample = json!({"id": format!("sample-{who}"), "adapter": "main", "version": 0});
            add(
                JUDGED,
                who,
                json!({"turn": who, "revision": 0, "votes": [{"value": "positive"}, {"value": null}],
                    "verdict": {"value": "positive"}, "sample": sample, "not_trainable": null}),
            );
        };
        let rules = json!({"batch-size": 1, "max-lag": 4});
        add(
            RUN,
            "main",
            json!({"adapter": "main", "model": "m", "seed": 7, "rules": rules, "learner": {"lr": 0.1}, "through": 0}),
        );
        for who in ["ann", "bob", "eve"] {
            turn(who);
        }
        let next = json!({"next": {"text": "Thanks.", "messages": []}});
        add(
            CLOSED,
            "ann",
            json!({"turn": "ann", "closing": next, "by": null}),
        );
        judged("ann");
        let version = VersionRecord {
            version: 1,
            adapter: "main".to_owned(),
            samples: vec!["sample-ann".to_owned()],
            through: Some(6),
            steps: Some(1),
            ..VersionRecord::default()
        };
        let entry = version.to_entry().unwrap();
        ledger.append(entry).wait().unwrap();
        add(
            SPENT,
            "ann",
            json!({"sample": "sample-ann", "turn": "ann", "fate": {"trained": 1}}),
        );
        let stale = json!({"stale": {"newest": 1}});
        add(
            SPENT,
            "old",
            json!({"sample": "sample-old", "turn": "old", "fate": stale}),
        );
        let gate =
            json!({"adapter": "main", "version": 1, "passed": true, "examination": "a reply"});
        add(GATE, "main:1", gate);
        let head = HeadRecord {
            adapter: "main".to_owned(),
            version: 1,
            share: None,
            why: "trained".to_owned(),
        };
        add(HEAD, "main", serde_json::to_value(head).unwrap());
        let feedback =
            json!({"tenant": "tenant", "turn": "bob", "rating": "up", "correction": null});
        add(FEEDBACK, "bob", feedback);
        judged("eve");
        ledger
    }

    fn fold(ledger: &Ledger, through: Seq) -> Fold {
        let mut fold = Fold::new(ledger, &"main".into(), RULES);
        let after = Seq::ZERO;
        reading::read(ledger, Unread { after, through }, 1, |said| fold.add(said)).unwrap();
        fold
    }

    #[test]
    fn the_bytes_of_a_fold_are_those_of_its_number() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = filled(dir.path());
        let bytes = fold(&ledger, ledger.durable()).keep().unwrap();
        let (digest, text) = (
            Digest::of(&bytes).short(),
            String::from_utf8(bytes).unwrap(),
        );
        assert!(!text.contains("a reply"), "what the gate heard is not kept");
        assert_eq!(
            (FOLD, &*digest),
            (1, "abda16589379"),
            "the fold gives something else, or is written otherwise: raise `FOLD`, and put the new digest here: {text}"
        );
    }

    #[test]
    fn a_fold_goes_on_from_any_place_as_if_it_had_never_rested() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = filled(dir.path());
        let (of, end) = ((&"main".into(), RULES), ledger.durable());
        let whole = fold(&ledger, end).keep().unwrap();
        for place in (1..=end.get()).map(Seq::new) {
            assert!(save(&ledger, of, fold(&ledger, place), place).unwrap());
            let (mut restored, mut unread) = begin(&ledger, of).unwrap();
            assert_eq!((unread.after, last(&ledger, of).unwrap()), (place, place));
            unread.through = end;
            reading::read(&ledger, unread, 2, |said| restored.add(said)).unwrap();
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let kept = restored.keep().unwrap();
            assert_eq!(text(&kept), text(&whole), "from {place}");
            assert_eq!(ledger.blobs().unwrap().len(), 1, "one replaces another");
        }
    }

    #[test]
    fn what_was_folded_before_somebody_asked_to_be_forgotten_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = filled(dir.path());
        let (of, end) = ((&"main".into(), RULES), ledger.durable());
        assert!(save(&ledger, of, fold(&ledger, end), end).unwrap());
        let before = fold(&ledger, end);
        let (mut begun, unread) = begin(&ledger, of).unwrap();
        let forget = json!({"id": "1", "adapter": "main", "selector": "user", "commitment": "", "turns": ["ann"], "subjects": []});
        let entry = Entry::new(FORGET, "main", forget.to_string().into_bytes());
        ledger.append(entry).wait().unwrap();
        assert_eq!(
            last(&ledger, of).unwrap(),
            Seq::ZERO,
            "nor is the last one believed"
        );
        assert!(!save(&ledger, of, before, end).unwrap());
        assert_eq!(
            (ledger.blobs().unwrap(), readable(&ledger).unwrap().len()),
            (vec![], 0)
        );
        // Nor what began at a checkpoint that was believed until then, when all of that is over meanwhile.
        let place = json!({"through": 6, "waiting": [], "spent": []});
        let forgotten = json!({"id": "1", "adapter": "main", "before": 1, "after": 1, "erased": [], "line": [], "computed": 0, "place": place});
        reading::read(&ledger, unread, 1, |said| begun.add(said)).unwrap();
        let during = ledger.durable();
        let entry = Entry::new(FORGOTTEN, "main", forgotten.to_string().into_bytes());
        ledger.append(entry).wait().unwrap();
        assert!(!save(&ledger, of, begun, unread.through).unwrap());
        // Nor while that is not over.
        let end = during;
        assert!(!save(&ledger, of, fold(&ledger, end), end).unwrap());
        assert_eq!(ledger.blobs().unwrap(), []);
        let end = ledger.durable();
        assert!(save(&ledger, of, fold(&ledger, end), end).unwrap());
    }
}
