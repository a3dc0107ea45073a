//! The real host, in process, over loopback: a few tests, each named after what an operator sees.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod exchange;
mod history;
mod interop;
mod learning;
mod modalities;
mod openai;
mod recipes;
mod store;
mod support;
mod tenants;
mod users;
