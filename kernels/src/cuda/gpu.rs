//! An open GPU: its context and every kernel, looked up once so that a launch looks nothing up in the driver.

use std::collections::{BTreeMap, HashMap};
use std::ffi::CString;
use std::fmt;
use std::sync::{Arc, Weak};

use cudarc::driver::sys::{self, CUcontext, CUmodule, CUresult};

use parking_lot::Mutex;

use super::buffer::Memory;
use super::devices::{self, compute};
use super::driver::{call, start};
use super::launch::{Kernel, Module};
use super::{HOPPER, MODULES, images};
use crate::{Error, Result};

/// A GPU's architecture.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Compute {
    /// 9 of 9.0.
    pub major: u32,
    /// 0 of 9.0.
    pub minor: u32,
}

/// The architecture that has TMA and `wgmma` as our kernels use them.
const TENSOR_COPIES: Compute = Compute { major: 9, minor: 0 };

/// Asks whether it uses the host's page tables, as GPUs do that are on one package with the processor.
const READS_HOST: sys::CUdevice_attribute =
    sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS_USES_HOST_PAGE_TABLES;

impl fmt::Display for Compute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// An open GPU. Clones are the same GPU; the last one to be dropped closes it.
#[derive(Clone)]
pub struct Gpu {
    inner: Arc<Inner>,
}

struct Inner {
    device: i32,
    context: CUcontext,
    compute: Compute,
    /// Whether it reads the host's ordinary memory by itself, when a copy's turn comes; else the driver stages it at once.
    reads_host: bool,
    modules: Vec<CUmodule>,
    kernels: HashMap<&'static str, Kernel>,
    /// What is allocated, by address.
    memory: Mutex<BTreeMap<u64, Weak<Memory>>>,
}

// SAFETY: the driver's handles may be used from every thread; each call first makes the context the thread's own.
unsafe impl Send for Inner {}
// SAFETY: as above; nothing here changes after `open`.
unsafe impl Sync for Inner {}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gpu({}, compute {})", self.inner.device, self.compute())
    }
}

impl Gpu {
    /// Opens a GPU and loads every kernel.
    ///
    /// # Errors
    /// [`Error::NoGpu`]; [`Error::Image`] when no embedded image runs on its architecture; [`Error::Driver`].
    pub fn open(index: usize) -> Result<Gpu> {
        start()?;
        let device = devices::device(i32::try_from(index).unwrap_or(i32::MAX))?;
        let compute = compute(device)?;
        let mut context = std::ptr::null_mut();
        // SAFETY: `context` outlives the call.
        unsafe { call!(cuDevicePrimaryCtxRetain(&raw mut context, device)) }?;
        // From here on `Drop` gives the context back, also when a module fails.
        let mut inner = Inner {
            device,
            context,
            compute,
            reads_host: devices::attribute(device, READS_HOST)? != 0,
            modules: Vec::new(),
            kernels: HashMap::new(),
            memory: Mutex::default(),
        };
        inner.bind()?;
        for module in MODULES {
            inner.load(module)?;
        }
        if compute == TENSOR_COPIES {
            for module in HOPPER {
                inner.load(module)?;
            }
        }
        Ok(Gpu {
            inner: Arc::new(inner),
        })
    }

    /// Its architecture.
    pub fn compute(&self) -> Compute {
        self.inner.compute
    }

    /// Whether kernels that begin early wait for those before them: the instruction is in the images for these, not in what a driver compiles
    /// for others.
    pub(super) fn waits(&self) -> bool {
        matches!(self.compute().major, 9 | 10)
    }

    /// Whether kernels for TMA and `wgmma` run on it.
    pub fn is_hopper(&self) -> bool {
        self.compute() == TENSOR_COPIES
    }

    /// Free and total memory, in bytes.
    ///
    /// # Errors
    /// [`Error::Driver`].
    pub fn memory(&self) -> Result<(u64, u64)> {
        self.bind()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: both numbers outlive the call.
        unsafe { call!(cuMemGetInfo_v2(&raw mut free, &raw mut total)) }?;
        Ok((free as u64, total as u64))
    }

    /// Whether a copy of the host's ordinary memory may read that after the call that queues it.
    pub(super) fn reads_host(&self) -> bool {
        self.inner.reads_host
    }

    /// Its multiprocessors.
    ///
    /// # Errors
    /// [`Error::Driver`].
    pub fn multiprocessors(&self) -> Result<u32> {
        let which = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
        devices::attribute(self.inner.device, which)
    }

    /// Makes its context the calling thread's.
    pub(super) fn bind(&self) -> Result<()> {
        self.inner.bind()
    }

    pub(super) fn remember(&self, address: u64, memory: &Arc<Memory>) {
        let weak = Arc::downgrade(memory);
        self.inner.memory.lock().insert(address, weak);
    }

    pub(super) fn forget(&self, address: u64) {
        self.inner.memory.lock().remove(&address);
    }

    /// The allocation that an address lies in.
    pub(super) fn allocation(&self, address: u64) -> Option<Arc<Memory>> {
        let nearest = {
            let all = self.inner.memory.lock();
            let (_, memory) = all.range(..=address).next_back()?;
            memory.clone()
        };
        // Not under the lock: whoever is the last to drop it takes that.
        nearest.upgrade().filter(|memory| memory.holds(address))
    }

    pub(super) fn kernel(&self, name: &'static str) -> Result<&Kernel> {
        self.inner.kernels.get(name).ok_or(Error::Kernel {
            kernel: name,
            why: "it is in no module of this program",
        })
    }
}

impl Inner {
    fn bind(&self) -> Result<()> {
        // SAFETY: the context is alive as long as `self`.
        unsafe { call!(cuCtxSetCurrent(self.context)) }
    }

    fn load(&mut self, module: &Module) -> Result<()> {
        let image = images::image(module.name);
        let mut handle = std::ptr::null_mut();
        // SAFETY: the image is a fat binary, which states its own length, or a header of zeros, which states none.
        let answer = unsafe { sys::cuModuleLoadData(&raw mut handle, image.as_ptr().cast()) };
        if matches!(
            answer,
            CUresult::CUDA_ERROR_INVALID_IMAGE | CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU
        ) {
            return Err(Error::Image {
                module: module.name,
                compute: self.compute,
            });
        }
        super::driver::check("cuModuleLoadData", answer)?;
        self.modules.push(handle);
        let which = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
        let most = devices::attribute(self.device, which)?;
        for entry in module.kernels {
            let name = CString::new(entry.name).map_err(|_| Error::Kernel {
                kernel: entry.name,
                why: "its name has a zero byte",
            })?;
            let mut function = std::ptr::null_mut();
            // SAFETY: the module is loaded, the name is terminated, `function` outlives the call.
            unsafe {
                call!(cuModuleGetFunction(
                    &raw mut function,
                    handle,
                    name.as_ptr()
                ))
            }?;
            let kernel = Kernel::new(function, entry, most)?;
            self.kernels.insert(entry.name, kernel);
        }
        Ok(())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // What fails here has no one to hear it; the process's end frees the same.
        if self.bind().is_ok() {
            for &module in &self.modules {
                // SAFETY: loaded by `load`; kernels in flight have borrowed streams, which hold this GPU.
                unsafe { sys::cuModuleUnload(module) };
            }
        }
        // SAFETY: retained once by `open`.
        unsafe { sys::cuDevicePrimaryCtxRelease_v2(self.device) };
    }
}
