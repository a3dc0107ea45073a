//! A kernel, and its launch: no allocation, and the parameters' sizes compared with the compiled kernel's.

use std::ffi::c_void;

use cudarc::driver::sys::{
    CUfunction, CUfunction_attribute as Attribute, CUlaunchAttribute, CUlaunchAttributeID,
    CUlaunchAttributeValue, CUlaunchConfig, CUresult, cuFuncGetParamInfo,
};

use super::buffer::{Element, View, ViewMut};
use super::driver::call;
use super::stream::Stream;
use crate::{Error, Result};

/// The most parameters that a kernel of ours has.
const PARAMETERS: usize = 32;

/// A source file's kernels.
#[derive(Debug)]
pub(super) struct Module {
    /// `cuda/<name>.cu`.
    pub(super) name: &'static str,
    pub(super) kernels: &'static [Entry],
}

/// One kernel.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: &'static str,
    /// The most dynamic shared memory that it is launched with, in bytes.
    pub(super) shared: u32,
}

impl Entry {
    /// A kernel without dynamic shared memory.
    pub(super) const fn new(name: &'static str) -> Entry {
        Entry { name, shared: 0 }
    }
}

/// A loaded kernel.
#[derive(Debug)]
pub(super) struct Kernel {
    function: CUfunction,
    /// Bytes of each parameter.
    sizes: Vec<usize>,
    shared: u32,
    /// Whether a block of this GPU can have that much.
    pub(super) fits: bool,
}

/// How many threads a launch has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grid {
    pub(super) blocks: [usize; 3],
    pub(super) threads: u32,
    /// Dynamic shared memory, in bytes.
    pub(super) shared: u32,
}

impl Grid {
    /// Blocks in one dimension.
    pub(super) fn line(blocks: usize, threads: u32) -> Grid {
        Grid {
            blocks: [blocks, 1, 1],
            threads,
            shared: 0,
        }
    }
}

impl Kernel {
    /// `most` is what a block can have of shared memory, in bytes.
    pub(super) fn new(function: CUfunction, entry: &Entry, most: u32) -> Result<Kernel> {
        let fits = entry.shared <= most;
        let mut sizes = Vec::new();
        let (mut offset, mut size) = (0, 0);
        // SAFETY: the function is loaded; past the last parameter the driver answers INVALID_VALUE.
        while unsafe { cuFuncGetParamInfo(function, sizes.len(), &raw mut offset, &raw mut size) }
            == CUresult::CUDA_SUCCESS
        {
            sizes.push(size);
        }
        // Asked for even where it is little: what a block has without asking counts its static memory, too.
        if fits && entry.shared > 0 {
            let which = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            let bytes = i32::try_from(entry.shared).unwrap_or(i32::MAX);
            // SAFETY: the function is loaded.
            unsafe { call!(cuFuncSetAttribute(function, which, bytes)) }?;
        }
        Ok(Kernel {
            function,
            sizes,
            shared: entry.shared,
            fits,
        })
    }
}

/// A kernel's parameter.
pub(super) trait Argument {
    /// Where its value lies, and its bytes.
    fn place(&self) -> (*const c_void, usize);

    /// The memory that it points to.
    fn memory(&self) -> Option<u64> {
        None
    }
}

macro_rules! plain {
    ($($type:ty),*) => {
        $(impl Argument for $type {
            fn place(&self) -> (*const c_void, usize) {
                (std::ptr::from_ref(self).cast(), size_of::<$type>())
            }
        })*
    };
}
plain!(i32, u32, u64, f32, f64);

impl<T: Element> Argument for View<'_, T> {
    fn place(&self) -> (*const c_void, usize) {
        self.address().place()
    }

    fn memory(&self) -> Option<u64> {
        Some(*self.address())
    }
}

impl<T: Element> Argument for ViewMut<'_, T> {
    fn place(&self) -> (*const c_void, usize) {
        self.address().place()
    }

    fn memory(&self) -> Option<u64> {
        Some(*self.address())
    }
}

