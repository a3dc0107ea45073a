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
    place(bits(), len)
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

/// A stream of random numbers of a plugin's own, for state that must survive a snapshot: the same seed gives the same
/// numbers, wherever it runs. SplitMix64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream(pub u64);

impl Stream {
    /// 32 uniform bits.
    pub fn bits(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u32::try_from((mixed ^ (mixed >> 31)) >> 32).unwrap_or(0)
    }

    /// Uniform in [0, 1).
    pub fn uniform(&mut self) -> f64 {
        f64::from(self.bits()) / (f64::from(u32::MAX) + 1.0)
    }

    /// The place of a uniformly drawn element of a list of `len`; 0 for an empty one.
    pub fn below(&mut self, len: usize) -> usize {
        place(self.bits(), len)
    }

    /// A uniformly drawn element; empty for an empty list.
    pub fn pick<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list.get(self.below(list.len()))
            .copied()
            .unwrap_or_default()
    }
}

fn place(bits: u32, len: usize) -> usize {
    let wide = u64::from(bits) * u64::try_from(len).unwrap_or(0);
    usize::try_from(wide >> 32).unwrap_or(0)
}
