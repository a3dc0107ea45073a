//! Hosts, guests and turns for the tests.

use std::sync::LazyLock;

use bundled::{Bundled, fixtures::FAULTY};
use plugin::{Capability, Error, Limits, Plugin, PluginHost, Result};
use rl::{
    FinishReason, Message, NextState, PolicyVersion, Sampling, Turn, TurnKind, Vote, VoteValue,
};

/// A host with limits that a test meets quickly. One for all tests, which so meet each other's abuses.
pub(crate) fn host() -> PluginHost {
    static HOST: LazyLock<PluginHost> = LazyLock::new(new_host);
    HOST.clone()
}

fn new_host() -> PluginHost {
    let limits = Limits {
        call_ms: 100,
        call_fuel: 50_000_000,
        memory_bytes: 16 << 20,
        instances: 256,
        ..Limits::default()
    };
    PluginHost::new(limits).unwrap()
}

pub(crate) fn load(host: &PluginHost, guest: Bundled, section: &str) -> Result<Plugin> {
    host.load(
        guest.manifest,
        guest.component,
        &Capability::ALL,
        &section.parse().unwrap(),
    )
}

/// The faulty guest in a world, set to an abuse of some size.
pub(crate) fn faulty(host: &PluginHost, world: &str, abuse: &str, size: i64) -> Plugin {
    let manifest = FAULTY.manifest.replace("reward-plugin", world);
    let section = format!("abuse = '{abuse}'\nsize = {size}");
    host.load(
        &manifest,
        FAULTY.component,
        &Capability::ALL,
        &section.parse().unwrap(),
    )
    .unwrap()
}

pub(crate) fn turn(request: &str, reply: &str) -> Turn {
    Turn {
        id: "turn-1".into(),
        tenant: "tenant".into(),
        session: "session".into(),
        user: None,
        parent: None,
        kind: TurnKind::Main,
        adapter: None,
        version: PolicyVersion::BASE,
        adapter_digest: String::new(),
        messages: vec![Message::user(request)],
        tools: Vec::new(),
        prompt: vec![1],
        response: vec![2],
        logprobs: vec![-0.5],
        sampling: Sampling::default(),
        reply: Message::assistant(reply),
        finish: FinishReason::Stop,
    }
}

pub(crate) fn next(text: &str) -> NextState {
    NextState::of(vec![Message::user(text)])
}

pub(crate) fn vote(value: Option<VoteValue>) -> Vote {
    Vote {
        value,
        answers: Vec::new(),
        score: None,
        seed: rl::Seed::default(),
        absent: None,
    }
}

/// The words of an error behind a seam.
pub(crate) fn words<T>(result: rl::Result<T>) -> String {
    result
        .err()
        .expect("the guest should have failed")
        .to_string()
}

pub(crate) fn load_error(result: Result<Plugin>) -> String {
    match result {
        Err(Error::Load { plugin, problem }) => format!("{plugin}: {problem}"),
        other => panic!("expected a load error, found {other:?}"),
    }
}
