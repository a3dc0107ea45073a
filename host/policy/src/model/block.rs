//! The arithmetic of one decoder layer on the concatenated rows of a batch.
//!
//! `mid = x + o(attention(q, k, v of norm(x)))`, then `x' = mid + down(silu(gate)·up of norm(mid))`. Every step is kept in
//! [`Activations`], because the backward pass wants them; serving overwrites them in the next layer.

use crate::adapter::{Adapter, Projection};
use crate::error::Result;
use crate::model::Model;
use kernels::attention::{self, Queries, Rows};
use kernels::lora::Columns;
use kernels::{KvCache, Packed, Pool, elementwise, gemm, lora, rmsnorm, rope, swiglu};

/// Consecutive rows of one sequence in a batch.
#[derive(Clone, Copy)]
pub(super) struct Span<'a> {
    /// First row of the batch.
    pub(super) first: usize,
    /// Rows.
    pub(super) count: usize,
    /// Position of the first row in its sequence.
    pub(super) start: usize,
    pub(super) adapter: Option<&'a Adapter>,
}

/// The sequences whose rows are computed together.
pub(super) trait Batch: Sync {
    fn sequences(&self) -> usize;
    fn span(&self, i: usize) -> Span<'_>;
    fn cache(&self, i: usize) -> &KvCache;
    fn cache_mut(&mut self, i: usize) -> &mut KvCache;
}

/// The intermediate results of a layer; buffers grow to the largest batch and stay.
#[derive(Debug, Default)]
pub(super) struct Activations {
    /// (N, C) the layer's input.
    pub(super) x: Vec<f32>,
    /// (N, C) norm of `x`.
    pub(super) attention_in: Vec<f32>,
    /// (N, (H + 2K)·D) queries, keys, values; normed and rotated.
    pub(super) qkv: Vec<f32>,
    /// The same before QK-norm; empty without it.
    pub(super) raw_qkv: Vec<f32>,
    /// (N, H·D) attention's result.
    pub(super) attended: Vec<f32>,
    /// (N, C) after the attention half.
    pub(super) mid: Vec<f32>,
    /// (N, C) norm of `mid`.
    pub(super) ffn_in: Vec<f32>,
    /// (N, 2F).
    pub(super) gate_up: Vec<f32>,
    /// (N, F).
    pub(super) gated: Vec<f32>,
    /// (N, R) for each projection: the adapter's inner result, of the last sequence that had one.
    pub(super) inner: [Vec<f32>; 7],
}

/// The first `len` elements of a buffer, which grows when it must.
pub(super) fn fit(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}

/// The attention half: from `x` to `mid`. `slot` is the layer's place in the caches.
pub(super) fn attend<B: Batch>(
    model: &Model,
    layer: usize,
    slot: usize,
    batch: &mut B,
    rows: usize,
    acts: &mut Activations,
) -> Result<()> {
    let (pool, config, weights) = (&*model.pool, &model.config, &model.layers[layer]);
    let (c, d) = (config.hidden, config.head_dim);
    let (queries, keys) = (config.heads * d, config.kv_heads * d);
    let width = queries + 2 * keys;
    let x = &acts.x[..rows * c];
    let normed = fit(&mut acts.attention_in, rows * c);
    rmsnorm::forward(
        pool,
        rows,
        x,
        &weights.attention_norm,
        config.rms_eps,
        normed,
    )?;
    let qkv = fit(&mut acts.qkv, rows * width);
    let parts = [
        (Projection::Q, 0),
        (Projection::K, queries),
        (Projection::V, queries + keys),
    ];
    linear(
        pool,
        layer,
        &weights.qkv,
        &parts,
        batch,
        normed,
        qkv,
        &mut acts.inner,
    )?;
    place(model, layer, slot, batch, qkv, &mut acts.raw_qkv)?;
    let attended = fit(&mut acts.attended, rows * queries);
    let q = Queries {
        data: qkv,
        ld: width,
        heads: config.heads,
    };
    let sequences = &*batch;
    let of = |i| {
        let Span {
            first,
            count,
            start,
            ..
        } = sequences.span(i);
        Rows {
            cache: sequences.cache(i),
            first,
            count,
            start,
        }
    };
    attention::forward(pool, slot, q, batch.sequences(), &of, attended)?;
    let mid = fit(&mut acts.mid, rows * c);
    let parts = [(Projection::O, 0)];
    linear(
        pool,
        layer,
        &weights.o,
        &parts,
        batch,
        attended,
        mid,
        &mut acts.inner,
    )?;
    Ok(elementwise::add(pool, mid, x)?)
}

