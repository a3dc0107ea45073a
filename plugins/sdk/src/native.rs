//! Stand-ins for the host's capabilities away from WebAssembly, so that a plugin's own unit tests run natively.
//!
//! State is per thread, as unit tests are. Not a host: no limits, and a generator of its own.

use std::{cell::RefCell, collections::BTreeMap};

use crate::{config::Value, log::Level};

thread_local! {
    static CONFIG: RefCell<BTreeMap<String, Value>> = const { RefCell::new(BTreeMap::new()) };
    static STATE: RefCell<u64> = const { RefCell::new(0) };
}

/// Sets a config value for this thread.
pub fn set_config(key: &str, value: Value) {
    CONFIG.with_borrow_mut(|config| config.insert(key.to_owned(), value));
}

/// Restarts this thread's random numbers.
pub fn seed(seed: u64) {
    STATE.set(seed);
}

pub(crate) fn config(key: &str) -> Option<Value> {
    CONFIG.with_borrow(|config| config.get(key).cloned())
}

/// SplitMix64, upper half.
pub(crate) fn bits() -> u32 {
    let mut mixed = STATE.with_borrow_mut(|state| {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        *state
    });
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    u32::try_from((mixed ^ (mixed >> 31)) >> 32).unwrap_or(0)
}

pub(crate) fn print(level: Level, message: &str) {
    eprintln!("{level:?}: {message}");
}
