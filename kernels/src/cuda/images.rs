//! The compiled kernels that this program embeds: for each module one fat binary of all architectures.
//!
//! They are made by `kernels/build-cuda` and checked in; a module without one was not compiled yet, and a driver
//! refuses it by name.

use super::gpu::Compute;

include!(concat!(env!("OUT_DIR"), "/images.rs"));

/// What a driver is handed for a module without an image; it refuses it.
static EMPTY: &[u8] = &[0];

/// What runs on a GPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fit {
    /// Machine code for its architecture.
    Binary(&'static str),
    /// Intermediate code, which the driver compiles when it is loaded.
    Intermediate(&'static str),
    /// Nothing: its architecture is older than all that is embedded.
    None,
    /// This program was built without images.
    NotBuilt,
}

/// The module's image.
pub(super) fn image(module: &str) -> &'static [u8] {
    IMAGES
        .iter()
        .find(|(name, _)| *name == module)
        .and_then(|(_, image)| *image)
        .unwrap_or(EMPTY)
}

/// Which of the embedded images a GPU takes. Machine code runs on its own major architecture from its minor on; `a`
/// on its own alone.
pub(super) fn fit(compute: Compute) -> Fit {
    if IMAGES.iter().all(|(_, image)| image.is_none()) {
        return Fit::NotBuilt;
    }
    match (compute.major, compute.minor) {
        (8, _) => Fit::Binary("sm_80"),
        (9, 0) => Fit::Binary("sm_90a"),
        (10, _) => Fit::Binary("sm_100"),
        (major, _) if major >= 8 => Fit::Intermediate("compute_80"),
        _ => Fit::None,
    }
}
