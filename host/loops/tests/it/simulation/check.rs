//! What must hold of a ledger whatever happened to the processes that wrote it, given what the world outside knows.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    ops::ControlFlow,
};

use ledger::{
    Digest, Ledger, Record, Seq,
    disk::Simulated,
    lineage::{self, HeadRecord, Lineage, Origin, RefRecord, VersionRecord},
    verify_on,
};
use loops::{
    Line,
    orders::Done,
    records::{
        self, CHECKPOINT, CLOSED, CheckpointRecord, ClosedRecord, Closing, FEEDBACK, FORGET,
        FORGOTTEN, ForgetRecord, ForgottenRecord, SPENT, TURN, TurnRecord,
    },
    replay,
    schedule::Rules,
};
use rl::{Feedback, PolicyVersion, TurnId};

use super::{
    DIR,
    memory::{Memory, Request},
};
use crate::rig::{bench, no_gate};

/// Everything in a ledger, by kind.
struct Found {
    records: Vec<Record>,
    lineage: Lineage,
    heads: Vec<HeadRecord>,
    names: Vec<RefRecord>,
    forget: Vec<ForgetRecord>,
    forgotten: Vec<(Seq, ForgottenRecord)>,
    /// Turns of every request to forget.
    gone: BTreeSet<TurnId>,
}

impl Found {
    fn read(ledger: &Ledger) -> Self {
        let records: Vec<Record> = ledger.scan(Seq::FIRST).map(Result::unwrap).collect();
        let of = |kind: &str| {
            let kind = kind.to_owned();
            records.iter().filter(move |r| r.kind == kind)
        };
        let forget: Vec<ForgetRecord> = of(FORGET).map(|r| records::decode(r).unwrap()).collect();
        let forgotten = of(FORGOTTEN).map(|r| (r.seq, records::decode(r).unwrap()));
        Self {
            lineage: Lineage::read(ledger).unwrap(),
            heads: of(lineage::HEAD)
                .map(|r| records::decode(r).unwrap())
                .collect(),
            names: of(lineage::REF)
                .map(|r| records::decode(r).unwrap())
                .collect(),
            gone: forget.iter().flat_map(|f| f.turns.clone()).collect(),
            forgotten: forgotten.collect(),
            forget,
            records,
        }
    }

    fn of<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Record> {
        self.records.iter().filter(move |r| r.kind == kind)
    }
}

/// Checks everything.
pub(super) fn check(disk: &Simulated, ledger: &Ledger, memory: &Memory, rules: Rules) {
    let found = Found::read(ledger);
    turns(&found, memory);
    closings(&found, memory);
    feedback(&found, memory);
    orders(&found, memory);
    forgotten(&found, ledger, memory);
    checkpoints_are_forgotten(&found, ledger);
    words_stay_where_they_were_said(&found, memory);
    for (version, bytes) in &memory.live {
        let record = found.lineage.get("main", *version);
        let stored = record.and_then(|v| v.adapter_blob);
        let seen = (bytes != b"base").then(|| Digest::of(bytes));
        assert!(
            (*version == 0 || record.is_some()) && stored == seen,
            "v{version} answered, and is another one in the ledger: {record:?}"
        );
    }
    let audit = loops::audit::audit(ledger, &"main".into()).unwrap();
    let bad: Vec<_> = audit.checks.iter().filter(|c| c.violated > 0).collect();
    assert!(
        bad.is_empty(),
        "the audit found {bad:#?} in {}",
        story(&found)
    );
    bytes(disk, &found);
    weights(ledger, rules);
}

fn turns(found: &Found, memory: &Memory) {
    let mut seen = HashSet::new();
    for record in found.of(TURN) {
        let id = TurnId::new(record.subject.clone());
        assert!(seen.insert(id.clone()), "{id} is recorded twice");
        let sent = memory.turns.get(&id).filter(|sent| sent.finished);
        let sent = sent.unwrap_or_else(|| panic!("nobody sent {id}"));
        if record.erased {
            assert!(memory.may_be_forgotten(&id), "{id} is erased");
            continue;
        }
        let turn: TurnRecord = records::decode(record).unwrap();
        let turn = turn.turn;
        let same = turn.messages == sent.messages
            && turn.reply.content == sent.reply
            && turn.user.as_deref() == Some(&*sent.user)
            && turn.session.as_str() == sent.session;
        assert!(same, "{id} is not what was sent: {turn:?}, {sent:?}");
    }
    for id in &memory.answered {
        assert!(seen.contains(id), "{id} was acknowledged, and is not there");
    }
}

