//! The only crate that knows every concrete type: configuration, wiring, commands.
//!
//! Nothing imports it but `tests`. Start at [`cli`], then [`host`]: it builds the engine, the plugins, the
//! learner and the loops, and joins them through the seams of `rl`.

#![expect(
    clippy::print_stdout,
    reason = "a command's result goes to standard output"
)]

pub mod bench;
pub mod cli;
pub mod commands;
mod compiled;
pub mod config;
pub mod demo;
mod durable;
pub mod guests;
pub mod history;
mod home;
pub mod host;
pub mod http_agent;
pub mod interop;
pub mod live;
pub mod logging;
pub mod manifest;
pub mod memory;
pub mod models;
pub mod named_models;
pub mod outside;
pub mod placement;
pub mod plugins;
pub mod rollout;
mod signing;
pub mod training;
pub mod transcript;
mod visible;
