//! What must hold of a folder whose host has ended in the middle of something, before it is started again and after.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::process::{Command, Stdio};

use ledger::lineage::{Lineage, Origin, RefKind};
use ledger::{Ledger, Seq};
use loops::records::{
    self, FEEDBACK, FORGET, FORGOTTEN as DONE, ForgottenRecord, SPENT, TURN, TurnRecord,
};
use serde_json::{Value, json};

use crate::host::{Folder, Host, PROGRAM, Stop};
use crate::scenario::{FORGOTTEN, MARKER, Told};

/// Starts a host on the folder, finishes the scenario, stops it, and reads what is there. Gives everything that is wrong.
pub(crate) fn check(folder: &Folder, told: &mut Told) -> Vec<String> {
    let mut wrong = Vec::new();
    // A host that was killed before its first ledger was whole leaves nothing that could be verified, and owes nobody anything.
    let begun = folder.data().join("ledger/mark").exists();
    if begun {
        let copy = folder.copy();
        verified(
            &copy.path().join("data"),
            &[],
            "before the restart",
            &mut wrong,
        );
    } else if !told.sent.is_empty() {
        wrong.push("a host that had served has no ledger".to_owned());
    }
    told.patient = false;
    match Host::start(folder, None) {
        Err(ended) => wrong.push(format!("it does not start again: {ended:?}")),
        Ok(host) => {
            if let Err(stop) = finish(&host, folder, told, &mut wrong) {
                wrong.push(format!(
                    "the scenario cannot be finished: {stop:?}; it said {}",
                    host.said()
                ));
            }
            match host.stop() {
                Ok(ended) if ended.status.success() => {}
                Ok(ended) => wrong.push(format!("it does not stop cleanly: {ended:?}")),
                Err(host) => wrong.push(format!("it does not stop: {}", host.said())),
            }
        }
    }
    if wrong.is_empty() {
        verified(&folder.data(), &["--replay"], "at the end", &mut wrong);
        content(&folder.data(), told, &mut wrong);
    }
    wrong
}

/// New replies, a new version, and the end of what was to be forgotten.
fn finish(
    host: &Host,
    folder: &Folder,
    told: &mut Told,
    wrong: &mut Vec<String>,
) -> Result<(), Stop> {
    let quiet = |status: &Value| status["queues"]["judge"]["depth"] == 0;
    let waiting = |status: &Value| {
        status["queues"]["train"]["depth"]
            .as_u64()
            .unwrap_or(u64::MAX)
    };
    host.until("judging what was left", quiet)?;
    if told.sent.iter().any(|(session, _)| session == FORGOTTEN) && !told.forgot {
        let known = told.turns.iter().any(|turn| turn.session == FORGOTTEN);
        match told.forget(host) {
            // What was said never became a record, or all of it is forgotten and nobody was told.
            Err(Stop::Refused(_, why))
                if why.contains("forgotten already") && (!known || begun(folder)) => {}
            answered => answered?,
        }
    }
    let before = host.status()?["live"].as_u64();
    told.complain(host, "last")?;
    told.complain(host, "very last")?;
    host.until("a new version", |status| {
        status["live"].as_u64() > before && quiet(status) && waiting(status) < 2
    })?;
    let (_, seen, _) = host.post(
        "/v1/chat/completions",
        "",
        &json!({"model": "tiny-llama:main", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}),
    )?;
    told.sent.push((String::new(), "Hi".to_owned()));
    let live = host.status()?["live"].as_u64();
    if seen != live {
        wrong.push(format!("version {seen:?} answers, {live:?} is live"));
    }
    Ok(())
}

/// Whether a statement says that something was forgotten.
fn begun(folder: &Folder) -> bool {
    crate::scenario::manifests(&folder.data()) > 0
}

fn verified(data: &Path, more: &[&str], when: &str, wrong: &mut Vec<String>) {
    let output = Command::new(PROGRAM)
        .args(["ledger", "verify", "--data"])
        .arg(data)
        .args(more)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() || !said.contains("sound") {
        let error = String::from_utf8_lossy(&output.stderr);
        wrong.push(format!("{when}, `ledger verify` says {said}{error}"));
    }
}

