//! Parameters of an adapter and AdamW's moments in a GPU's memory.

use super::Cuda;
use super::memory::Queue;
use crate::adapter::AdapterGrads;
use crate::device::Trains;
use crate::error::Result;
use kernels::adamw::AdamW;
use kernels::cuda::Buffer;
use kernels::cuda::adamw::{self, State};

/// Three numbers a parameter, in an adapter's flat order.
#[derive(Debug)]
pub(crate) struct Optimizer {
    queue: Queue,
    params: Buffer<f32>,
    moments: [Buffer<f32>; 2],
    /// What multiplies each gradient: (1).
    factor: Buffer<f32>,
}

impl Optimizer {
    pub(crate) fn new(device: &Cuda, params: &[f32], moments: [&[f32]; 2]) -> Result<Optimizer> {
        let queue = Queue::of(&device.background());
        let on = &queue.stream;
        let [first, second] = moments;
        Ok(Optimizer {
            params: on.upload(params)?,
            moments: [on.upload(first)?, on.upload(second)?],
            factor: on.upload(&[1.0])?,
            queue,
        })
    }

    pub(crate) fn copy(&self) -> Result<Optimizer> {
        let (on, gpu) = (&self.queue.stream, self.queue.stream.gpu());
        let again = |from: &Buffer<f32>| -> Result<Buffer<f32>> {
            let mut to = gpu.buffer(from.len())?;
            on.copy(from.view(), &mut to.view_mut())?;
            Ok(to)
        };
        let [first, second] = &self.moments;
        Ok(Optimizer {
            queue: self.queue.clone(),
            params: again(&self.params)?,
            moments: [again(first)?, again(second)?],
            factor: again(&self.factor)?,
        })
    }

    pub(crate) fn moments(&self) -> Result<[Vec<f32>; 2]> {
        let [first, second] = &self.moments;
        let on = &*self.queue.stream;
        Ok([on.download(first.view())?, on.download(second.view())?])
    }

    /// One step; the parameters afterwards.
    pub(crate) fn step(
        &mut self,
        settings: &AdamW,
        step: u64,
        scale: f32,
        grads: &AdapterGrads,
    ) -> Result<Vec<f32>> {
        let on = &*self.queue.stream;
        let uploaded;
        let grads = match grads.on_gpu_of(&self.queue) {
            Some(view) => view,
            None => {
                uploaded = on.upload(&grads.values()?)?;
                uploaded.view()
            }
        };
        on.write(&[scale], &mut self.factor.view_mut())?;
        let [first, second] = &mut self.moments;
        let mut state = State {
            params: self.params.view_mut(),
            first: first.view_mut(),
            second: second.view_mut(),
            rounded: None,
        };
        adamw::step(on, settings, step, grads, self.factor.view(), &mut state)?;
        Ok(on.download(self.params.view())?)
    }
}
