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
        "invalid-utf8" => return Err(Fault::Internal(no_text())),
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

/// Bytes that say they are text and are none.
fn no_text() -> String {
    let bytes = b"not \xff\xfe text".to_vec();
    #[expect(
        unsafe_code,
        reason = "the contract's rule is what is broken here, on purpose"
    )]
    // SAFETY: none; nothing in the guest reads it as text, and the host must not believe it.
    unsafe {
        String::from_utf8_unchecked(bytes)
    }
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
