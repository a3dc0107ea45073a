//! `cargo bench -p worker`: what a process between host and guest costs, beside the same guest in the host; and how long a dead one is
//! missed. Figures only: nothing is asserted.
#![expect(clippy::print_stdout, reason = "a command")]

use std::{
    error::Error,
    thread,
    time::{Duration, Instant},
};

use bundled::{BINARY_REWARD, Bundled, CONVERSATION};
use plugin::{
    Capability, GuestEnvironment, GuestReward, Limits, Plugin, PluginHost, outside::Outside,
};
use rl::{
    Action, Environment, Message, RequestView, RewardRule, Seed, VoteValue, seam::conformance,
};
use rustix::process::{Pid, Signal, kill_process};
use worker::{Config, Given, Program, SealedEnvironment, SealedReward, Workers};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Calls of a row, and those before that are not counted.
const CALLS: usize = 5_000;
const WARM: usize = 500;

/// Deaths whose replacement is timed.
const DEATHS: usize = 20;

fn main() -> Outcome<()> {
    println!("| | in the host, p50 | p99 | in a worker, p50 | p99 |\n|---|---|---|---|---|");
    let (here, apart) = (in_the_host(BINARY_REWARD)?, started(BINARY_REWARD)?);
    let (here, apart) = (GuestReward::new(&here)?, SealedReward::new(apart)?);
    let votes = [
        conformance::vote(Some(VoteValue::Positive)),
        conformance::vote(None),
    ];
    let verdict = |rule: &dyn RewardRule| rule.verdict(&votes).map(drop);
    row(
        "a verdict on two votes",
        || verdict(&here),
        || verdict(&apart),
    )?;
    let (here, workers) = (in_the_host(CONVERSATION)?, started(CONVERSATION)?);
    let here = GuestEnvironment::new(&here, Seed::new(1))?;
    let apart = SealedEnvironment::new(workers.clone())?;
    for (name, bytes) in [("a turn of 4 KB", 4 << 10), ("a turn of 100 KB", 100 << 10)] {
        let messages = [Message::user("word ".repeat(bytes / 5))];
        let view = RequestView {
            messages: &messages,
            tools: &[],
        };
        let classify = |environment: &dyn Environment| environment.classify(view).map(drop);
        row(
            &format!("{name}, classified"),
            || classify(&here),
            || classify(&apart),
        )?;
    }
    let task = &here.tasks("train")?[0];
    let play = |environment: &dyn Environment| -> rl::Result<()> {
        let mut episode = environment.start(task, Seed::new(7))?;
        episode.observe()?;
        let action = Action {
            message: Message::assistant("Yes."),
            truncated: false,
        };
        episode.act(&action).map(drop)
    };
    row(
        "an episode: start, observe, act",
        || play(&here),
        || play(&apart),
    )?;
    replaced(&workers, &apart)
}

/// From the death of a worker to an answer of the next.
fn replaced(workers: &Workers, environment: &dyn Environment) -> Outcome<()> {
    let mut missed = Vec::new();
    for _ in 0..DEATHS {
        // Deaths that follow each other more quickly are held up on purpose.
        thread::park_timeout(Duration::from_secs(4));
        let pid = i32::try_from(workers.pid()?)?;
        let died = Instant::now();
        kill_process(Pid::from_raw(pid).ok_or("no process")?, Signal::KILL)?;
        environment.session_ends(&[])?;
        missed.push(died.elapsed());
    }
    missed.sort_unstable();
    println!(
        "\na worker killed, until the next one answers: p50 {:?}, greatest {:?} of {DEATHS}",
        missed[DEATHS / 2],
        missed[DEATHS - 1]
    );
    Ok(())
}

fn in_the_host(guest: Bundled) -> Outcome<Plugin> {
    let host = PluginHost::new(Limits::default())?;
    let section = toml::Table::new();
    Ok(host.load(guest.manifest, guest.component, &Capability::ALL, &section)?)
}

fn started(guest: Bundled) -> Outcome<Workers> {
    let given = Given {
        manifest: guest.manifest.to_owned(),
        component: guest.component.to_vec(),
        grants: Capability::ALL.to_vec(),
        section: toml::Table::new(),
        limits: Limits::default(),
        run: Seed::new(1),
        cache: None,
    };
    let program = Program {
        path: env!("CARGO_BIN_EXE_worker-alone").into(),
        arguments: Vec::new(),
    };
    let config = Config::default();
    Ok(Workers::start(given, Outside::default(), program, config)?)
}

/// Times a call in the host and in a worker, by turns.
fn row(
    name: &str,
    mut here: impl FnMut() -> rl::Result<()>,
    mut apart: impl FnMut() -> rl::Result<()>,
) -> Outcome<()> {
    let mut times = [Vec::new(), Vec::new()];
    for call in 0..WARM + CALLS {
        let started = Instant::now();
        here()?;
        let between = Instant::now();
        apart()?;
        if call >= WARM {
            times[0].push(between - started);
            times[1].push(between.elapsed());
        }
    }
    let [here, apart] = times.map(|mut times| {
        times.sort_unstable();
        format!("{:?} | {:?}", times[CALLS / 2], times[CALLS * 99 / 100])
    });
    println!("| {name} | {here} | {apart} |");
    Ok(())
}
