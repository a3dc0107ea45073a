//! The training half of the CPU: log-probs of given tokens, and gradients.

use super::parts::{Inner, Space, hand_back, widths, write};
use super::{Cpu, Numbers};
use crate::adapter::{Adapter, AdapterGrads, HostGrads};
use crate::config::ModelConfig;
use crate::device::{Attended, Map, Sequences, Site, Span, Trains};
use crate::error::Result;
use crate::model::backward::Gradients;
use crate::model::{Tape, train};
use kernels::attention::{self, Queries};
use kernels::lora::{self, Part};
use kernels::output::{self, Output, Wanted};
use kernels::softmax::Target;
use kernels::{CacheShape, KvCache, Packed, Slice, rmsnorm, rope, swiglu};

impl Trains for Cpu {
    const SHARES: usize = 1;
    const FILLED: Option<usize> = None;
    type Output = Output;
    type Space = Space;
    type Grads<'a> = HostGrads<'a>;

    fn background(&self) -> Cpu {
        self.clone()
    }

    fn keeps(&self, budget: usize, rows: usize, bytes: usize) -> Result<usize> {
        Ok(budget / (rows * bytes).max(1))
    }

    fn caches(
        &self,
        shape: CacheShape,
        sequences: &[usize],
        caches: &mut Vec<KvCache>,
    ) -> Result<()> {
        caches.truncate(sequences.len());
        caches.resize_with(sequences.len(), || KvCache::new(shape));
        for (cache, tokens) in caches.iter_mut().zip(sequences) {
            cache.reserve(*tokens);
        }
        Ok(())
    }

    fn settle_tape(&self, config: &ModelConfig, rows: usize, buffers: &mut train::Buffers<Cpu>) {
        Numbers::side_by_side(&mut buffers.sizes(config, rows));
    }

    fn settle_gradients(&self, config: &ModelConfig, rows: usize, grads: &mut Gradients<Cpu>) {
        Numbers::side_by_side(&mut grads.sizes(config, rows));
    }

