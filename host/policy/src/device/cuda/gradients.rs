//! The training half of a GPU: log-probs of given tokens, and gradients.

use super::memory::Grown;
use super::output::Output;
use super::pages::{Cache, Pages};
use super::{Cuda, Free, Matrix, pool, queries, runs};
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
use kernels::cuda::{Buffer, ViewMut, attention_backward, rmsnorm, rope, swiglu};
use kernels::softmax::Target;
use std::sync::Arc;

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

/// Gradients that a backward pass adds to.
#[derive(Debug)]
pub(crate) struct Grads<'a> {
    host: &'a mut AdapterGrads,
    sums: Buffer<f32>,
}

impl Trains for Cuda {
    const SHARES: bool = false;
    type Output = Output;
    type Space = Space;
    type Grads<'a> = Grads<'a>;

    fn background(&self) -> Cuda {
        Cuda {
            shared: Arc::clone(&self.shared),
            stream: Arc::clone(&self.shared.back),
            training: true,
        }
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

    fn tape(tape: &mut Tape) -> (&mut train::Buffers<Cuda>, &mut train::Asked) {
        (tape.cuda.get_or_insert_default(), &mut tape.asked)
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

    fn zeros(&self, len: usize, out: &mut Grown<f32>) -> Result<()> {
        Ok(self.stream.zero(&mut out.fit(self.gpu(), len)?)?)
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
        let mut placed = space.dqkv.fit(self.gpu(), qkv.len())?;
        let columns = 2 * at.config.kv_heads * at.config.head_dim;
        let mut dbefore = space.dbefore.fit(self.gpu(), keys.before() * columns)?;
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
