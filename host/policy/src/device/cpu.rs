//! The CPU: rows are plain vectors, every operation one of [`kernels`] on the threads of a pool.

use super::{Attended, Device, Map, Sequences, Site, Span, Turn};
use crate::adapter::{Adapter, AdapterGrads};
use crate::config::ModelConfig;
use crate::error::Result;
use crate::kv::Kv;
use crate::model::{Scratch, Tape, serve, train};
use kernels::attention::{self, Queries, Rows};
use kernels::lora::{Columns, Forward, Into, Segment};
use kernels::rope::Table;
use kernels::softmax::{self, Normalizer, Target};
use kernels::{CacheShape, Dtype, KvCache, Packed, Pool, Slice};
use kernels::{elementwise, gemm, lora, rmsnorm, rope, swiglu};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// Rows whose logits exist at the same time.
const TILE: usize = 128;

/// The threads that compute.
#[derive(Clone, Debug)]
pub(crate) struct Cpu(pub(crate) Arc<Pool>);

/// Numbers that keep their memory when they become fewer.
#[derive(Clone, Default, Debug)]
pub(crate) struct Numbers {
    data: Vec<f32>,
    len: usize,
}

impl Numbers {
    /// Exactly `len` numbers; what was there before stays as far as it reaches.
    fn fit(&mut self, len: usize) -> &mut [f32] {
        if self.data.len() < len {
            self.data.resize(len, 0.0);
        }
        self.len = len;
        &mut self.data[..len]
    }
}

impl Deref for Numbers {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.data[..self.len]
    }
}

impl DerefMut for Numbers {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.data[..self.len]
    }
}

/// The inner results of a layer's adapters, one buffer for each fused matrix: (N, R) of its first projection, then of the next.
#[derive(Default, Debug)]
pub(crate) struct Inner {
    of: [Numbers; 4],
    /// Memory of the list that a product is given.
    list: Vec<Segment<'static>>,
}

/// Space of the backward pass.
#[derive(Default, Debug)]
pub(crate) struct Space {
    /// (N, R).
    dinner: Numbers,
    /// Of one row's heads.
    dheads: Numbers,
    /// By the keys and values before a span's rows.
    dbefore: Numbers,
    stats: Vec<f32>,
    /// Each sequence's keys and values, exchanged.
    mirrors: Vec<KvCache>,
}

impl Turn for Slice<'_> {
    fn breathe(&mut self) {
        Slice::breathe(self);
    }
}

impl Device for Cpu {
    type Wide = Numbers;
    type Narrow = Numbers;
    type Inner = Inner;
    type Matrix = Packed;
    type Vector = Vec<f32>;
    type Angles = Table;
    type Cache = KvCache;
    type Plan = ();
    type Space = Space;
    type Grads<'a> = &'a mut AdapterGrads;
    type Turn<'a> = Slice<'a>;

    fn enter(&self) -> Slice<'_> {
        self.0.enter()
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

    fn cache(&self, shape: CacheShape) -> KvCache {
        KvCache::new(shape)
    }

    fn reserve(&self, cache: &mut KvCache, tokens: usize) -> Result<()> {
        cache.reserve(tokens);
        Ok(())
    }

    fn adopt(&self, kv: &mut Kv, tokens: usize) -> Result<()> {
        kv.cache.reserve(tokens);
        Ok(())
    }

    fn cached(kv: &Kv) -> &KvCache {
        &kv.cache
    }

    fn cached_mut(kv: &mut Kv) -> &mut KvCache {
        &mut kv.cache
    }

    fn scratch(scratch: &mut Scratch) -> (&mut serve::Buffers<Cpu>, &mut serve::Results) {
        (&mut scratch.cpu, &mut scratch.results)
    }

    fn tape(tape: &mut Tape) -> (&mut train::Buffers<Cpu>, &mut train::Asked) {
        (&mut tape.cpu, &mut tape.asked)
    }

    fn plan<S: Sequences<Cpu>>(&self, _: &S) -> Result<()> {
        Ok(())
    }

