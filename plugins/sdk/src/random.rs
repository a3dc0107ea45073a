//! Random numbers that replay, and the clock of the episode (capabilities `random` and `clock`).

use crate::native;

/// 32 uniform bits.
pub fn bits() -> u32 {
    if cfg!(target_arch = "wasm32") {
        crate::bindings::environment::nextstate::plugin::random::bits()
    } else {
        native::bits()
    }
}

/// Uniform in [0, 1).
pub fn uniform() -> f64 {
    f64::from(bits()) / (f64::from(u32::MAX) + 1.0)
}

/// The place of a uniformly drawn element of a list of `len`; 0 for an empty one.
pub fn below(len: usize) -> usize {
    let wide = u64::from(bits()) * u64::try_from(len).unwrap_or(0);
    usize::try_from(wide >> 32).unwrap_or(0)
}

/// Shuffles a list in place.
pub fn shuffle<T>(list: &mut [T]) {
    for end in (1..list.len()).rev() {
        list.swap(end, below(end + 1));
    }
}

/// Virtual milliseconds since the start of the episode (capability `clock`).
pub fn now_ms() -> f64 {
    if cfg!(target_arch = "wasm32") {
        crate::bindings::environment::nextstate::plugin::clock::now_ms()
    } else {
        0.0
    }
}
