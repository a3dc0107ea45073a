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
    one_writer(&dir)?;
    for (writers, sealed) in [(1, true), (16, false), (256, false)] {
        let folder = dir.join(format!("writers-{writers}"));
        let ledger = warm(&folder)?;
        let name = if sealed { ", sealed" } else { "" };
        row(
            &format!("ledger, {writers} writers{name}"),
            appends(&ledger, writers, sealed, SPAN)?,
        );
        drop(ledger);
        fs::remove_dir_all(folder)?;
    }
    println!();
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

/// One writer and the bare disk in turns of half a second, because a disk's speed drifts.
fn one_writer(dir: &Path) -> Outcome<()> {
    let turn = Duration::from_millis(500);
    let mut rows = [
        "write + fdatasync, preallocated file",
        "write + fdatasync, growing file",
        "ledger, 1 writer",
    ]
    .map(|name| (name, Vec::new(), Duration::ZERO));
    let ledger = warm(&dir.join("one"))?;
    let mut flat = Bare::new(&dir.join("flat"), true)?;
    let mut grown = Bare::new(&dir.join("grown"), false)?;
    for _ in 0..16 {
        let measured = [
            flat.measure(turn)?,
            grown.measure(turn)?,
            appends(&ledger, 1, false, turn)?,
        ];
        for (row, (waits, span)) in rows.iter_mut().zip(measured) {
            row.1.extend(waits);
            row.2 += span;
        }
    }
    let medians = rows.map(|(name, waits, span)| row(name, (waits, span)).as_secs_f64());
    let [flat, grown, ours] = medians;
    println!(
        "| one writer's p50: {:.2} of the bare sync's, {:.2} of one to a growing file | | | | |",
        ours / flat,
        ours / grown
    );
    drop(ledger);
    fs::remove_dir_all(dir.join("one"))?;
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

/// A file and nothing else.
struct Bare {
    file: File,
    at: u64,
    wrap: u64,
}

impl Bare {
    fn new(path: &Path, preallocated: bool) -> Outcome<Self> {
        const LEN: u64 = 16 << 20;
        let mut file = File::create(path)?;
        if preallocated {
            for _ in 0..LEN >> 20 {
                file.write_all(&[0; 1 << 20])?;
            }
            file.sync_all()?;
        }
        let wrap = if preallocated { LEN } else { u64::MAX };
        Ok(Self { file, at: 0, wrap })
    }

    fn measure(&mut self, span: Duration) -> Outcome<(Vec<Duration>, Duration)> {
        let bytes = [7; BODY];
        let (start, mut waits) = (Instant::now(), Vec::new());
        while start.elapsed() < span {
            let sent = Instant::now();
            self.file.write_all_at(&bytes, self.at % self.wrap)?;
            self.file.sync_data()?;
            waits.push(sent.elapsed());
            self.at += BODY as u64;
        }
        Ok((waits, start.elapsed()))
    }
}

/// A ledger past its small first segments.
fn warm(dir: &Path) -> Outcome<Ledger> {
    let ledger = Ledger::open(dir, Options::default())?;
    for i in 0..20_000 {
        let pending = ledger.append(Entry::new("warm", "up", vec![1; BODY]));
        if i % 1_000 == 999 {
            pending.wait()?;
        }
    }
    Ok(ledger)
}

fn appends(
    ledger: &Ledger,
    writers: usize,
    sealed: bool,
    span: Duration,
) -> Outcome<(Vec<Duration>, Duration)> {
    let start = Instant::now();
    let threads: Vec<_> = (0..writers)
        .map(|writer| {
            let ledger = ledger.clone();
            thread::spawn(move || {
                let mut waits = Vec::new();
                while start.elapsed() < span {
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