    fn embed(&self, table: &Packed, tokens: &[u32], out: &mut Numbers) -> Result<()> {
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
        let room = gather_segments(at, map, batch, &mut segments);
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
        qkv: &Numbers,
        out: &mut Numbers,
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

    fn logits(&self, x: &Numbers, w: &Packed, out: &mut Vec<f32>) -> Result<()> {
        let rows = x.len() / w.inputs();
        out.resize(rows * w.outputs(), 0.0);
        Ok(gemm::forward(&self.0, rows, x, w, out)?)
    }

    fn log_probs(
        &self,
        turn: &mut Slice<'_>,
        x: &Numbers,
        w: &Packed,
        targets: &[Target],
        temperature: f32,
        normalizers: &mut Vec<Normalizer>,
        out: &mut [f32],
    ) -> Result<()> {
        let (k, n) = (w.inputs(), w.outputs());
        normalizers.clear();
        let (mut logits, mut tile, mut done) = (vec![0.0; TILE * n], Vec::new(), 0);
        for (first, x) in x.chunks(TILE * k).enumerate() {
            let rows = x.len() / k;
            let logits = &mut logits[..rows * n];
            gemm::forward(&self.0, rows, x, w, logits)?;
            softmax::normalizers(&self.0, logits, n, temperature, &mut tile)?;
            while let Some(target) = targets.get(done).filter(|t| t.row < first * TILE + rows) {
                let row = target.row - first * TILE;
                out[done] = tile[row].log_prob(logits[row * n + target.token as usize]);
                done += 1;
            }
            normalizers.extend_from_slice(&tile);
            turn.breathe();
        }
        Ok(())
    }

    fn log_probs_backward(
        &self,
        turn: &mut Slice<'_>,
        x: &Numbers,
        w: &Packed,
        targets: &[Target],
        normalizers: &[Normalizer],
        upstream: &[f32],
        dx: &mut Numbers,
    ) -> Result<()> {
        let (k, n) = (w.inputs(), w.outputs());
        let dx = dx.fit(x.len());
        let (mut logits, mut tile, mut done) = (vec![0.0; TILE * n], Vec::new(), 0);
        for ((first, x), dx) in x.chunks(TILE * k).enumerate().zip(dx.chunks_mut(TILE * k)) {
            let rows = x.len() / k;
            let logits = &mut logits[..rows * n];
            gemm::forward(&self.0, rows, x, w, logits)?;
            tile.clear();
            let of_tile = targets[done..]
                .iter()
                .take_while(|t| t.row < first * TILE + rows);
            tile.extend(of_tile.map(|t| Target {
                row: t.row - first * TILE,
                token: t.token,
            }));
            let upstream = &upstream[done..done + tile.len()];
            done += tile.len();
            let normalizers = &normalizers[first * TILE..][..rows];
            softmax::backward(&self.0, logits, normalizers, &tile, upstream)?;
            gemm::backward(&self.0, rows, logits, w, dx)?;
            turn.breathe();
        }
        Ok(())
    }

    fn open<'a>(&self, grads: &'a mut AdapterGrads) -> Result<&'a mut AdapterGrads> {
        Ok(grads)
    }

    fn close(&self, _: &mut AdapterGrads) -> Result<()> {
        Ok(())
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
            qkv,
            raw,
            out,
            dout,
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

impl Cpu {
    /// Keys and values of every sequence exchanged: what the gradient of attention reads as if values were keys.
    fn mirror<S: Sequences<Cpu>>(
        &self,
        at: Site<'_, Cpu>,
        batch: &S,
        qkv: &[f32],
        mirrors: &mut Vec<KvCache>,
    ) -> Result<()> {
        let (queries, keys) = widths(at.config);
        let width = queries + 2 * keys;
        for i in 0..batch.count() {
            let Span {
                first,
                count,
                start,
                parent,
                ..
            } = batch.span(i);
            let shape = batch.cache(i).shape();
            if mirrors.get(i).is_none_or(|m| m.shape() != shape) {
                mirrors.truncate(i);
                mirrors.push(KvCache::new(shape));
            }
            let (before, rest) = mirrors.split_at_mut(i);
            let own = &mut rest[0];
            if let Some(parent) = parent {
                own.copy_prefix_from(&before[parent], start)?;
            }
            own.reserve(start + count);
            let rows = &qkv[first * width..][..count * width];
            own.write(at.slot, start, rows, width, queries + keys, queries)?;
            own.set_len(start + count)?;
        }
        Ok(())
    }

    /// Through the norms of the heads, in place; nothing without QK-norm.
    fn heads_backward(
        &self,
        at: Site<'_, Cpu>,
        raw: &[f32],
        dqkv: &mut [f32],
        dheads: &mut Numbers,
    ) -> Result<()> {
        let Some((q_norm, k_norm)) = &at.weights.qk_norm else {
            return Ok(());
        };
        let (d, eps) = (at.config.head_dim, at.config.rms_eps);
        let (queries, keys) = widths(at.config);
        let width = queries + 2 * keys;
        for (raw, drow) in raw.chunks_exact(width).zip(dqkv.chunks_exact_mut(width)) {
            for (columns, norm) in [(0..queries, q_norm), (queries..queries + keys, k_norm)] {
                let dheads = dheads.fit(columns.len());
                dheads.fill(0.0);
                let (raw, own) = (&raw[columns.clone()], &mut drow[columns]);
                rmsnorm::backward(&self.0, own.len() / d, raw, norm, eps, own, dheads)?;
                own.copy_from_slice(dheads);
            }
        }
        Ok(())
    }
}

/// Columns of the queries and of the keys in a fused row.
fn widths(config: &ModelConfig) -> (usize, usize) {
    let d = config.head_dim;
    (config.heads * d, config.kv_heads * d)
}

/// Writes keys and values of all rows to the caches; what a parent has is copied from it.
fn write<S: Sequences<Cpu>>(at: Site<'_, Cpu>, batch: &mut S, qkv: &[f32]) -> Result<()> {
    let (queries, keys) = widths(at.config);
    let width = queries + 2 * keys;
    for i in 0..batch.count() {
        let Span {
            first,
            count,
            start,
            parent,
            ..
        } = batch.span(i);
        if let Some((parent, own)) = parent.and_then(|parent| batch.family(parent, i)) {
            parent.set_len(start)?;
            own.copy_prefix_from(parent, start)?;
        }
        let own = &qkv[first * width..][..count * width];
        let cache = batch.cache_mut(i);
        cache.write(at.slot, start, own, width, queries, queries + keys)?;
    }
    Ok(())
}

/// Adds the gradients by the keys and values before span `i` to the rows of the spans that have them.
fn hand_back<S: Sequences<Cpu>>(
    batch: &S,
    i: usize,
    dbefore: &[f32],
    (queries, width): (usize, usize),
    dqkv: &mut [f32],
) {
    let mut parent = batch.span(i).parent;
    let mut end = batch.span(i).start;
    while let Some(p) = parent {
        let span = batch.span(p);
        for position in span.start..end {
            let row = span.first + position - span.start;
            let to = &mut dqkv[row * (queries + width) + queries..][..width];
            for (to, v) in to.iter_mut().zip(&dbefore[position * width..]) {
                *to += v;
            }
        }
        (parent, end) = (span.parent, span.start);
    }
}

/// The adapters of a product: what has the same one is one segment. Returns how many numbers their inner results are.
fn gather_segments<'a, S: Sequences<Cpu>>(
    at: Site<'_, Cpu>,
    map: Map,
    batch: &'a S,
    segments: &mut Vec<Segment<'a>>,
) -> usize {
    let (parts, width) = map.parts(at.config);
    let (mut room, mut i) = (0, 0);
    while i < batch.count() {
        let Span {
            first,
            mut count,
            adapter,
            ..
        } = batch.span(i);
        i += 1;
        let Some(adapter) = adapter else { continue };
        while i < batch.count() {
            let next = batch.span(i);
            let same = next
                .adapter
                .is_some_and(|other| std::ptr::eq(other, adapter));
            if !same || next.first != first + count {
                break;
            }
            count += next.count;
            i += 1;
        }
        for &(projection, column) in &parts[..width] {
            let pair = adapter.pair(at.layer, projection);
            segments.push(Segment {
                first,
                count,
                pair,
                column,
                inner: room,
            });
            room += count * pair.rank;
        }
    }
    room
}

/// The same memory for a list of other segments: the standard library collects in place.
fn emptied<'a>(mut list: Vec<Segment<'_>>) -> Vec<Segment<'a>> {
    list.clear();
    list.into_iter().map_while(|_| None).collect()
}
