//! A LoRA adapter: A and B of the seven projections of every layer, as one flat vector.
//!
//! The flat order is: layers ascending; in a layer q, k, v, o, gate, up, down; of each A (rank, inputs) row-major, then B
//! (outputs, rank) row-major. Parameters, gradients and both optimizer moments share it. Does not know the optimizer,
//! and reads or writes no file. Start at [`Adapter::init`].

use crate::config::ModelConfig;
use crate::error::{Error, Result};
use kernels::Floats;
use kernels::lora::Pair;
use sha2::{Digest, Sha256};
use std::ops::Range;
use std::sync::OnceLock;

mod gradients;

pub use gradients::AdapterGrads;
pub(crate) use gradients::HostGrads;

/// A linear map that an adapter changes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Projection {
    /// Queries.
    Q,
    /// Keys.
    K,
    /// Values.
    V,
    /// Attention output.
    O,
    /// Feed-forward gate.
    Gate,
    /// Feed-forward up.
    Up,
    /// Feed-forward down.
    Down,
}

impl Projection {
    /// All of them, in the flat order.
    pub const ALL: [Projection; 7] = [
        Projection::Q,
        Projection::K,
        Projection::V,
        Projection::O,
        Projection::Gate,
        Projection::Up,
        Projection::Down,
    ];

    /// The module's name below its layer, for example `self_attn.q_proj`.
    pub fn module(self) -> &'static str {
        match self {
            Projection::Q => "self_attn.q_proj",
            Projection::K => "self_attn.k_proj",
            Projection::V => "self_attn.v_proj",
            Projection::O => "self_attn.o_proj",
            Projection::Gate => "mlp.gate_proj",
            Projection::Up => "mlp.up_proj",
            Projection::Down => "mlp.down_proj",
        }
    }

    /// (outputs, inputs) in a model.
    pub fn shape(self, config: &ModelConfig) -> (usize, usize) {
        let (c, f) = (config.hidden, config.ffn);
        let (q, kv) = (
            config.heads * config.head_dim,
            config.kv_heads * config.head_dim,
        );
        match self {
            Projection::Q => (q, c),
            Projection::K | Projection::V => (kv, c),
            Projection::O => (c, q),
            Projection::Gate | Projection::Up => (f, c),
            Projection::Down => (c, f),
        }
    }
}

/// Where each matrix lies in the flat vectors.
#[derive(Clone, PartialEq, Debug)]
struct Layout {
    layers: usize,
    rank: usize,
    /// (outputs, inputs) of each projection.
    shapes: [(usize, usize); 7],
}

impl Layout {
    fn new(config: &ModelConfig, rank: usize) -> Layout {
        Layout {
            layers: config.layers,
            rank,
            shapes: Projection::ALL.map(|p| p.shape(config)),
        }
    }

    fn per_layer(&self) -> usize {
        self.shapes.iter().map(|(o, i)| (o + i) * self.rank).sum()
    }

    fn len(&self) -> usize {
        self.layers * self.per_layer()
    }

    /// A's and B's ranges.
    fn at(&self, layer: usize, projection: Projection) -> (Range<usize>, Range<usize>) {
        let before = &self.shapes[..projection as usize];
        let skipped: usize = before.iter().map(|(o, i)| (o + i) * self.rank).sum();
        let first = layer * self.per_layer() + skipped;
        let (outputs, inputs) = self.shapes[projection as usize];
        let middle = first + inputs * self.rank;
        (first..middle, middle..middle + outputs * self.rank)
    }
}

/// A LoRA adapter of one model.
#[derive(Clone, Debug)]
pub struct Adapter {
    layout: Layout,
    alpha: f32,
    params: Vec<f32>,
    /// Every matrix transposed, at the same place: the form in which the CPU's forward products read them.
    transposed: OnceLock<Floats>,
    /// Hashing millions of numbers takes a step's time: done once, by whoever asks first.
    digest: OnceLock<String>,
}

impl Adapter {
    /// How many parameters an adapter of this rank has.
    pub fn parameters(config: &ModelConfig, rank: usize) -> usize {
        Layout::new(config, rank).len()
    }

