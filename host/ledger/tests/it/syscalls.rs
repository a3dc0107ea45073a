//! What a kill cannot show and a power cut would: whatever is acknowledged was synced before, seen in the system calls.
//!
//! Needs `strace`; without it these tests say so and are skipped.

use std::{
    collections::{BTreeSet, HashMap},
    env,
    path::Path,
    process::{Command, Stdio},
};

use ledger::{Entry, Ledger, Options};
use tempfile::tempdir;

const DIR: &str = "LEDGER_SYSCALLS_DIR";

/// Whether system calls can be watched here.
pub(crate) fn strace() -> bool {
    let mut probe = Command::new("strace");
    probe
        .args(["-o", "/dev/null", "true"])
        .stderr(Stdio::null());
    let there = probe.status().is_ok_and(|status| status.success());
    if !there {
        println!("skipped: strace is not installed, or may not trace here");
    }
    there
}

#[test]
fn child_does_everything_once() {
    let Ok(dir) = env::var(DIR) else { return };
    let ledger = Ledger::open(dir, Options::default()).unwrap();
    for i in 0..3 {
        let entry = Entry::new("turn", format!("t{i}"), vec![i; 5_000]).sealed();
        ledger.append(entry).wait().unwrap();
        println!("acknowledged append");
    }
    ledger.put_blob(b"weights").unwrap();
    println!("acknowledged blob");
    ledger.destroy_keys(&["t1".to_owned()]).unwrap();
    println!("acknowledged erasure");
}

/// What is written and not yet synced.
#[derive(Default)]
struct Dirty {
    paths: BTreeSet<String>,
    /// The call that each thread is in.
    pending: HashMap<String, String>,
    acknowledged: usize,
    renamed: usize,
}

impl Dirty {
    fn line(&mut self, line: &str) {
        let Some((thread, call)) = line.split_once(' ') else {
            return;
        };
        let call = call.trim_start();
        if call.starts_with("<... ") {
            if let Some(begun) = self.pending.remove(thread) {
                self.ended(&begun);
            }
            return;
        }
        self.begun(call);
        match call.strip_suffix(" <unfinished ...>") {
            Some(begun) => {
                self.pending.insert(thread.to_owned(), begun.to_owned());
            }
            None => self.ended(call),
        }
    }

    /// What a call may do from its first moment on.
    fn begun(&mut self, call: &str) {
        if call.starts_with("write(") || call.starts_with("pwrite64(") {
            if call.contains("\"acknowledged") {
                self.acknowledged += 1;
                assert!(
                    self.paths.is_empty(),
                    "{call} while unsynced: {:?}",
                    self.paths
                );
            }
            let path = path_of(call);
            // The index of the write-ahead log is made anew after a crash; nothing rests on it.
            if path.ends_with("-shm") {
                return;
            }
            if path.contains("/ledger.db") || path.ends_with("/mark") || path.contains("/keys") {
                self.paths.insert(path);
            } else if path.contains("/blobs/") {
                assert!(
                    path.contains("/blobs/tmp/"),
                    "a blob is written in place: {path}"
                );
                self.paths.insert(path);
            }
        }
    }

    /// What it has done for certain when it returns.
    fn ended(&mut self, call: &str) {
        if call.starts_with("fsync(") || call.starts_with("fdatasync(") {
            self.paths.remove(&path_of(call));
        } else if call.starts_with("rename") {
            let names: Vec<&str> = call.split('"').collect();
            let (from, to) = (names[1], names[3]);
            assert!(
                !self.paths.contains(from),
                "{from} is renamed before it is synced"
            );
            let folder = Path::new(to).parent().unwrap();
            self.paths.insert(folder.to_str().unwrap().to_owned());
            self.renamed += 1;
        }
    }
}

/// The path in `call(3</path>, …`.
fn path_of(call: &str) -> String {
    let path = call
        .split_once('<')
        .and_then(|(_, rest)| rest.split_once('>'));
    path.map(|(path, _)| path.to_owned()).unwrap_or_default()
}

#[test]
fn whatever_is_acknowledged_was_synced_before() {
    if !strace() {
        return;
    }
    let dir = tempdir().unwrap();
    let trace = dir.path().join("trace");
    let folder = dir.path().join("ledger");
    let output = Command::new("strace")
        .args(["-f", "-y", "-s", "32", "-o"])
        .arg(&trace)
        .args([
            "-e",
            "trace=write,pwrite64,fsync,fdatasync,rename,renameat,renameat2",
        ])
        .arg(env::current_exe().unwrap())
        .args(["--exact", "syscalls::child_does_everything_once"])
        .args(["--nocapture", "--test-threads=1"])
        .env(DIR, &folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let mut dirty = Dirty::default();
    for line in std::fs::read_to_string(&trace).unwrap().lines() {
        dirty.line(line);
    }
    assert_eq!(dirty.acknowledged, 5);
    assert!(dirty.renamed >= 3, "keys, mark and blob: {}", dirty.renamed);
}

/// One run of the scenario, hit at one call; what it had acknowledged must be there, and the ledger goes on.
fn hit(call: &str, how: &str, at: usize) -> bool {
    let dir = tempdir().unwrap();
    let folder = dir.path().join("ledger");
    let output = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e"])
        .arg(format!("trace={call}"))
        .arg("-e")
        .arg(format!("inject={call}:{how}:when={at}"))
        .arg(env::current_exe().unwrap())
        .args(["--exact", "syscalls::child_does_everything_once"])
        .args(["--nocapture", "--test-threads=1"])
        .env(DIR, &folder)
        .stderr(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let told = |what: &str| text.matches(&format!("acknowledged {what}\n")).count();
    let what = format!("{call} {how} at {at}: {text}");
    let ledger = Ledger::open(&folder, Options::default()).expect(&what);
    assert!(ledger.durable().get() >= told("append") as u64, "{what}");
    let weights = ledger::Digest::of(b"weights");
    if told("blob") > 0 {
        assert_eq!(
            ledger.get_blob(&weights).expect(&what),
            b"weights",
            "{what}"
        );
    }
    if told("erasure") > 0 {
        let second = ledger.get(ledger::Seq::new(2)).unwrap().unwrap();
        assert!(second.erased, "{what}");
    }
    let more = Entry::new("turn", "more", vec![1]).sealed();
    ledger.append(more).wait().expect(&what);
    assert_eq!(ledger.put_blob(b"weights").expect(&what), weights);
    drop(ledger);
    assert!(ledger::verify(&folder).expect(&what).is_sound(), "{what}");
    // A call that the scenario does not come to leaves it whole.
    !output.status.success()
}

#[test]
fn a_kill_or_a_failed_call_at_any_point_loses_nothing_that_was_acknowledged() {
    if !strace() {
        return;
    }
    let mut points = 0;
    for call in [
        "pwrite64",
        "fdatasync",
        "fsync",
        "rename",
        "mkdir",
        "unlink",
    ] {
        for how in ["signal=SIGKILL", "error=EIO", "error=ENOSPC"] {
            // A failed removal may be none at all: only what was hit counts, and three misses end the row.
            let mut misses = 0;
            for at in 1.. {
                misses = if hit(call, how, at) { 0 } else { misses + 1 };
                if misses == 3 {
                    break;
                }
                points += usize::from(misses == 0);
            }
        }
    }
    println!("{points} points, 0 violations");
    assert!(points > 60, "{points}");
}
