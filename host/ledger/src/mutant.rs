//! Deliberate bugs, behind a switch that only tests turn: the suite must notice every one of them.
//!
//! A build for users has none of them: the switch is compiled away.

/// Whether this bug is in. The environment variable `NEXTSTATE_MUTANT` names one, in debug builds only.
pub fn on(name: &str) -> bool {
    use std::sync::OnceLock;
    static NAME: OnceLock<Option<String>> = OnceLock::new();
    cfg!(debug_assertions)
        && NAME
            .get_or_init(|| std::env::var("NEXTSTATE_MUTANT").ok())
            .as_deref()
            == Some(name)
}
