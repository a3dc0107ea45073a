//! An NVIDIA GPU: rows are buffers in its memory, every operation one of [`kernels::cuda`], queued and not waited for.
//!
//! Serving and training have a queue each, serving's first; both read the same weights where they are. Operands of products are bf16, rounded
//! once; the residual stream and gradients are f32. Start at [`Cuda::open`].

mod draw;
mod gradients;
mod memory;
mod optimizer;
mod output;
mod pages;
mod plan;
mod products;
mod shelf;
mod steps;

use super::{Device, Map, Sequences, Site, Turn};
use crate::adapter::Adapter;
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::kv::Kv;
use crate::model::{Scratch, serve};
use crate::sample::Drawn;
use draw::Drawing;
pub(crate) use gradients::Sums;
use half::bf16;
use kernels::cuda::adapters::{Shape, Table};
use kernels::cuda::gemm;
use kernels::cuda::kv::PAGE;
use kernels::cuda::{
    Buffer, Element, Event, Gpu, Priority, Stream, attention, decode_attention, embed, rmsnorm,
    swiglu,
};
use kernels::rope::Table as Angles;
use kernels::softmax::Normalizer;
use kernels::{CacheShape, Dtype};
use memory::{Grown, Growth};
pub(crate) use memory::{Queue, There};
pub(crate) use optimizer::Optimizer;
pub(crate) use pages::Cache;
pub(crate) use pages::Cache as Paged;
use pages::Pages;
use parking_lot::Mutex;
use plan::Plan;
use shelf::{Packing, Shelf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use steps::Steps;

/// The largest rank of an adapter.
pub(crate) const RANK: usize = 64;

/// A queue of a GPU, and what all its queues share.
#[derive(Clone, Debug)]
pub(crate) struct Cuda {
    shared: Arc<Shared>,
    stream: Arc<Stream>,
    training: bool,
}

#[derive(Debug)]
struct Shared {
    /// Which of the models on this machine's GPUs it is, as they were opened.
    number: u64,
    gpu: Gpu,
    back: Arc<Stream>,
    /// Of serving, of training.
    growth: [Growth; 2],
    /// Keys and values of everything that is served.
    pages: Arc<Pages>,
    table: Table,
    shelf: Mutex<Shelf>,
    packing: Mutex<Packing>,
    /// Space of one row's normalizer.
    one: Mutex<Option<output::One>>,
    /// Of serving, of training: reached when all that was queued there, before adapters were let go of for the last time, is done.
    let_go: [Event; 2],
    /// Of the layers that training queued last.
    paces: [Event; 2],
    /// Bytes that training may keep of intermediate results, once it began.
    kept: OnceLock<u64>,
}

/// Models that were opened.
static OPENED: AtomicU64 = AtomicU64::new(0);

/// A matrix (outputs, inputs), row-major.
#[derive(Debug)]
pub(crate) struct Matrix {
    data: Buffer<bf16>,
    map: Shape,
}

/// How far a pass runs ahead of the GPU: serving as far as it likes, it waits for each result; training two layers, so that the GPU finds
/// work at all times. A driver's queue is bounded: who adds to a full one waits inside of the driver, where others may meet him.
#[derive(Debug)]
pub(crate) struct Pace<'a> {
    training: Option<&'a Cuda>,
    layers: usize,
}

impl Turn for Pace<'_> {
    fn breathe(&mut self) {
        let Some(device) = self.training else { return };
        let mark = &device.shared.paces[self.layers % 2];
        self.layers += 1;
        // Whatever fails here, the next launch fails, too, and says so.
        let _ = mark.wait().and_then(|()| device.stream.record(mark));
    }
}

