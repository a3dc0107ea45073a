//! What a device must offer, so that the policy has one forward and one backward pass for all of them.
//!
//! A pass is written once, in [`crate::model`], over the operations of [`Device`]; a device says how numbers are held. There are two
//! kinds of rows: `Wide` ones are f32 everywhere (the residual stream, gradients), `Narrow` ones are the operands of products (f32 on the
//! CPU, bf16 on a GPU). Every operation sizes its result by itself. **The contract**: a row's bits depend on its own tokens
//! and adapter alone, never on what else is in the batch.
//!
//! Knows models' shapes and adapters; has never heard of requests, files or rewards. Read [`Device`], then [`Cpu`];
//! [`Trains`] is what training needs besides.

mod cpu;
mod cuda;
mod trains;

use crate::adapter::{Adapter, Projection};
use crate::config::ModelConfig;
use crate::error::Result;
use crate::kv::Kv;
use crate::model::{Layer, Scratch, serve};
use crate::sample::Drawn;
use kernels::rope::Table;
use kernels::softmax::Normalizer;
use kernels::{Dtype, Pool};
use std::fmt::Debug;

pub(crate) use cpu::{Cpu, Numbers};
pub(crate) use cuda::{Cuda, Optimizer, Paged, Queue, Sums, There};
pub(crate) use trains::{Attended, Trains};

/// Consecutive rows of one sequence in a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span<'a> {
    /// First row of the batch.
    pub(crate) first: usize,
    /// Rows.
    pub(crate) count: usize,
    /// Position of the first row in its sequence.
    pub(crate) start: usize,
    /// The earlier span of the batch that holds the positions before `start`; none when the cache holds them already.
    pub(crate) parent: Option<usize>,
    pub(crate) adapter: Option<&'a Adapter>,
}

/// What is done with a span and its cache.
pub(crate) type EachCache<'a, D> = dyn Fn(Span<'_>, &mut <D as Device>::Cache) + Sync + 'a;

/// The sequences whose rows are computed together; a parent comes before its children.
pub(crate) trait Sequences<D: Device>: Sync {
    fn count(&self) -> usize;
    fn span(&self, i: usize) -> Span<'_>;
    fn cache(&self, i: usize) -> &D::Cache;
    fn cache_mut(&mut self, i: usize) -> &mut D::Cache;
    /// Calls `work` for every sequence and its cache, on the threads of a pool.
    fn each(&mut self, pool: &Pool, work: &EachCache<'_, D>);
    /// The caches of a parent and its child; none where there are no parents.
    fn family(&mut self, parent: usize, child: usize) -> Option<(&mut D::Cache, &mut D::Cache)>;
}

/// One layer of a pass.
#[derive(Debug)]
pub(crate) struct Site<'a, D: Device> {
    pub(crate) config: &'a ModelConfig,
    pub(crate) weights: &'a Layer<D>,
    pub(crate) angles: &'a D::Angles,
    pub(crate) plan: &'a D::Plan,
    /// The layer, as adapters count.
    pub(crate) layer: usize,
    /// Its place in the caches.
    pub(crate) slot: usize,
}

// Derived, they would ask the device's types to be copied, too.
impl<D: Device> Clone for Site<'_, D> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<D: Device> Copy for Site<'_, D> {}

impl<D: Device> Site<'_, D> {
    pub(crate) fn matrix(&self, map: Map) -> &D::Matrix {
        match map {
            Map::Qkv => &self.weights.qkv,
            Map::O => &self.weights.o,
            Map::GateUp => &self.weights.gate_up,
            Map::Down => &self.weights.down,
        }
    }
}

/// Which of a layer's matrices a product uses, and which adapters lie in which of its columns.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Map {
    /// Queries, keys and values side by side.
    Qkv,
    O,
    /// Gate and up side by side.
    GateUp,
    Down,
}

