//! Guests in processes of their own, for operators whose tenants do not trust each other.
//!
//! A worker process loads one plugin, compiles it, and answers calls over a socket; before it sees the component's first byte it gives up files,
//! network, programs and everything else of the kernel that computing does not need ([`seal`]). Should a guest break out of
//! WebAssembly, it is alone in there. What its guest asks for outside the host does for it, and what comes back is checked again: the process itself is not trusted either.
//! A worker that dies costs the episodes it had; a spare one takes its place at once.
//!
//! The main flow: [`Workers`] starts and replaces processes, [`SealedEnvironment`], [`SealedJudge`] and [`SealedReward`] stand behind the
//! seams of `rl` and call it, and [`run`] is the other side: what a worker process does. Knows no model, no HTTP, no ledger.

mod answers;
mod calls;
mod child;
mod config;
mod environment;
mod judge;
mod log;
mod process;
mod remote;
mod reward;
pub mod seal;
mod things;
mod threads;
mod timed;
mod wire;
mod workers;

pub use child::run;
pub use config::{Config, OutOfRange, Program};
pub use environment::SealedEnvironment;
pub use judge::SealedJudge;
pub use reward::SealedReward;
pub use workers::{Given, Workers};