impl Cuda {
    /// Opens a GPU for models of this shape, with room for `tokens` tokens of keys and values.
    ///
    /// # Errors
    /// [`Error::Compute`] without a GPU, without enough memory, or for a model whose sizes no kernel is made for.
    pub(crate) fn open(index: usize, config: &ModelConfig, tokens: usize) -> Result<Cuda> {
        check(config)?;
        let gpu = Gpu::open(index)?;
        let front = Arc::new(gpu.stream(Priority::High)?);
        let back = Arc::new(gpu.stream(Priority::Low)?);
        let shape = CacheShape {
            layers: config.layers,
            kv_heads: config.kv_heads,
            head_dim: config.head_dim,
        };
        let pages = Pages::new(&gpu, shape, tokens.div_ceil(PAGE))?;
        let table = shelf::table(&front, config, RANK)?;
        let packing = Packing::new(&gpu)?;
        // The empty table is read from every queue.
        front.wait()?;
        Ok(Cuda {
            shared: Arc::new(Shared {
                number: OPENED.fetch_add(1, Ordering::Relaxed),
                back,
                growth: Default::default(),
                pages,
                table,
                shelf: Mutex::default(),
                packing: Mutex::new(packing),
                one: Mutex::new(None),
                let_go: [gpu.event()?, gpu.event()?],
                paces: [gpu.event()?, gpu.event()?],
                kept: OnceLock::new(),
                gpu,
            }),
            stream: front,
            training: false,
        })
    }

    fn gpu(&self) -> &Gpu {
        &self.shared.gpu
    }

    fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Of this queue's rows.
    fn growth(&self) -> &Growth {
        &self.shared.growth[usize::from(self.training)]
    }

    /// Copies to the GPU.
    fn put<T: Element>(&self, from: &[T], to: &mut Grown<T>) -> Result<()> {
        Ok(self.stream.write(from, &mut to.fit(self, from.len())?)?)
    }
}

/// Refuses sizes that no kernel is made for.
fn check(config: &ModelConfig) -> Result<()> {
    let refuse = |what, rule, found: usize| {
        let op = "a model on a GPU";
        let found = found as f64;
        Err(Error::Compute(kernels::Error::Argument {
            op,
            what,
            rule,
            found,
        }))
    };
    let d = config.head_dim;
    if !matches!(d, 64 | 128) {
        return refuse(
            "head_dim",
            "kernels are made for heads of 64 and 128 elements",
            d,
        );
    }
    for (what, size) in [
        ("hidden", config.hidden),
        ("ffn", config.ffn),
        ("vocab_size", config.vocab_size),
    ] {
        if !size.is_multiple_of(16) {
            return refuse(what, "kernels take multiples of 16", size);
        }
    }
    if config.heads > 16 * config.kv_heads {
        return refuse("heads", "at most 16 share a key head", config.heads);
    }
    Ok(())
}

/// What holds the keys and values of a batch.
fn pool<S: Sequences<Cuda>>(batch: &S) -> Option<Arc<Pages>> {
    (batch.count() > 0).then(|| Arc::clone(batch.cache(0).pages()))
}

fn queries<'a>(at: Site<'_, Cuda>, q: &'a Grown<bf16>) -> Result<attention::Queries<'a>> {
    Ok(attention::Queries {
        data: q.view()?,
        ld: at.config.heads * at.config.head_dim,
    })
}

impl Device for Cuda {
    /// The plan that is on the device is of all rows.
    const TRIMS: bool = false;
    type Wide = Grown<f32>;
    type Narrow = Grown<bf16>;
    type Inner = [Grown<bf16>; 4];
    type Matrix = Matrix;
    type Vector = Buffer<f32>;
    type Angles = Buffer<f32>;
    type Cache = Cache;
    type Plan = Plan;
    type Steps = Steps;
    type Drawing = Drawing;
    type Marks = Grown<f32>;
    type Turn<'a> = Pace<'a>;

