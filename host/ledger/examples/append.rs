//! Durable appends a second, against the number that wait at once: `cargo run --release -p ledger --example append [folder]`.
#![expect(clippy::print_stdout, reason = "a command")]

use std::{
    env,
    fs::File,
    io::Write as _,
    path::PathBuf,
    time::{Duration, Instant},
};

use ledger::{Entry, Error, Ledger, Options, Seq};

/// How long each row is measured.
const SPAN: Duration = Duration::from_secs(2);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = env::args()
        .nth(1)
        .map_or_else(env::temp_dir, PathBuf::from)
        .join("ledger-append");
    std::fs::create_dir_all(&dir)?;
    println!("bare sync of a 2 KB write: {:?} (p50)", bare_sync(&dir)?);
    let ledger = Ledger::open(&dir, Options::default())?;
    for window in [1, 16, 32, 256] {
        let (count, mut waits) = measure(&ledger, window)?;
        waits.sort();
        let at = |share: usize| waits[(waits.len() - 1) * share / 1000];
        println!(
            "window {window:>3}: {:>7.0} appends/s, acknowledged p50 {:?} p99 {:?} p99.9 {:?}",
            count as f64 / SPAN.as_secs_f64(),
            at(500),
            at(990),
            at(999),
        );
    }
    let records = ledger.durable();
    drop(ledger);
    let start = Instant::now();
    let ledger = Ledger::open(&dir, Options::default())?;
    println!("opened in {:?}", start.elapsed());
    let start = Instant::now();
    let read = ledger.scan(Seq::FIRST).filter(Result::is_ok).count();
    let rate = read as f64 / start.elapsed().as_secs_f64();
    println!("read and checked {read} of {records} records: {rate:.0} records/s");
    drop(ledger);
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

fn measure(ledger: &Ledger, window: usize) -> Result<(usize, Vec<Duration>), Error> {
    let start = Instant::now();
    let mut sent = std::collections::VecDeque::new();
    let mut waits = Vec::new();
    while start.elapsed() < SPAN {
        while sent.len() < window {
            let entry = Entry::new("turn", format!("t{}", waits.len()), vec![7; 2_048]);
            sent.push_back((Instant::now(), ledger.append(entry)));
        }
        if let Some((at, pending)) = sent.pop_front() {
            pending.wait()?;
            waits.push(at.elapsed());
        }
    }
    for (_, pending) in sent {
        pending.wait()?;
    }
    Ok((waits.len(), waits))
}

fn bare_sync(dir: &std::path::Path) -> std::io::Result<Duration> {
    let mut file = File::create(dir.join("bare"))?;
    let mut times = Vec::new();
    for _ in 0..200 {
        let start = Instant::now();
        file.write_all(&[7; 2_048])?;
        file.sync_data()?;
        times.push(start.elapsed());
    }
    times.sort();
    Ok(times[times.len() / 2])
}