    /// A fresh adapter: A Kaiming-uniform as in PEFT (±1/√inputs), B zero, so that it changes nothing yet.
    ///
    /// The numbers depend on `seed` and on their place only.
    ///
    /// # Errors
    /// [`Error::AdapterSetting`] for rank 0 or an α that is not positive.
    pub fn init(config: &ModelConfig, rank: usize, alpha: f32, seed: u64) -> Result<Adapter> {
        let layout = Layout::new(config, rank);
        let mut params = vec![0.0; layout.len()];
        for layer in 0..layout.layers {
            for projection in Projection::ALL {
                let (a, _) = layout.at(layer, projection);
                let bound = 1.0 / (layout.shapes[projection as usize].1 as f32).sqrt();
                for (place, v) in a.clone().zip(&mut params[a]) {
                    *v = (2.0 * uniform(seed, place as u64) - 1.0) * bound;
                }
            }
        }
        Adapter::from_params(config, rank, alpha, params)
    }

    /// An adapter that changes something: B is uniform within ±0.05, too. For checks and measurements, never for training.
    ///
    /// # Errors
    /// As [`Adapter::init`].
    pub fn random(config: &ModelConfig, rank: usize, alpha: f32, seed: u64) -> Result<Adapter> {
        let mut adapter = Adapter::init(config, rank, alpha, seed)?;
        let layout = adapter.layout.clone();
        adapter.update(|params| {
            for layer in 0..layout.layers {
                for projection in Projection::ALL {
                    let (_, b) = layout.at(layer, projection);
                    for (place, v) in b.clone().zip(&mut params[b]) {
                        *v = 0.1 * uniform(seed, place as u64) - 0.05;
                    }
                }
            }
        });
        Ok(adapter)
    }

    /// An adapter with given parameters, in the flat order.
    ///
    /// # Errors
    /// [`Error::AdapterSetting`] for a rank or α that cannot be, or another number of parameters than the model asks for.
    pub fn from_params(
        config: &ModelConfig,
        rank: usize,
        alpha: f32,
        params: Vec<f32>,
    ) -> Result<Adapter> {
        let refuse = |what, found, rule| Err(Error::AdapterSetting { what, found, rule });
        if rank == 0 {
            return refuse("rank", 0.0, "it must be at least 1");
        }
        if !(alpha > 0.0 && alpha.is_finite()) {
            return refuse("alpha", f64::from(alpha), "it must be positive");
        }
        let layout = Layout::new(config, rank);
        if params.len() != layout.len() {
            let rule = "the model and the rank ask for another number";
            return refuse("parameters", params.len() as f64, rule);
        }
        let mut adapter = Adapter {
            layout,
            alpha,
            transposed: OnceLock::new(),
            digest: OnceLock::new(),
            params,
        };
        adapter.transpose();
        Ok(adapter)
    }

    /// The same adapter with other parameters, in the flat order.
    ///
    /// # Errors
    /// [`Error::AdapterSetting`] for another number of parameters.
    pub fn with_params(&self, params: Vec<f32>) -> Result<Adapter> {
        if params.len() != self.params.len() {
            return Err(Error::AdapterSetting {
                what: "parameters",
                found: params.len() as f64,
                rule: "the adapter has another number",
            });
        }
        let mut next = self.replaced(params);
        next.transpose();
        Ok(next)
    }

    /// The same adapter with as many other parameters, to be used on a GPU; a CPU transposes them when it meets them first.
    pub(crate) fn replaced(&self, params: Vec<f32>) -> Adapter {
        Adapter {
            layout: self.layout.clone(),
            alpha: self.alpha,
            params,
            transposed: OnceLock::new(),
            digest: OnceLock::new(),
        }
    }

    /// Changes the parameters in place.
    pub fn update(&mut self, change: impl FnOnce(&mut [f32])) {
        change(&mut self.params);
        self.digest = OnceLock::new();
        self.transpose();
    }

    /// Rank.
    pub fn rank(&self) -> usize {
        self.layout.rank
    }

    /// α; the update is scaled by α / rank.
    pub fn alpha(&self) -> f32 {
        self.alpha
    }

    /// All parameters, in the flat order.
    pub fn params(&self) -> &[f32] {
        &self.params
    }

    /// Whether the adapter was made for a model of this shape.
    pub fn fits(&self, config: &ModelConfig) -> bool {
        self.layout == Layout::new(config, self.layout.rank)
    }

    /// Every matrix in the flat order: its name in PEFT's `adapter_model.safetensors`, its shape, its values.
    pub fn tensors(&self) -> impl Iterator<Item = (String, [usize; 2], &[f32])> {
        self.names_and_shapes()
            .map(|(name, shape, range)| (name, shape, &self.params[range]))
    }

