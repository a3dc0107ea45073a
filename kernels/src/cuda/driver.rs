//! The driver's answers as results, and the one place that decides whether there is a driver at all.

use cudarc::driver::sys::{self, CUresult};
use std::ffi::CStr;
use std::sync::OnceLock;

use super::devices::Absent;
use crate::{Error, Result};

/// The oldest driver that loads the embedded images: they are made by the compiler of CUDA 13.0.
pub(super) const OLDEST: u32 = 13_000;

/// The driver's answer to `call` as a result.
pub(super) fn check(call: &'static str, answer: CUresult) -> Result<()> {
    if answer == CUresult::CUDA_SUCCESS {
        return Ok(());
    }
    Err(Error::Driver {
        call,
        code: answer as u32,
        name: name(answer),
    })
}

/// Calls a function of the driver and checks its answer.
///
/// The expansion is an unsafe call: the caller writes `unsafe` and says why.
macro_rules! call {
    ($function:ident($($argument:expr),* $(,)?)) => {
        $crate::cuda::driver::check(
            stringify!($function),
            cudarc::driver::sys::$function($($argument),*),
        )
    };
}
pub(super) use call;

/// Starts the driver, once in a process; gives its version as 1000 · major + 10 · minor.
pub(super) fn start() -> Result<u32, Absent> {
    static STARTED: OnceLock<Result<u32, Absent>> = OnceLock::new();
    STARTED
        .get_or_init(|| {
            // SAFETY: loads the driver's library and runs its initialisers, as any program that uses a GPU does.
            if !unsafe { sys::is_culib_present() } {
                return Err(Absent::NoLibrary);
            }
            let mut version = 0;
            // SAFETY: the library is present; `version` outlives the call.
            let answer = unsafe { sys::cuDriverGetVersion(&raw mut version) };
            let found = u32::try_from(version).unwrap_or(0);
            if answer != CUresult::CUDA_SUCCESS || found < OLDEST {
                return Err(Absent::OldDriver { found });
            }
            // SAFETY: the library is present.
            match unsafe { sys::cuInit(0) } {
                CUresult::CUDA_SUCCESS => Ok(found),
                CUresult::CUDA_ERROR_NO_DEVICE => Err(Absent::NoDevice),
                answer => Err(Absent::Refused { name: name(answer) }),
            }
        })
        .clone()
}

fn name(answer: CUresult) -> String {
    let mut text = std::ptr::null();
    // SAFETY: `text` outlives the call.
    let known = unsafe { sys::cuGetErrorName(answer, &raw mut text) };
    if known != CUresult::CUDA_SUCCESS || text.is_null() {
        return format!("{answer:?}");
    }
    // SAFETY: the driver gave a pointer to a static string.
    unsafe { CStr::from_ptr(text) }
        .to_string_lossy()
        .into_owned()
}