fn closings(found: &Found, memory: &Memory) {
    let mut seen = HashSet::new();
    for record in found.of(CLOSED) {
        let id = TurnId::new(record.subject.clone());
        assert!(seen.insert(id.clone()), "{id} is closed twice");
        let sent = memory.turns.get(&id);
        let sent = sent.unwrap_or_else(|| panic!("nobody sent {id}, and it is closed"));
        if record.erased {
            continue;
        }
        let closed: ClosedRecord = records::decode(record).unwrap();
        if let Closing::Next(next) = closed.closing {
            let said = &memory.said[&sent.session];
            assert!(
                said.contains(&next.text),
                "nobody said {:?} after {id}",
                next.text
            );
        }
    }
    // A conversation of which something was forgotten is not remembered: what comes later in it is a new one.
    let ended = found.gone.iter().filter_map(|turn| memory.turns.get(turn));
    let ended: HashSet<&str> = ended.map(|sent| sent.session.as_str()).collect();
    for id in &memory.closed {
        let ended = memory
            .turns
            .get(id)
            .is_some_and(|sent| ended.contains(sent.session.as_str()));
        assert!(
            seen.contains(id) || ended,
            "a request that goes on from {id} was let in, and it waits"
        );
    }
}

fn feedback(found: &Found, memory: &Memory) {
    let key = |f: &Feedback| format!("{} {:?} {:?}", f.turn, f.rating, f.correction);
    let mut there: BTreeMap<String, usize> = BTreeMap::new();
    let mut erased = BTreeSet::new();
    for record in found.of(FEEDBACK) {
        if record.erased {
            erased.insert(TurnId::new(record.subject.clone()));
            continue;
        }
        *there
            .entry(key(&records::decode(record).unwrap()))
            .or_default() += 1;
    }
    let mut sent: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for (feedback, acknowledged) in &memory.feedback {
        let (issued, told) = sent.entry(key(feedback)).or_default();
        *issued += 1;
        *told += usize::from(*acknowledged);
        let here = there.contains_key(&key(feedback)) || erased.contains(&feedback.turn);
        assert!(
            here || !acknowledged,
            "{feedback:?} was accepted, and is not there"
        );
    }
    for (key, count) in there {
        let (issued, told) = sent.get(&key).copied().unwrap_or_default();
        assert!(
            (told..=issued).contains(&count),
            "{key} is there {count} times, was sent {issued} times, accepted {told} times"
        );
    }
}

fn orders(found: &Found, memory: &Memory) {
    for asked in &memory.asked {
        let heads = found.heads.iter().filter(|head| head.why == asked.why);
        let heads: Vec<_> = heads.collect();
        match (&asked.what, &asked.done) {
            (Request::Revert(_) | Request::Promote(_), done) => {
                assert!(heads.len() <= 1, "{asked:?} was obeyed twice");
                let Some(Done::Version(told)) = done else {
                    continue;
                };
                let there = found.lineage.get("main", told.version);
                assert_eq!(there, Some(&**told), "{asked:?}");
                assert_eq!(heads.len(), 1, "{asked:?} has no head");
            }
            (Request::Name(name), Some(_)) => {
                assert!(found.names.contains(name), "{name:?} was given");
            }
            (Request::Forget(_), Some(Done::Forgotten(told))) => {
                let there = found.forgotten.iter().filter(|(_, f)| *f == told.record);
                assert_eq!(there.count(), 1, "{told:?} is not recorded");
            }
            _ => {}
        }
    }
    let moved = found
        .lineage
        .all()
        .iter()
        .filter(|v| matches!(v.origin, Origin::Reverted { .. } | Origin::Promoted { .. }));
    for version in moved {
        let head = found.heads.iter().find(|h| h.version == version.version);
        let head = head.unwrap_or_else(|| panic!("v{} never answered", version.version));
        let asked = memory.asked.iter().find(|asked| asked.why == head.why);
        let fits = asked.is_some_and(|asked| match (&asked.what, &version.origin) {
            (Request::Revert(to), Origin::Reverted { to: there }) => to == there,
            (Request::Promote(from), Origin::Promoted { from: there }) => from == there,
            _ => false,
        });
        assert!(fits, "nobody asked for {version:?}");
    }
    for name in &found.names {
        let given = memory
            .asked
            .iter()
            .any(|asked| matches!(&asked.what, Request::Name(given) if given.name == name.name));
        assert!(given, "nobody gave {name:?}");
    }
}

