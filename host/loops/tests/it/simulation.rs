//! The four loops on a disk that fails, by seed: people talk, a judge judges, a learner learns, an operator reverts, promotes,
//! names and forgets; processes are killed, power is lost, writes and syncs fail, the disk fills up, the clock jumps.
//!
//! A seed gives the whole plan ([`plan`]) and every random choice of the host. After each death the next process starts on
//! what is left on the simulated disk, and a copy of it is compared with what the world outside knows ([`check`]). A run has
//! two modes: *safety* ends with the power going; in *liveness* everything is healed at the end, and the loops must do all
//! that is due, learn from somebody new, and answer with the weights of a world in which the forgotten never were ([`alone`]).
//!
//! What a seed does not fix is the order in which the threads of the ledger and of the runtime's blocking calls get on: the
//! loops are many threads, and it is the machine that interleaves them. Time is virtual and the plan is the same every time,
//! but a failure that hangs on a race may need its seed to be run several times; a failing seed prints its plan and what
//! happened, so that it can be read without.
//!
//! - `NEXTSTATE_SEEDS=5000 cargo test -p loops --test it simulation` runs that many seeds from 0 on (`NEXTSTATE_FIRST=n`: from n on).
//! - `NEXTSTATE_RULES=1` has processes of every seed start with other batch sizes than the ones before; without it, of every third.
//! - `NEXTSTATE_SEED=17 cargo test -p loops --test it simulation -- --nocapture` runs one, and says what happens.

mod alone;
mod check;
mod judge;
mod memory;
mod plan;
mod world;

use std::{
    any::Any,
    collections::BTreeMap,
    env, panic,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use self::{
    plan::Plan,
    world::{Shared, World},
};

const DIR: &str = "/data/ledger";
/// Seeds that every test run tries, in each mode.
const SEEDS: u64 = 60;
/// After so many failed seeds no further one is tried.
const MOST_FAILED: usize = 8;
/// Seeds at once.
const THREADS: usize = 2;
/// When no seed ends for so long, also on a busy machine, one waits for something that never comes.
const HANGS: Duration = Duration::from_secs(300);

/// How a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Safety,
    Liveness,
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|n| n.parse().unwrap())
}

/// Whether one seed alone is run, to be looked at.
fn loud() -> bool {
    number("NEXTSTATE_SEED").is_some()
}

#[test]
fn whatever_fails_nothing_acknowledged_is_lost_and_nothing_forgotten_comes_back() {
    explore(Mode::Safety);
}

#[test]
fn when_nothing_fails_any_more_the_loops_do_all_that_is_due_and_go_on() {
    explore(Mode::Liveness);
}

/// What became of a seed.
struct Ended {
    seed: u64,
    counts: BTreeMap<String, u64>,
    /// Why it failed, and what had happened.
    failed: Option<String>,
}

fn explore(mode: Mode) {
    let first = number("NEXTSTATE_SEED").or_else(|| number("NEXTSTATE_FIRST"));
    let first = first.unwrap_or(0);
    let count = match loud() {
        true => 1,
        false => number("NEXTSTATE_SEEDS").unwrap_or(SEEDS),
    };
    let (next, start) = (Arc::new(AtomicU64::new(first)), Instant::now());
    let (sender, ended) = mpsc::channel();
    for _ in 0..THREADS {
        let (next, sender) = (next.clone(), sender.clone());
        thread::spawn(move || {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= first + count || sender.send(run(seed, mode)).is_err() {
                    return;
                }
            }
        });
    }
    drop(sender);
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let (mut done, mut failed) = (0, Vec::new());
    while done < count {
        let Ok(end) = ended.recv_timeout(HANGS) else {
            let seed = next.load(Ordering::Relaxed).saturating_sub(1);
            panic!("a seed hangs, {seed} or one before it: {}", command(seed));
        };
        done += 1;
        for (what, n) in end.counts {
            *counts.entry(what).or_default() += n;
        }
        if let Some(why) = end.failed {
            failed.push((end.seed, why));
        }
        if failed.len() >= MOST_FAILED {
            break;
        }
    }
    if let Some((seed, why)) = failed.first() {
        let others = failed[1..]
            .iter()
            .map(|(seed, why)| format!("\n\nand seed {seed}: {why}"));
        let others: String = others.collect();
        panic!("seed {seed} ({mode:?}): {why}{others}\n{}", command(*seed));
    }
    let time = start.elapsed();
    println!(
        "{mode:?}: {count} seeds in {time:.1?}, {:.1?} each: {counts:#?}",
        time / count as u32
    );
}

fn command(seed: u64) -> String {
    format!("again: NEXTSTATE_SEED={seed} cargo test -p loops --test it simulation -- --nocapture")
}

/// One seed, from an empty disk to its end.
fn run(seed: u64, mode: Mode) -> Ended {
    let plan = Plan::draw(seed, env::var("NEXTSTATE_RULES").is_ok());
    let memory = Shared::default();
    let world = World::new(plan.clone(), memory.clone());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .max_blocking_threads(8)
        .build()
        .unwrap();
    let ran = panic::catch_unwind(panic::AssertUnwindSafe(|| {
        runtime.block_on(world.run(mode));
    }));
    let memory = memory.lock();
    let failed = ran.err().map(|why| {
        let Plan { rules, refuses, segment_bytes, moves, .. } = plan;
        format!(
            "{}\nthe plan: {rules:?}, refuses {refuses}, segments of {segment_bytes}, moves {moves}; what happened:\n  {}",
            text(&*why),
            memory.trace.join("\n  ")
        )
    });
    Ended {
        seed,
        counts: memory.counts.clone(),
        failed,
    }
}

fn text(why: &(dyn Any + Send)) -> String {
    let owned = why.downcast_ref::<String>().cloned();
    owned
        .or_else(|| why.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_default()
}
