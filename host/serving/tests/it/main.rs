//! The gateway over real sockets, before a real engine with small models.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

#[path = "../common/tiny.rs"]
mod tiny;

mod bench;
mod connections;
mod lifecycle;
mod operators;
mod requests;
mod seam;
mod streams;