    fn enter(&self) -> Pace<'_> {
        Pace {
            training: self.training.then_some(self),
            layers: 0,
        }
    }

    fn matrix(&self, parts: &[&[f32]], inputs: usize, _: Dtype) -> Result<Matrix> {
        let narrow: Vec<bf16> = parts
            .iter()
            .flat_map(|part| part.iter().map(|v| bf16::from_f32(*v)))
            .collect();
        let map = Shape {
            outputs: narrow.len() / inputs,
            inputs,
        };
        Ok(Matrix {
            data: self.stream.upload(&narrow)?,
            map,
        })
    }

    fn vector(&self, values: Vec<f32>) -> Result<Buffer<f32>> {
        Ok(self.stream.upload(&values)?)
    }

    fn angles(&self, table: Angles) -> Result<Buffer<f32>> {
        let angles = self.stream.upload(table.values())?;
        // The last of the weights: whoever computes on another queue finds all of them.
        self.stream.wait()?;
        Ok(angles)
    }

    fn bytes(matrix: &Matrix) -> usize {
        matrix.data.len() * size_of::<bf16>()
    }

    fn prepare(&self, adapter: &Adapter) -> Result<()> {
        self.lease(adapter).map(drop)
    }

    fn adopt(&self, kv: &mut Kv, tokens: usize) -> Result<()> {
        let (filled, pages) = (kv.len(), &self.shared.pages);
        let own = |cache: &Cache| Arc::ptr_eq(cache.pages(), pages);
        kv.pages_or(own, || Cache::new(Arc::clone(pages)))?
            .hold(self.stream(), filled, tokens)
    }

    #[expect(clippy::expect_used, reason = "a pass adopts its sequences first")]
    fn cached(kv: &Kv) -> &Cache {
        kv.pages().expect("it was adopted")
    }

    #[expect(clippy::expect_used, reason = "a pass adopts its sequences first")]
    fn cached_mut(kv: &mut Kv) -> &mut Cache {
        kv.pages_mut().expect("it was adopted")
    }

    fn scratch<'a>(
        &self,
        scratch: &'a mut Scratch,
    ) -> (&'a mut serve::Buffers<Cuda>, &'a mut serve::Results) {
        (scratch.cuda.of(self), &mut scratch.results)
    }

    fn plan<S: Sequences<Cuda>>(
        &self,
        config: &ModelConfig,
        batch: &S,
        tokens: &[u32],
        plan: &mut Plan,
    ) -> Result<()> {
        plan.lay(self, config, batch, tokens)
    }

    fn step(
        &self,
        whole: bool,
        plan: &Plan,
        steps: &mut Steps,
        mut work: impl FnMut(&Cuda) -> Result<()>,
    ) -> Result<()> {
        match plan.kind() {
            Some(kind) if whole => steps.run(self, kind, work),
            _ => work(self),
        }
    }

    fn embed(
        &self,
        table: &Matrix,
        tokens: &[u32],
        plan: &Plan,
        out: &mut Grown<f32>,
    ) -> Result<()> {
        let mut out = out.fit(self, tokens.len() * table.map.inputs)?;
        let (weights, vocab) = (table.data.view(), table.map.outputs);
        Ok(embed::forward(
            self.stream(),
            weights,
            vocab,
            plan.tokens.view()?,
            &mut out,
        )?)
    }

    fn norm(
        &self,
        config: &ModelConfig,
        x: &Grown<f32>,
        weight: &Buffer<f32>,
        out: &mut Grown<bf16>,
    ) -> Result<()> {
        let mut out = out.fit(self, x.len())?;
        Ok(rmsnorm::norm(
            self.stream(),
            x.view()?,
            weight.view(),
            config.rms_eps,
            &mut out,
        )?)
    }

    fn linear<S: Sequences<Cuda>>(
        &self,
        at: Site<'_, Cuda>,
        map: Map,
        _: &S,
        x: &Grown<bf16>,
        inner: &mut [Grown<bf16>; 4],
        y: &mut Grown<bf16>,
    ) -> Result<()> {
        let len = at.plan.rows * at.matrix(map).map.outputs;
        let mut y = y.fit(self, len)?;
        self.product(at, map, x, inner, gemm::Output::Bf16(&mut y))
    }

    fn linear_add<S: Sequences<Cuda>>(
        &self,
        at: Site<'_, Cuda>,
        map: Map,
        _: &S,
        x: &Grown<bf16>,
        residual: &Grown<f32>,
        inner: &mut [Grown<bf16>; 4],
        y: &mut Grown<f32>,
    ) -> Result<()> {
        let len = at.plan.rows * at.matrix(map).map.outputs;
        let mut to = y.fit(self, len)?;
        let of = residual.view()?;
        self.product(at, map, x, inner, gemm::Output::Sum { of, to: &mut to })
    }

    fn place<S: Sequences<Cuda>>(
        &self,
        at: Site<'_, Cuda>,
        batch: &mut S,
        qkv: &mut Grown<bf16>,
        beside: &mut Grown<bf16>,
    ) -> Result<()> {
        match pool(batch) {
            Some(pages) => self.rotate(at, &pages, qkv, beside),
            None => Ok(()),
        }
    }

    fn attend<S: Sequences<Cuda>>(
        &self,
        at: Site<'_, Cuda>,
        batch: &S,
        (_, q): (&Grown<bf16>, &Grown<bf16>),
        out: &mut Grown<bf16>,
        marks: &mut Grown<f32>,
    ) -> Result<()> {
        let Some(pages) = pool(batch) else {
            return Ok(());
        };
        let (on, table, q) = (self.stream(), at.plan.table()?, queries(at, q)?);
        let rows = at.plan.rows;
        let mut out = out.fit(self, rows * q.ld)?;
        let layer = pages.layer(at.slot)?;
        if let Some(keys) = at.plan.single() {
            let positions = (at.plan.positions.view()?, keys);
            let work = &mut *at.plan.decode()?;
            return Ok(decode_attention::forward(
                on,
                (&layer, table),
                q,
                positions,
                work,
                &mut out,
            )?);
        }
        let plan = at.plan.attention()?;
        let mut lse = marks.fit(self, rows * at.config.heads)?;
        let lse = self.training.then_some(&mut lse);
        Ok(attention::forward(
            on,
            plan,
            (&layer, table),
            q,
            &mut out,
            lse,
        )?)
    }

    fn swiglu(&self, f: usize, gate_up: &Grown<bf16>, out: &mut Grown<bf16>) -> Result<()> {
        let mut out = out.fit(self, gate_up.len() / 2)?;
        Ok(swiglu::forward(
            self.stream(),
            f,
            gate_up.view()?,
            &mut out,
        )?)
    }

    fn gather(
        &self,
        width: usize,
        from: &Grown<f32>,
        rows: &[usize],
        out: &mut Grown<f32>,
    ) -> Result<()> {
        let mut to = out.fit(self, rows.len() * width)?;
        for (row, place, count) in runs(rows) {
            let from = from.view()?.part(row * width..(row + count) * width)?;
            self.stream
                .copy(from, &mut to.part(place * width..(place + count) * width)?)?;
        }
        Ok(())
    }

    fn trim(&self, _: &ModelConfig, _: &[usize], _: &mut Grown<bf16>) -> Result<()> {
        Ok(())
    }

    fn logits(
        &self,
        x: &Grown<bf16>,
        w: &Matrix,
        space: &mut Grown<f32>,
        _: &mut Vec<f32>,
    ) -> Result<()> {
        let rows = x.len() / w.map.inputs;
        let mut logits = space.fit(self, rows * w.map.outputs)?;
        let operands = (x.view()?, w.data.view());
        let to = gemm::Output::F32(&mut logits);
        Ok(gemm::forward(
            self.stream(),
            rows,
            w.map,
            operands,
            None,
            to,
        )?)
    }

    fn hand_over(
        &self,
        vocab: usize,
        logits: &mut Grown<f32>,
        asked: &serve::Asked,
        space: &mut Drawing,
        drawn: &mut Vec<Drawn>,
        out: &mut Vec<f32>,
    ) -> Result<()> {
        // A step that was repeated did not say how many they are.
        logits.fit(self, asked.rows.len() * vocab)?;
        space.hand_over(self, vocab, logits.view()?, asked, drawn, out)
    }

    fn normalizer(&self, logits: &[f32], temperature: f32) -> Result<Normalizer> {
        output::normalizer(self, &mut self.shared.one.lock(), logits, temperature)
    }
}

/// Consecutive rows of an ascending list as (first row, place in the list, count): each is one copy.
fn runs(rows: &[usize]) -> impl Iterator<Item = (usize, usize, usize)> {
    let mut place = 0;
    rows.chunk_by(|a, b| a + 1 == *b).map(move |run| {
        let at = place;
        place += run.len();
        (run[0], at, run.len())
    })
}
