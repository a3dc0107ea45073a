//! The training half of a GPU: log-probs of given tokens, and gradients.

use super::memory::{Grown, Queue};
use super::output::Output;
use super::pages::{Cache, Pages};
use super::{Cuda, Matrix, Pace, pool, queries, runs};
use crate::adapter::{Adapter, AdapterGrads};
use crate::config::ModelConfig;
use crate::device::{Attended, Map, Sequences, Site, Trains};
use crate::error::Result;
use crate::model::{Tape, train};
use half::bf16;
use kernels::CacheShape;
use kernels::cuda::adapters::Shape;
use kernels::cuda::gemm::{self, Beside};
use kernels::cuda::kv::PAGE;
use kernels::cuda::lora::{self, Columns};
use kernels::cuda::{Buffer, View, ViewMut, adamw, attention_backward, rmsnorm, rope, swiglu};
use kernels::output::Wanted;
use kernels::softmax::Target;
use std::sync::Arc;

/// Rows that a pass is filled to: products reach their speed at some thousands.
const FILLED: usize = 8192;

/// Space of the backward pass.
#[derive(Default, Debug)]
pub(crate) struct Space {
    /// (N, parts · largest rank).
    du: Grown<bf16>,
    /// Queries, rotated again.
    q: Grown<bf16>,
    /// By rotated queries, rotated keys, and values.
    dqkv: Grown<f32>,
    /// By keys and values of the positions before each sequence's rows.
    dbefore: Grown<f32>,
    work: Option<(usize, attention_backward::Work)>,
    /// Of an adapter's gradients.
    runs: Grown<f32>,
}

/// Gradients of an adapter, in its flat order.
#[derive(Debug)]
pub(crate) struct Sums {
    queue: Queue,
    values: Buffer<f32>,
    /// Zeros, whatever is in the memory.
    empty: bool,
}

impl Sums {
    /// These gradients, on a GPU.
    pub(crate) fn of(queue: &Queue, values: &[f32]) -> Result<Sums> {
        let on = &queue.stream;
        let mut sums = Sums {
            queue: queue.clone(),
            values: on.gpu().buffer(values.len())?,
            empty: values.iter().all(|v| *v == 0.0),
        };
        if !sums.empty {
            on.write(values, &mut sums.values.view_mut())?;
        }
        Ok(sums)
    }

    /// To be added to.
    fn open(&mut self) -> Result<ViewMut<'_, f32>> {
        if std::mem::take(&mut self.empty) {
            self.queue.stream.zero(&mut self.values.view_mut())?;
        }
        Ok(self.values.view_mut())
    }

    pub(crate) fn clear(&mut self) {
        self.empty = true;
    }

    /// Where they are, unless they are zeros.
    pub(crate) fn view(&self) -> Option<View<'_, f32>> {
        (!self.empty).then(|| self.values.view())
    }

    /// Whether they are a model's: its queue, and no other, knows when they are added to.
    pub(crate) fn are_of(&self, queue: &Queue) -> bool {
        self.queue.is_with(queue)
    }

    pub(crate) fn values(&self) -> Result<Vec<f32>> {
        if self.empty {
            return Ok(vec![0.0; self.values.len()]);
        }
        Ok(self.queue.stream.download(self.values.view())?)
    }

    pub(crate) fn norm(&self) -> Result<f64> {
        if self.empty {
            return Ok(0.0);
        }
        let (on, gpu) = (&*self.queue.stream, self.queue.stream.gpu());
        let (mut norm, mut factor) = (gpu.buffer(1)?, gpu.buffer(1)?);
        let mut work = gpu.buffer(adamw::norm_scratch(self.values.len()))?;
        adamw::norm(
            on,
            self.values.view(),
            f32::INFINITY,
            &mut work.view_mut(),
            &mut norm.view_mut(),
            &mut factor.view_mut(),
        )?;
        let mut found = [0.0];
        on.read(norm.view(), &mut found)?;
        Ok(found[0])
    }
}

impl Trains for Cuda {
    const SHARES: usize = PAGE;
    const FILLED: Option<usize> = Some(FILLED);
    type Output = Output;
    type Space = Space;
    type Grads<'a> = ViewMut<'a, f32>;

    fn background(&self) -> Cuda {
        Cuda {
            shared: Arc::clone(&self.shared),
            stream: Arc::clone(&self.shared.back),
            training: true,
        }
    }

