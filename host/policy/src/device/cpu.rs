//! The CPU: rows are plain vectors, every operation one of [`kernels`] on the threads of a pool.

mod parts;

use super::{Attended, Device, Map, Sequences, Site, Span, Turn};
use crate::adapter::{Adapter, AdapterGrads};
use crate::config::ModelConfig;
use crate::error::Result;
use crate::kv::Kv;
use crate::model::{Scratch, Tape, serve, train};
use kernels::attention::{self, Queries, Rows};
use kernels::lora::{Columns, Forward, Into};
use kernels::output::{self, Output};
use kernels::rope::Table;
use kernels::softmax::{self, Normalizer, Target};
use kernels::{CacheShape, Dtype, KvCache, Packed, Pool, Slice};
use kernels::{elementwise, gemm, lora, rmsnorm, rope, swiglu};
use std::sync::Arc;

pub(crate) use parts::{Inner, Numbers, Space};
use parts::{emptied, hand_back, segments_of, widths, write};

/// The threads that compute.
#[derive(Clone, Debug)]
pub(crate) struct Cpu(pub(crate) Arc<Pool>);

impl Turn for Slice<'_> {
    fn breathe(&mut self) {
        Slice::breathe(self);
    }
}

impl Device for Cpu {
    const SHARES: bool = true;
    type Wide = Numbers;
    type Narrow = Numbers;
    type Inner = Inner;
    type Matrix = Packed;
    type Vector = Vec<f32>;
    type Angles = Table;
    type Cache = KvCache;
    type Plan = ();
    type Marks = ();
    type Output = Output;
    type Space = Space;
    type Grads<'a> = &'a mut AdapterGrads;
    type Turn<'a> = Slice<'a>;

