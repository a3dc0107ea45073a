//! `cargo bench -p loops [-- folder]`: how long a host needs to know where it was, by the length of its ledger.
//!
//! The ledgers hold what the loops write for one turn after another: the turn, its next state, the verdict with the sample, the
//! sample's end, and a version for every 16. A host that died reads at most what came after its last checkpoint: an eighth of the
//! ledger, or 50,000 records. Figures only: nothing is asserted.
#![expect(clippy::print_stdout, reason = "a command")]

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use ledger::{
    Entry, Ledger, Options, Seq,
    lineage::{HeadRecord, VersionRecord},
};
use loops::{
    records::{ClosedRecord, Closing, Fate, JudgedRecord, SpentRecord, TurnRecord},
    recovery::{recover, write_down},
    schedule::Rules,
};
use rl::{
    Decider, Message, NextState, PolicyVersion, Sample, SampleId, SessionId, Turn, TurnId, Verdict,
    VoteValue,
    algorithm::{Method, Settings},
    seam::conformance,
};

/// The program's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Outcome<T> = Result<T, Box<dyn Error>>;

const RULES: Rules = Rules {
    batch_size: 16,
    max_lag: 4,
};
/// Tokens of a prompt and of a reply, about those of the demo.
const PROMPT: u32 = 160;
const REPLY: u32 = 48;

fn main() -> Outcome<()> {
    let dir = env::args()
        .skip(1)
        .find(|arg| !arg.starts_with('-'))
        .map_or_else(env::temp_dir, PathBuf::from)
        .join("recovery-bench");
    println!(
        "| records | of them turns | MB | opening the ledger | recovering the loops | together | a checkpoint | of MB | recovering from it | and from a tail of 1/8 |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for records in [10_000, 100_000, 1_000_000] {
        if dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        fs::create_dir_all(&dir)?;
        let told = fill(&Ledger::open(&dir, Options::default())?, (0, None), records)?;
        measure(&dir, told, records)?;
    }
    fs::remove_dir_all(&dir)?;
    Ok(())
}

fn measure(dir: &Path, told: Told, records: u64) -> Outcome<()> {
    let start = Instant::now();
    let ledger = Ledger::open(dir, Options::default())?;
    let opened = start.elapsed();
    let recovered = recover(&ledger, &"main".into(), RULES)?;
    let all = start.elapsed();
    let turns: u64 = recovered.status.turns.values().sum();
    drop(recovered);
    let before = bytes(dir)?;
    let writing = timed(|| write_down(&ledger, &"main".into(), RULES).map(drop))?;
    let kept = bytes(dir)?.saturating_sub(before);
    let again = || recover(&ledger, &"main".into(), RULES).map(drop);
    let with = timed(again)?;
    let end = ledger.durable();
    fill(&ledger, told, end.get() + records / 8)?;
    let tail = timed(again)?;
    println!(
        "| {} | {turns} | {} | {:.3} s | {:.3} s | {:.3} s | {:.3} s | {:.1} | {:.3} s | {:.3} s |",
        end.get() - 1,
        before >> 20,
        opened.as_secs_f64(),
        (all - opened).as_secs_f64(),
        all.as_secs_f64(),
        writing.as_secs_f64(),
        kept as f64 / f64::from(1 << 20),
        with.as_secs_f64(),
        tail.as_secs_f64(),
    );
    Ok(())
}

fn timed(work: impl FnOnce() -> loops::Result<()>) -> Outcome<Duration> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed())
}

fn bytes(dir: &Path) -> Outcome<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        sum += match entry.file_type()?.is_dir() {
            true => bytes(&entry.path())?,
            false => entry.metadata()?.len(),
        };
    }
    Ok(sum)
}

/// The number of the next turn, and the last version.
type Told = (u64, Option<VersionRecord>);

