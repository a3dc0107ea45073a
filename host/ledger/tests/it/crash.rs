//! Processes that die, and disks that say no: the child of each test is this test binary itself.

use std::{
    collections::HashMap,
    env,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use ledger::{Entry, Error, Ledger, Options, Seq, verify};
use tempfile::tempdir;

/// Says to the child where to work; the tests below are empty in the parent's own run.
const DIR: &str = "LEDGER_CHILD_DIR";

fn child(test: &str, dir: &Path, limit: Option<&str>) -> Child {
    let exe = env::current_exe().unwrap();
    let mut command = match limit {
        None => Command::new(&exe),
        Some(prefix) => {
            let mut shell = Command::new("sh");
            shell
                .arg("-c")
                .arg(format!("{prefix}; exec \"$0\" \"$@\""))
                .arg(&exe);
            shell
        }
    };
    command
        .args([
            "--exact",
            &format!("crash::{test}"),
            "--nocapture",
            "--test-threads=1",
        ])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn child_appends_from_four_threads_until_it_is_killed() {
    let Ok(dir) = env::var(DIR) else { return };
    let ledger = Ledger::open(dir, Options::default()).unwrap();
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let ledger = ledger.clone();
            std::thread::spawn(move || {
                for i in 0.. {
                    let name = format!("{thread}-{i}");
                    let body = name.repeat(200).into_bytes();
                    let receipt = ledger
                        .append(Entry::new("turn", &*name, body))
                        .wait()
                        .unwrap();
                    println!("acknowledged {} {name}", receipt.seq);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn everything_acknowledged_is_there_after_a_kill_at_any_moment() {
    let dir = tempdir().unwrap();
    let mut acknowledged = HashMap::new();
    for round in 0..5 {
        let mut child = child(
            "child_appends_from_four_threads_until_it_is_killed",
            dir.path(),
            None,
        );
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = 0;
        for line in lines {
            let line = line.unwrap();
            let mut words = line.split(' ');
            if words.next() != Some("acknowledged") {
                continue;
            }
            let (Some(seq), Some(name)) = (words.next(), words.next()) else {
                continue;
            };
            acknowledged.insert(seq.parse::<u64>().unwrap(), name.to_owned());
            seen += 1;
            if seen == 37 * (round + 1) {
                // What it had printed before it died still counts: the loop goes on to the end of the pipe.
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(seen >= 37, "the child came to {seen}");
        let report = verify(dir.path()).unwrap();
        assert!(report.is_sound(), "{report:?}");
        let ledger = Ledger::open(dir.path(), Options::default()).unwrap();
        for (seq, name) in &acknowledged {
            let record = ledger.get(Seq::new(*seq)).unwrap().unwrap();
            assert_eq!(&record.subject, name);
        }
    }
}

#[test]
fn child_appends_until_the_disk_says_no() {
    let Ok(dir) = env::var(DIR) else { return };
    let ledger = Ledger::open(dir, Options::default()).unwrap();
    for i in 0..10_000 {
        let name = format!("t{i}");
        match ledger
            .append(Entry::new("turn", &*name, vec![1; 3_000]))
            .wait()
        {
            Ok(receipt) => println!("acknowledged {}", receipt.seq),
            Err(error) => {
                assert!(matches!(error, Error::Full), "{error}");
                ledger.health().unwrap();
                assert!(matches!(ledger.room(), Err(Error::Full)));
                let last = ledger.scan(Seq::FIRST).last().unwrap().unwrap();
                println!("full readable-to {}", last.seq);
                return;
            }
        }
    }
}

/// A limit on the size of files stands for a disk that refuses a write; the signal that goes with it is ignored.
#[test]
fn on_a_real_disk_that_takes_no_more_reading_goes_on_and_nothing_acknowledged_is_lost() {
    let dir = tempdir().unwrap();
    let limit = "trap '' XFSZ; ulimit -f 600";
    let child = child(
        "child_appends_until_the_disk_says_no",
        dir.path(),
        Some(limit),
    );
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let last = text
        .lines()
        .rfind(|l| l.starts_with("acknowledged"))
        .unwrap();
    let last: u64 = last.split(' ').nth(1).unwrap().parse().unwrap();
    assert!(text.contains(&format!("full readable-to {last}")), "{text}");
    let ledger = Ledger::open(dir.path(), Options::default()).unwrap();
    assert!(ledger.durable().get() >= last);
    ledger
        .append(Entry::new("turn", "after the restart", vec![]))
        .wait()
        .unwrap();
    drop(ledger);
    assert!(verify(dir.path()).unwrap().is_sound());
}

#[test]
fn committed_records_that_were_not_acknowledged_are_kept_and_their_keys_still_count() {
    let dir = tempdir().unwrap();
    let ledger = Ledger::open(dir.path(), Options::default()).unwrap();
    ledger
        .append(Entry::new("turn", "a", vec![]))
        .wait()
        .unwrap();
    let mark = std::fs::read(dir.path().join("mark")).unwrap();
    ledger
        .append(Entry::new("turn", "b", vec![]).with_key("b"))
        .wait()
        .unwrap();
    drop(ledger);
    // The process died between the commit and the mark.
    std::fs::write(dir.path().join("mark"), mark).unwrap();
    let ledger = Ledger::open(dir.path(), Options::default()).unwrap();
    assert_eq!(ledger.durable().get(), 2);
    let again = ledger
        .append(Entry::new("turn", "b", vec![]).with_key("b"))
        .wait()
        .unwrap();
    assert!(!again.fresh);
}
