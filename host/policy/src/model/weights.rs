//! Loads and packs weights. Fused matrices: q, k, v side by side; gate and up side by side.

use crate::adapter::{Adapter, Projection, uniform};
use crate::checkpoint::Checkpoint;
use crate::config::{ModelConfig, RopeScaling};
use crate::device::{Cpu, Cuda, Device, Optimizer, Site};
use crate::error::{Error, Result};
use kernels::rope::{Scaling, Table};
use kernels::softmax::Normalizer;
use kernels::{Dtype, Pool};
use std::sync::Arc;

/// Positions beyond which no rotary angles are prepared: 2^18, longer than any prompt this host can hold in memory.
const MAX_POSITIONS: usize = 1 << 18;

/// A decoder's weights, ready to compute; shared by serving, judging, teaching and training.
///
/// A clone shares them.
#[derive(Clone, Debug)]
pub struct Model {
    /// The host's threads: what a model on a GPU leaves to them, and the CPU's arithmetic.
    pool: Arc<Pool>,
    pub(super) net: Placed,
}

/// The weights, where they are.
#[derive(Clone, Debug)]
pub(super) enum Placed {
    Cpu(Net<Cpu>),
    Cuda(Net<Cuda>),
}

/// Calls a method of the weights, wherever they are.
macro_rules! on {
    ($model:expr, $net:ident => $call:expr) => {
        match &$model.net {
            $crate::model::weights::Placed::Cpu($net) => $call,
            $crate::model::weights::Placed::Cuda($net) => $call,
        }
    };
}
pub(super) use on;

/// The weights on one device.
#[derive(Debug)]
pub(crate) struct Net<D: Device> {
    pub(super) device: D,
    pub(super) config: ModelConfig,
    pub(super) embedding: Arc<D::Matrix>,
    /// The output matrix when it is not the embedding.
    pub(super) head: Option<Arc<D::Matrix>>,
    pub(super) norm: Arc<D::Vector>,
    pub(super) layers: Arc<[Layer<D>]>,
    pub(super) angles: Arc<D::Angles>,
    /// The longest sequence, in tokens.
    pub(super) context: usize,
}

/// One decoder layer.
#[derive(Debug)]
pub(crate) struct Layer<D: Device> {
    pub(crate) attention_norm: D::Vector,
    pub(crate) qkv: D::Matrix,
    /// QK-norm weights.
    pub(crate) qk_norm: Option<(D::Vector, D::Vector)>,
    pub(crate) o: D::Matrix,
    pub(crate) ffn_norm: D::Vector,
    pub(crate) gate_up: D::Matrix,
    pub(crate) down: D::Matrix,
}

/// Gives a tensor by its Hugging Face name and shape.
type Read<'a> = dyn Fn(&str, &[usize]) -> Result<Vec<f32>> + 'a;

impl Model {
    /// Reads and packs the weights of a checkpoint.
    ///
    /// # Errors
    /// What [`Checkpoint::tensor`] refuses.
    pub fn load(checkpoint: &Checkpoint, dtype: Dtype, pool: Arc<Pool>) -> Result<Model> {
        let read = |name: &str, shape: &[usize]| checkpoint.tensor(name, shape);
        Model::from_tensors(checkpoint.config.clone(), dtype, pool, &read)
    }

    /// Reads the weights of a checkpoint into a GPU's memory, as bf16, with room for `tokens` tokens of keys and values.
    ///
    /// # Errors
    /// [`Error::Compute`] without a GPU of this number or without enough memory, or for a model whose sizes no kernel is made for; what
    /// [`Checkpoint::tensor`] refuses.
    pub fn load_on_gpu(
        checkpoint: &Checkpoint,
        gpu: usize,
        tokens: usize,
        pool: Arc<Pool>,
    ) -> Result<Model> {
        let read = |name: &str, shape: &[usize]| checkpoint.tensor(name, shape);
        Model::on_gpu(checkpoint.config.clone(), gpu, tokens, pool, &read)
    }

    /// Random weights, a function of `seed`: for tests that need no download.
    ///
    /// # Errors
    /// [`Error::Compute`] for sizes that no op accepts.
    pub fn random(config: ModelConfig, seed: u64, dtype: Dtype, pool: Arc<Pool>) -> Result<Model> {
        Model::from_tensors(config, dtype, pool, &|name, shape| {
            Ok(random(seed, name, shape))
        })
    }

    /// The same random weights on a GPU.
    ///
    /// # Errors
    /// As [`Model::load_on_gpu`].
    pub fn random_on_gpu(
        config: ModelConfig,
        seed: u64,
        gpu: usize,
        tokens: usize,
        pool: Arc<Pool>,
    ) -> Result<Model> {
        Model::on_gpu(config, gpu, tokens, pool, &|name, shape| {
            Ok(random(seed, name, shape))
        })
    }