/// What was acknowledged is there once, and nothing that was not asked for.
fn content(data: &Path, told: &Told, wrong: &mut Vec<String>) {
    let ledger = Ledger::open(data.join("ledger"), ledger::Options::default()).unwrap();
    let mut turns: HashMap<String, usize> = HashMap::new();
    let mut sent: HashMap<(String, String), isize> = HashMap::new();
    for request in &told.sent {
        *sent.entry(request.clone()).or_default() += 1;
    }
    let (mut feedback, mut spent, mut begun, mut ended) =
        (Vec::new(), HashSet::new(), 0, Vec::new());
    for record in ledger.scan(Seq::FIRST) {
        let record = record.unwrap();
        match record.kind.as_str() {
            TURN => {
                *turns.entry(record.subject.clone()).or_default() += 1;
                if !record.erased {
                    turn(&records::decode(&record).unwrap(), told, &mut sent, wrong);
                }
            }
            FEEDBACK => feedback.push(record.subject),
            SPENT if !spent.insert(record.key.clone()) => {
                wrong.push(format!("{:?} is spent twice", record.key))
            }
            FORGET => begun += 1,
            DONE => ended.push(records::decode::<ForgottenRecord>(&record).unwrap()),
            _ => {}
        }
    }
    for known in &told.turns {
        let times = turns.get(&known.id).copied().unwrap_or_default();
        if times != 1 {
            wrong.push(format!("the acknowledged {known:?} is there {times} times"));
        }
    }
    if feedback.len() < told.feedback.len() || feedback.len() > told.feedback_sent {
        wrong.push(format!(
            "{} times feedback, sent {}",
            feedback.len(),
            told.feedback_sent
        ));
    }
    forgotten(data, told, begun, &ended, wrong);
    versions(&ledger, told, &ended, wrong);
}

/// A turn that is there was asked for, and answered as the client was told.
fn turn(
    record: &TurnRecord,
    told: &Told,
    sent: &mut HashMap<(String, String), isize>,
    wrong: &mut Vec<String>,
) {
    let turn = &record.turn;
    let text = turn
        .messages
        .last()
        .map(|message| message.content.clone())
        .unwrap_or_default();
    if text != "Hi" {
        let left = sent.entry((turn.session.to_string(), text)).or_default();
        *left -= 1;
        if *left < 0 {
            wrong.push(format!("a turn that nobody asked for, or twice: {turn:?}"));
        }
    }
    if turn.session.as_str() == FORGOTTEN {
        wrong.push(format!("{} can still be read", turn.id));
    }
    let known = told.turns.iter().find(|known| known.id == turn.id.as_str());
    if known.is_some_and(|known| {
        known.reply != turn.reply.content || known.version != turn.version.get()
    }) {
        wrong.push(format!("{known:?} is recorded as {turn:?}"));
    }
}

fn forgotten(
    data: &Path,
    told: &Told,
    begun: usize,
    ended: &[ForgottenRecord],
    wrong: &mut Vec<String>,
) {
    if begun != ended.len() || (told.forgot && ended.is_empty()) {
        wrong.push(format!("{begun} requests to forget, {} ended", ended.len()));
    }
    for end in ended {
        let manifest =
            app::manifest::check(&data.join("forgotten").join(format!("{}.json", end.id)));
        match manifest {
            Ok(manifest) if manifest.statement.after == end.after.get() => {}
            other => wrong.push(format!("the manifest of {}: {other:?}", end.id)),
        }
    }
    let found = holding(data, MARKER.as_bytes());
    if !found.is_empty() {
        wrong.push(format!("what was said lies in {found:?}"));
    }
}

/// Files that hold these bytes.
fn holding(folder: &Path, bytes: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(holding(&path, bytes));
        } else if std::fs::read(&path)
            .unwrap()
            .windows(bytes.len())
            .any(|window| window == bytes)
        {
            found.push(path.display().to_string());
        }
    }
    found
}

fn versions(ledger: &Ledger, told: &Told, ended: &[ForgottenRecord], wrong: &mut Vec<String>) {
    let lineage = Lineage::read(ledger).unwrap();
    let seen = told
        .turns
        .iter()
        .map(|turn| turn.version)
        .chain(told.moved.iter().copied());
    for version in seen.filter(|version| *version > 0) {
        if lineage.get("main", version).is_none() {
            wrong.push(format!("v{version} was seen and is not there"));
        }
    }
    let moves = lineage
        .all()
        .iter()
        .filter(|v| matches!(v.origin, Origin::Reverted { .. } | Origin::Promoted { .. }));
    // Forgetting may go back to the base model: that is a revert, too.
    if moves.count() > told.moves_sent + ended.len() {
        wrong.push("a version was moved to that nobody asked for".to_owned());
    }
    let tag = lineage
        .refs("main")
        .find(|name| name.kind == RefKind::Tag && name.name == "good");
    // A tag of a version that was erased goes away when nothing stands for it.
    if told.tagged && tag.is_none() && ended.is_empty() {
        wrong.push("the tag is not there".to_owned());
    }
    // Weights that were erased, and that no other version has, are not there.
    let erased: HashSet<u64> = ended
        .iter()
        .flat_map(|end| &end.erased)
        .map(|v| v.get())
        .collect();
    let blobs = |erased_ones: bool| -> HashSet<ledger::Digest> {
        let of = lineage
            .all()
            .iter()
            .filter(|v| erased.contains(&v.version) == erased_ones);
        of.flat_map(|v| [v.adapter_blob, v.optimizer_blob])
            .flatten()
            .collect()
    };
    let kept = blobs(false);
    for digest in blobs(true)
        .difference(&kept)
        .filter(|digest| ledger.has_blob(digest))
    {
        wrong.push(format!("the erased weights {digest} are there"));
    }
    if lineage.live("main").is_none() {
        wrong.push("no version is live".to_owned());
    }
}