impl Map {
    /// The projections of a fused matrix and the column at which each begins.
    pub(crate) fn parts(self, config: &ModelConfig) -> ([(Projection, usize); 3], usize) {
        use Projection::{Down, Gate, K, O, Q, Up, V};
        let queries = config.heads * config.head_dim;
        let keys = config.kv_heads * config.head_dim;
        match self {
            Map::Qkv => ([(Q, 0), (K, queries), (V, queries + keys)], 3),
            Map::O => ([(O, 0); 3], 1),
            Map::GateUp => ([(Gate, 0), (Up, config.ffn), (Up, 0)], 2),
            Map::Down => ([(Down, 0); 3], 1),
        }
    }
}

/// A turn on a device that passes share.
pub(crate) trait Turn {
    /// Lets others, who wait, have theirs.
    fn breathe(&mut self);
}

/// Arithmetic on one kind of hardware. Sizes: N rows, C hidden, F feed-forward, V vocabulary.
pub(crate) trait Device: Clone + Debug + Send + Sync + Sized + 'static {
    /// Whether it computes the last layer of a serving pass for those rows alone that get logits.
    const TRIMS: bool;
    /// Rows of f32.
    type Wide: Default + Debug + Send + Sync;
    /// Rows that are multiplied.
    type Narrow: Default + Debug + Send + Sync;
    /// The intermediate results of a layer's adapters.
    type Inner: Default + Debug + Send + Sync;
    /// A matrix (outputs, inputs), ready to multiply with.
    type Matrix: Debug + Send + Sync;
    /// Weights of a norm.
    type Vector: Debug + Send + Sync;
    /// Rotary angles.
    type Angles: Debug + Send + Sync;
    /// Keys and values of one sequence.
    type Cache: Debug + Send + Sync;
    /// What is prepared once for all layers of a pass; its memory serves the next pass, too.
    type Plan: Default + Debug + Send + Sync;
    /// Serving passes that were recorded.
    type Steps: Default + Debug + Send;
    /// What tokens are drawn with.
    type Drawing: Default + Debug + Send + Sync;
    /// What attention leaves for its gradient.
    type Marks: Default + Debug + Send + Sync;
    /// A turn on the device.
    type Turn<'a>: Turn;

    fn enter(&self) -> Self::Turn<'_>;

    /// Packs matrices that lie one under the other.
    fn matrix(&self, parts: &[&[f32]], inputs: usize, dtype: Dtype) -> Result<Self::Matrix>;
    fn vector(&self, values: Vec<f32>) -> Result<Self::Vector>;
    fn angles(&self, table: Table) -> Result<Self::Angles>;
    /// Memory of a matrix.
    fn bytes(matrix: &Self::Matrix) -> usize;
    /// Puts an adapter where passes find it, so that the first one need not wait.
    fn prepare(&self, adapter: &Adapter) -> Result<()>;
    /// Gives a sequence its cache on this device, with room for `tokens` tokens in all.
    fn adopt(&self, kv: &mut Kv, tokens: usize) -> Result<()>;
    /// The cache of a sequence that was adopted.
    fn cached(kv: &Kv) -> &Self::Cache;
    /// The same, to be written.
    fn cached_mut(kv: &mut Kv) -> &mut Self::Cache;
    /// Makes room for what a pass over so many rows writes, where it is worth to do so for all of it at once. Whoever writes makes room, too.
    fn settle(&self, _: &ModelConfig, _: usize, _: &mut serve::Buffers<Self>) {}
    /// This device's buffers among those of a caller, and where results go.
    fn scratch<'a>(
        &self,
        scratch: &'a mut Scratch,
    ) -> (&'a mut serve::Buffers<Self>, &'a mut serve::Results);

    /// Once for a pass, when all caches have room. `tokens`: what will be embedded, if anything.
    fn plan<S: Sequences<Self>>(
        &self,
        config: &ModelConfig,
        batch: &S,
        tokens: &[u32],
        plan: &mut Self::Plan,
    ) -> Result<()>;

    /// Does the arithmetic of a serving pass that was planned, or repeats what it was recorded as when it differs from an earlier one
    /// in nothing but what the plan put on the device. `whole`: every row gets logits, so that they are all that is looked at afterwards.
    fn step(
        &self,
        whole: bool,
        plan: &Self::Plan,
        steps: &mut Self::Steps,
        work: impl FnMut(&Self) -> Result<()>,
    ) -> Result<()>;

    /// `out` (N, C): the embeddings of the tokens that were planned.
    fn embed(
        &self,
        table: &Self::Matrix,
        tokens: &[u32],
        plan: &Self::Plan,
        out: &mut Self::Wide,
    ) -> Result<()>;

    /// `out` = x / rms(x) · weight, row by row.
    fn norm(
        &self,
        config: &ModelConfig,
        x: &Self::Wide,
        weight: &Self::Vector,
        out: &mut Self::Narrow,
    ) -> Result<()>;

    /// `y` = x·Wᵀ + adapters; keeps the adapters' inner results.
    fn linear<S: Sequences<Self>>(
        &self,
        at: Site<'_, Self>,
        map: Map,
        batch: &S,
        x: &Self::Narrow,
        inner: &mut Self::Inner,
        y: &mut Self::Narrow,
    ) -> Result<()>;

    /// `y` = (x·Wᵀ + adapters) + residual.
    #[expect(
        clippy::too_many_arguments,
        reason = "one fused product: operands, adapters, residual, results"
    )]
    fn linear_add<S: Sequences<Self>>(
        &self,
        at: Site<'_, Self>,
        map: Map,
        batch: &S,
        x: &Self::Narrow,
        residual: &Self::Wide,
        inner: &mut Self::Inner,
        y: &mut Self::Wide,
    ) -> Result<()>;

    /// Norms the heads (QK-norm), rotates queries and keys by their positions, and writes keys and values to the caches. What attention
    /// needs is afterwards in `qkv` and `beside` together; so is what was there before, for the gradient.
    fn place<S: Sequences<Self>>(
        &self,
        at: Site<'_, Self>,
        batch: &mut S,
        qkv: &mut Self::Narrow,
        beside: &mut Self::Narrow,
    ) -> Result<()>;

    /// `out` (N, H·D): causal attention over the caches, of what was placed.
    fn attend<S: Sequences<Self>>(
        &self,
        at: Site<'_, Self>,
        batch: &S,
        placed: (&Self::Narrow, &Self::Narrow),
        out: &mut Self::Narrow,
        marks: &mut Self::Marks,
    ) -> Result<()>;

    /// `out` (N, F) = silu(gate)·up.
    fn swiglu(&self, f: usize, gate_up: &Self::Narrow, out: &mut Self::Narrow) -> Result<()>;

    /// `out`: some rows of `from` (·, C).
    fn gather(
        &self,
        width: usize,
        from: &Self::Wide,
        rows: &[usize],
        out: &mut Self::Wide,
    ) -> Result<()>;

    /// Keeps some rows, ascending, of what was placed, where [`Device::TRIMS`] is true.
    fn trim(&self, config: &ModelConfig, rows: &[usize], qkv: &mut Self::Narrow) -> Result<()>;

    /// x·Wᵀ (N, V): in `out`, in the host's memory, or in `space`, from where [`Device::hand_over`] brings it.
    fn logits(
        &self,
        x: &Self::Narrow,
        w: &Self::Matrix,
        space: &mut Self::Wide,
        out: &mut Vec<f32>,
    ) -> Result<()>;

    /// Draws the tokens that are asked for, with log-probs by the arithmetic of [`Device::log_probs`], and brings the logits that are
    /// asked for to the host's memory, one row after another.
    fn hand_over(
        &self,
        vocab: usize,
        logits: &mut Self::Wide,
        asked: &serve::Asked,
        space: &mut Self::Drawing,
        drawn: &mut Vec<Drawn>,
        out: &mut Vec<f32>,
    ) -> Result<()>;

    /// What turns a row of [`Device::logits`] into log-probs: the arithmetic of [`Device::log_probs`].
    fn normalizer(&self, logits: &[f32], temperature: f32) -> Result<Normalizer>;
}
