//! `cargo bench -p plugin --bench contained`: what each abuse ends as, after how long, and what another tenant's calls feel of it meanwhile.
//!
//! One thread abuses without a pause while another calls an innocent guest; the same calls alone, in the same run, are the measure.
//! Figures only: nothing is asserted. That each abuse is named is what `tests/guests` asserts.
#![expect(clippy::print_stdout, reason = "a command")]

use std::{
    error::Error,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use bundled::{BINARY_REWARD, TOOL_CALL, fixtures::FAULTY};
use plugin::{Capability, GuestEnvironment, GuestReward, Limits, Plugin, PluginHost};
use rl::{Environment, RequestView, RewardRule, Seed, VoteValue, seam::conformance};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// How long an abuse goes on while the other's calls are timed.
const MEANWHILE: Duration = Duration::from_secs(2);

/// Longest call of an environment here.
const DEADLINE_MS: u64 = 100;

fn main() -> Outcome<()> {
    let limits = Limits {
        call_ms: DEADLINE_MS,
        call_fuel: 50_000_000,
        instances: 64,
        ..Limits::default()
    };
    let host = PluginHost::new(limits)?;
    let innocent = GuestReward::new(&load(&host, BINARY_REWARD, BINARY_REWARD.manifest, "")?)?;
    let alone = percentiles(&innocent, || {
        thread::park_timeout(Duration::from_millis(1));
    });
    println!(
        "| abuse | ends as | after | another's call, p50 | p99 | p99 beside alone |\n|---|---|---|---|---|---|"
    );
    println!("| none | | | {:?} | {:?} | 1.0 × |", alone.0, alone.1);
    for (abuse, size) in [
        ("spin", 0),
        ("hoard", 0),
        ("recurse", 1),
        ("trap", 0),
        ("long-fault", 100_000_000),
        ("invalid-utf8", 0),
        ("flood", 10_000_000),
        ("log", 1_000_000),
        ("metric", 1_000_000),
        ("nan", 0),
    ] {
        let rule = GuestReward::new(&faulty(&host, "reward-plugin", abuse, size)?)?;
        let turns = [rl::JudgedTurn::default(); 3];
        let group = [vec![Some(1.0); 3]];
        let call = || match rule.turn_rewards(&turns, None).map(drop) {
            Ok(()) => rule.advantages(&group).map(drop),
            refused => refused,
        };
        row(abuse, &innocent, alone.1, call);
    }
    let environment = faulty(&host, "environment-plugin", "spin", 0)?;
    if let Ok(environment) = GuestEnvironment::new(&environment, Seed::new(1)) {
        let classify = || {
            let view = RequestView {
                messages: &[],
                tools: &[],
            };
            environment.classify(view).map(drop)
        };
        row("spin, of an environment", &innocent, alone.1, classify);
    }
    let broken = b"\0asm\x0d\0\x01\0\x01\x02\0\0".to_vec();
    let load_broken = || {
        let section = toml::Table::new();
        let loaded = host.load(BINARY_REWARD.manifest, &broken, &Capability::ALL, &section);
        loaded.map(drop).map_err(rl::Error::from)
    };
    row("a component that is none", &innocent, alone.1, load_broken);
    // Not an abuse: what compiling costs the others.
    let compile = || {
        let fresh = PluginHost::new(Limits {
            instances: 4,
            ..Limits::default()
        });
        let loaded =
            fresh.and_then(|host| load_with(&host, TOOL_CALL.manifest, TOOL_CALL.component));
        loaded.map(drop).map_err(rl::Error::from)
    };
    row("compiling 560 KB", &innocent, alone.1, compile);
    Ok(())
}

fn load(
    host: &PluginHost,
    guest: bundled::Bundled,
    manifest: &str,
    section: &str,
) -> Outcome<Plugin> {
    let section = section.parse()?;
    Ok(host.load(manifest, guest.component, &Capability::ALL, &section)?)
}

fn load_with(host: &PluginHost, manifest: &str, component: &[u8]) -> plugin::Result<Plugin> {
    host.load(manifest, component, &Capability::ALL, &toml::Table::new())
}

fn faulty(host: &PluginHost, world: &str, abuse: &str, size: i64) -> Outcome<Plugin> {
    let manifest = FAULTY.manifest.replace("reward-plugin", world);
    load(
        host,
        FAULTY,
        &manifest,
        &format!("abuse = '{abuse}'\nsize = {size}"),
    )
}

/// p50 and p99 of an innocent guest's calls while something else goes on.
fn percentiles(innocent: &GuestReward, meanwhile: impl Fn() + Sync) -> (Duration, Duration) {
    let votes = [conformance::vote(Some(VoteValue::Positive))];
    let over = AtomicBool::new(false);
    let mut times = thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                meanwhile();
            }
        });
        let begun = Instant::now();
        let mut times = Vec::new();
        while begun.elapsed() < MEANWHILE {
            let call = Instant::now();
            let _ = std::hint::black_box(innocent.verdict(&votes));
            times.push(call.elapsed());
        }
        over.store(true, Ordering::Relaxed);
        times
    });
    times.sort_unstable();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

fn row(
    name: &str,
    innocent: &GuestReward,
    alone: Duration,
    abuse: impl Fn() -> rl::Result<()> + Sync,
) {
    let begun = Instant::now();
    let ends = match abuse() {
        Ok(()) => "an answer".to_owned(),
        Err(error) => {
            let said = error.to_string();
            let last = said.rsplit(": plugin faulty ").next().unwrap_or_default();
            last.chars().take(70).collect()
        }
    };
    let after = begun.elapsed();
    let (p50, p99) = percentiles(innocent, || {
        let _ = abuse();
    });
    let ratio = p99.as_secs_f64() / alone.as_secs_f64();
    println!("| {name} | {ends} | {after:.1?} | {p50:?} | {p99:?} | {ratio:.1} × |");
}
