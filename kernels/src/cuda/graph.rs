//! Launches that are recorded once and repeated as one: what a decode step costs a CPU then no longer depends on its
//! number of kernels.

use std::sync::Arc;

use cudarc::driver::sys::{self, CUgraphExec, CUstreamCaptureMode};

use super::buffer::Memory;
use super::driver::call;
use super::{Gpu, Stream};
use crate::Result;

/// Recorded launches. They keep the memory that they were recorded with, not what tables in it point to.
#[derive(Debug)]
pub struct Graph {
    gpu: Gpu,
    raw: CUgraphExec,
    _memory: Vec<Arc<Memory>>,
}

// SAFETY: the driver's handles may be used from every thread, one at a time, which `&mut` ensures.
unsafe impl Send for Graph {}

impl Stream {
    /// Records what `work` queues on this stream instead of doing it.
    ///
    /// # Errors
    /// Those of `work`; [`crate::Error::Driver`], for work that cannot be recorded (copies of pageable memory, waits).
    pub fn capture(&self, work: impl FnOnce(&Stream) -> Result<()>) -> Result<Graph> {
        self.gpu().bind()?;
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is alive.
        unsafe { call!(cuStreamBeginCapture_v2(self.raw(), mode)) }?;
        self.note(true);
        let worked = work(self);
        let mut addresses = self.note(false);
        let mut graph = std::ptr::null_mut();
        // SAFETY: ends what began above, also when `work` failed.
        let ended = unsafe { call!(cuStreamEndCapture(self.raw(), &raw mut graph)) };
        if let Err(error) = worked.and(ended) {
            if !graph.is_null() {
                // SAFETY: given by the driver above, and nobody else has it.
                unsafe { sys::cuGraphDestroy(graph) };
            }
            return Err(error);
        }
        let mut raw = std::ptr::null_mut();
        // SAFETY: the graph was given by the driver above.
        let made = unsafe { call!(cuGraphInstantiateWithFlags(&raw mut raw, graph, 0)) };
        // SAFETY: as above; what was instantiated does not need it.
        unsafe { sys::cuGraphDestroy(graph) };
        made?;
        addresses.sort_unstable();
        addresses.dedup();
        let memory = addresses.iter().filter_map(|&at| self.gpu().allocation(at));
        Ok(Graph {
            gpu: self.gpu().clone(),
            raw,
            _memory: memory.collect(),
        })
    }

    /// Queues the launches of a graph, on this or another stream than the one that it was recorded on.
    ///
    /// # Errors
    /// [`crate::Error::Driver`].
    pub fn replay(&self, graph: &mut Graph) -> Result<()> {
        self.gpu().bind()?;
        // SAFETY: both are alive, and the graph keeps the memory that its launches were checked against.
        unsafe { call!(cuGraphLaunch(graph.raw, self.raw())) }
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        if self.gpu.bind().is_ok() {
            // SAFETY: instantiated by `Stream::capture`.
            unsafe { sys::cuGraphExecDestroy(self.raw) };
        }
    }
}
