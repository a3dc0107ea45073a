//! Gradients of an adapter's parameters, where the model computes that made them.
//!
//! Backward passes add to them; on a GPU they stay there from pass to pass, and come to the host when they are asked for. Does not know what is
//! done with them. Start at [`AdapterGrads::zeros`].

use super::{Adapter, Layout, Projection};
use crate::device::{Queue, Sums};
use crate::error::Result;
use kernels::Pool;
use kernels::cuda::View;
use std::borrow::Cow;

/// Gradients of an adapter's parameters, in the flat order; backward passes add to them.
#[derive(Debug)]
pub struct AdapterGrads {
    layout: Layout,
    /// Where they are, if not in `host`.
    gpu: Option<Sums>,
    /// Empty while they are on a GPU.
    host: Vec<f32>,
}

/// Gradients in the host's memory, to be added to.
#[derive(Debug)]
pub(crate) struct HostGrads<'a> {
    layout: &'a Layout,
    values: &'a mut [f32],
}

impl AdapterGrads {
    /// Zeros for this adapter.
    pub fn zeros(adapter: &Adapter) -> AdapterGrads {
        AdapterGrads {
            layout: adapter.layout.clone(),
            gpu: None,
            host: vec![0.0; adapter.params.len()],
        }
    }

    /// The gradients, in the flat order.
    ///
    /// # Errors
    /// [`Error::Compute`](crate::Error::Compute) of a GPU that they are on.
    pub fn values(&self) -> Result<Cow<'_, [f32]>> {
        match &self.gpu {
            None => Ok(Cow::Borrowed(&self.host)),
            Some(sums) => Ok(Cow::Owned(sums.values()?)),
        }
    }

    /// Their Euclidean norm, summed in f64 in an order that is the same every time on one kind of device.
    ///
    /// # Errors
    /// As [`AdapterGrads::values`].
    pub fn norm(&self, pool: &Pool) -> Result<f64> {
        match &self.gpu {
            None => Ok(kernels::adamw::norm(pool, &self.host)),
            Some(sums) => sums.norm(),
        }
    }

    /// Back to zeros.
    pub fn clear(&mut self) {
        match &mut self.gpu {
            None => self.host.fill(0.0),
            Some(sums) => sums.clear(),
        }
    }

    /// Where they are on the GPU of a model, if they are with that and not zeros.
    pub(crate) fn on_gpu_of(&self, queue: &Queue) -> Option<View<'_, f32>> {
        let sums = self.gpu.as_ref().filter(|sums| sums.are_of(queue));
        sums.and_then(Sums::view)
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.layout.len()
    }

    /// Whether these are gradients of such an adapter.
    pub(crate) fn fits(&self, adapter: &Adapter) -> bool {
        self.layout == adapter.layout
    }

    /// Brings them to the host.
    pub(crate) fn on_host(&mut self) -> Result<HostGrads<'_>> {
        if let Some(sums) = &self.gpu {
            self.host = sums.values()?;
            self.gpu = None;
        }
        let (layout, values) = (&self.layout, &mut self.host[..]);
        Ok(HostGrads { layout, values })
    }

    /// Brings them to the GPU of a model, if they are not with that.
    pub(crate) fn on_gpu(&mut self, queue: &Queue) -> Result<&mut Sums> {
        let sums = match self.gpu.take() {
            Some(sums) if sums.are_of(queue) => sums,
            // They stay where they are until they are there.
            Some(sums) => match sums.values().and_then(|values| Sums::of(queue, &values)) {
                Ok(there) => there,
                Err(error) => {
                    self.gpu = Some(sums);
                    return Err(error);
                }
            },
            None => {
                let sums = Sums::of(queue, &self.host)?;
                self.host = Vec::new();
                sums
            }
        };
        Ok(self.gpu.insert(sums))
    }
}

impl HostGrads<'_> {
    /// The gradients of A and B of some projections of a layer, which ascend.
    pub(crate) fn pairs(
        &mut self,
        layer: usize,
        projections: impl Iterator<Item = Projection>,
    ) -> impl Iterator<Item = (&mut [f32], &mut [f32])> {
        let (layout, mut rest, mut skipped) = (self.layout, &mut *self.values, 0);
        projections.map(move |projection| {
            let (a, b) = layout.at(layer, projection);
            let from = std::mem::take(&mut rest).split_at_mut(a.start - skipped).1;
            let (both, later) = from.split_at_mut(b.end - a.start);
            (rest, skipped) = (later, b.end);
            both.split_at_mut(a.len())
        })
    }
}
