//! Workers that die, hang, lie, or never get ready: who notices, what it costs, and what takes their place.

use std::{
    thread,
    time::{Duration, Instant},
};

use bundled::{BINARY_REWARD, CONVERSATION, TOOL_CALL};
use plugin::outside::Outside;
use rl::{Environment as _, Episode, RewardRule as _, Seed};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use worker::{Config, Program, SealedEnvironment, SealedReward, Workers};

use crate::rig::{config, faulty, given, reply, start, started, words};

fn signal(workers: &Workers, signal: Signal) {
    let pid = i32::try_from(workers.pid().unwrap()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

fn environment() -> SealedEnvironment {
    SealedEnvironment::new(start(given(CONVERSATION, ""))).unwrap()
}

fn begun(environment: &SealedEnvironment) -> Box<dyn Episode> {
    let task = &environment.tasks("train").unwrap()[0];
    environment.start(task, Seed::new(1)).unwrap()
}

/// Until a condition holds, which it does soon or never.
fn eventually(holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(60));
        thread::park_timeout(Duration::from_millis(5));
    }
}

#[test]
fn a_worker_that_dies_costs_its_own_episodes_and_is_replaced() {
    let environment = environment();
    let mut lost = begun(&environment);
    let other = SealedEnvironment::new(start(given(TOOL_CALL, ""))).unwrap();
    let mut kept = begun(&other);
    for _ in 0..3 {
        let before = environment.workers().pid().unwrap();
        signal(environment.workers(), Signal::KILL);
        let error = lost.act(&reply("Yes.")).unwrap_err();
        assert!(error.is_guest(), "{error}");
        let error = error.to_string();
        assert!(
            error.contains("plugin conversation failed in episode.act")
                && error.contains("its worker process"),
            "{error}"
        );
        eventually(|| environment.workers().pid().unwrap() != before);
        lost = begun(&environment);
        lost.act(&reply("Yes.")).unwrap();
    }
    kept.act(&reply("Yes.")).unwrap();
}

#[test]
fn a_call_that_keeps_nothing_is_asked_of_the_next_worker() {
    let rule = SealedReward::new(start(given(BINARY_REWARD, ""))).unwrap();
    let without_spare = Config {
        spare: false,
        ..config()
    };
    let slow = started(given(BINARY_REWARD, ""), without_spare).unwrap();
    let slow_rule = SealedReward::new(slow.clone()).unwrap();
    for _ in 0..2 {
        signal(&slow, Signal::KILL);
        assert_eq!(slow_rule.verdict(&[]).unwrap(), None);
    }
    assert_eq!(rule.verdict(&[]).unwrap(), None);
}

#[test]
fn a_worker_that_hangs_is_killed_and_replaced() {
    let impatient = Config {
        answer: Duration::from_millis(300),
        ..config()
    };
    let workers = started(given(CONVERSATION, ""), impatient).unwrap();
    let environment = SealedEnvironment::new(workers).unwrap();
    let mut episode = begun(&environment);
    signal(environment.workers(), Signal::STOP);
    let error = episode.act(&reply("Yes.")).unwrap_err().to_string();
    assert!(error.contains("it did not answer for 300ms"), "{error}");
    begun(&environment).act(&reply("Yes.")).unwrap();
}

#[test]
fn an_abuse_in_a_worker_meets_its_limit_and_the_worker_goes_on() {
    for (abuse, size, named) in [
        ("spin", 0, "fuel"),
        ("trap", 0, "broke"),
        ("hoard", 0, "memory"),
        ("recurse", 1, "stack"),
        ("log", 1_000_000, "host calls"),
    ] {
        let workers = start(faulty("reward-plugin", abuse, size));
        let rule = SealedReward::new(workers.clone()).unwrap();
        let before = workers.pid().unwrap();
        for _ in 0..2 {
            let error = rule.verdict(&[]).unwrap_err().to_string();
            assert!(error.contains(named), "{abuse}: {error}");
        }
        assert_eq!(workers.pid().unwrap(), before, "{abuse}");
    }
}

#[test]
fn workers_end_with_whoever_started_them() {
    let workers = start(given(BINARY_REWARD, ""));
    let pid = Pid::from_raw(i32::try_from(workers.pid().unwrap()).unwrap()).unwrap();
    test_kill_process(pid).unwrap();
    drop(workers);
    eventually(|| test_kill_process(pid).is_err());
}