/// An absent one is a null pointer.
impl<T: Element> Argument for Option<View<'_, T>> {
    fn place(&self) -> (*const c_void, usize) {
        self.as_ref().map_or(NULL.place(), Argument::place)
    }

    fn memory(&self) -> Option<u64> {
        self.as_ref().and_then(Argument::memory)
    }
}

static NULL: u64 = 0;

impl Stream {
    /// Queues a kernel. A grid without blocks is no launch.
    ///
    /// # Errors
    /// [`Error::Kernel`] when the arguments are not the kernel's; [`Error::Driver`].
    ///
    /// # Safety
    /// The arguments must mean what the kernel takes them for: order, element types, and memory as large as it reaches.
    pub(super) unsafe fn launch(
        &self,
        name: &'static str,
        grid: Grid,
        arguments: &[&dyn Argument],
    ) -> Result<()> {
        // SAFETY: the caller's word.
        unsafe { self.queue(name, grid, arguments, false) }
    }

    /// [`Stream::launch`] of a kernel that may begin before the one queued before it has ended, once all blocks of that have
    /// begun and said so (`ns_grid_next`), or have ended.
    ///
    /// # Errors
    /// As [`Stream::launch`].
    ///
    /// # Safety
    /// As [`Stream::launch`]; and each of its blocks calls `ns_grid_wait` before it reads what a kernel may have written, and
    /// before it writes.
    pub(super) unsafe fn launch_early(
        &self,
        name: &'static str,
        grid: Grid,
        arguments: &[&dyn Argument],
    ) -> Result<()> {
        // SAFETY: the caller's word.
        unsafe { self.queue(name, grid, arguments, true) }
    }

    unsafe fn queue(
        &self,
        name: &'static str,
        grid: Grid,
        arguments: &[&dyn Argument],
        early: bool,
    ) -> Result<()> {
        let kernel = self.gpu().kernel(name)?;
        let bad = |why| Error::Kernel { kernel: name, why };
        if arguments.len() != kernel.sizes.len() || arguments.len() > PARAMETERS {
            return Err(bad("it takes another number of arguments"));
        }
        if !kernel.fits {
            return Err(bad(
                "a block of this GPU has less shared memory than it takes",
            ));
        }
        if grid.shared > kernel.shared {
            return Err(bad("it was loaded for less shared memory"));
        }
        let mut places = [std::ptr::null_mut::<c_void>(); PARAMETERS];
        for ((argument, size), slot) in arguments.iter().zip(&kernel.sizes).zip(&mut places) {
            let (place, bytes) = argument.place();
            if bytes != *size {
                return Err(bad("an argument has another size"));
            }
            *slot = place.cast_mut();
            if let Some(address) = argument.memory() {
                self.uses(address);
            }
        }
        let blocks = |axis: usize, most: usize| {
            let fits = grid.blocks[axis] <= most;
            let count = u32::try_from(grid.blocks[axis]).ok().filter(|_| fits);
            count.ok_or(bad("the grid is larger than a driver allows"))
        };
        let [x, y, z] = [
            blocks(0, i32::MAX as usize)?,
            blocks(1, 65_535)?,
            blocks(2, 65_535)?,
        ];
        if x == 0 || y == 0 || z == 0 {
            return Ok(());
        }
        self.gpu().bind()?;
        let mut attribute = CUlaunchAttribute {
            id: CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
            pad: [0; 4],
            value: CUlaunchAttributeValue {
                programmaticStreamSerializationAllowed: 1,
            },
        };
        let config = CUlaunchConfig {
            gridDimX: x,
            gridDimY: y,
            gridDimZ: z,
            blockDimX: grid.threads,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: grid.shared,
            hStream: self.raw(),
            attrs: &raw mut attribute,
            numAttrs: u32::from(early && self.gpu().waits()),
        };
        // SAFETY: as many parameters as the kernel has, each as large as its own; what they mean is the caller's word. The
        // configuration and its attribute outlive the call.
        unsafe {
            call!(cuLaunchKernelEx(
                &raw const config,
                kernel.function,
                places.as_mut_ptr(),
                std::ptr::null_mut(),
            ))
        }
    }
}
