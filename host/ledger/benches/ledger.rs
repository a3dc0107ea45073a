//! What durability costs: appends against the bare sync of the same disk, and how long opening takes.
//! `cargo bench -p ledger [-- folder]`.
#![expect(clippy::print_stdout, reason = "a command")]

use std::{
    env,
    fs::{File, OpenOptions},
    io::Write as _,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use ledger::{Entry, Error, Ledger, Options, Seq};

/// How long each row is measured.
const SPAN: Duration = Duration::from_secs(3);
/// A turn of a short conversation.
const BODY: usize = 2_048;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let dir = folder
        .map_or_else(env::temp_dir, PathBuf::from)
        .join("ledger-bench");
    std::fs::create_dir_all(&dir)?;
    let growing = bare_sync(&dir, false)?;
    let in_place = bare_sync(&dir, true)?;
    println!(
        "bare sync of {BODY} bytes, p50: {growing:?} at the end of a growing file, {in_place:?} in place"
    );
    let ledger = Ledger::open(dir.join("appends"), Options::default())?;
    for writers in [1, 16, 256] {
        let mut waits = measure(&ledger, writers)?;
        waits.sort();
        let at = |share: usize| waits[(waits.len() - 1) * share / 1000];
        println!(
            "{writers:>3} writers: {:>7.0} sealed turns/s, acknowledged p50 {:?} p99 {:?} p99.9 {:?}; p50 = {:.2} × a growing file's sync",
            waits.len() as f64 / SPAN.as_secs_f64(),
            at(500),
            at(990),
            at(999),
            at(500).as_secs_f64() / growing.as_secs_f64(),
        );
    }
    drop(ledger);
    for records in [10_000, 100_000, 1_000_000] {
        recovery(&dir.join(format!("open-{records}")), records)?;
    }
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

fn measure(ledger: &Ledger, writers: usize) -> Result<Vec<Duration>, Error> {
    let until = Instant::now() + SPAN;
    let threads: Vec<_> = (0..writers)
        .map(|writer| {
            let ledger = ledger.clone();
            thread::spawn(move || -> Result<Vec<Duration>, Error> {
                let mut waits = Vec::new();
                while Instant::now() < until {
                    let subject = format!("{writers}-{writer}-{}", waits.len());
                    let start = Instant::now();
                    let entry = Entry::new("turn", subject, vec![7; BODY]).sealed();
                    ledger.append(entry).wait()?;
                    waits.push(start.elapsed());
                }
                Ok(waits)
            })
        })
        .collect();
    let mut all = Vec::new();
    for thread in threads {
        match thread.join() {
            Ok(waits) => all.extend(waits?),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
    Ok(all)
}

fn recovery(dir: &Path, records: usize) -> Result<(), Error> {
    let ledger = Ledger::open(dir, Options::default())?;
    for first in (0..records).step_by(1_000) {
        let entries = (first..first + 1_000)
            .map(|n| Entry::new("turn", format!("t{n}"), vec![7; 200]).with_key(format!("k{n}")));
        ledger.append_all(entries.collect()).wait()?;
    }
    drop(ledger);
    let start = Instant::now();
    let ledger = Ledger::open(dir, Options::default())?;
    let opened = start.elapsed();
    let start = Instant::now();
    let read = ledger.scan(Seq::FIRST).filter(Result::is_ok).count();
    let scanned = start.elapsed();
    println!("{read:>8} records: opened in {opened:?}, every one read and checked in {scanned:?}");
    Ok(())
}

fn bare_sync(dir: &Path, in_place: bool) -> std::io::Result<Duration> {
    let path = dir.join("bare");
    let mut file = File::create(&path)?;
    if in_place {
        file.write_all(&vec![0; 1 << 20])?;
        file.sync_all()?;
        file = OpenOptions::new().write(true).open(&path)?;
    }
    let mut times = Vec::new();
    for n in 0..300u64 {
        let start = Instant::now();
        file.write_all_at(&[7; BODY], n * BODY as u64)?;
        file.sync_data()?;
        times.push(start.elapsed());
    }
    times.sort();
    Ok(times[times.len() / 2])
}
