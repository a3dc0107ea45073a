//! Requests over HTTP: what a guest's URL can reach, and what a server can do to whoever asks it.
//!
//! Nothing here leaves this machine: names are resolved by a table, and servers listen on loopback.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

mod exchange;
mod hostile;
mod server;
mod support;
mod urls;