    fn from_tensors(
        config: ModelConfig,
        dtype: Dtype,
        pool: Arc<Pool>,
        read: &Read<'_>,
    ) -> Result<Model> {
        let net = Net::load(Cpu(Arc::clone(&pool)), config, dtype, read)?;
        let net = Placed::Cpu(net);
        Ok(Model { pool, net })
    }

    fn on_gpu(
        config: ModelConfig,
        gpu: usize,
        tokens: usize,
        pool: Arc<Pool>,
        read: &Read<'_>,
    ) -> Result<Model> {
        let device = Cuda::open(gpu, &config, tokens)?;
        let net = Placed::Cuda(Net::load(device, config, Dtype::Bf16, read)?);
        Ok(Model { pool, net })
    }

    /// The model's shape.
    pub fn config(&self) -> &ModelConfig {
        on!(self, net => &net.config)
    }

    /// The same weights on other threads or another instruction set: every result keeps its bits. On a GPU, only what is left to the host's
    /// threads changes.
    #[must_use]
    pub fn on(&self, pool: Arc<Pool>) -> Model {
        let net = match &self.net {
            Placed::Cpu(net) => Placed::Cpu(Net {
                device: Cpu(Arc::clone(&pool)),
                ..net.clone()
            }),
            Placed::Cuda(net) => Placed::Cuda(net.clone()),
        };
        Model { pool, net }
    }

    /// Whether it computes on a GPU: instruction sets are nothing to it then.
    pub fn is_on_gpu(&self) -> bool {
        matches!(self.net, Placed::Cuda(_))
    }

    /// The threads that it computes on.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// Parameters and moments on the GPU that these weights are on, if they are on one.
    pub(crate) fn optimizer(
        &self,
        params: &[f32],
        moments: [&[f32]; 2],
    ) -> Result<Option<Optimizer>> {
        match &self.net {
            Placed::Cpu(_) => Ok(None),
            Placed::Cuda(net) => Optimizer::new(&net.device, params, moments).map(Some),
        }
    }

    /// Memory of the packed matrices.
    pub fn bytes(&self) -> usize {
        on!(self, net => net.bytes())
    }

    /// The longest sequence, in tokens.
    pub fn context(&self) -> usize {
        on!(self, net => net.context)
    }

    /// Puts an adapter where forward passes find it, so that the first one that has it need not wait: before a version is published. Serving
    /// goes on meanwhile.
    ///
    /// # Errors
    /// [`Error::AdapterSetting`] for another model's adapter; [`Error::Compute`] when the device has no room for it.
    pub fn prepare(&self, adapter: &Adapter) -> Result<()> {
        on!(self, net => {
            net.check_adapter(Some(adapter))?;
            net.device.prepare(adapter)
        })
    }

    /// What turns a row of logits into the log-probs that are recorded with a sampled token.
    ///
    /// The same op as in training, so the bits are the trainer's. Greedy sampling (temperature 0) has no distribution of its
    /// own; its log-probs are recorded, and trained, at temperature 1.
    ///
    /// # Errors
    /// [`crate::Error::Compute`] for a negative or non-finite temperature, or an empty row.
    pub fn normalizer(&self, logits: &[f32], temperature: f32) -> Result<Normalizer> {
        let temperature = if temperature == 0.0 { 1.0 } else { temperature };
        on!(self, net => net.device.normalizer(logits, temperature))
    }
}

// Derived, it would ask for weights that can be copied.
impl<D: Device> Clone for Net<D> {
    fn clone(&self) -> Self {
        Net {
            device: self.device.clone(),
            config: self.config.clone(),
            embedding: Arc::clone(&self.embedding),
            head: self.head.clone(),
            norm: Arc::clone(&self.norm),
            layers: Arc::clone(&self.layers),
            angles: Arc::clone(&self.angles),
            context: self.context,
        }
    }
}

/// A random tensor.
fn random(seed: u64, name: &str, shape: &[usize]) -> Vec<f32> {
    let stream = name.bytes().fold(seed, |h, b| {
        (h ^ u64::from(b))
            .wrapping_mul(0x0100_0000_01b3)
            .rotate_left(17)
    });
    // Uniform with the variance 1 / inputs; norm weights near one.
    let (middle, spread) = match shape {
        [_, inputs] => (0.0, (3.0 / *inputs as f32).sqrt()),
        _ => (1.0, 0.1),
    };
    let len = shape.iter().product::<usize>() as u64;
    (0..len)
        .map(|i| middle + (2.0 * uniform(stream, i) - 1.0) * spread)
        .collect()
}

