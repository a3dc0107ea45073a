//! An adapter in training: its parameters, and AdamW's two moments of each, where its model computes.
//!
//! The parameters are in the host's memory, too, because they are served, hashed and stored; on a GPU the moments come there when they are
//! asked for. The bits of a step are the same everywhere. Does not know what is trained for, or when. Start at [`Trainee::step`].

use crate::adapter::{Adapter, AdapterGrads};
use crate::device::Optimizer;
use crate::error::{Error, Result};
use crate::model::Model;
use kernels::adamw::{self, AdamW};
use std::borrow::Cow;
use std::sync::Arc;

/// An adapter and what AdamW remembers of it.
#[derive(Debug)]
pub struct Trainee {
    adapter: Arc<Adapter>,
    moments: Moments,
}

/// Where they are.
#[derive(Debug)]
enum Moments {
    Host { first: Vec<f32>, second: Vec<f32> },
    Gpu(Optimizer),
}

impl Trainee {
    /// An adapter on the device of a model, with its first and second moments; they have no numbers before the first step.
    ///
    /// # Errors
    /// [`Error::AdapterSetting`] for moments of another number of parameters; [`Error::Compute`] of a GPU.
    pub fn new(
        model: &Model,
        adapter: Arc<Adapter>,
        [mut first, mut second]: [Vec<f32>; 2],
    ) -> Result<Trainee> {
        let params = adapter.params().len();
        for moment in [&mut first, &mut second] {
            if moment.is_empty() {
                moment.resize(params, 0.0);
            }
            same("moments", moment.len(), params)?;
        }
        let moments = match model.optimizer(adapter.params(), [&first, &second])? {
            Some(on_gpu) => Moments::Gpu(on_gpu),
            None => Moments::Host { first, second },
        };
        Ok(Trainee { adapter, moments })
    }

    /// The adapter as it is now.
    pub fn adapter(&self) -> &Arc<Adapter> {
        &self.adapter
    }

    /// The first and the second moments, in the adapter's flat order.
    ///
    /// # Errors
    /// [`Error::Compute`] of a GPU that they are on.
    pub fn moments(&self) -> Result<[Cow<'_, [f32]>; 2]> {
        match &self.moments {
            Moments::Host { first, second } => Ok([Cow::Borrowed(first), Cow::Borrowed(second)]),
            Moments::Gpu(optimizer) => Ok(optimizer.moments()?.map(Cow::Owned)),
        }
    }

    /// Another with the same numbers.
    ///
    /// # Errors
    /// [`Error::Compute`] of a GPU without enough memory.
    pub fn copy(&self) -> Result<Trainee> {
        let moments = match &self.moments {
            Moments::Host { first, second } => Moments::Host {
                first: first.clone(),
                second: second.clone(),
            },
            Moments::Gpu(optimizer) => Moments::Gpu(optimizer.copy()?),
        };
        let adapter = Arc::clone(&self.adapter);
        Ok(Trainee { adapter, moments })
    }

    /// One AdamW step, the `step`th, counted from 1. `scale` multiplies each gradient (the clip).
    ///
    /// # Errors
    /// [`Error::AdapterSetting`] for another adapter's gradients; [`Error::Compute`] for step 0, or of a GPU.
    pub fn step(
        &mut self,
        model: &Model,
        settings: &AdamW,
        step: u64,
        scale: f32,
        grads: &AdapterGrads,
    ) -> Result<()> {
        same("gradients", grads.count(), self.adapter.params().len())?;
        match &mut self.moments {
            Moments::Gpu(optimizer) => {
                let params = optimizer.step(settings, step, scale, grads)?;
                self.adapter = Arc::new(self.adapter.replaced(params));
                Ok(())
            }
            Moments::Host { first, second } => {
                let (pool, grads) = (model.pool(), grads.values()?);
                let mut done = Ok(());
                Arc::make_mut(&mut self.adapter).update(|params| {
                    done = adamw::step(pool, settings, step, scale, params, &grads, first, second);
                });
                Ok(done?)
            }
        }
    }
}

fn same(what: &'static str, found: usize, params: usize) -> Result<()> {
    if found == params {
        return Ok(());
    }
    Err(Error::AdapterSetting {
        what,
        found: found as f64,
        rule: "the adapter has another number of parameters",
    })
}