    /// Every matrix in the flat order: its PEFT name, its shape, its place in the flat vectors.
    pub fn names_and_shapes(&self) -> impl Iterator<Item = (String, [usize; 2], Range<usize>)> {
        let layout = &self.layout;
        (0..layout.layers).flat_map(move |layer| {
            Projection::ALL.into_iter().flat_map(move |projection| {
                let (a, b) = layout.at(layer, projection);
                let (outputs, inputs) = layout.shapes[projection as usize];
                let module = format!(
                    "base_model.model.model.layers.{layer}.{}",
                    projection.module()
                );
                [
                    (format!("{module}.lora_A.weight"), [layout.rank, inputs], a),
                    (format!("{module}.lora_B.weight"), [outputs, layout.rank], b),
                ]
            })
        })
    }

    /// SHA-256, as hex, over a canonical encoding: the text `nextstate-adapter-1`, then little-endian rank (u32) and α
    /// (f32), then for each matrix in the flat order its name's length (u32) and bytes, both sizes (u32) and values (f32).
    pub fn digest(&self) -> String {
        self.digest.get_or_init(|| self.hash()).clone()
    }

    fn hash(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(b"nextstate-adapter-1");
        hash.update((self.layout.rank as u32).to_le_bytes());
        hash.update(self.alpha.to_le_bytes());
        let mut bytes = Vec::new();
        for (name, shape, values) in self.tensors() {
            bytes.clear();
            bytes.extend((name.len() as u32).to_le_bytes());
            bytes.extend(name.as_bytes());
            bytes.extend(shape.iter().flat_map(|&n| (n as u32).to_le_bytes()));
            hash.update(&bytes);
            put(values, &mut bytes);
            hash.update(&bytes);
        }
        hex::encode(hash.finalize())
    }

    /// Layers of its model.
    pub(crate) fn layers(&self) -> usize {
        self.layout.layers
    }

    /// (outputs, inputs) of a projection.
    pub(crate) fn shape(&self, projection: Projection) -> (usize, usize) {
        self.layout.shapes[projection as usize]
    }

    /// s = α / R.
    pub(crate) fn scale(&self) -> f32 {
        self.alpha / self.layout.rank as f32
    }

    /// Where A and B of a projection lie among the parameters.
    pub(crate) fn at(&self, layer: usize, projection: Projection) -> (Range<usize>, Range<usize>) {
        self.layout.at(layer, projection)
    }

    /// The matrices of one projection.
    pub(crate) fn pair(&self, layer: usize, projection: Projection) -> Pair<'_> {
        let (a, b) = self.layout.at(layer, projection);
        let transposed = self.transposed.get_or_init(|| {
            let mut to = Floats::zeros(self.params.len());
            transpose(&self.layout, &self.params, &mut to);
            to
        });
        Pair {
            a: &self.params[a.clone()],
            b: &self.params[b.clone()],
            a_t: &transposed[a],
            b_t: &transposed[b],
            rank: self.layout.rank,
            scale: self.scale(),
        }
    }

    /// Now, in the memory that is there.
    fn transpose(&mut self) {
        let there = self.transposed.take();
        let mut to = there.unwrap_or_else(|| Floats::zeros(self.params.len()));
        transpose(&self.layout, &self.params, &mut to);
        self.transposed = OnceLock::from(to);
    }
}

/// Numbers as little-endian bytes, at the speed of a copy.
pub(crate) fn put(values: &[f32], to: &mut Vec<u8>) {
    to.resize(size_of_val(values), 0);
    for (to, v) in to.as_chunks_mut().0.iter_mut().zip(values) {
        *to = v.to_le_bytes();
    }
}

/// Every matrix of `params` transposed, at the same place of `to`.
fn transpose(layout: &Layout, params: &[f32], to: &mut [f32]) {
    for layer in 0..layout.layers {
        for projection in Projection::ALL {
            let (a, b) = layout.at(layer, projection);
            let (outputs, inputs) = layout.shapes[projection as usize];
            for (range, rows, columns) in [(a, layout.rank, inputs), (b, outputs, layout.rank)] {
                let (from, to) = (&params[range.clone()], &mut to[range]);
                for (i, row) in from.chunks_exact(columns).enumerate() {
                    for (j, &v) in row.iter().enumerate() {
                        to[j * rows + i] = v;
                    }
                }
            }
        }
    }
}

/// A number in [0, 1), a function of seed and place alone.
///
/// # Source
/// The finalizer of SplitMix64 (Steele, Lea & Flood 2014), applied to the seed and then to the place.
pub(crate) fn uniform(seed: u64, place: u64) -> f32 {
    let mix = |mut z: u64| {
        z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    (mix(mix(seed) ^ place) >> 40) as f32 / (1u64 << 24) as f32
}
