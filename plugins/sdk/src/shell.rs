//! A jailed machine (capability `shell`); see `wit/capabilities.wit` for what each function promises.
//!
//! Away from WebAssembly there is none, and a call panics: keep what decides apart from what runs, and test the whole with
//! `nextstate plugin test`.

pub use crate::bindings::environment::nextstate::plugin::shell::{
    Change, ChangeKind, Ending, Machine, Output,
};

impl Output {
    /// Whether the command ended by itself with exit code 0.
    pub fn succeeded(&self) -> bool {
        matches!(self.ending, Ending::Exited(0))
    }
}
