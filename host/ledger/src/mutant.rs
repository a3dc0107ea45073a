//! Deliberate bugs, one at a time, to prove that the tests would notice them. Never in a release build.

use std::sync::OnceLock;

/// The variable that names the bug to have.
pub const VARIABLE: &str = "NEXTSTATE_MUTANT";

/// Whether this process shall have the bug `name`: only in a debug build whose environment says so.
pub fn on(name: &str) -> bool {
    static CHOSEN: OnceLock<Option<String>> = OnceLock::new();
    cfg!(debug_assertions)
        && CHOSEN
            .get_or_init(|| std::env::var(VARIABLE).ok())
            .as_deref()
            == Some(name)
}
