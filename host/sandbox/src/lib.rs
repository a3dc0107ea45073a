//! Capabilities that a guest can be granted beyond its own memory: a jailed shell, a headless browser, and
//! requests over HTTP to listed hosts.
//!
//! Knows nothing of models, training or WebAssembly: `host/plugin` has the traits, `host/app` puts both together.
//! Everything blocks, and may be called from any thread.

pub mod browser;
mod error;
pub mod http;
pub mod shell;

pub use error::{Error, Result};
