//! The arithmetic of one decoder layer on the concatenated rows of a batch.
//!
//! `mid = x + o(attention(q, k, v of norm(x)))`, then `x' = mid + down(silu(gate)·up of norm(mid))`. Every step is kept in
//! [`Activations`], because the backward pass wants them; serving overwrites them in the next layer.

use crate::config::ModelConfig;
use crate::device::{Cpu, Device, Map, Numbers, Sequences, Site};
use crate::error::Result;

/// The intermediate results of a layer; buffers grow to the largest batch and stay.
#[derive(Debug)]
pub(crate) struct Activations<D: Device> {
    /// (N, C) norm of the layer's input.
    pub(super) attention_in: D::Narrow,
    /// (N, (H + 2K)·D) queries, keys, values.
    pub(super) qkv: D::Narrow,
    /// What a device puts beside them when it places them.
    pub(super) beside: D::Narrow,
    /// (N, H·D) attention's result.
    pub(super) attended: D::Narrow,
    pub(super) marks: D::Marks,
    /// (N, C) after the attention half.
    pub(super) mid: D::Wide,
    /// (N, C) norm of `mid`.
    pub(super) ffn_in: D::Narrow,
    /// (N, 2F).
    pub(super) gate_up: D::Narrow,
    /// (N, F).
    pub(super) gated: D::Narrow,
    /// (N, R) for each projection.
    pub(super) inner: D::Inner,
}

impl<D: Device> Default for Activations<D> {
    fn default() -> Self {
        Activations {
            attention_in: D::Narrow::default(),
            qkv: D::Narrow::default(),
            beside: D::Narrow::default(),
            attended: D::Narrow::default(),
            marks: D::Marks::default(),
            mid: D::Wide::default(),
            ffn_in: D::Narrow::default(),
            gate_up: D::Narrow::default(),
            gated: D::Narrow::default(),
            inner: D::Inner::default(),
        }
    }
}

/// A buffer, and how many numbers will be in it.
pub(crate) type Room<'a> = (&'a mut Numbers, usize);

impl Activations<Cpu> {
    /// Those of a layer but the adapters', which are small.
    pub(super) fn sizes(&mut self, config: &ModelConfig, rows: usize) -> [Room<'_>; 8] {
        let (hidden, ffn) = (config.hidden, config.ffn);
        let queries = config.heads * config.head_dim;
        let qkv = queries + 2 * config.kv_heads * config.head_dim;
        let raw = if config.qk_norm { qkv } else { 0 };
        [
            (&mut self.attention_in, rows * hidden),
            (&mut self.qkv, rows * qkv),
            (&mut self.beside, rows * raw),
            (&mut self.attended, rows * queries),
            (&mut self.mid, rows * hidden),
            (&mut self.ffn_in, rows * hidden),
            (&mut self.gate_up, rows * 2 * ffn),
            (&mut self.gated, rows * ffn),
        ]
    }
}

/// The first part of the attention half: queries, keys and values of `x`, the latter two also in the caches.
pub(super) fn place<D: Device, S: Sequences<D>>(
    device: &D,
    at: Site<'_, D>,
    batch: &mut S,
    x: &D::Wide,
    acts: &mut Activations<D>,
) -> Result<()> {
    let norm = &at.weights.attention_norm;
    device.norm(at.config, x, norm, &mut acts.attention_in)?;
    let (input, inner) = (&acts.attention_in, &mut acts.inner);
    device.linear(at, Map::Qkv, &*batch, input, inner, &mut acts.qkv)?;
    device.place(at, batch, &mut acts.qkv, &mut acts.beside)
}

/// The attention half: from `x` to `mid`.
pub(super) fn attend<D: Device, S: Sequences<D>>(
    device: &D,
    at: Site<'_, D>,
    batch: &mut S,
    x: &D::Wide,
    acts: &mut Activations<D>,
) -> Result<()> {
    place(device, at, batch, x, acts)?;
    mix(device, at, &*batch, x, acts)
}

/// The second part of the attention half, from what was placed to `mid`.
fn mix<D: Device, S: Sequences<D>>(
    device: &D,
    at: Site<'_, D>,
    batch: &S,
    x: &D::Wide,
    acts: &mut Activations<D>,
) -> Result<()> {
    let placed = (&acts.qkv, &acts.beside);
    device.attend(at, batch, placed, &mut acts.attended, &mut acts.marks)?;
    let (input, inner) = (&acts.attended, &mut acts.inner);
    device.linear_add(at, Map::O, batch, input, x, inner, &mut acts.mid)
}

/// The first part of the feed-forward half: from `mid` to `gated`.
pub(super) fn gate<D: Device, S: Sequences<D>>(
    device: &D,
    at: Site<'_, D>,
    batch: &S,
    acts: &mut Activations<D>,
) -> Result<()> {
    device.norm(at.config, &acts.mid, &at.weights.ffn_norm, &mut acts.ffn_in)?;
    let (input, inner) = (&acts.ffn_in, &mut acts.inner);
    device.linear(at, Map::GateUp, batch, input, inner, &mut acts.gate_up)?;
    device.swiglu(at.config.ffn, &acts.gate_up, &mut acts.gated)
}

/// A whole layer, from `x` to `out`.
pub(super) fn forward<D: Device, S: Sequences<D>>(
    device: &D,
    at: Site<'_, D>,
    batch: &mut S,
    x: &D::Wide,
    acts: &mut Activations<D>,
    out: &mut D::Wide,
) -> Result<()> {
    attend(device, at, batch, x, acts)?;
    feed(device, at, &*batch, acts, out)
}

/// The feed-forward half: from `mid` to `out`.
fn feed<D: Device, S: Sequences<D>>(
    device: &D,
    at: Site<'_, D>,
    batch: &S,
    acts: &mut Activations<D>,
    out: &mut D::Wide,
) -> Result<()> {
    gate(device, at, batch, acts)?;
    let (input, inner) = (&acts.gated, &mut acts.inner);
    device.linear_add(at, Map::Down, batch, input, &acts.mid, inner, out)
}

/// The rest of the last layer after [`place`], of some rows alone: nothing of the others is looked at any more. `batch` is of those
/// rows; `out` has as many.
pub(super) fn finish<D: Device, S: Sequences<D>>(
    device: &D,
    at: Site<'_, D>,
    batch: &S,
    (x, rows): (&D::Wide, &[usize]),
    acts: &mut Activations<D>,
    space: &mut D::Wide,
    out: &mut D::Wide,
) -> Result<()> {
    device.gather(at.config.hidden, x, rows, space)?;
    device.trim(at.config, rows, &mut acts.qkv)?;
    mix(device, at, batch, space, acts)?;
    feed(device, at, batch, acts, out)
}