#[test]
fn what_cannot_be_loaded_is_said_as_the_host_would() {
    let no_component = {
        let mut given = given(BINARY_REWARD, "");
        given.component = b"not a component".to_vec();
        given
    };
    let ungranted = {
        let mut given = given(CONVERSATION, "");
        given.grants.clear();
        given
    };
    let unknown_key = given(BINARY_REWARD, "colour = 'red'");
    let smuggler = {
        let mut given = given(CONVERSATION, "");
        let from = given.manifest.find("capabilities").unwrap();
        let to = from + given.manifest[from..].find('\n').unwrap();
        given.manifest.replace_range(from..to, "capabilities = []");
        given.manifest = given
            .manifest
            .split("[[config]]")
            .next()
            .unwrap()
            .to_owned();
        given
    };
    for (given, named) in [
        (no_component, "the component is not valid"),
        (ungranted, "which is not granted to it"),
        (unknown_key, "has no such key"),
        (smuggler, "which its manifest does not list"),
    ] {
        let error = started(given, config()).unwrap_err();
        let words = words(&error);
        assert!(words.contains(named), "{words}");
    }
}

#[test]
fn a_program_that_is_no_worker_is_an_error_in_bounded_time() {
    let shell = |script: &str| Program {
        path: "/bin/sh".into(),
        arguments: vec!["-c".into(), script.into()],
    };
    let missing = Program {
        path: "/nowhere/worker".into(),
        arguments: Vec::new(),
    };
    let impatient = Config {
        load: Duration::from_millis(500),
        ..config()
    };
    for (program, named) in [
        (missing, "start the program"),
        (
            shell("exit 3"),
            "it ended before it was ready (exit status: 3)",
        ),
        (shell("sleep 30"), "it was not ready after 500ms"),
        (
            shell("printf 'HTTP/1.1 200 OK\\r\\n' >&0; sleep 30"),
            "it ended before it was ready",
        ),
    ] {
        let begun = Instant::now();
        let offers = Outside::default();
        let error = Workers::start(given(BINARY_REWARD, ""), offers, program, impatient.clone());
        let words = words(&error.unwrap_err());
        assert!(words.contains(named), "{words}");
        assert!(begun.elapsed() < Duration::from_secs(20), "{words}");
    }
}

#[test]
fn a_worker_that_lies_is_found_out() {
    // It has loaded a rule, it says, and waits for a call.
    let loaded = "printf '\\023\\000\\000\\000\\201\\246Loaded\\201\\242Ok\\201\\244card\\300' >&0; head -c 8 >/dev/null <&0; ";
    let to_nobody = "printf '\\035\\000\\000\\000\\201\\246Answer\\202\\242id\\315\\003\\347\\246answer\\201\\242Ok\\304\\001\\300' >&0; sleep 30";
    let nonsense = "printf '\\001\\000\\000\\000\\301' >&0; sleep 30";
    let endless = "printf '\\377\\377\\377\\177' >&0; cat /dev/zero >&0";
    for (lie, named) in [
        (loaded, "said more than it was asked"),
        (to_nobody, "said more than it was asked"),
        (nonsense, "said what makes no sense"),
        (endless, "said what makes no sense"),
    ] {
        let program = Program {
            path: "/bin/sh".into(),
            arguments: vec!["-c".into(), format!("{loaded}{lie}").into()],
        };
        let alone = Config {
            spare: false,
            ..config()
        };
        let offers = Outside::default();
        let workers = Workers::start(given(BINARY_REWARD, ""), offers, program, alone).unwrap();
        let begun = Instant::now();
        let error = SealedReward::new(workers)
            .unwrap()
            .verdict(&[])
            .unwrap_err();
        assert!(error.to_string().contains(named), "{lie}: {error}");
        assert!(begun.elapsed() < Duration::from_secs(15), "{lie}");
    }
}

#[test]
fn a_worker_without_memory_dies_alone() {
    let poor = Config {
        memory_bytes: 4 << 20,
        ..config()
    };
    let error = started(given(TOOL_CALL, ""), poor).unwrap_err();
    let words = words(&error);
    assert!(words.contains("it ended before it was ready"), "{words}");
}
