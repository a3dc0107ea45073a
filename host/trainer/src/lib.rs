//! Samples in, the next version of the policy out.
//!
//! Does not know any algorithm's name: it sees token ids, per-token streams and the name of one surrogate loss. No
//! HTTP, no Wasm, no async, no clock but the one that times a step. Equal inputs give equal bytes.
//!
//! Start at [`LoraLearner`], then [`loss`] (the whole mathematics of a step, on slices) and [`Config`];
//! [`FrozenLearner`] is the control arm, which measures everything and moves nothing.

mod adamw;
mod config;
mod error;
mod frozen;
pub mod influence;
mod lora;
pub mod loss;
mod recorded;
mod walk;

pub use adamw::fresh_optimizer;
pub use config::Config;
pub use error::{Error, Result};
pub use frozen::FrozenLearner;
pub use lora::LoraLearner;
pub use walk::{PACK_ROWS, Workspace};
