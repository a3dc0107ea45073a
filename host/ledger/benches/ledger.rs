//! `cargo bench -p ledger [-- folder]`: durable appends against the bare disk in the same run, and how long opening takes.
//!
//! Figures only: nothing is asserted, because a machine that is busy is not a bug.
#![expect(clippy::print_stdout, reason = "a command")]

use std::{
    env,
    error::Error,
    fs::{self, File},
    io::Write as _,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use ledger::{Entry, Ledger, Options, Seq};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// How long each row is measured.
const SPAN: Duration = Duration::from_secs(4);
/// A turn's record, about.
const BODY: usize = 2_048;

fn main() -> Outcome<()> {
    let dir = env::args()
        .skip(1)
        .find(|arg| !arg.starts_with('-'))
        .map_or_else(env::temp_dir, PathBuf::from)
        .join("ledger-bench");
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(&dir)?;
    println!("| {BODY} bytes each | appends/s | p50 µs | p99 µs | p99.9 µs |");
    println!("|---|---|---|---|---|");
    let flat = row(
        "write + fdatasync, preallocated",
        bare(&dir.join("flat"), true)?,
    );
    let grown = row(
        "write + fdatasync, growing file",
        bare(&dir.join("grown"), false)?,
    );
    let mut first = Duration::ZERO;
    for (writers, sealed) in [(1, false), (1, true), (16, false), (256, false)] {
        let folder = dir.join(format!("writers-{writers}-{sealed}"));
        let waits = appends(&folder, writers, sealed)?;
        let name = if sealed { ", sealed" } else { "" };
        let p50 = row(&format!("ledger, {writers} writers{name}"), waits);
        if writers == 1 && !sealed {
            first = p50;
        }
        fs::remove_dir_all(folder)?;
    }
    // The disk's speed drifts: once more, after.
    let after = row(
        "write + fdatasync, preallocated, again",
        bare(&dir.join("flat"), true)?,
    );
    let ratio = |to: Duration| first.as_secs_f64() / to.as_secs_f64();
    println!(
        "\none writer's p50 is {:.2} (before) and {:.2} (after) of a bare fdatasync, {:.2} of one to a growing file\n",
        ratio(flat),
        ratio(after),
        ratio(grown)
    );
    println!(
        "| records | bytes each | opening | with its indices lost | reading and checking all |"
    );
    println!("|---|---|---|---|---|");
    for (count, body) in [
        (10_000, 100),
        (10_000, BODY),
        (100_000, 100),
        (100_000, BODY),
        (1_000_000, 100),
        (1_000_000, BODY),
    ] {
        opening(&dir.join("opening"), count, body)?;
    }
    fs::remove_dir_all(&dir)?;
    Ok(())
}

/// Sorts, prints, and returns the median.
fn row(name: &str, (mut waits, span): (Vec<Duration>, Duration)) -> Duration {
    waits.sort_unstable();
    let at = |share: usize| waits[(waits.len() - 1) * share / 1000];
    println!(
        "| {name} | {:.0} | {} | {} | {} |",
        waits.len() as f64 / span.as_secs_f64(),
        at(500).as_micros(),
        at(990).as_micros(),
        at(999).as_micros()
    );
    at(500)
}

fn bare(path: &Path, preallocated: bool) -> Outcome<(Vec<Duration>, Duration)> {
    const LEN: u64 = 64 << 20;
    let mut file = File::create(path)?;
    if preallocated {
        for _ in 0..LEN >> 20 {
            file.write_all(&[0; 1 << 20])?;
        }
        file.sync_all()?;
    }
    let bytes = [7; BODY];
    let (start, mut at, mut waits) = (Instant::now(), 0, Vec::new());
    while start.elapsed() < SPAN {
        let sent = Instant::now();
        file.write_all_at(&bytes, at % LEN)?;
        file.sync_data()?;
        waits.push(sent.elapsed());
        at += BODY as u64;
    }
    Ok((waits, start.elapsed()))
}

fn appends(dir: &Path, writers: usize, sealed: bool) -> Outcome<(Vec<Duration>, Duration)> {
    let ledger = Ledger::open(dir, Options::default())?;
    // Past the small first segments.
    for i in 0..20_000 {
        let pending = ledger.append(Entry::new("warm", "up", vec![1; BODY]));
        if i % 1_000 == 999 {
            pending.wait()?;
        }
    }
    let start = Instant::now();
    let threads: Vec<_> = (0..writers)
        .map(|writer| {
            let ledger = ledger.clone();
            thread::spawn(move || {
                let mut waits = Vec::new();
                while start.elapsed() < SPAN {
                    let subject = format!("{writer}-{}", waits.len());
                    let mut entry = Entry::new("turn", subject, vec![7; BODY]);
                    entry.sealed = sealed;
                    let sent = Instant::now();
                    ledger.append(entry).wait()?;
                    waits.push(sent.elapsed());
                }
                Ok::<_, ledger::Error>(waits)
            })
        })
        .collect();
    let mut all = Vec::new();
    for thread in threads {
        all.extend(thread.join().map_err(|_| "a writer panicked")??);
    }
    Ok((all, start.elapsed()))
}

fn opening(dir: &Path, count: usize, body: usize) -> Outcome<()> {
    let ledger = Ledger::open(dir, Options::default())?;
    let batch = 1_000;
    for first in (0..count).step_by(batch) {
        let entries = (first..first + batch)
            .map(|i| {
                Entry::new("turn", format!("turn-{i}"), vec![7; body]).with_key(format!("k/{i}"))
            })
            .collect();
        ledger.append_all(entries).wait()?;
    }
    drop(ledger);
    let start = Instant::now();
    let ledger = Ledger::open(dir, Options::default())?;
    let opened = start.elapsed();
    let start = Instant::now();
    let read = ledger.scan(Seq::FIRST).filter(Result::is_ok).count();
    let reading = start.elapsed();
    if read != count {
        return Err(format!("read {read} of {count}").into());
    }
    drop(ledger);
    for entry in fs::read_dir(dir.join("log"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "idx") {
            fs::remove_file(path)?;
        }
    }
    let start = Instant::now();
    drop(Ledger::open(dir, Options::default())?);
    println!(
        "| {count} | {body} | {opened:.2?} | {:.2?} | {reading:.2?} |",
        start.elapsed()
    );
    fs::remove_dir_all(dir)?;
    Ok(())
}
