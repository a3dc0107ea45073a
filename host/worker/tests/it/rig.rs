//! Workers of this crate's own program, and what is asked of them.

use std::time::Duration;

use bundled::Bundled;
use plugin::{Capability, Error, Limits, outside::Outside};
use rl::{Action, Message, Seed};
use worker::{Config, Given, Program, Workers};

pub(crate) const RUN: u64 = 3;

pub(crate) fn program() -> Program {
    Program {
        path: env!("CARGO_BIN_EXE_worker-alone").into(),
        arguments: Vec::new(),
    }
}

/// Limits that a test meets quickly.
pub(crate) fn limits() -> Limits {
    Limits {
        call_ms: 500,
        outside_ms: 5_000,
        call_fuel: 50_000_000,
        memory_bytes: 16 << 20,
        instances: 32,
        ..Limits::default()
    }
}

pub(crate) fn config() -> Config {
    Config {
        load: Duration::from_secs(60),
        answer: Duration::from_secs(20),
        ..Config::default()
    }
}

pub(crate) fn given(guest: Bundled, section: &str) -> Given {
    Given {
        manifest: guest.manifest.to_owned(),
        component: guest.component.to_vec(),
        grants: Capability::ALL.to_vec(),
        section: section.parse().unwrap(),
        limits: limits(),
        run: Seed::new(RUN),
        cache: None,
    }
}

/// The faulty guest in a world, set to an abuse of some size.
pub(crate) fn faulty(world: &str, abuse: &str, size: i64) -> Given {
    let mut given = given(
        bundled::fixtures::FAULTY,
        &format!("abuse = '{abuse}'\nsize = {size}"),
    );
    given.manifest = given.manifest.replace("reward-plugin", world);
    given
}

pub(crate) fn start(given: Given) -> Workers {
    started(given, config()).unwrap()
}

pub(crate) fn started(given: Given, config: Config) -> Result<Workers, Error> {
    Workers::start(given, Outside::default(), program(), config)
}

pub(crate) fn reply(text: &str) -> Action {
    Action {
        message: Message::assistant(text),
        truncated: false,
    }
}

/// An error's words, with what caused it.
pub(crate) fn words(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(because) = cause {
        words = format!("{words}: {because}");
        cause = because.source();
    }
    words
}
