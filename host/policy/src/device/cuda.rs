//! An NVIDIA GPU: rows are buffers in its memory, every operation one of [`kernels::cuda`], queued and not waited for.
//!
//! Serving and training have a queue each, serving's first; both read the same weights where they are. Operands of products are bf16, rounded
//! once; the residual stream and gradients are f32. Start at [`Cuda::open`].

mod memory;
mod output;
mod pages;
mod plan;
mod shelf;

use super::{Attended, Device, Map, Sequences, Site, Turn};
use crate::adapter::{Adapter, AdapterGrads, Projection};
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::kv::Kv;
use crate::model::{Scratch, Tape, serve, train};
use half::bf16;
use kernels::cuda::adapters::{Adapters, Part, Shape};
use kernels::cuda::gemm::{self, Beside};
use kernels::cuda::kv::PAGE;
use kernels::cuda::lora::{self, Columns};
use kernels::cuda::{
    Buffer, Element, Gpu, Priority, Stream, ViewMut, attention, attention_backward,
    decode_attention, embed, rmsnorm, rope, swiglu,
};
use kernels::rope::Table as Angles;
use kernels::softmax::{Normalizer, Target};
use kernels::{CacheShape, Dtype};
use memory::Grown;
use output::Output;
pub(crate) use pages::Cache;
pub(crate) use pages::Cache as Paged;
use pages::Pages;
use parking_lot::{Mutex, RwLock};
use plan::Plan;
use shelf::{Lease, Shelf};
use std::sync::Arc;

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
    gpu: Gpu,
    back: Arc<Stream>,
    /// Keys and values of everything that is served.
    pages: Arc<Pages>,
    shelf: RwLock<Shelf>,
    /// Space of one row's normalizer.
    one: Mutex<Option<output::One>>,
}

/// A matrix (outputs, inputs), row-major.
#[derive(Debug)]
pub(crate) struct Matrix {
    data: Buffer<bf16>,
    map: Shape,
}

/// Space of the backward pass.
#[derive(Default, Debug)]
pub(crate) struct Space {
    /// (N, parts · largest rank).
    du: Grown<bf16>,
    /// Queries, rotated again.
    q: Grown<bf16>,
    /// By rotated queries, rotated keys, and values.
    dqkv: Grown<f32>,
    work: Option<(usize, attention_backward::Work)>,
    /// Of an adapter's gradients.
    runs: Grown<f32>,
}

/// Gradients that a backward pass adds to.
#[derive(Debug)]
pub(crate) struct Grads<'a> {
    host: &'a mut AdapterGrads,
    sums: Buffer<f32>,
}

/// Queues order themselves.
#[derive(Debug)]
pub(crate) struct Free;

impl Turn for Free {
    fn breathe(&mut self) {}
}

impl Cuda {
    /// Opens a GPU for models of this shape, with room for `tokens` tokens of keys and values.
    ///
    /// # Errors
    /// [`Error::Compute`] without a GPU, without enough memory, or for a model whose sizes no kernel is made for.
    pub(crate) fn open(index: usize, config: &ModelConfig, tokens: usize) -> Result<Cuda> {
        check(config)?;
        let gpu = Gpu::open(index)?;
        let (front, back) = (gpu.stream(Priority::High)?, gpu.stream(Priority::Low)?);
        let shape = CacheShape {
            layers: config.layers,
            kv_heads: config.kv_heads,
            head_dim: config.head_dim,
        };
        let pages = Pages::new(&gpu, shape, tokens.div_ceil(PAGE))?;
        let shelf = Shelf::new(&front, config, RANK)?;
        Ok(Cuda {
            shared: Arc::new(Shared {
                gpu,
                back: Arc::new(back),
                pages,
                shelf: RwLock::new(shelf),
                one: Mutex::new(None),
            }),
            stream: Arc::new(front),
            training: false,
        })
    }

    fn gpu(&self) -> &Gpu {
        &self.shared.gpu
    }

    fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Copies to the GPU.
    fn put<T: Element>(&self, from: &[T], to: &mut Grown<T>) -> Result<()> {
        Ok(self
            .stream
            .write(from, &mut to.fit(self.gpu(), from.len())?)?)
    }

    fn shelf(&self, adapter: &Adapter) -> Result<Lease> {
        self.shared.shelf.write().lease(&self.stream, adapter)
    }

    /// Calls with the adapters beside a product, when rows of the pass have any.
    fn beside<R>(
        &self,
        at: Site<'_, Cuda>,
        map: Map,
        then: impl FnOnce(Option<&Adapters<'_>>) -> Result<R>,
    ) -> Result<R> {
        if !at.plan.adapted {
            return then(None);
        }
        let (parts, count) = map.parts(at.config);
        let parts = parts.map(|(projection, column)| Part {
            projection: at.layer * Projection::ALL.len() + projection as usize,
            outputs: column..column + projection.shape(at.config).0,
        });
        let shelf = self.shared.shelf.read();
        then(Some(&Adapters {
            table: &shelf.table,
            segments: at.plan.segments()?,
            parts: &parts[..count],
        }))
    }

    fn product(
        &self,
        at: Site<'_, Cuda>,
        map: Map,
        x: &Grown<bf16>,
        inner: &mut [Grown<bf16>; 4],
        y: gemm::Output<'_, '_>,
    ) -> Result<()> {
        let (on, weights, rows) = (self.stream(), at.matrix(map), at.plan.rows);
        let operands = (x.view()?, weights.data.view());
        self.beside(at, map, |adapters| {
            let beside = match adapters {
                Some(adapters) => {
                    let len = rows * adapters.inner();
                    let u = &mut inner[map as usize];
                    lora::down(
                        on,
                        rows,
                        weights.map,
                        x.view()?,
                        adapters,
                        &mut u.fit(self.gpu(), len)?,
                    )?;
                    Some(Beside {
                        adapters: *adapters,
                        inner: u.view()?,
                    })
                }
                None => None,
            };
            Ok(gemm::forward(on, rows, weights.map, operands, beside, y)?)
        })
    }

    /// The rotation of a layer's heads.
    fn rotation<'a>(&self, at: Site<'a, Cuda>) -> Result<rope::Rotation<'a>> {
        let norms = at.weights.qk_norm.as_ref();
        Ok(rope::Rotation {
            heads: rope::Heads {
                heads: at.config.heads,
                kv_heads: at.config.kv_heads,
                head_dim: at.config.head_dim,
            },
            q_norm: norms.map(|(q, _)| q.view()),
            k_norm: norms.map(|(_, k)| k.view()),
            eps: at.config.rms_eps,
            table: at.angles.view(),
            positions: at.plan.positions.view()?,
        })
    }

    /// Rotates queries into `q`, and writes keys and values to the pages.
    fn rotate(
        &self,
        at: Site<'_, Cuda>,
        pages: &Pages,
        qkv: &Grown<bf16>,
        q: &mut Grown<bf16>,
    ) -> Result<()> {
        let (rotation, table) = (self.rotation(at)?, at.plan.table()?);
        let mut layer = pages.layer(at.slot)?;
        let width = at.config.heads * at.config.head_dim;
        let mut q = q.fit(self.gpu(), at.plan.rows * width)?;
        let mut cache = rope::Cache {
            layer: &mut layer,
            table,
            sequences: at.plan.sequences.view()?,
        };
        Ok(rope::forward(
            self.stream(),
            &rotation,
            qkv.view()?,
            &mut q,
            &mut cache,
        )?)
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
    const SHARES: bool = false;
    type Wide = Grown<f32>;
    type Narrow = Grown<bf16>;
    type Inner = [Grown<bf16>; 4];
    type Matrix = Matrix;
    type Vector = Buffer<f32>;
    type Angles = Buffer<f32>;
    type Cache = Cache;
    type Plan = Plan;
    type Marks = Grown<f32>;
    type Output = Output;
    type Space = Space;
    type Grads<'a> = Grads<'a>;
    type Turn<'a> = Free;

    fn enter(&self) -> Free {
        Free
    }

    fn background(&self) -> Cuda {
        Cuda {
            shared: Arc::clone(&self.shared),
            stream: Arc::clone(&self.shared.back),
            training: true,
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

    fn caches(
        &self,
        shape: CacheShape,
        sequences: &[usize],
        caches: &mut Vec<Cache>,
    ) -> Result<()> {
        let pages = sequences.iter().map(|tokens| tokens.div_ceil(PAGE)).sum();
        let there = caches.first().map(|cache| Arc::clone(cache.pages()));
        caches.clear();
        let pages = match there {
            Some(there) if there.count() >= pages => there,
            _ => Pages::new(self.gpu(), shape, pages)?,
        };
        for &tokens in sequences {
            let mut cache = Cache::new(Arc::clone(&pages));
            cache.hold(self.stream(), 0, tokens)?;
            caches.push(cache);
        }
        Ok(())
    }

    fn adopt(&self, kv: &mut Kv, tokens: usize) -> Result<()> {
        let filled = kv.len();
        kv.pages_or(|| Cache::new(Arc::clone(&self.shared.pages)))?
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

    fn scratch(scratch: &mut Scratch) -> (&mut serve::Buffers<Cuda>, &mut serve::Results) {
        (scratch.cuda.get_or_insert_default(), &mut scratch.results)
    }

    fn tape(tape: &mut Tape) -> (&mut train::Buffers<Cuda>, &mut train::Asked) {
        (tape.cuda.get_or_insert_default(), &mut tape.asked)
    }

    fn plan<S: Sequences<Cuda>>(
        &self,
        config: &ModelConfig,
        batch: &S,
        plan: &mut Plan,
    ) -> Result<()> {
        plan.lay(self, config, batch)
    }

    fn embed(
        &self,
        table: &Matrix,
        tokens: &[u32],
        plan: &mut Plan,
        out: &mut Grown<f32>,
    ) -> Result<()> {
        self.put(tokens, &mut plan.tokens)?;
        let mut out = out.fit(self.gpu(), tokens.len() * table.map.inputs)?;
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
        let mut out = out.fit(self.gpu(), x.len())?;
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
        let mut y = y.fit(self.gpu(), len)?;
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
        let mut to = y.fit(self.gpu(), len)?;
        let of = residual.view()?;
        self.product(at, map, x, inner, gemm::Output::Sum { of, to: &mut to })
    }

    fn inner(
        &self,
        at: Site<'_, Cuda>,
        map: Map,
        _: &Adapter,
        x: &Grown<bf16>,
        inner: &mut [Grown<bf16>; 4],
    ) -> Result<()> {
        self.beside(at, map, |adapters| {
            let Some(adapters) = adapters else {
                return Ok(());
            };
            let (rows, shape) = (at.plan.rows, at.matrix(map).map);
            let mut u = inner[map as usize].fit(self.gpu(), rows * adapters.inner())?;
            Ok(lora::down(
                self.stream(),
                rows,
                shape,
                x.view()?,
                adapters,
                &mut u,
            )?)
        })
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
        let mut out = out.fit(self.gpu(), rows * q.ld)?;
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
        let mut lse = marks.fit(self.gpu(), rows * at.config.heads)?;
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
        let mut out = out.fit(self.gpu(), gate_up.len() / 2)?;
        Ok(swiglu::forward(
            self.stream(),
            f,
            gate_up.view()?,
            &mut out,
        )?)
    }

    fn zeros(&self, len: usize, out: &mut Grown<f32>) -> Result<()> {
        Ok(self.stream.zero(&mut out.fit(self.gpu(), len)?)?)
    }

    fn gather(
        &self,
        width: usize,
        from: &Grown<f32>,
        rows: &[usize],
        out: &mut Grown<f32>,
    ) -> Result<()> {
        let mut to = out.fit(self.gpu(), rows.len() * width)?;
        for (row, place, count) in runs(rows) {
            let from = from.view()?.part(row * width..(row + count) * width)?;
            self.stream
                .copy(from, &mut to.part(place * width..(place + count) * width)?)?;
        }
        Ok(())
    }

    fn scatter(
        &self,
        width: usize,
        from: &Grown<f32>,
        rows: &[usize],
        total: usize,
        out: &mut Grown<f32>,
    ) -> Result<()> {
        let mut to = out.fit(self.gpu(), total * width)?;
        self.stream.zero(&mut to)?;
        for (row, place, count) in runs(rows) {
            let from = from.view()?.part(place * width..(place + count) * width)?;
            self.stream
                .copy(from, &mut to.part(row * width..(row + count) * width)?)?;
        }
        Ok(())
    }

    fn logits(
        &self,
        x: &Grown<bf16>,
        w: &Matrix,
        space: &mut Grown<f32>,
        out: &mut Vec<f32>,
    ) -> Result<()> {
        let rows = x.len() / w.map.inputs;
        let len = rows * w.map.outputs;
        out.resize(len, 0.0);
        let mut logits = space.fit(self.gpu(), len)?;
        let operands = (x.view()?, w.data.view());
        let to = gemm::Output::F32(&mut logits);
        gemm::forward(self.stream(), rows, w.map, operands, None, to)?;
        Ok(self.stream.read(space.view()?, out)?)
    }

    fn normalizer(&self, logits: &[f32], temperature: f32) -> Result<Normalizer> {
        output::normalizer(self, &mut self.shared.one.lock(), logits, temperature)
    }

    fn log_probs(
        &self,
        _: &mut Free,
        x: &Grown<bf16>,
        w: &Matrix,
        targets: &[Target],
        temperature: f32,
        output: &mut Output,
        out: &mut [f32],
    ) -> Result<()> {
        output.log_probs(self, x, w, targets, temperature, out)
    }

    fn log_probs_backward(
        &self,
        _: &mut Free,
        x: &Grown<bf16>,
        w: &Matrix,
        _: &[Target],
        upstream: &[f32],
        output: &mut Output,
        dx: &mut Grown<f32>,
    ) -> Result<()> {
        output.backward(self, x, w, upstream, dx)
    }

    fn open<'a>(&self, grads: &'a mut AdapterGrads) -> Result<Grads<'a>> {
        let mut sums = self.gpu().buffer(grads.values().len())?;
        self.stream.zero(&mut sums.view_mut())?;
        Ok(Grads { host: grads, sums })
    }

    fn close(&self, grads: Grads<'_>) -> Result<()> {
        let sums = self.stream.download(grads.sums.view())?;
        for (to, v) in grads.host.values_mut().iter_mut().zip(sums) {
            *to += v;
        }
        Ok(())
    }

    fn operand<'a>(
        &self,
        dx: &'a Grown<f32>,
        space: &'a mut Grown<bf16>,
    ) -> Result<&'a Grown<bf16>> {
        gemm::round(
            self.stream(),
            dx.view()?,
            &mut space.fit(self.gpu(), dx.len())?,
        )?;
        Ok(space)
    }

    fn linear_backward(
        &self,
        at: Site<'_, Cuda>,
        map: Map,
        adapter: &Adapter,
        x: &Grown<bf16>,
        inner: &[Grown<bf16>; 4],
        dy: &Grown<bf16>,
        dx: &mut Grown<f32>,
        grads: &mut Grads<'_>,
        space: &mut Space,
    ) -> Result<()> {
        let (on, rows, weights) = (self.stream(), at.plan.rows, at.matrix(map));
        let Shape { outputs, inputs } = weights.map;
        let mut dx = dx.fit(self.gpu(), rows * inputs)?;
        let operands = (dy.view()?, weights.data.view());
        self.beside(at, map, |adapters| {
            let to = gemm::Output::F32(&mut dx);
            let Some(adapters) = adapters else {
                return Ok(gemm::backward(on, rows, weights.map, operands, None, to)?);
            };
            let ld = adapters.inner();
            let mut du = space.du.fit(self.gpu(), rows * ld)?;
            lora::down_backward(on, rows, weights.map, dy.view()?, adapters, &mut du)?;
            let beside = Beside {
                adapters: *adapters,
                inner: space.du.view()?,
            };
            gemm::backward(on, rows, weights.map, operands, Some(beside), to)?;
            let (rank, stride) = (
                adapter.rank().next_multiple_of(16),
                ld / adapters.parts.len(),
            );
            let (parts, count) = map.parts(at.config);
            for (i, &(projection, first)) in parts[..count].iter().enumerate() {
                let (of_inner, own) =
                    (i * stride..i * stride + rank, projection.shape(at.config).0);
                let columns = |of, ld, which| Columns { of, ld, which };
                let x = columns(x.view()?, inputs, 0..inputs);
                let dy = columns(dy.view()?, outputs, first..first + own);
                let u = columns(inner[map as usize].view()?, ld, of_inner.clone());
                let du = columns(space.du.view()?, ld, of_inner);
                let (a, b) = adapter.at(at.layer, projection);
                let mut sums: ViewMut<'_, f32> = grads.sums.view_mut();
                let room = lora::gradient_work(rows, inputs.max(own), rank);
                let mut runs = space.runs.fit(self.gpu(), room)?;
                lora::gradient_a(on, 0..rows, &x, &du, &mut runs, &mut sums.part(a)?)?;
                lora::gradient_b(on, 0..rows, &dy, &u, &mut runs, &mut sums.part(b)?)?;
            }
            Ok(())
        })
    }

    fn norm_backward(
        &self,
        config: &ModelConfig,
        x: &Grown<f32>,
        weight: &Buffer<f32>,
        dy: &Grown<f32>,
        dx: &mut Grown<f32>,
    ) -> Result<()> {
        let (eps, mut dx) = (config.rms_eps, dx.view_mut()?);
        Ok(rmsnorm::backward(
            self.stream(),
            x.view()?,
            weight.view(),
            eps,
            dy.view()?,
            &mut dx,
        )?)
    }

    fn swiglu_backward(
        &self,
        f: usize,
        gate_up: &mut Grown<bf16>,
        dgated: &Grown<f32>,
        dgate_up: &mut Grown<bf16>,
    ) -> Result<()> {
        let mut to = dgate_up.fit(self.gpu(), gate_up.len())?;
        Ok(swiglu::backward(
            self.stream(),
            f,
            gate_up.view()?,
            dgated.view()?,
            &mut to,
        )?)
    }

    fn attend_backward<S: Sequences<Cuda>>(
        &self,
        at: Site<'_, Cuda>,
        batch: &mut S,
        forward: Attended<'_, Cuda>,
        dqkv: &mut Grown<bf16>,
        space: &mut Space,
    ) -> Result<()> {
        let Some(pages) = pool(batch) else {
            return Ok(());
        };
        let Attended {
            placed: (qkv, q),
            out,
            marks,
            dout,
        } = forward;
        // The pages hold the keys and values of the layer that was computed last.
        self.rotate(at, &pages, qkv, &mut space.q)?;
        let (on, plan, table, rows) = (
            self.stream(),
            at.plan.attention()?,
            at.plan.table()?,
            at.plan.rows,
        );
        let mut work = match space.work.take() {
            Some((room, work)) if room >= rows => (room, work),
            _ => (rows, attention_backward::Work::new(self.gpu(), plan, rows)?),
        };
        let saved = attention_backward::Saved {
            q: queries(at, q)?,
            out: out.view()?,
            lse: marks.view()?,
        };
        let mut placed = space.dqkv.fit(self.gpu(), qkv.len())?;
        let layer = pages.layer(at.slot)?;
        let cache = (&*layer, table);
        attention_backward::backward(
            on,
            plan,
            cache,
            &saved,
            dout.view()?,
            &mut work.1,
            &mut placed,
        )?;
        space.work = Some(work);
        let mut to = dqkv.fit(self.gpu(), qkv.len())?;
        let rotation = self.rotation(at)?;
        Ok(rope::backward(
            on,
            &rotation,
            qkv.view()?,
            space.dqkv.view()?,
            &mut to,
        )?)
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
