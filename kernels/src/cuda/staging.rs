//! Memory of the host that a GPU reads by itself: a copy from it is queued like a kernel, and the host goes on.
//!
//! Ordinary memory is staged by the driver while the caller waits. Start at [`Stream::write_by`].

use std::ffi::c_void;
use std::marker::PhantomData;
use std::ptr::NonNull;

use cudarc::driver::sys;

use super::driver::call;
use super::{Element, Event, Gpu, Stream, ViewMut};
use crate::Result;
use crate::error::{check, require};

/// Room for elements on their way to a GPU.
#[derive(Debug)]
pub struct Staging<T> {
    gpu: Gpu,
    memory: NonNull<c_void>,
    capacity: usize,
    /// Reached when the GPU has read what was put here last.
    read: Event,
    element: PhantomData<T>,
}

// SAFETY: owned memory of plain elements.
unsafe impl<T: Element> Send for Staging<T> {}
// SAFETY: it is changed by `&mut` alone.
unsafe impl<T: Element> Sync for Staging<T> {}

impl Gpu {
    /// Room for `capacity` elements.
    ///
    /// # Errors
    /// [`crate::Error::Argument`] for none; [`crate::Error::Driver`] when the host has not enough memory that stays in its place.
    pub fn staging<T: Element>(&self, capacity: usize) -> Result<Staging<T>> {
        require!(
            "cuda.staging",
            capacity = capacity as f64,
            capacity > 0,
            "it has room for something"
        );
        let read = self.event()?;
        let mut address = std::ptr::null_mut();
        let bytes = capacity * size_of::<T>();
        // SAFETY: the context is the thread's (`event` bound it); `address` outlives the call; no flags: memory that the host caches.
        unsafe { call!(cuMemHostAlloc(&raw mut address, bytes, 0)) }?;
        let memory = NonNull::new(address).ok_or(crate::Error::Driver {
            call: "cuMemHostAlloc",
            code: 0,
            name: "no address".to_owned(),
        })?;
        Ok(Staging {
            gpu: self.clone(),
            memory,
            capacity,
            read,
            element: PhantomData,
        })
    }
}

impl<T: Element> Staging<T> {
    /// Elements that there is room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }
}

impl<T> Drop for Staging<T> {
    fn drop(&mut self) {
        // What fails here has no one to hear it.
        if self.read.wait().is_ok() && self.gpu.bind().is_ok() {
            // SAFETY: allocated by `Gpu::staging`, and the GPU has read it.
            unsafe { sys::cuMemFreeHost(self.memory.as_ptr()) };
        }
    }
}

impl Stream {
    /// Copies elements to the GPU by way of `staging`; they may be dropped at once. Waits only for the copy that was put there before.
    ///
    /// # Errors
    /// [`crate::Error::Shape`]; [`crate::Error::Argument`] for more than there is room for; [`crate::Error::Driver`].
    pub fn write_by<T: Element>(
        &self,
        staging: &mut Staging<T>,
        elements: &[T],
        to: &mut ViewMut<'_, T>,
    ) -> Result<()> {
        check!("cuda.write_by", elements: to.len());
        require!(
            "cuda.write_by",
            elements = elements.len() as f64,
            elements.len() <= staging.capacity,
            "there is room for fewer"
        );
        if elements.is_empty() {
            return Ok(());
        }
        staging.read.wait()?;
        let memory = staging.memory.as_ptr();
        // SAFETY: room for as many, just checked; nobody reads it any more.
        unsafe { std::ptr::copy_nonoverlapping(elements.as_ptr(), memory.cast(), elements.len()) };
        self.uses(*to.address());
        let bytes = size_of_val(elements);
        // SAFETY: both have as many bytes; `staging` is not written or freed before the event below is reached.
        unsafe {
            call!(cuMemcpyHtoDAsync_v2(
                *to.address(),
                memory,
                bytes,
                self.raw()
            ))
        }?;
        let marked = self.record(&staging.read);
        if marked.is_err() {
            // Nobody would know when the copy has been made.
            self.wait()?;
        }
        marked
    }
}
