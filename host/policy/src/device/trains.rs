//! What a device must offer beyond a forward pass, so that an adapter can be trained on it.
//!
//! Gradients are `d` + name. Read [`Trains`] after [`Device`]; the pass that uses it is [`crate::model`]'s backward one.

use super::{Device, Map, Sequences, Site};
use crate::adapter::{Adapter, AdapterGrads};
use crate::config::ModelConfig;
use crate::error::Result;
use crate::model::backward::Gradients;
use crate::model::{Tape, train};
use kernels::CacheShape;
use kernels::output::Wanted;
use kernels::softmax::Target;
use std::fmt::Debug;

/// The attention half of a layer, as its gradient needs it.
#[derive(Debug)]
pub(crate) struct Attended<'a, D: Device> {
    /// What [`Device::place`] left.
    pub(crate) placed: (&'a D::Narrow, &'a D::Narrow),
    /// (N, H·D) the result.
    pub(crate) out: &'a D::Narrow,
    pub(crate) marks: &'a D::Marks,
    /// Its gradient.
    pub(crate) dout: &'a D::Wide,
}

/// The gradients of [`Device`]'s arithmetic. Sizes: N rows, C hidden, F feed-forward.
pub(crate) trait Trains: Device {
    /// Sequences can share their beginnings in multiples of so many tokens.
    const SHARES: usize;
    /// Rows up to which passes are filled with any sequences, because few rows leave the device idle.
    const FILLED: Option<usize>;
    /// What the output layer leaves for its gradient.
    type Output: Default + Debug + Send;
    /// Space of the backward pass.
    type Space: Default + Debug + Send;
    /// Gradients of an adapter, on this device, while a backward pass adds to them.
    type Grads<'a>;

    /// The same device for work that may wait while somebody is served.
    #[must_use]
    fn background(&self) -> Self;

    /// How many layers of a pass may keep their intermediate results, which take `bytes` a row and layer on the CPU, when the host's memory
    /// has `budget` for them. No result depends on it.
    fn keeps(&self, budget: usize, rows: usize, bytes: usize) -> Result<usize>;

    /// As [`Device::settle`], for a pass of training.
    fn settle_tape(&self, _: &ModelConfig, _: usize, _: &mut train::Buffers<Self>) {}

    /// As [`Device::settle`], for a backward pass.
    fn settle_gradients(&self, _: &ModelConfig, _: usize, _: &mut Gradients<Self>) {}

    /// A cache for each sequence, with room for so many tokens; what is there is used again.
    fn caches(
        &self,
        shape: CacheShape,
        sequences: &[usize],
        caches: &mut Vec<Self::Cache>,
    ) -> Result<()>;
    /// This device's buffers among those of a caller, and what the pass was asked.
    fn tape<'a>(&self, tape: &'a mut Tape) -> (&'a mut train::Buffers<Self>, &'a mut train::Asked);

    /// Only the adapter's inner results of [`Device::linear`], for rows that have the same adapter.
    fn inner(
        &self,
        at: Site<'_, Self>,
        map: Map,
        adapter: &Adapter,
        x: &Self::Narrow,
        inner: &mut Self::Inner,
    ) -> Result<()>;

    /// `len` zeros.
    fn zeros(&self, len: usize, out: &mut Self::Wide) -> Result<()>;

    /// `out` (`total`, C): zeros, but `rows` are those of `from`.
    fn scatter(
        &self,
        width: usize,
        from: &Self::Wide,
        rows: &[usize],
        total: usize,
        out: &mut Self::Wide,
    ) -> Result<()>;

    /// `out[i]`: the log-prob of target i, whose row counts rows of `x`. Lets others have their turn between tiles.
    fn log_probs(
        &self,
        turn: &mut Self::Turn<'_>,
        x: &Self::Narrow,
        w: &Self::Matrix,
        wanted: Wanted<'_>,
        output: &mut Self::Output,
        out: &mut [f32],
    ) -> Result<()>;

    /// `dx` by the rows of `x`, given `upstream` gradients of the targets' log-probs; `output` is what [`Device::log_probs`] left.
    #[expect(
        clippy::too_many_arguments,
        reason = "one fused op: product, softmax, choice"
    )]
    fn log_probs_backward(
        &self,
        turn: &mut Self::Turn<'_>,
        x: &Self::Narrow,
        w: &Self::Matrix,
        targets: &[Target],
        upstream: &[f32],
        output: &mut Self::Output,
        dx: &mut Self::Wide,
    ) -> Result<()>;

    /// Begins to add to `grads`, which come to this device if they are elsewhere.
    fn open<'a>(&self, grads: &'a mut AdapterGrads) -> Result<Self::Grads<'a>>;

    /// A gradient as an operand of products; `space` holds it where it must be another.
    fn operand<'a>(
        &self,
        dx: &'a Self::Wide,
        space: &'a mut Self::Narrow,
    ) -> Result<&'a Self::Narrow>;

    /// `dx` by the input `x` of a product, overwritten; adds to the gradients of the adapter. All rows have the same adapter.
    #[expect(
        clippy::too_many_arguments,
        reason = "the gradient of one fused product"
    )]
    fn linear_backward(
        &self,
        at: Site<'_, Self>,
        map: Map,
        adapter: &Adapter,
        x: &Self::Narrow,
        inner: &Self::Inner,
        dy: &Self::Narrow,
        dx: &mut Self::Wide,
        grads: &mut Self::Grads<'_>,
        space: &mut Self::Space,
    ) -> Result<()>;

    /// `dx` += the gradient of [`Device::norm`].
    fn norm_backward(
        &self,
        config: &ModelConfig,
        x: &Self::Wide,
        weight: &Self::Vector,
        dy: &Self::Wide,
        dx: &mut Self::Wide,
    ) -> Result<()>;

    /// `dgate_up` (N, 2F). `gate_up` may be overwritten.
    fn swiglu_backward(
        &self,
        f: usize,
        gate_up: &mut Self::Narrow,
        dgated: &Self::Wide,
        dgate_up: &mut Self::Narrow,
    ) -> Result<()>;

    /// `dqkv` (N, (H + 2K)·D): the gradient of [`Device::place`] and [`Device::attend`] together. The caches are overwritten.
    fn attend_backward<S: Sequences<Self>>(
        &self,
        at: Site<'_, Self>,
        batch: &mut S,
        forward: Attended<'_, Self>,
        dqkv: &mut Self::Narrow,
        space: &mut Self::Space,
    ) -> Result<()>;
}
