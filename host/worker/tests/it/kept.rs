//! Code that workers compiled: it comes back to workers of the same component, and to nobody else.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use bundled::{BINARY_REWARD, Bundled, CONVERSATION};
use plugin::{Capability, GuestReward, PluginHost, compiled::Cache, outside::Outside};
use rl::{Environment as _, JudgedTurn, RewardRule as _, Seed, seam::conformance};
use rustix::process::{Pid, Signal, kill_process};
use worker::{Config, Given, Program, SealedEnvironment, SealedReward, Workers};

use crate::rig::{config, given, limits, program, words};

fn cache(dir: &Path) -> Cache {
    let key = dir.join("keys/compiled");
    Cache::new(dir.join("compiled"), key, 64 << 20)
}

fn keeping(dir: &Path, guest: Bundled) -> Given {
    Given {
        cache: Some(cache(dir)),
        ..given(guest, "")
    }
}

fn start(given: Given, program: Program, spare: bool) -> Result<Workers, plugin::Error> {
    let config = Config { spare, ..config() };
    Workers::start(given, Outside::default(), program, config)
}

fn kept(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.join("compiled"));
    let entries = entries.into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

fn only(dir: &Path) -> PathBuf {
    let mut kept = kept(dir);
    assert_eq!(kept.len(), 1, "{kept:?}");
    kept.pop().unwrap()
}

/// Which file it is: one that is written again is another.
fn which(path: &Path) -> (u64, SystemTime) {
    let data = fs::symlink_metadata(path).unwrap();
    (data.ino(), data.created().unwrap())
}

fn paid(rule: &dyn rl::RewardRule) -> String {
    let turns = [JudgedTurn {
        process: Some(1.0),
        tokens: 40,
        ..JudgedTurn::default()
    }; 3];
    format!("{:?}", rule.turn_rewards(&turns, Some(0.5)).unwrap())
}

fn rewards(dir: &Path) -> String {
    let workers = start(keeping(dir, BINARY_REWARD), program(), false).unwrap();
    paid(&SealedReward::new(workers).unwrap())
}

#[test]
fn a_worker_takes_over_what_another_compiled_and_answers_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let plain = start(given(BINARY_REWARD, ""), program(), false).unwrap();
    let fresh = paid(&SealedReward::new(plain).unwrap());
    assert!(kept(dir.path()).is_empty());
    assert_eq!(rewards(dir.path()), fresh);
    let file = only(dir.path());
    assert!(file.to_string_lossy().ends_with("-worker"));
    let written = which(&file);
    assert_eq!(rewards(dir.path()), fresh);
    assert_eq!(which(&only(dir.path())), written);

    let dir = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let workers = start(keeping(dir.path(), CONVERSATION), program(), true).unwrap();
        let environment = SealedEnvironment::new(workers.clone()).unwrap();
        conformance::environment(&environment, "train").unwrap();
        // The one that takes its place has what it compiled.
        let pid = i32::try_from(workers.pid().unwrap()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        let tasks = environment.tasks("train").unwrap();
        environment.start(&tasks[0], Seed::new(1)).unwrap();
        only(dir.path());
    }
}