/// Goes on until a ledger has at least so many records.
fn fill(ledger: &Ledger, (mut number, mut version): Told, records: u64) -> Outcome<Told> {
    let (mut batch, mut waiting) = (Vec::new(), Vec::new());
    while ledger.durable().get() < records {
        let mut entries = Vec::new();
        for _ in 0..RULES.batch_size {
            let turn = turn(number, &version);
            number += 1;
            batch.push(turn.id.clone());
            entries.extend(said(turn)?);
        }
        // What was judged is durable before a version is made of it.
        let judged = ledger.append_all(entries);
        let through = judged.wait()?.last().map_or(Seq::ZERO, |last| last.seq);
        let (entries, next) = published(&std::mem::take(&mut batch), version.take(), through)?;
        waiting.push(ledger.append_all(entries));
        version = Some(next);
        if waiting.len() > 64 {
            for group in waiting.drain(..) {
                group.wait()?;
            }
        }
    }
    for group in waiting {
        group.wait()?;
    }
    Ok((number, version))
}

fn turn(number: u64, version: &Option<VersionRecord>) -> Turn {
    let base = conformance::turn(
        "How long should an egg be boiled so that its yolk stays soft?",
        "About six minutes in boiling water, then straight into cold water so that it stops cooking.",
    );
    Turn {
        id: TurnId::new(format!("turn-{number:08}")),
        session: SessionId::new(format!("session-{}", number / 10)),
        user: Some(format!("user-{}", number % 100)),
        version: PolicyVersion::new(version.as_ref().map_or(0, |v| v.version)),
        prompt: (0..PROMPT).map(|at| at * 7 % 49_152).collect(),
        response: (0..REPLY).map(|at| at * 31 % 49_152).collect(),
        logprobs: (0..REPLY).map(|at| -(at as f32) / 37.0).collect(),
        ..base
    }
}

/// The turn, its next state and its verdict.
fn said(turn: Turn) -> Outcome<[Entry; 3]> {
    let sample = Sample {
        id: SampleId::new(format!("sample-{}", turn.id)),
        turn: turn.id.clone(),
        adapter: "main".into(),
        version: turn.version,
        prompt: turn.prompt.clone(),
        response: turn.response.clone(),
        behaviour: turn.logprobs.clone(),
        advantage: turn.logprobs.iter().map(|x| 1.0 + x).collect(),
        weight: vec![1.0; turn.response.len()],
        temperature: 1.0,
    };
    let closed = ClosedRecord {
        turn: turn.id.clone(),
        closing: Closing::Next(NextState::of(vec![Message::user("Thanks, that worked.")])),
        by: None,
    };
    let judged = JudgedRecord {
        turn: turn.id.clone(),
        revision: 0,
        judge: "judge".to_owned(),
        rule: "rule".to_owned(),
        method: Method::Combined,
        settings: Settings::default(),
        votes: vec![conformance::vote(Some(VoteValue::Positive)); 3],
        asks: Vec::new(),
        feedback: None,
        verdict: Some(Verdict {
            value: VoteValue::Positive,
            by: Decider::Judge,
        }),
        reward: None,
        teachers: Vec::new(),
        sample: Some(sample),
        not_trainable: None,
        notes: Vec::new(),
        paid: None,
    };
    let turn = TurnRecord {
        turn,
        key: "key".to_owned(),
        derived: false,
        not_trainable: None,
    };
    Ok([turn.to_entry()?, closed.to_entry()?, judged.to_entry()?])
}

/// A version of these turns, the end of their samples, and the head.
fn published(
    turns: &[TurnId],
    parent: Option<VersionRecord>,
    through: Seq,
) -> Outcome<(Vec<Entry>, VersionRecord)> {
    let number = parent.as_ref().map_or(1, |v| v.version + 1);
    let samples = turns.iter().map(|turn| format!("sample-{turn}"));
    let version = VersionRecord {
        version: number,
        adapter: "main".to_owned(),
        parent: parent.as_ref().map(VersionRecord::hash),
        samples: samples.clone().collect(),
        through: Some(through.get()),
        steps: Some(number),
        ..VersionRecord::default()
    };
    let mut entries = vec![version.to_entry()?];
    for (turn, sample) in turns.iter().zip(samples) {
        let spent = SpentRecord {
            sample: SampleId::new(sample),
            turn: turn.clone(),
            fate: Fate::Trained(PolicyVersion::new(number)),
        };
        entries.push(spent.to_entry()?);
    }
    let head = HeadRecord {
        adapter: "main".to_owned(),
        version: number,
        share: None,
        why: "trained".to_owned(),
    };
    entries.push(head.to_entry()?);
    Ok((entries, version))
}
