//! The engine: one thread that owns every KV cache and batches continuously.
//!
//! Each step takes one row of every reply that grows and a bounded number of rows of prompts and scored texts, in one
//! forward pass; then it samples. A long prompt or reply never holds up a short one. Results do not depend on what
//! shares a step: a row's bits are the same alone and in any batch.
//!
//! An adapter is read from its [`policy::Slot`] when a request starts and kept until it ends, so publishing a version
//! disturbs nobody. The engine has never heard of HTTP, turns, rewards or training.
//!
//! Start at [`Engine::build`]; the step is in `worker.rs`, one sequence in `sequence.rs`.

mod config;
mod follow;
mod handle;
mod job;
mod prefix;
mod queue;
mod run;
mod sequence;
mod text;
mod versions;
mod worker;

#[cfg(test)]
mod tests;

pub use config::Config;
pub use handle::{EngineHandle, Stats, TokenStream};
pub use job::{Event, Priority, Refusal, SampleJob, Started, Token};
pub use queue::Permit;
pub use run::{Engine, Parts, Running};
pub(crate) use text::refused;
pub use text::{longest_prompt, prompt_bytes};