#[test]
fn the_next_worker_takes_over_what_the_first_compiled() {
    let dir = tempfile::tempdir().unwrap();
    let workers = start(keeping(dir.path(), BINARY_REWARD), program(), false).unwrap();
    let file = only(dir.path());
    let written = which(&file);
    let long_ago = SystemTime::now() - Duration::from_secs(86_400);
    let opened = fs::File::open(&file).unwrap();
    opened.set_modified(long_ago).unwrap();
    let pid = i32::try_from(workers.pid().unwrap()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    let rule = SealedReward::new(workers).unwrap();
    assert_eq!(rule.verdict(&[]).unwrap(), None);
    // Used, and not written again.
    assert!(fs::metadata(&file).unwrap().modified().unwrap() > long_ago);
    assert_eq!(which(&file), written);
}

/// A host's code for a worker, and a worker's for a host: the very same bytes, under the other's name.
#[test]
fn neither_the_hosts_code_for_a_worker_nor_a_workers_for_the_host() {
    let dir = tempfile::tempdir().unwrap();
    let fresh = rewards(dir.path());
    let of_workers = only(dir.path());
    let in_the_host = || {
        let host = PluginHost::keeping(limits(), Outside::default(), Some(cache(dir.path())));
        let (guest, section) = (BINARY_REWARD, toml::Table::new());
        let all = &Capability::ALL;
        let plugin = host
            .unwrap()
            .load(guest.manifest, guest.component, all, &section);
        paid(&GuestReward::new(&plugin.unwrap()).unwrap())
    };
    let of_host = PathBuf::from(of_workers.to_string_lossy().replace("-worker", "-host"));
    fs::copy(&of_workers, &of_host).unwrap();
    let planted = which(&of_host);
    assert_eq!(in_the_host(), fresh);
    assert_ne!(which(&of_host), planted);
    let written = which(&of_host);
    assert_eq!(in_the_host(), fresh);
    assert_eq!(which(&of_host), written);

    fs::copy(&of_host, &of_workers).unwrap();
    let planted = which(&of_workers);
    assert_eq!(rewards(dir.path()), fresh);
    assert_ne!(which(&of_workers), planted);
}

fn shell(script: &str) -> Program {
    Program {
        path: "/bin/sh".into(),
        arguments: vec!["-c".into(), script.into()],
    }
}

/// `Loaded`, as a rule says it.
const LOADED: &str =
    "printf '\\023\\000\\000\\000\\201\\246Loaded\\201\\242Ok\\201\\244card\\300' >&0; ";

/// `Compiled`, with this number of bytes.
fn compiled(bytes: u32) -> String {
    let byte = |shift: u32| format!("\\{:03o}", (bytes >> shift) & 0xff);
    let number = [24, 16, 8, 0].map(byte).concat();
    format!("printf '\\017\\000\\000\\000\\201\\250Compiled\\316{number}' >&0; ")
}

/// A worker that hands out this as its component's code, and says that it has loaded it.
fn hand_out(dir: &Path, guest: Bundled, code: &[u8]) {
    fs::remove_file(only(dir)).unwrap();
    let hostile = dir.join("code");
    fs::write(&hostile, code).unwrap();
    // A shell gives what runs beside it another standard input.
    let script = format!(
        "exec 3<&0; cat <&3 >/dev/null & {}cat {}>&0; {LOADED} wait",
        compiled(u32::try_from(code.len()).unwrap()),
        hostile.display(),
    );
    drop(start(keeping(dir, guest), shell(&script), false).unwrap());
    // It was kept, under the name of who made it.
    assert_eq!(code_of(dir), code);
}

fn code_of(dir: &Path) -> Vec<u8> {
    fs::read(only(dir)).unwrap().split_off(40)
}

/// Code whose machine code is `int3`, which ends a process.
fn deadly(good: &[u8]) -> Vec<u8> {
    let mut deadly = good.to_vec();
    deadly[good.len() / 4..good.len() / 2].fill(0xcc);
    deadly
}

#[test]
fn what_a_worker_in_its_guests_hands_says_is_code_ends_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let fresh = rewards(dir.path());
    let good = code_of(dir.path());
    for code in [b"code", &good[..good.len() / 2]] {
        hand_out(dir.path(), BINARY_REWARD, code);
        assert_eq!(rewards(dir.path()), fresh);
        assert_eq!(code_of(dir.path()), good);
    }
    // Loaded by those whose own it is, and their end alone.
    hand_out(dir.path(), BINARY_REWARD, &deadly(&good));
    let workers = start(keeping(dir.path(), BINARY_REWARD), program(), false);
    let rule = SealedReward::new(workers.unwrap()).unwrap();
    let error = rule.turn_rewards(&[], None).unwrap_err().to_string();
    assert!(error.contains("its worker process ended"), "{error}");
}

#[test]
fn code_that_ends_a_worker_before_it_is_ready_is_compiled_again() {
    let dir = tempfile::tempdir().unwrap();
    let card = || {
        // What an environment is, its own code says when it is loaded.
        let workers = start(keeping(dir.path(), CONVERSATION), program(), false);
        SealedEnvironment::new(workers.unwrap())
            .unwrap()
            .card()
            .clone()
    };
    let fresh = format!("{:?}", card());
    let good = code_of(dir.path());
    hand_out(dir.path(), CONVERSATION, &deadly(&good));
    assert_eq!(format!("{:?}", card()), fresh);
    assert_eq!(code_of(dir.path()), good);
}

#[test]
fn code_that_is_too_much_comes_unasked_twice_or_late_is_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    let much = format!("{}sleep 30", compiled(u32::MAX));
    let twice = format!(
        "{}printf code >&0; {}printf code >&0; {LOADED} sleep 30",
        compiled(4),
        compiled(4)
    );
    let short = format!("{}printf c >&0", compiled(4));
    for (script, named) in [
        (&much, "bytes, and"),
        (&twice, "it did not say whether its plugin is loaded"),
        (&short, "it ended before it was ready"),
    ] {
        let started = start(keeping(dir.path(), BINARY_REWARD), shell(script), false);
        let words = words(&started.unwrap_err());
        assert!(words.contains(named), "{words}");
    }
    let once = format!("{}printf code >&0; {LOADED} sleep 30", compiled(4));
    let words = words(&start(given(BINARY_REWARD, ""), shell(&once), false).unwrap_err());
    assert!(words.contains("it did not say whether"), "{words}");
    let late = format!(
        "{LOADED} head -c 8 >/dev/null <&0; {}printf code >&0; sleep 30",
        compiled(4)
    );
    let workers = start(keeping(dir.path(), BINARY_REWARD), shell(&late), false).unwrap();
    let rule = SealedReward::new(workers).unwrap();
    let error = rule.verdict(&[]).unwrap_err().to_string();
    assert!(error.contains("said more than it was asked"), "{error}");
    assert!(kept(dir.path()).is_empty());
}