/// Norms the heads (QK-norm), rotates them by their positions, and writes keys and values to the caches.
fn place<B: Batch>(
    model: &Model,
    layer: usize,
    slot: usize,
    batch: &mut B,
    qkv: &mut [f32],
    raw_qkv: &mut Vec<f32>,
) -> Result<()> {
    let (pool, config) = (&*model.pool, &model.config);
    let (queries, keys) = (
        config.heads * config.head_dim,
        config.kv_heads * config.head_dim,
    );
    let width = queries + 2 * keys;
    if let Some((q_norm, k_norm)) = &model.layers[layer].qk_norm {
        fit(raw_qkv, qkv.len()).copy_from_slice(qkv);
        for row in qkv.chunks_exact_mut(width) {
            let (q, kv) = row.split_at_mut(queries);
            rmsnorm::in_place(pool, config.heads, q, q_norm, config.rms_eps)?;
            rmsnorm::in_place(
                pool,
                config.kv_heads,
                &mut kv[..keys],
                k_norm,
                config.rms_eps,
            )?;
        }
    }
    for i in 0..batch.sequences() {
        let Span {
            first,
            count,
            start,
            ..
        } = batch.span(i);
        let own = &mut qkv[first * width..][..count * width];
        rope::forward(pool, &model.rope, own, width, 0..queries + keys, start)?;
        batch
            .cache_mut(i)
            .write(slot, start, own, width, queries, queries + keys)?;
    }
    Ok(())
}

/// The first part of the feed-forward half: from `mid` to `gated`.
pub(super) fn gate<B: Batch>(
    model: &Model,
    layer: usize,
    batch: &B,
    rows: usize,
    acts: &mut Activations,
) -> Result<()> {
    let (pool, config, weights) = (&*model.pool, &model.config, &model.layers[layer]);
    let (c, f) = (config.hidden, config.ffn);
    let normed = fit(&mut acts.ffn_in, rows * c);
    rmsnorm::forward(
        pool,
        rows,
        &acts.mid[..rows * c],
        &weights.ffn_norm,
        config.rms_eps,
        normed,
    )?;
    let gate_up = fit(&mut acts.gate_up, rows * 2 * f);
    let parts = [(Projection::Gate, 0), (Projection::Up, f)];
    linear(
        pool,
        layer,
        &weights.gate_up,
        &parts,
        batch,
        normed,
        gate_up,
        &mut acts.inner,
    )?;
    Ok(swiglu::forward(
        pool,
        rows,
        f,
        gate_up,
        fit(&mut acts.gated, rows * f),
    )?)
}

/// The end of a layer: its output, from `mid` and `gated`.
fn finish<B: Batch>(
    model: &Model,
    layer: usize,
    batch: &B,
    acts: &mut Activations,
    out: &mut [f32],
) -> Result<()> {
    let (pool, config, weights) = (&*model.pool, &model.config, &model.layers[layer]);
    let rows = out.len() / config.hidden;
    let gated = &acts.gated[..rows * config.ffn];
    let parts = [(Projection::Down, 0)];
    linear(
        pool,
        layer,
        &weights.down,
        &parts,
        batch,
        gated,
        out,
        &mut acts.inner,
    )?;
    Ok(elementwise::add(pool, out, &acts.mid[..out.len()])?)
}

/// A whole layer, from `acts.x` to `out`.
pub(super) fn forward<B: Batch>(
    model: &Model,
    layer: usize,
    slot: usize,
    batch: &mut B,
    acts: &mut Activations,
    out: &mut [f32],
) -> Result<()> {
    let rows = out.len() / model.config.hidden;
    attend(model, layer, slot, batch, rows, acts)?;
    gate(model, layer, batch, rows, acts)?;
    finish(model, layer, batch, acts, out)
}

/// `y = x·Wᵀ` and, for the rows of each sequence that has one, its adapter's part.
#[expect(
    clippy::too_many_arguments,
    reason = "one fused product: weights, adapters, input, output, work space"
)]
fn linear<B: Batch>(
    pool: &Pool,
    layer: usize,
    weights: &Packed,
    parts: &[(Projection, usize)],
    batch: &B,
    x: &[f32],
    y: &mut [f32],
    inner: &mut [Vec<f32>; 7],
) -> Result<()> {
    let (k, n) = (weights.inputs(), weights.outputs());
    gemm::forward(pool, x.len() / k, x, weights, y)?;
    for i in 0..batch.sequences() {
        let Span {
            first,
            count,
            adapter,
            ..
        } = batch.span(i);
        let Some(adapter) = adapter else { continue };
        let (x, y) = (
            &x[first * k..][..count * k],
            &mut y[first * n..][..count * n],
        );
        for &(projection, column) in parts {
            let pair = adapter.pair(layer, projection);
            let inner = fit(&mut inner[projection as usize], count * pair.rank);
            lora::down(pool, count, x, &pair, inner)?;
            lora::up(
                pool,
                count,
                inner,
                &pair,
                y,
                Columns {
                    first: column,
                    ld: n,
                },
            )?;
        }
    }
    Ok(())
}
