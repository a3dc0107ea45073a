//! The four loops: serve, rollout, judge, train; with their queues, staleness, recovery and supervision.
//!
//! They meet only in the ledger: serve records turns and their next states, judge makes verdicts and samples of them, train
//! makes versions of those. Any of them can fail or lag without slowing the others, and a kill at any moment loses nothing
//! that was acknowledged. The loops reach plugins, the model and the optimizer through the seams of [`rl`]; this crate has
//! never heard of CUDA, Wasm or HTTP.
//!
//! Start at [`Loops`]; then [`serve`], [`judge`], [`train`], [`rollout`]. What is recorded is in [`records`].

mod asking;
pub mod audit;
mod belief;
pub mod bench;
mod call;
mod derive;
mod error;
pub mod evidence;
mod fingerprints;
pub mod forget;
pub mod gate;
mod gating;
pub mod guard;
mod hint;
mod history;
mod host;
pub mod judge;
mod judging;
pub mod line;
pub mod metrics;
pub mod orders;
mod paying;
mod praise;
pub mod queue;
pub mod records;
pub mod recovery;
pub mod replay;
mod retreat;
pub mod rollout;
pub mod schedule;
pub mod serve;
pub mod session;
mod signs;
mod spill;
pub mod status;
mod store;
mod supervisor;
pub mod train;
mod turns;
mod watch;

pub use error::{Error, Result};
pub use host::{Config, Handle, Loops, OnErase, OnForgotten, Seams, Trained};
pub use line::Line;
pub use orders::Control;
pub use rollout::Rollout;
pub use status::Status;
pub use supervisor::{Shutdown, Stop, shutdown};
