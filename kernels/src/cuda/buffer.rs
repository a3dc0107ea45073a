//! Memory of a GPU with a type and a length, views of it, and copies from and to it.

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use cudarc::driver::sys;

use super::driver::call;
use super::{Gpu, Stream};
use crate::Result;
use crate::error::{check, require};

/// What a buffer can hold: plain numbers, for which every bit pattern is a value.
///
/// # Safety
/// The type has no padding and no invalid bit patterns.
pub unsafe trait Element: Copy + Send + Sync + std::fmt::Debug + 'static {}

// SAFETY: a plain number.
unsafe impl Element for f32 {}
// SAFETY: a plain number.
unsafe impl Element for f64 {}
// SAFETY: 16 bits, of which every pattern is a value.
unsafe impl Element for half::bf16 {}
// SAFETY: a plain number.
unsafe impl Element for i32 {}
// SAFETY: a plain number.
unsafe impl Element for u32 {}
// SAFETY: a plain number.
unsafe impl Element for u64 {}

/// Memory of a GPU. Dropping the last that uses it, this or a recorded graph, waits for the work that is queued.
#[derive(Debug)]
pub struct Buffer<T> {
    memory: Arc<Memory>,
    len: usize,
    element: PhantomData<T>,
}

/// What the driver gave.
#[derive(Debug)]
pub(super) struct Memory {
    gpu: Gpu,
    address: u64,
    bytes: usize,
}

impl Memory {
    /// Whether an address is inside.
    pub(super) fn holds(&self, address: u64) -> bool {
        (self.address..self.address + self.bytes as u64).contains(&address)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.gpu.forget(self.address);
        if self.gpu.bind().is_ok() {
            // SAFETY: allocated by `Gpu::buffer`; the driver waits for work that uses it.
            unsafe { sys::cuMemFree_v2(self.address) };
        }
    }
}

/// A part of a buffer, to read.
#[derive(Clone, Copy, Debug)]
pub struct View<'a, T> {
    address: u64,
    len: usize,
    buffer: PhantomData<&'a T>,
}

/// A part of a buffer, to write.
#[derive(Debug)]
pub struct ViewMut<'a, T> {
    address: u64,
    len: usize,
    buffer: PhantomData<&'a mut T>,
}

impl Gpu {
    /// New memory, with whatever is in it.
    ///
    /// # Errors
    /// [`crate::Error::Driver`] when there is not enough.
    pub fn buffer<T: Element>(&self, len: usize) -> Result<Buffer<T>> {
        self.bind()?;
        let mut address = 0;
        // A driver refuses to allocate nothing.
        let bytes = (len * size_of::<T>()).max(1);
        // SAFETY: the context is the thread's; `address` outlives the call.
        unsafe { call!(cuMemAlloc_v2(&raw mut address, bytes)) }?;
        let memory = Arc::new(Memory {
            gpu: self.clone(),
            address,
            bytes,
        });
        self.remember(address, &memory);
        Ok(Buffer {
            memory,
            len,
            element: PhantomData,
        })
    }
}

impl<T: Element> Buffer<T> {
    /// Elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no element.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All of it, to read.
    pub fn view(&self) -> View<'_, T> {
        View {
            address: self.memory.address,
            len: self.len,
            buffer: PhantomData,
        }
    }

    /// All of it, to write.
    pub fn view_mut(&mut self) -> ViewMut<'_, T> {
        ViewMut {
            address: self.memory.address,
            len: self.len,
            buffer: PhantomData,
        }
    }

    /// A part of it, to write.
    ///
    /// # Errors
    /// [`crate::Error::Argument`] when it ends beyond this.
    pub fn part_mut(&mut self, range: Range<usize>) -> Result<ViewMut<'_, T>> {
        inside(&range, self.len)?;
        Ok(ViewMut {
            address: self.memory.address + (range.start * size_of::<T>()) as u64,
            len: range.len(),
            buffer: PhantomData,
        })
    }

    /// Where it lies on the GPU, for tables of pointers that kernels read.
    pub fn address(&self) -> u64 {
        self.memory.address
    }
}

impl<'a, T: Element> View<'a, T> {
    /// Elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no element.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A part of it.
    ///
    /// # Errors
    /// [`crate::Error::Argument`] when it ends beyond this.
    pub fn part(&self, range: Range<usize>) -> Result<View<'a, T>> {
        inside(&range, self.len)?;
        Ok(View {
            address: self.address + (range.start * size_of::<T>()) as u64,
            len: range.len(),
            buffer: PhantomData,
        })
    }

    pub(super) fn address(&self) -> &u64 {
        &self.address
    }
}

impl<T: Element> ViewMut<'_, T> {
    /// Elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no element.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A part of it.
    ///
    /// # Errors
    /// [`crate::Error::Argument`] when it ends beyond this.
    pub fn part(&mut self, range: Range<usize>) -> Result<ViewMut<'_, T>> {
        inside(&range, self.len)?;
        Ok(ViewMut {
            address: self.address + (range.start * size_of::<T>()) as u64,
            len: range.len(),
            buffer: PhantomData,
        })
    }

    /// Two parts of `len` elements, of which the second begins where the first has ended, or later.
    ///
    /// # Errors
    /// [`crate::Error::Argument`] when they overlap, or end beyond this.
    pub(super) fn two(&mut self, at: [usize; 2], len: usize) -> Result<[ViewMut<'_, T>; 2]> {
        inside(&(at[0]..at[0] + len), at[1])?;
        inside(&(at[1]..at[1] + len), self.len)?;
        Ok(at.map(|from| ViewMut {
            address: self.address + (from * size_of::<T>()) as u64,
            len,
            buffer: PhantomData,
        }))
    }

    /// The same, to read.
    pub fn as_view(&self) -> View<'_, T> {
        View {
            address: self.address,
            len: self.len,
            buffer: PhantomData,
        }
    }

    pub(super) fn address(&self) -> &u64 {
        &self.address
    }
}

