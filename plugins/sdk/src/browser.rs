//! A headless page (capability `browser`); see `wit/capabilities.wit` for what each function promises.
//!
//! Away from WebAssembly there is none, and a call panics: keep what decides apart from what clicks, and test the whole with
//! `nextstate plugin test`.

pub use crate::bindings::environment::nextstate::plugin::browser::{Node, Page};
