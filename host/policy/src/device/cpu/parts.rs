//! What the CPU's operations are made of: buffers, the caches of a forest of sequences, the list of a batch's adapters.

use super::Cpu;
use crate::config::ModelConfig;
use crate::device::{Map, Sequences, Site, Span};
use crate::error::Result;
use kernels::lora::Segment;
use kernels::{Buffer as Numbers, KvCache, Pool, rmsnorm};
use parking_lot::Mutex;

/// The inner results of a layer's adapters, one buffer for each fused matrix: (N, R) of its first projection, then of the next.
#[derive(Default, Debug)]
pub(crate) struct Inner {
    pub(super) of: [Numbers; 4],
    /// Memory of the list that a product is given.
    pub(super) list: Vec<Segment<'static>>,
}

/// Space of the backward pass.
#[derive(Default, Debug)]
pub(crate) struct Space {
    /// (N, R) of one projection after the other.
    pub(super) dinner: Numbers,
    /// Of one row's heads.
    pub(super) dheads: Numbers,
    /// By the keys and values before a span's rows.
    pub(super) dbefore: Numbers,
    pub(super) stats: Vec<f32>,
    /// Each sequence's keys and values, exchanged.
    pub(super) mirrors: Vec<KvCache>,
}

impl Cpu {
    /// Keys and values of every sequence exchanged: what the gradient of attention reads as if values were keys.
    pub(super) fn mirror<S: Sequences<Cpu>>(
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
            own.write(
                &self.0,
                at.slot,
                start,
                (rows, width),
                queries + keys,
                queries,
            )?;
            own.set_len(start + count)?;
        }
        Ok(())
    }

    /// Through the norms of the heads, in place; nothing without QK-norm.
    pub(super) fn heads_backward(
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
pub(super) fn widths(config: &ModelConfig) -> (usize, usize) {
    let d = config.head_dim;
    (config.heads * d, config.kv_heads * d)
}

/// Writes keys and values of all rows to the caches; what a parent has is copied from it.
pub(super) fn write<S: Sequences<Cpu>>(
    pool: &Pool,
    at: Site<'_, Cpu>,
    batch: &mut S,
    qkv: &[f32],
) -> Result<()> {
    let (queries, keys) = widths(at.config);
    let width = queries + 2 * keys;
    let write = |span: Span<'_>, cache: &mut KvCache| {
        let own = &qkv[span.first * width..][..span.count * width];
        cache.write(
            pool,
            at.slot,
            span.start,
            (own, width),
            queries,
            queries + keys,
        )
    };
    let mut failed = Mutex::new(None);
    if (0..batch.count()).all(|i| batch.span(i).parent.is_none()) {
        batch.each(pool, &|span, cache| {
            if let Err(error) = write(span, cache) {
                *failed.lock() = Some(error);
            }
        });
    } else {
        // A child copies what its parent has written.
        for i in 0..batch.count() {
            let Span { start, parent, .. } = batch.span(i);
            if let Some((parent, own)) = parent.and_then(|parent| batch.family(parent, i)) {
                parent.set_len(start)?;
                own.copy_prefix_from(parent, start)?;
            }
            let span = Span {
                adapter: None,
                ..batch.span(i)
            };
            write(span, batch.cache_mut(i))?;
        }
    }
    match failed.get_mut().take() {
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}

/// Adds the gradients by the keys and values before span `i` to the rows of the spans that have them.
pub(super) fn hand_back<S: Sequences<Cpu>>(
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
pub(super) fn segments_of<'a, S: Sequences<Cpu>>(
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
pub(super) fn emptied<'a>(mut list: Vec<Segment<'_>>) -> Vec<Segment<'a>> {
    list.clear();
    list.into_iter().map_while(|_| None).collect()
}
