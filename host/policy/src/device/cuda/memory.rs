//! Rows in a GPU's memory: buffers that grow to the largest pass and stay.

use super::Cuda;
use crate::error::Result;
use kernels::cuda::{Buffer, Element, Stream, View, ViewMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How often rows of a queue's work got new memory: its launches that were recorded before may use the old. Those of training are none of
/// serving's.
#[derive(Default, Debug)]
pub(super) struct Growth(AtomicU64);

impl Growth {
    pub(super) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A model's queue, for what may outlive the model: its weights and pages do not live on with it.
#[derive(Clone, Debug)]
pub(crate) struct Queue {
    number: u64,
    pub(super) stream: Arc<Stream>,
}

impl Queue {
    pub(super) fn of(device: &Cuda) -> Queue {
        Queue {
            number: device.shared.number,
            stream: Arc::clone(&device.stream),
        }
    }

    /// Whether it is the same model's.
    pub(super) fn is_with(&self, other: &Queue) -> bool {
        self.number == other.number
    }
}

/// A caller's buffers of one model; another gets new ones, on the same GPU, too: they have the shapes of the one, and its queues use them.
#[derive(Debug)]
pub(crate) struct There<T>(Option<(u64, Box<T>)>);

impl<T> Default for There<T> {
    fn default() -> Self {
        There(None)
    }
}

impl<T: Default> There<T> {
    pub(super) fn of(&mut self, device: &Cuda) -> &mut T {
        let number = device.shared.number;
        let there = self.0.take().filter(|(of, _)| *of == number);
        let there = there.unwrap_or_else(|| (number, Box::default()));
        &mut self.0.insert(there).1
    }
}

/// Numbers on a GPU that keep their memory when they become fewer.
#[derive(Debug)]
pub(crate) struct Grown<T> {
    buffer: Option<Buffer<T>>,
    len: usize,
}

impl<T> Default for Grown<T> {
    fn default() -> Self {
        Grown {
            buffer: None,
            len: 0,
        }
    }
}

impl<T: Element> Grown<T> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Exactly `len` numbers, with whatever is in them.
    pub(super) fn fit(&mut self, device: &Cuda, len: usize) -> Result<ViewMut<'_, T>> {
        let buffer = match self.buffer.take() {
            Some(buffer) if buffer.len() >= len => buffer,
            // A little more than asked: a batch that grows row by row does not allocate at each.
            _ => {
                device.growth().0.fetch_add(1, Ordering::Relaxed);
                device.gpu().buffer(len + len / 4)?
            }
        };
        self.len = len;
        Ok(self.buffer.insert(buffer).part_mut(0..len)?)
    }

    /// What was written.
    pub(super) fn view(&self) -> Result<View<'_, T>> {
        match &self.buffer {
            Some(buffer) => Ok(buffer.view().part(0..self.len)?),
            None => Err(unwritten()),
        }
    }

    /// What was written, to be changed.
    pub(super) fn view_mut(&mut self) -> Result<ViewMut<'_, T>> {
        match &mut self.buffer {
            Some(buffer) => Ok(buffer.part_mut(0..self.len)?),
            None => Err(unwritten()),
        }
    }
}

fn unwritten() -> crate::Error {
    crate::Error::Compute(kernels::Error::Argument {
        op: "policy.cuda",
        what: "buffer",
        rule: "it is written before it is read",
        found: 0.0,
    })
}
