//! Guests in worker processes: the same answers as in the host, and what happens when a worker dies, hangs, lies or is told nonsense.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

mod ends;
mod kept;
mod outside;
mod rig;
mod same;
mod seal;
mod store;