fn inside(range: &Range<usize>, len: usize) -> Result<()> {
    let holds = range.start <= range.end && range.end <= len;
    require!(
        "cuda.part",
        end = range.end as f64,
        holds,
        "a part lies inside its whole"
    );
    Ok(())
}

impl Stream {
    /// A buffer with these elements; they may be dropped at once.
    ///
    /// # Errors
    /// [`crate::Error::Driver`].
    pub fn upload<T: Element>(&self, elements: &[T]) -> Result<Buffer<T>> {
        let mut buffer = self.gpu().buffer(elements.len())?;
        self.write(elements, &mut buffer.view_mut())?;
        Ok(buffer)
    }

    /// Copies elements to the GPU; they may be dropped at once. Waits for the copy where the GPU reads ordinary memory by itself.
    ///
    /// # Errors
    /// [`crate::Error::Shape`]; [`crate::Error::Driver`].
    pub fn write<T: Element>(&self, elements: &[T], to: &mut ViewMut<'_, T>) -> Result<()> {
        check!("cuda.write", elements: to.len());
        if elements.is_empty() {
            return Ok(());
        }
        self.gpu().bind()?;
        let from = elements.as_ptr().cast();
        // SAFETY: both have as many bytes. The memory is pageable, since a `Staging` lends no slice of its own: the driver has staged it when
        // it returns, or the wait below ends before the borrow does.
        unsafe {
            call!(cuMemcpyHtoDAsync_v2(
                to.address,
                from,
                size_of_val(elements),
                self.raw()
            ))
        }?;
        if self.gpu().reads_host() {
            return self.wait();
        }
        Ok(())
    }

    /// Copies a buffer to the host, and waits for it and all that was queued before.
    ///
    /// # Errors
    /// [`crate::Error::Driver`].
    pub fn download<T: Element + Default>(&self, from: View<'_, T>) -> Result<Vec<T>> {
        let mut elements = vec![T::default(); from.len()];
        self.read(from, &mut elements)?;
        Ok(elements)
    }

    /// [`Stream::download`] into memory that is there.
    ///
    /// # Errors
    /// [`crate::Error::Shape`]; [`crate::Error::Driver`].
    pub fn read<T: Element>(&self, from: View<'_, T>, elements: &mut [T]) -> Result<()> {
        check!("cuda.read", elements: from.len());
        if elements.is_empty() {
            return self.wait();
        }
        self.gpu().bind()?;
        let (to, bytes) = (elements.as_mut_ptr().cast(), size_of_val(elements));
        // SAFETY: both have as many bytes, and the wait below ends before the borrow does.
        unsafe { call!(cuMemcpyDtoHAsync_v2(to, from.address, bytes, self.raw())) }?;
        self.wait()
    }

    /// Queues a copy from one place of the GPU to another.
    ///
    /// # Errors
    /// [`crate::Error::Shape`]; [`crate::Error::Driver`].
    pub fn copy<T: Element>(&self, from: View<'_, T>, to: &mut ViewMut<'_, T>) -> Result<()> {
        check!("cuda.copy", from: to.len());
        if from.is_empty() {
            return Ok(());
        }
        self.gpu().bind()?;
        self.uses(from.address);
        self.uses(to.address);
        let bytes = from.len * size_of::<T>();
        // SAFETY: both have as many bytes, and a mutable view overlaps no other.
        unsafe {
            call!(cuMemcpyDtoDAsync_v2(
                to.address,
                from.address,
                bytes,
                self.raw()
            ))
        }
    }

    /// Queues a copy of a part of a buffer to another place in it, from `to` on.
    ///
    /// # Errors
    /// [`crate::Error::Argument`] when the two overlap, or end beyond the buffer; [`crate::Error::Driver`].
    pub fn copy_within<T: Element>(
        &self,
        whole: &mut ViewMut<'_, T>,
        from: Range<usize>,
        to: usize,
    ) -> Result<()> {
        let len = from.len();
        if from.start < to {
            let [source, mut target] = whole.two([from.start, to], len)?;
            self.copy(source.as_view(), &mut target)
        } else {
            let [mut target, source] = whole.two([to, from.start], len)?;
            self.copy(source.as_view(), &mut target)
        }
    }

    /// Queues setting every bit to zero.
    ///
    /// # Errors
    /// [`crate::Error::Driver`].
    pub fn zero<T: Element>(&self, view: &mut ViewMut<'_, T>) -> Result<()> {
        self.fill(view, 0)
    }

    /// Queues setting every byte.
    ///
    /// # Errors
    /// [`crate::Error::Driver`].
    pub fn fill<T: Element>(&self, view: &mut ViewMut<'_, T>, byte: u8) -> Result<()> {
        if view.is_empty() {
            return Ok(());
        }
        self.gpu().bind()?;
        self.uses(view.address);
        let bytes = view.len * size_of::<T>();
        // SAFETY: inside the buffer.
        unsafe { call!(cuMemsetD8Async(view.address, byte, bytes, self.raw())) }
    }
}