impl<D: Device> Net<D> {
    fn load(device: D, config: ModelConfig, dtype: Dtype, read: &Read<'_>) -> Result<Net<D>> {
        let (c, v) = (config.hidden, config.vocab_size);
        let pack = |parts: &[&[f32]], k| device.matrix(parts, k, dtype);
        let embedding = pack(&[&read("model.embed_tokens.weight", &[v, c])?], c)?;
        let head = match config.tied {
            true => None,
            false => Some(pack(&[&read("lm_head.weight", &[v, c])?], c)?),
        };
        let mut layers = Vec::with_capacity(config.layers);
        for layer in 0..config.layers {
            let vector = |name: &str, len| {
                let name = format!("model.layers.{layer}.{name}.weight");
                device.vector(read(&name, &[len])?)
            };
            let matrix = |projection: Projection| {
                let (outputs, inputs) = projection.shape(&config);
                let name = format!("model.layers.{layer}.{}.weight", projection.module());
                read(&name, &[outputs, inputs])
            };
            use Projection::{Down, Gate, K, O, Q, Up, V};
            let qk_norm = match config.qk_norm {
                true => Some((
                    vector("self_attn.q_norm", config.head_dim)?,
                    vector("self_attn.k_norm", config.head_dim)?,
                )),
                false => None,
            };
            layers.push(Layer {
                attention_norm: vector("input_layernorm", c)?,
                qkv: pack(&[&matrix(Q)?, &matrix(K)?, &matrix(V)?], c)?,
                qk_norm,
                o: pack(&[&matrix(O)?], config.heads * config.head_dim)?,
                ffn_norm: vector("post_attention_layernorm", c)?,
                gate_up: pack(&[&matrix(Gate)?, &matrix(Up)?], c)?,
                down: pack(&[&matrix(Down)?], config.ffn)?,
            });
        }
        let norm = device.vector(read("model.norm.weight", &[c])?)?;
        let positions = config.context.min(MAX_POSITIONS);
        let scaling = scaling(config.rope.scaling);
        let table = Table::new(config.head_dim, positions, config.rope.theta, scaling)?;
        Ok(Net {
            context: table.context(),
            angles: Arc::new(device.angles(table)?),
            config,
            embedding: Arc::new(embedding),
            head: head.map(Arc::new),
            norm: Arc::new(norm),
            layers: layers.into(),
            device,
        })
    }

    fn bytes(&self) -> usize {
        let layers = self
            .layers
            .iter()
            .flat_map(|l| [&l.qkv, &l.o, &l.gate_up, &l.down]);
        let ends = [Some(&*self.embedding), self.head.as_deref()];
        layers.chain(ends.into_iter().flatten()).map(D::bytes).sum()
    }

    /// The output matrix.
    pub(super) fn output(&self) -> &D::Matrix {
        self.head.as_deref().unwrap_or(&self.embedding)
    }

    /// A layer of a pass that has caches for all layers.
    pub(super) fn site<'a>(&'a self, plan: &'a D::Plan, layer: usize) -> Site<'a, D> {
        Site {
            config: &self.config,
            weights: &self.layers[layer],
            angles: &self.angles,
            plan,
            layer,
            slot: layer,
        }
    }

    /// Refuses tokens that the model cannot take.
    pub(super) fn check_tokens(&self, before: usize, tokens: &[u32]) -> Result<()> {
        if tokens.is_empty() {
            return Err(Error::EmptySequence);
        }
        let (len, context) = (before + tokens.len(), self.context);
        if len > context {
            return Err(Error::TooLong {
                tokens: len,
                context,
            });
        }
        let vocab = self.config.vocab_size;
        match tokens.iter().find(|&&t| t as usize >= vocab) {
            Some(&token) => Err(Error::Token { token, vocab }),
            None => Ok(()),
        }
    }

    /// Refuses another model's adapter.
    pub(super) fn check_adapter(&self, adapter: Option<&Adapter>) -> Result<()> {
        match adapter {
            Some(adapter) if !adapter.fits(&self.config) => Err(Error::AdapterSetting {
                what: "parameters",
                found: adapter.params().len() as f64,
                rule: "the adapter was made for another model",
            }),
            _ => Ok(()),
        }
    }
}

fn scaling(scaling: RopeScaling) -> Scaling {
    match scaling {
        RopeScaling::None => Scaling::None,
        RopeScaling::Linear { factor } => Scaling::Linear { factor },
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_context,
        } => Scaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_context,
        },
    }
}
