//! What a jailed machine costs: `cargo bench -p sandbox --bench shell`.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use sandbox::{
    Result,
    shell::{Config, Machine, Machines},
};

const ROUNDS: usize = 100;
const TIME: Duration = Duration::from_secs(10);

/// Measures `work`, after what `prepare` does before every round.
fn measure<T>(
    mut prepare: impl FnMut() -> Result<T>,
    mut work: impl FnMut(&mut T) -> Result<()>,
) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let mut ready = prepare()?;
        let begin = Instant::now();
        work(&mut ready)?;
        times.push(begin.elapsed());
    }
    times.sort();
    Ok(times)
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let machines = Machines::new(Config::default(), &folder.path().join("machines"))?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{:<44} {:>10} {:>10}", "", "p50", "p99")?;
    let mut report = |name: &str, times: Vec<Duration>| {
        let at = |share: usize| {
            times
                .get(times.len() * share / 100)
                .copied()
                .unwrap_or_default()
        };
        writeln!(out, "{name:<44} {:>10.2?} {:>10.2?}", at(50), at(99))
    };

    let mut kept: Vec<Machine> = Vec::new();
    report(
        "create",
        measure(
            || Ok(()),
            |()| {
                kept.push(machines.create("empty")?);
                Ok(())
            },
        )?,
    )?;
    report(
        "drop",
        measure(
            || Ok(kept.pop()),
            |machine| {
                drop(machine.take());
                Ok(())
            },
        )?,
    )?;

    let mut machine = machines.create("empty")?;
    machine.snapshot()?;
    let run = |machine: &mut Machine, command: &str| machine.run(command, "/work", TIME).map(drop);
    let pause = || {
        // An agent thinks between two commands: the next shell gets ready meanwhile.
        std::thread::park_timeout(Duration::from_millis(20));
        Ok(())
    };
    report(
        "run `true`, after a pause",
        measure(pause, |()| run(&mut machine, "true"))?,
    )?;
    report(
        "run `true`, at once",
        measure(|| Ok(()), |()| run(&mut machine, "true"))?,
    )?;
    let edit = "git init -q . && echo text > file && git add . && git commit -qm first";
    report(
        "run git init, add, commit",
        measure(pause, |()| run(&mut machine, edit))?,
    )?;
    report(
        "write a file of 4 KiB",
        measure(
            || Ok(()),
            |()| machine.write_file("/work/file", &[b'x'; 4_096], false),
        )?,
    )?;
    report(
        "read it",
        measure(|| Ok(()), |()| machine.read_file("/work/file").map(drop))?,
    )?;
    report(
        "changes",
        measure(|| Ok(()), |()| machine.changes(0).map(drop))?,
    )?;
    report("roll back", measure(pause, |()| machine.roll_back(0))?)?;
    report(
        "snapshot, and roll back",
        measure(pause, |()| {
            // All but the first are refused from the 17th on; the time is the point.
            drop(machine.snapshot());
            machine.roll_back(0)
        })?,
    )?;
    Ok(())
}
