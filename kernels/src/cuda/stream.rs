//! Queues of work on a GPU. Work of one stream runs in order; of two, in any order that their events allow.

use cudarc::driver::sys::{self, CUevent, CUevent_flags, CUstream, CUstream_flags};

use parking_lot::Mutex;

use super::Gpu;
use super::driver::call;
use crate::Result;
use crate::error::require;

/// Whose work goes first where two streams have some ready.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Priority {
    /// Serving: somebody waits.
    High,
    /// Training.
    Low,
}

/// A queue of work.
#[derive(Debug)]
pub struct Stream {
    gpu: Gpu,
    raw: CUstream,
    priority: Priority,
    /// While work is recorded: the addresses that it uses.
    recording: Mutex<Option<Vec<u64>>>,
}

// SAFETY: the driver's handles may be used from every thread.
unsafe impl Send for Stream {}
// SAFETY: as above.
unsafe impl Sync for Stream {}

impl Gpu {
    /// A new queue.
    ///
    /// # Errors
    /// [`crate::Error::Driver`].
    pub fn stream(&self, priority: Priority) -> Result<Stream> {
        self.bind()?;
        let (mut least, mut greatest) = (0, 0);
        // SAFETY: both numbers outlive the call.
        unsafe {
            call!(cuCtxGetStreamPriorityRange(
                &raw mut least,
                &raw mut greatest
            ))
        }?;
        let level = match priority {
            Priority::High => greatest,
            Priority::Low => least,
        };
        let mut raw = std::ptr::null_mut();
        let flags = CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: the context is the thread's; `raw` outlives the call.
        unsafe { call!(cuStreamCreateWithPriority(&raw mut raw, flags, level)) }?;
        Ok(Stream {
            gpu: self.clone(),
            raw,
            priority,
            recording: Mutex::default(),
        })
    }
}

impl Stream {
    /// Its GPU.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Blocks for so much work, of kernels whose blocks can take piece after piece and leave no room for others on a multiprocessor: one
    /// for each multiprocessor, or for each piece, in a queue that gives way: others' blocks begin where one of these ends.
    pub(super) fn stays(&self, pieces: usize) -> Result<usize> {
        Ok(match self.priority {
            Priority::High => pieces.min(self.gpu.multiprocessors()? as usize),
            Priority::Low => pieces,
        })
    }

    /// Waits until everything queued so far is done.
    ///
    /// # Errors
    /// [`crate::Error::Driver`], also of work that failed.
    pub fn wait(&self) -> Result<()> {
        self.gpu.bind()?;
        // SAFETY: the stream is alive.
        unsafe { call!(cuStreamSynchronize(self.raw)) }
    }

    /// Marks this place of the queue.
    ///
    /// # Errors
    /// [`crate::Error::Argument`] while a graph is recorded: another stream that waited for the mark would become part of
    /// it, and what that uses would not be kept; [`crate::Error::Driver`].
    pub fn record(&self, event: &Event) -> Result<()> {
        let recording = self.recording.lock().is_some();
        require!(
            "cuda.record",
            recording = f64::from(u8::from(recording)),
            !recording,
            "a graph has the work of one stream"
        );
        self.gpu.bind()?;
        // SAFETY: both are alive.
        unsafe { call!(cuEventRecord(event.raw, self.raw)) }
    }

    /// What is queued from here on waits for the place that `event` marks.
    ///
    /// # Errors
    /// [`crate::Error::Driver`].
    pub fn wait_for(&self, event: &Event) -> Result<()> {
        self.gpu.bind()?;
        // SAFETY: both are alive; no flags exist.
        unsafe { call!(cuStreamWaitEvent(self.raw, event.raw, 0)) }
    }

    /// Notes that what is queued next uses memory at an address, so that a graph keeps it.
    pub(super) fn uses(&self, address: u64) {
        if let Some(addresses) = self.recording.lock().as_mut() {
            addresses.push(address);
        }
    }

    /// Begins to note, or ends and gives what was noted.
    pub(super) fn note(&self, begin: bool) -> Vec<u64> {
        let before = std::mem::replace(&mut *self.recording.lock(), begin.then(Vec::new));
        before.unwrap_or_default()
    }

    pub(super) fn raw(&self) -> CUstream {
        self.raw
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.gpu.bind().is_ok() {
            // SAFETY: created by `Gpu::stream`; the driver finishes its work first.
            unsafe { sys::cuStreamDestroy_v2(self.raw) };
        }
    }
}

/// A place in a queue, which others can wait for.
#[derive(Debug)]
pub struct Event {
    gpu: Gpu,
    raw: CUevent,
}

// SAFETY: the driver's handles may be used from every thread.
unsafe impl Send for Event {}
// SAFETY: as above.
unsafe impl Sync for Event {}

impl Gpu {
    /// A new mark. Who waits for it sleeps: training does for most of its time. It takes no time.
    ///
    /// # Errors
    /// [`crate::Error::Driver`].
    pub fn event(&self) -> Result<Event> {
        let (sleeps, timeless) = (
            CUevent_flags::CU_EVENT_BLOCKING_SYNC,
            CUevent_flags::CU_EVENT_DISABLE_TIMING,
        );
        self.mark(sleeps as u32 | timeless as u32)
    }

    /// A new mark for [`Event::milliseconds_since`]. Who waits for it keeps a processor busy.
    ///
    /// # Errors
    /// [`crate::Error::Driver`].
    pub fn timed_event(&self) -> Result<Event> {
        self.mark(CUevent_flags::CU_EVENT_DEFAULT as u32)
    }

    fn mark(&self, flags: u32) -> Result<Event> {
        self.bind()?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: the context is the thread's; `raw` outlives the call; the flags are a mark's.
        unsafe { call!(cuEventCreate(&raw mut raw, flags)) }?;
        Ok(Event {
            gpu: self.clone(),
            raw,
        })
    }
}

impl Event {
    /// Waits until the place is reached.
    ///
    /// # Errors
    /// [`crate::Error::Driver`].
    pub fn wait(&self) -> Result<()> {
        self.gpu.bind()?;
        // SAFETY: the event is alive.
        unsafe { call!(cuEventSynchronize(self.raw)) }
    }

    /// Milliseconds from an earlier place to this; both must be reached.
    ///
    /// # Errors
    /// [`crate::Error::Driver`], also for a mark that takes no time.
    pub fn milliseconds_since(&self, earlier: &Event) -> Result<f32> {
        self.gpu.bind()?;
        let mut time = 0.0;
        // SAFETY: both are alive; `time` outlives the call.
        unsafe { call!(cuEventElapsedTime_v2(&raw mut time, earlier.raw, self.raw)) }?;
        Ok(time)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if self.gpu.bind().is_ok() {
            // SAFETY: created by `Gpu::event`.
            unsafe { sys::cuEventDestroy_v2(self.raw) };
        }
    }
}