    fn enter(&self) -> Slice<'_> {
        self.0.enter()
    }

    fn background(&self) -> Cpu {
        self.clone()
    }

    fn matrix(&self, parts: &[&[f32]], inputs: usize, dtype: Dtype) -> Result<Packed> {
        Ok(Packed::pack(&self.0, parts, inputs, dtype)?)
    }

    fn vector(&self, values: Vec<f32>) -> Result<Vec<f32>> {
        Ok(values)
    }

    fn angles(&self, table: Table) -> Result<Table> {
        Ok(table)
    }

    fn bytes(matrix: &Packed) -> usize {
        matrix.bytes()
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

    fn adopt(&self, kv: &mut Kv, tokens: usize) -> Result<()> {
        kv.host_mut()?.reserve(tokens);
        Ok(())
    }

    #[expect(clippy::expect_used, reason = "a pass adopts its sequences first")]
    fn cached(kv: &Kv) -> &KvCache {
        kv.host().expect("it was adopted")
    }

    #[expect(clippy::expect_used, reason = "a pass adopts its sequences first")]
    fn cached_mut(kv: &mut Kv) -> &mut KvCache {
        kv.host_mut().expect("it was adopted")
    }

    fn scratch(scratch: &mut Scratch) -> (&mut serve::Buffers<Cpu>, &mut serve::Results) {
        (&mut scratch.cpu, &mut scratch.results)
    }

    fn tape(tape: &mut Tape) -> (&mut train::Buffers<Cpu>, &mut train::Asked) {
        (&mut tape.cpu, &mut tape.asked)
    }

    fn plan<S: Sequences<Cpu>>(&self, _: &ModelConfig, _: &S, _: &mut ()) -> Result<()> {
        Ok(())
    }

    fn embed(&self, table: &Packed, tokens: &[u32], (): &mut (), out: &mut Numbers) -> Result<()> {
        let out = out.fit(tokens.len() * table.inputs());
        Ok(elementwise::embed(&self.0, table, tokens, out)?)
    }

    fn norm(
        &self,
        config: &ModelConfig,
        x: &Numbers,
        weight: &Vec<f32>,
        out: &mut Numbers,
    ) -> Result<()> {
        let rows = x.len() / config.hidden;
        let out = out.fit(x.len());
        let eps = config.rms_eps;
        Ok(rmsnorm::forward(&self.0, rows, x, weight, eps, out)?)
    }

    fn linear<S: Sequences<Cpu>>(
        &self,
        at: Site<'_, Cpu>,
        map: Map,
        batch: &S,
        x: &Numbers,
        inner: &mut Inner,
        y: &mut Numbers,
    ) -> Result<()> {
        let weights = at.matrix(map);
        let (k, n) = (weights.inputs(), weights.outputs());
        let rows = x.len() / k;
        let Inner { of, list } = inner;
        let mut segments = emptied(std::mem::take(list));
        let room = segments_of(at, map, batch, &mut segments);
        let (u, y) = (of[map as usize].fit(room), y.fit(rows * n));
        lora::linear(&self.0, rows, x, weights, &segments, u, y)?;
        *list = emptied(segments);
        Ok(())
    }

    fn linear_add<S: Sequences<Cpu>>(
        &self,
        at: Site<'_, Cpu>,
        map: Map,
        batch: &S,
        x: &Numbers,
        residual: &Numbers,
        inner: &mut Inner,
        y: &mut Numbers,
    ) -> Result<()> {
        self.linear(at, map, batch, x, inner, y)?;
        Ok(elementwise::add(&self.0, y, residual)?)
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

    fn place<S: Sequences<Cpu>>(
        &self,
        at: Site<'_, Cpu>,
        batch: &mut S,
        qkv: &mut Numbers,
        raw: &mut Numbers,
    ) -> Result<()> {
        let (pool, config) = (&*self.0, at.config);
        let (queries, keys) = widths(config);
        let width = queries + 2 * keys;
        if let Some((q_norm, k_norm)) = &at.weights.qk_norm {
            raw.fit(qkv.len()).copy_from_slice(qkv);
            for row in qkv.chunks_exact_mut(width) {
                let (q, kv) = row.split_at_mut(queries);
                rmsnorm::in_place(pool, config.heads, q, q_norm, config.rms_eps)?;
                let k = &mut kv[..keys];
                rmsnorm::in_place(pool, config.kv_heads, k, k_norm, config.rms_eps)?;
            }
        }
        for i in 0..batch.count() {
            let Span {
                first,
                count,
                start,
                ..
            } = batch.span(i);
            let own = &mut qkv[first * width..][..count * width];
            rope::forward(pool, at.angles, own, width, 0..queries + keys, start)?;
        }
        write(at, batch, qkv)
    }

    fn attend<S: Sequences<Cpu>>(
        &self,
        at: Site<'_, Cpu>,
        batch: &S,
        (qkv, _): (&Numbers, &Numbers),
        out: &mut Numbers,
        (): &mut (),
    ) -> Result<()> {
        let (queries, keys) = widths(at.config);
        let width = queries + 2 * keys;
        let q = Queries {
            data: qkv,
            ld: width,
            heads: at.config.heads,
        };
        let rows = |i| {
            let Span {
                first,
                count,
                start,
                ..
            } = batch.span(i);
            Rows {
                cache: batch.cache(i),
                first,
                count,
                start,
            }
        };
        let out = out.fit(qkv.len() / width * queries);
        Ok(attention::forward(
            &self.0,
            at.slot,
            q,
            batch.count(),
            &rows,
            out,
        )?)
    }

    fn swiglu(&self, f: usize, gate_up: &Numbers, out: &mut Numbers) -> Result<()> {
        let rows = gate_up.len() / (2 * f);
        Ok(swiglu::forward(
            &self.0,
            rows,
            f,
            gate_up,
            out.fit(rows * f),
        )?)
    }

    fn zeros(&self, len: usize, out: &mut Numbers) -> Result<()> {
        out.fit(len).fill(0.0);
        Ok(())
    }

    fn gather(
        &self,
        width: usize,
        from: &Numbers,
        rows: &[usize],
        out: &mut Numbers,
    ) -> Result<()> {
        let out = out.fit(rows.len() * width);
        for (to, row) in out.chunks_exact_mut(width).zip(rows) {
            to.copy_from_slice(&from[row * width..][..width]);
        }
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

    fn logits(&self, x: &Numbers, w: &Packed, _: &mut Numbers, out: &mut Vec<f32>) -> Result<()> {
        let rows = x.len() / w.inputs();
        out.resize(rows * w.outputs(), 0.0);
        Ok(gemm::forward(&self.0, rows, x, w, out)?)
    }

    fn normalizer(&self, logits: &[f32], temperature: f32) -> Result<Normalizer> {
        Ok(softmax::normalizer(&self.0, logits, temperature)?)
    }

    fn log_probs(
        &self,
        turn: &mut Slice<'_>,
        x: &Numbers,
        w: &Packed,
        targets: &[Target],
        temperature: f32,
        output: &mut Output,
        out: &mut [f32],
    ) -> Result<()> {
        let breathe = &mut || turn.breathe();
        Ok(output::log_probs(
            &self.0,
            x,
            w,
            targets,
            temperature,
            output,
            out,
            breathe,
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

    fn open<'a>(&self, grads: &'a mut AdapterGrads) -> Result<&'a mut AdapterGrads> {
        Ok(grads)
    }

    fn close(&self, _: &mut AdapterGrads) -> Result<()> {
        Ok(())
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
        grads: &mut &mut AdapterGrads,
        space: &mut Space,
    ) -> Result<()> {
        let weights = at.matrix(map);
        let (k, n) = (weights.inputs(), weights.outputs());
        let rows = x.len() / k;
        let dx = dx.fit(rows * k);
        gemm::backward(&self.0, rows, dy, weights, dx)?;
        let (parts, count) = map.parts(at.config);
        let inner = inner.of[map as usize].chunks(rows * adapter.rank());
        for (&(projection, first), u) in parts[..count].iter().zip(inner) {
            let pair = adapter.pair(at.layer, projection);
            let (da, db) = grads.pair(at.layer, projection);
            let du = space.dinner.fit(rows * pair.rank);
            let dx = &mut *dx;
            let into = Into { du, da, db, dx };
            let columns = Columns { first, ld: n };
            lora::backward(&self.0, rows, &pair, Forward { x, u }, (dy, columns), into)?;
        }
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
        write(at, batch, qkv)?;
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
