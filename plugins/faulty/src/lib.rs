//! A hostile guest: every way we know to abuse the host, chosen by the config key `abuse`.
//!
//! A fixture of `host/plugin/tests`, never shipped. It exports all three worlds. A new abuse gets a name in `misbehave` and a
//! test that shows it contained.

mod answers;
mod worlds;

use sdk::{Fault, config, log};

pub use worlds::Faulty;

/// Does what the config says before a call answers; returns normally for abuses that lie in the answer itself.
fn misbehave() -> Result<(), Fault> {
    let size = config::count("size")?;
    match config::text("abuse")?.as_str() {
        "spin" => spin(),
        "trap" => panic!("the guest broke on purpose"),
        "hoard" => hoard(),
        "recurse" => drop(recurse(size)),
        "fault" => return Err(Fault::Internal("the guest says no".into())),
        "long-fault" => return Err(Fault::Internal("x".repeat(size))),
        "log" => (0..size).for_each(|line| log::info(&format!("line {line}"))),
        "long-log" => log::info(&"x".repeat(size)),
        "metric" => (0..size).for_each(|at| log::metric(&format!("name-{at}"), f64::NAN)),
        "random" => {
            log::metric("bits", f64::from(sdk::random::bits()));
            log::metric("now-ms", sdk::random::now_ms());
        }
        _ => {}
    }
    Ok(())
}

fn spin() {
    let mut turns = 0u64;
    loop {
        turns = std::hint::black_box(turns.wrapping_add(1));
    }
}

fn hoard() {
    let mut hoard = Vec::new();
    loop {
        hoard.push(std::hint::black_box(vec![1u8; 1 << 20]));
    }
}

// Hardly any of Rust's own stack in linear memory (which would trap first), all of it on the host's stack of the call.
#[expect(unconditional_recursion, reason = "this is the abuse")]
#[inline(never)]
fn recurse(depth: usize) -> usize {
    std::hint::black_box(recurse(depth.wrapping_mul(3) + 1)) ^ depth
}

sdk::export_environment!(Faulty);
sdk::export_judge!(Faulty);
sdk::export_reward!(Faulty);
