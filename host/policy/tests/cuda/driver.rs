//! The driver that the tests run on.
#![expect(unsafe_code, reason = "loads the stand-in driver")]

use std::env;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::OnceLock;

use crate::standin;

/// Whether there is a driver: this machine's, when that is asked for, else the stand-in, loaded under the name that cudarc asks for.
pub(crate) fn present() -> bool {
    static DRIVER: OnceLock<Option<libloading::Library>> = OnceLock::new();
    if env::var_os("NEXTSTATE_TEST_GPU").is_some() {
        return true;
    }
    let library = DRIVER.get_or_init(|| {
        let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../kernels");
        match standin::build(&kernels, Path::new(env!("CARGO_TARGET_TMPDIR")), 0) {
            Ok(folder) => {
                let path = folder.join("libcuda.so");
                // SAFETY: the library was built from this repository's sources; its initialisers register kernels.
                Some(unsafe { libloading::Library::new(path) }.unwrap())
            }
            Err(error) => {
                let required = env::var_os("NEXTSTATE_REQUIRE_EMULATOR").is_some()
                    || error.kind() != ErrorKind::NotFound;
                assert!(!required, "the stand-in driver was not built: {error}");
                eprintln!("SKIPPED: no g++ on this machine, so no kernel was run");
                None
            }
        }
    });
    library.is_some()
}
