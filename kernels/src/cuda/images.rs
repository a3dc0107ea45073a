//! The compiled kernels that this program embeds: for each module one fat binary of all architectures.
//!
//! They are made by `kernels/build-cuda` and checked in; a module without one was not compiled yet, and a driver
//! refuses it by name.

use std::fmt;

use super::gpu::Compute;

include!(concat!(env!("OUT_DIR"), "/images.rs"));

/// What a driver is handed for a module without an image: a header that is none, which it refuses.
static EMPTY: &[u8] = &[0; 256];

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

impl fmt::Display for Fit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fit::Binary(name) => f.write_str(name),
            Fit::Intermediate(name) => {
                write!(f, "{name}, which the driver compiles when it is opened")
            }
            Fit::None => {
                f.write_str("none: it is older than what this program has kernels for (8.0)")
            }
            Fit::NotBuilt => f.write_str("none: this program was built without compiled kernels"),
        }
    }
}

impl Fit {
    /// Whether kernels can run.
    pub fn is_any(self) -> bool {
        matches!(self, Fit::Binary(_) | Fit::Intermediate(_))
    }
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
    embedded(compute)
}

fn embedded(compute: Compute) -> Fit {
    match (compute.major, compute.minor) {
        (8, _) => Fit::Binary("sm_80"),
        (9, 0) => Fit::Binary("sm_90a"),
        (10, _) => Fit::Binary("sm_100"),
        (major, _) if major >= 8 => Fit::Intermediate("compute_80"),
        _ => Fit::None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Fit, embedded};
    use crate::cuda::Compute;

    #[test]
    fn a_gpu_takes_machine_code_of_its_architecture_or_what_the_driver_compiles() {
        let of = |major, minor| embedded(Compute { major, minor });
        assert_eq!(of(8, 9), Fit::Binary("sm_80"));
        assert_eq!(of(9, 0), Fit::Binary("sm_90a"));
        assert_eq!(of(10, 3), Fit::Binary("sm_100"));
        assert_eq!(of(12, 0), Fit::Intermediate("compute_80"));
        assert_eq!(of(7, 5), Fit::None);
        assert!(of(12, 1).is_any() && !of(7, 0).is_any());
    }
}
