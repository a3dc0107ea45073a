//! The policy as a service: an engine that batches continuously, and the OpenAI-compatible gateway before it.
//!
//! [`engine`] owns every KV cache and computes; [`gateway`] speaks HTTP and hands every turn to a [`rl::TurnSink`]
//! before it acknowledges it. Neither has heard of training, plugins or the ledger: an adapter is swapped by whoever
//! writes its slot, between two decode steps.
//!
//! Start at [`engine::Engine`] and [`gateway::Gateway`].

pub mod engine;
pub mod error;
pub mod gateway;
pub mod metrics;

pub use error::{Error, KeyProblem, Result};
pub use metrics::SharedRegistry;
