//! What GPUs this machine has, or exactly why there is none that can be used.

use std::ffi::CStr;

use cudarc::driver::sys::CUdevice_attribute as Attribute;

use super::driver::{OLDEST, call, start};
use super::gpu::Compute;
use super::images::{self, Fit};
use crate::Result;

/// Why no GPU can be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Absent {
    /// The driver's library is not on this machine.
    #[error("there is no NVIDIA driver (libcuda.so was not found)")]
    NoLibrary,
    /// The driver cannot load what this program embeds.
    #[error(
        "the NVIDIA driver is too old: it knows CUDA {}.{}, and {}.{} is needed",
        found / 1000, found % 1000 / 10, OLDEST / 1000, OLDEST % 1000 / 10
    )]
    OldDriver {
        /// Its version: 1000 · major + 10 · minor.
        found: u32,
    },
    /// There is a driver, and no device.
    #[error("the NVIDIA driver finds no device")]
    NoDevice,
    /// The driver did not start.
    #[error("the NVIDIA driver does not start: {name}")]
    Refused {
        /// Its answer.
        name: String,
    },
}

/// One GPU.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// Its number, for [`super::Gpu::open`].
    pub index: usize,
    /// Its name.
    pub name: String,
    /// Its architecture.
    pub compute: Compute,
    /// Its memory.
    pub memory_bytes: u64,
    /// The driver's version: 1000 · major + 10 · minor.
    pub driver: u32,
    /// Which embedded image runs on it.
    pub image: Fit,
}

/// The GPUs of this machine: at least one.
///
/// # Errors
/// [`crate::Error::NoGpu`] with the reason when there is none; [`crate::Error::Driver`].
pub fn find() -> Result<Vec<Found>> {
    let driver = start()?;
    let mut count = 0;
    // SAFETY: `count` outlives the call.
    unsafe { call!(cuDeviceGetCount(&raw mut count)) }?;
    if count <= 0 {
        return Err(Absent::NoDevice.into());
    }
    (0..count).map(|index| describe(index, driver)).collect()
}

fn describe(index: i32, driver: u32) -> Result<Found> {
    let device = device(index)?;
    let mut name = [0; 256];
    // SAFETY: the driver writes at most as many bytes as it is told, a terminating zero among them.
    unsafe { call!(cuDeviceGetName(name.as_mut_ptr(), 256, device)) }?;
    // SAFETY: the text is terminated, as above.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) };
    let mut memory_bytes = 0;
    // SAFETY: `memory_bytes` outlives the call.
    unsafe { call!(cuDeviceTotalMem_v2(&raw mut memory_bytes, device)) }?;
    let compute = compute(device)?;
    Ok(Found {
        index: usize::try_from(index).unwrap_or(0),
        name: name.to_string_lossy().into_owned(),
        compute,
        memory_bytes: memory_bytes as u64,
        driver,
        image: images::fit(compute),
    })
}

/// The driver's handle of a device.
pub(super) fn device(index: i32) -> Result<i32> {
    let mut device = 0;
    // SAFETY: `device` outlives the call.
    unsafe { call!(cuDeviceGet(&raw mut device, index)) }?;
    Ok(device)
}

pub(super) fn compute(device: i32) -> Result<Compute> {
    let major = attribute(
        device,
        Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
    )?;
    let minor = attribute(
        device,
        Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
    )?;
    Ok(Compute { major, minor })
}

pub(super) fn attribute(device: i32, which: Attribute) -> Result<u32> {
    let mut value = 0;
    // SAFETY: `value` outlives the call.
    unsafe { call!(cuDeviceGetAttribute(&raw mut value, which, device)) }?;
    Ok(u32::try_from(value).unwrap_or(0))
}
