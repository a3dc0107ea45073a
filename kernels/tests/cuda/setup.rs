//! Opens the GPU that the tests run on, and what they all need.
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(unsafe_code, reason = "loads the stand-in driver")]
#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "the ops' tests come one after another"
)]

use std::env;
use std::path::Path;
use std::sync::OnceLock;

use half::bf16;
use kernels::cuda::{Buffer, Element, Gpu, Priority, Stream};

use crate::standin;

/// The stream to test on; none when there is nothing to run kernels.
pub(crate) fn stream() -> Option<Stream> {
    Some(gpu()?.stream(Priority::High).unwrap())
}

pub(crate) fn gpu() -> Option<Gpu> {
    static GPU: OnceLock<Option<Gpu>> = OnceLock::new();
    GPU.get_or_init(|| driver().then(|| Gpu::open(0).unwrap()))
        .clone()
}

/// Loads the stand-in under the name that the driver's library has, so that whoever asks for that gets this. Tells
/// whether there is a driver.
pub(crate) fn driver() -> bool {
    static DRIVER: OnceLock<Option<libloading::Library>> = OnceLock::new();
    if env::var_os("NEXTSTATE_TEST_GPU").is_some() {
        return true;
    }
    let library = DRIVER.get_or_init(|| {
        let plant = env::var("NEXTSTATE_PLANT").map_or(0, |text| text.parse().unwrap());
        let kernels = Path::new(env!("CARGO_MANIFEST_DIR"));
        match standin::build(kernels, Path::new(env!("CARGO_TARGET_TMPDIR")), plant) {
            Ok(folder) => {
                // For `kernels/check-gpu`, which has other programs run on it.
                eprintln!("stand-in driver: {}", folder.display());
                let path = folder.join("libcuda.so");
                // SAFETY: the library was built from this repository's sources; its initialisers register kernels.
                Some(unsafe { libloading::Library::new(path) }.unwrap())
            }
            Err(error) => {
                let required = env::var_os("NEXTSTATE_REQUIRE_EMULATOR").is_some()
                    || error.kind() != std::io::ErrorKind::NotFound;
                assert!(!required, "the stand-in driver was not built: {error}");
                eprintln!("SKIPPED: no g++ on this machine, so no kernel was run");
                None
            }
        }
    });
    library.is_some()
}

/// A buffer of NaN, to write results into.
pub(crate) fn poisoned<T: Element>(on: &Stream, len: usize) -> Buffer<T> {
    let mut buffer = on.gpu().buffer(len).unwrap();
    on.fill(&mut buffer.view_mut(), 0xff).unwrap();
    buffer
}

/// Rounded to bf16.
pub(crate) fn narrow(values: &[f32]) -> Vec<bf16> {
    values.iter().map(|&v| bf16::from_f32(v)).collect()
}

/// The numbers that bf16 can hold nearest to these.
pub(crate) fn rounded(values: &[f32]) -> Vec<f32> {
    widened(&narrow(values))
}

pub(crate) fn widened(values: &[bf16]) -> Vec<f32> {
    values.iter().map(|v| v.to_f32()).collect()
}

/// Half a unit in the last place of bf16, relative, and what an f32 sum may add.
pub(crate) const BF16: f64 = 1.0 / 256.0 + 1e-4;
