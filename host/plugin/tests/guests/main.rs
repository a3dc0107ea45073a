//! The host with real guests: what the seams give, and what each abuse meets. One binary, since linking wasmtime is slow.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test's helpers fail by panicking"
)]

mod abuse;
mod compiled;
mod conformance;
mod http;
mod load;
mod outside;
mod seams;
mod store;
mod support;