    fn tape<'a>(&self, tape: &'a mut Tape) -> (&'a mut train::Buffers<Cpu>, &'a mut train::Asked) {
        (&mut tape.cpu, &mut tape.asked)
    }

    fn inner(
        &self,
        at: Site<'_, Cpu>,
        map: Map,
        adapter: &Adapter,
        x: &Numbers,
        inner: &mut Inner,
    ) -> Result<()> {
        let rows = x.len() / at.matrix(map).inputs();
        let (parts, count) = map.parts(at.config);
        let u = inner.of[map as usize].fit(rows * count * adapter.rank());
        for (&(projection, _), u) in parts[..count]
            .iter()
            .zip(u.chunks_mut(rows * adapter.rank()))
        {
            let pair = adapter.pair(at.layer, projection);
            lora::down(&self.0, rows, x, &pair, u)?;
        }
        Ok(())
    }

    fn zeros(&self, len: usize, out: &mut Numbers) -> Result<()> {
        out.fit(len).fill(0.0);
        Ok(())
    }

    fn scatter(
        &self,
        width: usize,
        from: &Numbers,
        rows: &[usize],
        total: usize,
        out: &mut Numbers,
    ) -> Result<()> {
        let out = out.fit(total * width);
        out.fill(0.0);
        for (from, row) in from.chunks_exact(width).zip(rows) {
            out[row * width..][..width].copy_from_slice(from);
        }
        Ok(())
    }

    fn log_probs(
        &self,
        turn: &mut Slice<'_>,
        x: &Numbers,
        w: &Packed,
        wanted: Wanted<'_>,
        output: &mut Output,
        out: &mut [f32],
    ) -> Result<()> {
        let breathe = &mut || turn.breathe();
        Ok(output::log_probs(
            &self.0, x, w, wanted, output, out, breathe,
        )?)
    }

    fn log_probs_backward(
        &self,
        turn: &mut Slice<'_>,
        x: &Numbers,
        w: &Packed,
        targets: &[Target],
        upstream: &[f32],
        output: &mut Output,
        dx: &mut Numbers,
    ) -> Result<()> {
        let (dx, breathe) = (dx.fit(x.len()), &mut || turn.breathe());
        Ok(output::backward(
            &self.0, x, w, targets, upstream, output, dx, breathe,
        )?)
    }

    fn open<'a>(&self, grads: &'a mut AdapterGrads) -> Result<HostGrads<'a>> {
        grads.on_host()
    }

    fn operand<'a>(&self, dx: &'a Numbers, _: &'a mut Numbers) -> Result<&'a Numbers> {
        Ok(dx)
    }

    fn linear_backward(
        &self,
        at: Site<'_, Cpu>,
        map: Map,
        adapter: &Adapter,
        x: &Numbers,
        inner: &Inner,
        dy: &Numbers,
        dx: &mut Numbers,
        grads: &mut HostGrads<'_>,
        space: &mut Space,
    ) -> Result<()> {
        let weights = at.matrix(map);
        let rows = x.len() / weights.inputs();
        let (parts, count) = map.parts(at.config);
        let parts = &parts[..count];
        let grads = grads.pairs(at.layer, parts.iter().map(|(projection, _)| *projection));
        let inner = inner.of[map as usize].chunks(rows * adapter.rank());
        let mut parts: Vec<Part<'_>> = (parts.iter().zip(inner).zip(grads))
            .map(|((&(projection, first), u), (da, db))| Part {
                pair: adapter.pair(at.layer, projection),
                first,
                u,
                da,
                db,
            })
            .collect();
        let du = space.dinner.fit(rows * count * adapter.rank());
        let dx = dx.fit(x.len());
        lora::linear_backward(&self.0, rows, x, weights, &mut parts, dy, du, dx)?;
        Ok(())
    }

    fn norm_backward(
        &self,
        config: &ModelConfig,
        x: &Numbers,
        weight: &Vec<f32>,
        dy: &Numbers,
        dx: &mut Numbers,
    ) -> Result<()> {
        let (rows, eps) = (x.len() / config.hidden, config.rms_eps);
        Ok(rmsnorm::backward(&self.0, rows, x, weight, eps, dy, dx)?)
    }

    fn swiglu_backward(
        &self,
        f: usize,
        gate_up: &mut Numbers,
        dgated: &Numbers,
        dgate_up: &mut Numbers,
    ) -> Result<()> {
        let rows = dgated.len() / f;
        swiglu::backward(&self.0, rows, f, gate_up, dgated)?;
        std::mem::swap(gate_up, dgate_up);
        Ok(())
    }

    fn attend_backward<S: Sequences<Cpu>>(
        &self,
        at: Site<'_, Cpu>,
        batch: &mut S,
        forward: Attended<'_, Cpu>,
        dqkv: &mut Numbers,
        space: &mut Space,
    ) -> Result<()> {
        let (pool, config) = (&*self.0, at.config);
        let (queries, keys) = widths(config);
        let width = queries + 2 * keys;
        let Attended {
            placed: (qkv, raw),
            out,
            dout,
            ..
        } = forward;
        let dqkv = dqkv.fit(qkv.len());
        write(&self.0, at, batch, qkv)?;
        self.mirror(at, batch, qkv, &mut space.mirrors)?;
        for i in 0..batch.count() {
            let Span {
                first,
                count,
                start,
                ..
            } = batch.span(i);
            let (rows, heads) = (
                first * width..(first + count) * width,
                first * queries..(first + count) * queries,
            );
            let q = Queries {
                data: &qkv[rows.clone()],
                ld: width,
                heads: config.heads,
            };
            let backward = attention::Backward {
                layer: at.slot,
                start,
                cache: batch.cache(i),
                mirror: &space.mirrors[i],
                q,
                out: &out[heads.clone()],
                dout: &dout[heads],
            };
            let dbefore = space.dbefore.fit(start * 2 * keys);
            attention::backward(pool, &backward, &mut space.stats, &mut dqkv[rows], dbefore)?;
            hand_back(batch, i, dbefore, (queries, 2 * keys), dqkv);
        }
        for i in 0..batch.count() {
            let Span {
                first,
                count,
                start,
                ..
            } = batch.span(i);
            let own = &mut dqkv[first * width..][..count * width];
            rope::backward(pool, at.angles, own, width, 0..queries + keys, start)?;
        }
        self.heads_backward(at, raw, dqkv, &mut space.dheads)
    }
}