fn forgotten(found: &Found, ledger: &Ledger, memory: &Memory) {
    let requests = |asked: &&super::memory::Asked| matches!(asked.what, Request::Forget(_));
    let asked: Vec<_> = memory.asked.iter().filter(requests).collect();
    assert!(found.forget.len() <= asked.len());
    for turn in &found.gone {
        assert!(
            memory.may_be_forgotten(turn),
            "nobody asked to forget {turn}"
        );
    }
    for asked in &asked {
        let (Request::Forget(whom), Some(_)) = (&asked.what, &asked.done) else {
            continue;
        };
        for turn in &asked.known {
            let hit = memory.means(whom, turn);
            assert!(
                !hit || found.gone.contains(turn),
                "{turn} was to be forgotten by {whom:?}"
            );
        }
    }
    for (at, forgotten) in &found.forgotten {
        let request = found.forget.iter().find(|f| f.id == forgotten.id).unwrap();
        let gone: BTreeSet<String> = request.turns.iter().map(ToString::to_string).collect();
        for record in &found.records {
            let said = gone.contains(&record.subject) && record.kind != SPENT;
            assert!(
                !said || record.erased,
                "{} {} of {} can be read",
                record.seq,
                record.kind,
                record.subject
            );
            if record.seq > *at && record.kind == lineage::KIND {
                let version = VersionRecord::from_record(record).unwrap();
                let knows = version
                    .samples
                    .iter()
                    .find(|s| gone.contains(s.trim_start_matches("sample-")));
                assert!(knows.is_none(), "v{} knows {knows:?}", version.version);
            }
        }
    }
    // Weights go before the request is answered.
    for asked in asked {
        let Some(Done::Forgotten(told)) = &asked.done else {
            continue;
        };
        let erased: BTreeSet<u64> = told.record.erased.iter().map(|v| v.get()).collect();
        let blobs = |v: &VersionRecord| [v.adapter_blob, v.optimizer_blob].into_iter().flatten();
        let all = || found.lineage.all().iter();
        let kept: HashSet<Digest> = all()
            .filter(|v| !erased.contains(&v.version))
            .flat_map(blobs)
            .collect();
        for version in all().filter(|v| erased.contains(&v.version)) {
            for blob in blobs(version).filter(|blob| !kept.contains(blob)) {
                assert!(
                    !ledger.has_blob(&blob),
                    "v{} is forgotten, and its weights are there",
                    version.version
                );
            }
        }
    }
}

/// What became of the checkpoints: those that can be opened, and those that a process died while writing.
pub(super) fn checkpoints(ledger: &Ledger) -> (u64, u64) {
    let found = Found::read(ledger);
    let (mut whole, mut cut) = (0, 0);
    for record in found.of(CHECKPOINT).filter(|record| !record.erased) {
        match ledger.has_blob(&blob_of(record)) {
            true => whole += 1,
            false => cut += 1,
        }
    }
    (whole, cut)
}

fn blob_of(record: &Record) -> Digest {
    let name = record.subject.split('/').nth(1).unwrap();
    name.parse().unwrap()
}

/// When a request to forget is over, no fold of what was there before it can be opened.
fn checkpoints_are_forgotten(found: &Found, ledger: &Ledger) {
    for record in found.of(CHECKPOINT).filter(|record| !record.erased) {
        let checkpoint: CheckpointRecord = records::decode(record).unwrap();
        let late = found.of(FORGOTTEN).any(|forgotten| {
            let done: ForgottenRecord = records::decode(forgotten).unwrap();
            let mut asked = found.of(FORGET);
            asked.any(|asked| {
                let request: ForgetRecord = records::decode(asked).unwrap();
                request.id == done.id && checkpoint.through < asked.seq
            })
        });
        assert!(
            !late || !ledger.has_blob(&blob_of(record)),
            "the checkpoint at {} holds what was forgotten",
            checkpoint.through
        );
    }
}

