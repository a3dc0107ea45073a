//! Loads, limits, grants and calls guests: WebAssembly components that target a world of `wit/`.
//!
//! A guest is hostile until proven otherwise. Every call has a budget of work, memory, stack, output and host calls; a trap or a
//! limit ends that instance, never the host; every number that comes back is checked. Knows no GPU, no HTTP (`http` hands it over), no ledger.
//!
//! Start at [`PluginHost::load`], then [`GuestEnvironment`], [`GuestJudge`] and [`GuestReward`], which stand behind the seams of
//! `rl`; [`Error`] says in which of four ways a guest goes wrong. What a guest can reach is in `capabilities.rs`, and only there.

mod bindings;
mod browser;
mod capabilities;
mod check;
pub mod compiled;
mod convert;
mod endings;
mod environment;
mod error;
mod host;
mod http;
mod instance;
mod judge;
mod limits;
mod load;
mod manifest;
mod mappings;
mod model;
pub mod outside;
mod reward;
mod runtimes;
mod shell;
mod store;

pub use capabilities::Metric;
pub use environment::{GuestEnvironment, GuestEpisode};
pub use error::{Error, FaultKind, LoadProblem, LogTail, Result};
pub use host::PluginHost;
pub use judge::GuestJudge;
pub use limits::{Limit, Limits};
pub use load::Plugin;
pub use manifest::{Capability, Key, Kind, Manifest, Value, World};
pub use reward::GuestReward;