    /// The tape is in the GPU's memory, of which it takes half of what is free when training begins; `budget` only says whether to keep at
    /// all. As bf16 a row takes less than `bytes`, with what buffers grow ahead. Passes that are not full count as such: the same layers are
    /// kept in all.
    fn keeps(&self, budget: usize, rows: usize, bytes: usize) -> Result<usize> {
        if budget == 0 {
            return Ok(0);
        }
        let room = match self.shared.kept.get() {
            Some(room) => *room,
            None => {
                let (free, _) = self.gpu().memory()?;
                *self.shared.kept.get_or_init(|| free / 2)
            }
        };
        let full = rows.max(FILLED) * bytes;
        Ok(usize::try_from(room / full.max(1) as u64).unwrap_or(usize::MAX))
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

    fn tape<'a>(&self, tape: &'a mut Tape) -> (&'a mut train::Buffers<Cuda>, &'a mut train::Asked) {
        (tape.cuda.of(self), &mut tape.asked)
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
            let mut u = inner[map as usize].fit(self, rows * adapters.inner())?;
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

    fn zeros(&self, len: usize, out: &mut Grown<f32>) -> Result<()> {
        Ok(self.stream.zero(&mut out.fit(self, len)?)?)
    }

    fn scatter(
        &self,
        width: usize,
        from: &Grown<f32>,
        rows: &[usize],
        total: usize,
        out: &mut Grown<f32>,
    ) -> Result<()> {
        let mut to = out.fit(self, total * width)?;
        self.stream.zero(&mut to)?;
        for (row, place, count) in runs(rows) {
            let from = from.view()?.part(place * width..(place + count) * width)?;
            self.stream
                .copy(from, &mut to.part(row * width..(row + count) * width)?)?;
        }
        Ok(())
    }

    fn log_probs(
        &self,
        _: &mut Pace<'_>,
        x: &Grown<bf16>,
        w: &Matrix,
        wanted: Wanted<'_>,
        output: &mut Output,
        out: &mut [f32],
    ) -> Result<()> {
        output.log_probs(self, x, w, wanted.targets, wanted.temperature, out)
    }

    fn log_probs_backward(
        &self,
        _: &mut Pace<'_>,
        x: &Grown<bf16>,
        w: &Matrix,
        _: &[Target],
        upstream: &[f32],
        output: &mut Output,
        dx: &mut Grown<f32>,
    ) -> Result<()> {
        output.backward(self, x, w, upstream, dx)
    }

    fn open<'a>(&self, grads: &'a mut AdapterGrads) -> Result<ViewMut<'a, f32>> {
        grads.on_gpu(&Queue::of(self))?.open()
    }

    fn operand<'a>(
        &self,
        dx: &'a Grown<f32>,
        space: &'a mut Grown<bf16>,
    ) -> Result<&'a Grown<bf16>> {
        gemm::round(self.stream(), dx.view()?, &mut space.fit(self, dx.len())?)?;
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
        grads: &mut ViewMut<'_, f32>,
        space: &mut Space,
    ) -> Result<()> {
        let (on, rows, weights) = (self.stream(), at.plan.rows, at.matrix(map));
        let Shape { outputs, inputs } = weights.map;
        let mut dx = dx.fit(self, rows * inputs)?;
        let operands = (dy.view()?, weights.data.view());
        self.beside(at, map, |adapters| {
            let to = gemm::Output::F32(&mut dx);
            let Some(adapters) = adapters else {
                return Ok(gemm::backward(on, rows, weights.map, operands, None, to)?);
            };
            let ld = adapters.inner();
            let mut du = space.du.fit(self, rows * ld)?;
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
                let room = lora::gradient_work(rows, inputs.max(own), rank);
                let mut runs = space.runs.fit(self, room)?;
                lora::gradient_a(on, 0..rows, &x, &du, &mut runs, &mut grads.part(a)?)?;
                lora::gradient_b(on, 0..rows, &dy, &u, &mut runs, &mut grads.part(b)?)?;
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
        let mut to = dgate_up.fit(self, gate_up.len())?;
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
        let (on, plan, keys, table, rows) = (
            self.stream(),
            at.plan.attention()?,
            at.plan.keys()?,
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
        let mut placed = space.dqkv.fit(self, qkv.len())?;
        let columns = 2 * at.config.kv_heads * at.config.head_dim;
        let mut dbefore = space.dbefore.fit(self, keys.before() * columns)?;
        let layer = pages.layer(at.slot)?;
        let cache = (&*layer, table);
        attention_backward::backward(
            on,
            (plan, keys),
            cache,
            &saved,
            dout.view()?,
            &mut work.1,
            (&mut placed, &mut dbefore),
        )?;
        space.work = Some(work);
        let before = dbefore.as_view();
        let (mut place, heads) = (0, plan.heads());
        for i in 0..batch.count() {
            let span = batch.span(i);
            let (mut end, mut parent) = (span.start, span.parent);
            while let Some(p) = parent {
                let from = batch.span(p);
                let rows = (place + from.start) * columns..(place + end) * columns;
                let part = before.part(rows)?;
                attention_backward::hand_back(on, heads, from.first, part, &mut placed)?;
                (end, parent) = (from.start, from.parent);
            }
            place += span.start;
        }
        let mut to = dqkv.fit(self, qkv.len())?;
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