/// A record about a turn holds words of its own conversation only, every other record none.
fn words_stay_where_they_were_said(found: &Found, memory: &Memory) {
    for record in found.records.iter().filter(|r| !r.erased) {
        let text = String::from_utf8_lossy(&record.body);
        let subject = TurnId::new(record.subject.clone());
        let session = memory.turns.get(&subject).map(|sent| sent.session.as_str());
        for at in text.match_indices("zq<").map(|(at, _)| at + 3) {
            let whose = text[at..].split('>').next();
            assert!(
                session.is_some() && whose == session,
                "{} {} of {} holds words of {whose:?}",
                record.seq,
                record.kind,
                record.subject
            );
        }
    }
}

fn bytes(disk: &Simulated, found: &Found) {
    let report = verify_on(disk, DIR).unwrap();
    let erased: BTreeSet<_> = found
        .forgotten
        .iter()
        .flat_map(|(_, f)| f.erased.clone())
        .collect();
    for damage in &report.damage {
        let gone = matches!(damage.error, ledger::Error::NoBlob { .. });
        assert!(gone && !erased.is_empty(), "{damage:?}");
    }
}

/// A replay gives every version again, and ends with the weights that answer.
fn weights(ledger: &Ledger, rules: Rules) {
    let read = || Line::read(ledger.clone(), "main".into(), rules).unwrap();
    let (line, mut further) = (read(), read());
    let through = line.schedule().through();
    // A step that was in progress when the process died: a replay would take it, and the ledger does not hold it yet.
    if further.due().is_some_and(|due| due.through == through) {
        return;
    }
    // A ledger without a version is trained as far as it goes: there is nothing to compare that with.
    let fresh = line.lineage().all().is_empty();
    if line.forgetting().is_some() || line.run().is_none() || fresh {
        return;
    }
    let options = replay::Options {
        gate: no_gate(),
        ..replay::Options::default()
    };
    let replayed = replay::replay(&line, &bench(), options, &|_, _, _| {
        ControlFlow::Continue(())
    })
    .unwrap();
    assert!(
        replayed.is_exact(),
        "a replay gives other versions: {:#?}{}",
        replayed.steps,
        moves(ledger)
    );
    let head = line.head().and_then(|v| v.adapter_blob);
    let head = head.map(|blob| ledger.get_blob(&blob).unwrap());
    assert_eq!(
        replayed.adapter,
        head,
        "a replay ends with {:?}, v{} answers:{}",
        replayed.head.map(|v| v.version),
        line.version().get(),
        moves(ledger)
    );
    assert!(line.version() == PolicyVersion::BASE || line.head().is_some());
}

/// The records that move the line, in short.
fn moves(ledger: &Ledger) -> String {
    let mut text = String::new();
    for record in ledger.scan(Seq::FIRST).map(Result::unwrap) {
        let body: serde_json::Value = serde_json::from_slice(&record.body).unwrap_or_default();
        let said = match record.kind.as_str() {
            "judged" => format!("{} {}", body["turn"], body["sample"]["version"]),
            "version" => {
                let content = &body["content"];
                format!(
                    "v{} {} through {} {}",
                    content["version"], content["origin"], content["through"], content["samples"]
                )
            }
            "head" | "forget" | "forgotten" | "step-refused" | "run" => body.to_string(),
            _ => continue,
        };
        let erased = if record.erased { " (erased)" } else { "" };
        let (seq, kind) = (record.seq, &record.kind);
        text = format!(
            "{text}
  {seq} {kind}{erased} {said}"
        );
    }
    text
}

/// The versions, in short.
fn story(found: &Found) -> String {
    let line = |v: &VersionRecord| {
        let parent = v.parent.and_then(|hash| found.lineage.by_hash(&hash));
        format!(
            "\n  v{} of v{}: {:?} through {:?}, {:?}",
            v.version,
            parent.map_or(0, |v| v.version),
            v.origin,
            v.through,
            v.samples
        )
    };
    found.lineage.all().iter().map(line).collect()
}
