//! The arithmetic: what each part of a host holds at most, from a model's shape and the configuration.
//!
//! Every formula says what it counts; `host/app/tests/memory.rs` compares them with what is really allocated.

use kernels::output::TILE;
use kernels::{BLOCK, Floats, unfilled};
use policy::{Adapter, Kv, ModelConfig};
use serving::engine::prompt_bytes;
use serving::gateway::{CONNECTION_BYTES, PROMPTS_AT_ONCE, UNREAD_BYTES};
use trainer::PACK_ROWS;

use super::Facts;
use crate::config::{Config, Dtype};
use crate::history::{REQUEST_TOKENS, live};

/// Something that holds memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// What it is, for people.
    pub name: &'static str,
    /// Most bytes of it.
    pub bytes: u64,
}

/// The program's own pages, its threads, the ledger, the tokenizer, what two cores compute in (at most 5 MB of it copies of
/// gradients) and read bodies' values in (8 MiB each), and what the allocator holds back: a demo's host of SmolLM2 before its first step held 137 MB beside
/// weights, learner, keys and values (2026-11-27), 62 MB of them pages of the program's file.
const PROGRAM: u64 = 152 << 20;
/// Instances of plugins: pools are lazy, so that a shipped plugin holds what it has touched, 0.1 MB; compiled code is mapped from
/// its file. A plugin in Python holds some 20 MB, one in JavaScript 4.
const PLUGINS: u64 = 32 << 20;
/// Versions of an adapter: those that the slot keeps (`policy::Slot` keeps four), the proposal, and one that comes while a request begins.
/// Beside them there are those that only running replies still use: the engine's `max-versions`.
const VERSIONS: u64 = 4 + 1 + 1;
/// And those of a learner that computes old steps again: what it is at, what it proposes, and what it has just left.
const AGAIN: u64 = 3;
/// And those that an operator's request compares, while that learner computes. Where none does, its own are for the one that takes the place
/// of either.
const COMPARED: u64 = 2;
/// Rows of a prompt, and rows with logits, that are computed at once for such a request (`policy::local`, `policy::divergence`).
const REQUEST_ROWS: (u64, u64) = (256, 64);
/// Times that a request's text is there: the body in pieces and as a whole, or as messages, as the prompt and on its way to the ledger.
const COPIES: u64 = 3;
/// Bytes of an f32.
const F32: u64 = 4;

/// Everything that a host holds, and what it takes to load its weights.
pub fn parts(config: &Config, facts: &Facts) -> (Vec<Part>, u64) {
    let sizes = Sizes::new(config, &facts.model);
    let weights = sizes.weights();
    let empty = unfilled(usize::try_from(weights).unwrap_or(usize::MAX / 2)) as u64;
    let operators = match config.operators_compute {
        true => (sizes.compared(), sizes.imported(config)),
        false => (0, 0),
    };
    let part = |name, bytes| Part { name, bytes };
    let parts = vec![
        part("weights", weights),
        part("pages that they do not fill", empty),
        part(
            "adapter: the versions that are kept, and those of running replies",
            sizes.versions() * sizes.version(),
        ),
        // Stored as f32 or shorter, and held with a transposed copy.
        part("adapters that are served only", 4 * facts.adapters),
        part(
            "training: gradient, moments, and a proposal's",
            sizes.learner(),
        ),
        part(
            "aside: a second learner (forget, replay)",
            AGAIN * sizes.version() + sizes.moments(),
        ),
        part("aside: what operators have computed", operators.0),
        part("aside: an adapter that is imported", operators.1),
        part("training: inputs of the layers", sizes.inputs()),
        part("training: one layer, forward and backward", sizes.layer()),
        part("training: keys and values of a pack", sizes.pack()),
        part(
            "training: tile of the vocabulary",
            TILE as u64 * sizes.vocabulary * F32,
        ),
        part(
            "training: activations that are kept",
            config.activation_bytes,
        ),
        part("serving: keys and values", running(config, &facts.model).0),
        part("serving: kept prefixes", config.engine.prefix_bytes),
        part("serving: rows of a step, and samplers", sizes.step()),
        part(
            "requests: connections",
            (config.gateway.max_connections * CONNECTION_BYTES) as u64,
        ),
        part(
            "requests: bodies and messages",
            COPIES * config.gateway.body_bytes as u64,
        ),
        part(
            "requests: replies that are not read yet",
            UNREAD_BYTES as u64,
        ),
        part(
            "requests: prompts that are made tokens of",
            (PROMPTS_AT_ONCE * prompt_bytes(config.engine.context.min(facts.model.context))) as u64,
        ),
        part("plugins", PLUGINS),
        part("the rest of the program", PROGRAM),
    ];
    // The largest tensor is read as f32; its file's pages are mapped.
    let widest = (sizes.vocabulary * sizes.hidden).max(2 * sizes.ffn * sizes.hidden);
    let loading = weights + empty + facts.files + widest * F32 + PROGRAM;
    (parts, loading)
}

/// Most bytes of running sequences' keys and values, and how many one sequence of the whole context takes.
pub(super) fn running(config: &Config, model: &ModelConfig) -> (u64, u64) {
    let mut kv = Kv::new(model);
    kv.reserve(1);
    let context = config.engine.context.min(model.context).max(1);
    let one = (context.div_ceil(BLOCK) * kv.bytes()) as u64;
    let all = one.saturating_mul(config.engine.max_sequences as u64);
    (all.min(config.engine.kv_bytes), one)
}

/// The sizes that the formulas are written in.
struct Sizes<'a> {
    model: &'a ModelConfig,
    dtype: Dtype,
    layers: u64,
    vocabulary: u64,
    hidden: u64,
    queries: u64,
    keys: u64,
    ffn: u64,
    rank: u64,
    /// Parameters of an adapter.
    parameters: u64,
    /// Most tokens of one sample.
    context: u64,
    /// Most samples of a step.
    samples: u64,
    /// Most rows of a step of serving.
    rows: u64,
    /// Most sequences of one.
    sequences: u64,
    /// Most versions that they hold.
    held: u64,
}

impl<'a> Sizes<'a> {
    fn new(config: &Config, model: &'a ModelConfig) -> Self {
        let engine = &config.engine;
        Self {
            model,
            dtype: config.model.dtype,
            layers: model.layers as u64,
            vocabulary: model.vocab_size as u64,
            hidden: model.hidden as u64,
            queries: (model.heads * model.head_dim) as u64,
            keys: (model.kv_heads * model.head_dim) as u64,
            ffn: model.ffn as u64,
            rank: config.train.rank as u64,
            parameters: Adapter::parameters(model, config.train.rank) as u64,
            context: engine.context.min(model.context) as u64,
            samples: config.loops.train.batch_size as u64,
            // A GPU's rows are in its own memory.
            rows: (engine.prompt_rows(false) + engine.max_sequences) as u64,
            sequences: engine.max_sequences as u64,
            held: engine.max_versions.min(engine.max_sequences) as u64,
        }
    }

    /// Matrices in panels of 32 outputs, norms, and the angles of every position.
    fn weights(&self) -> u64 {
        let (c, f) = (self.hidden, self.ffn);
        let layer = self.packed(self.queries + 2 * self.keys, c)
            + self.packed(c, self.queries)
            + self.packed(2 * f, c)
            + self.packed(c, f)
            + (2 * c + 2 * self.model.head_dim as u64) * F32;
        let ends = if self.model.tied { 1 } else { 2 };
        let angles = (self.model.context.min(1 << 18) * self.model.head_dim) as u64 * F32;
        self.layers * layer + ends * self.packed(self.vocabulary, c) + c * F32 + angles
    }

    fn packed(&self, n: u64, k: u64) -> u64 {
        let n = n.next_multiple_of(BLOCK as u64);
        match self.dtype {
            Dtype::Bf16 => n * k * 2,
            Dtype::F32 => n * k * 4,
            // Codes, and a scale for each 32 of them.
            Dtype::Q8 => n * k + n * k.div_ceil(32) * F32,
            Dtype::Bf16Pairs => n * k.div_ceil(2) * 4,
        }
    }

    /// An adapter in memory: its parameters, and their transposed copy, in pages of its own.
    fn version(&self) -> u64 {
        let parameters = self.parameters;
        let transposed = Floats::bytes(usize::try_from(parameters).unwrap_or(usize::MAX));
        parameters * F32 + transposed as u64
    }

    /// How many of them a host that serves and trains holds.
    fn versions(&self) -> u64 {
        VERSIONS + self.held
    }

    /// What an operator's request holds beside the second learner: versions with the proposal as bytes, or with keys, values and rows of a
    /// sequence; or, without a learner, those of the two that are compared and of the policy that wrote the reply.
    fn compared(&self) -> u64 {
        let mut kv = Kv::new(self.model);
        kv.reserve(1);
        let tokens = self.context.min(REQUEST_TOKENS as u64);
        let kv = tokens.div_ceil(BLOCK as u64) * kv.bytes() as u64;
        let (rows, scored) = REQUEST_ROWS;
        let row = (self.activations() + 4 * self.hidden) * F32 + self.rounded(2 * self.ffn);
        let buffers = rows * row + scored * self.vocabulary * F32;
        let versions = COMPARED * self.version();
        (versions + self.proposal().max(kv + buffers)).max(2 * kv + 3 * buffers)
    }

    /// The request's text twice, as it came and as a value; or its bytes, the adapter, and that and its optimizer's state as bytes again.
    fn imported(&self, config: &Config) -> u64 {
        let text = live::largest(&config.train, self.model) as u64;
        (2 * text).max(text / 2 + 4 * self.parameters * F32)
    }

    /// A gradient; two moments, and the proposal's two.
    fn moments(&self) -> u64 {
        (1 + 4) * self.parameters * F32
    }

    /// A proposal as bytes (one parameter and two moments) twice: as it is made, and as it is written to the ledger.
    fn proposal(&self) -> u64 {
        2 * 3 * self.parameters * F32
    }

    /// While something is forgotten, the learner that is live proposes nothing.
    fn learner(&self) -> u64 {
        self.moments() + self.proposal()
    }

    /// Rows of a pack: as many as a pack takes, or one sample that is longer.
    fn pack_rows(&self) -> u64 {
        self.context.max(PACK_ROWS as u64)
    }

    fn inputs(&self) -> u64 {
        self.pack_rows() * (self.layers + 1) * self.hidden * F32
    }

    /// Numbers of a row that a layer keeps: norms, q, k, v (twice with QK-norm), attention, the feed-forward part, and the inner
    /// results of seven adapters.
    fn activations(&self) -> u64 {
        let qkv = self.queries + 2 * self.keys;
        let raw = if self.model.qk_norm { qkv } else { 0 };
        3 * self.hidden + qkv + raw + self.queries + 3 * self.ffn + 7 * self.rank
    }

    /// And their gradients, with the rows that are asked for, attention's statistics, and its queries and gradients gathered.
    fn gradients(&self) -> u64 {
        let wide = self.queries.max(self.hidden);
        let attention = 3 * self.queries + 4 * self.keys + 3 * self.model.heads as u64;
        5 * self.hidden + 3 * self.ffn + wide + attention + 3 * self.rank
    }

    fn layer(&self) -> u64 {
        let rounded = self.pack_rows() * self.rounded(2 * self.ffn);
        let output = TILE as u64 * self.rounded(self.vocabulary);
        self.pack_rows() * (self.activations() + self.gradients()) * F32 + rounded.max(output)
    }

    /// Bytes of a row that is rounded to 16 bits before it is multiplied.
    fn rounded(&self, width: u64) -> u64 {
        if self.dtype == Dtype::Bf16Pairs {
            2 * width
        } else {
            0
        }
    }

    /// Keys and values of one layer, and the same exchanged. Each sample adds at most two nodes to a pack, and each node has a
    /// copy of what is before it.
    fn pack(&self) -> u64 {
        let nodes = 2 * self.samples - 1;
        let block = BLOCK as u64;
        let tokens = (nodes * (PACK_ROWS as u64 + block)).max(self.context + block);
        2 * tokens * 2 * self.keys * F32
    }

    /// A step of serving: one layer's rows, the stream of rows, logits; and what a sampler weighs, sorts and rewrites.
    fn step(&self) -> u64 {
        let row = self.activations() + 4 * self.hidden + self.vocabulary;
        let rounded = self.rounded(2 * self.ffn);
        let sampler = self.vocabulary * 4 * F32;
        self.rows * (row * F32 + rounded) + self.sequences * sampler
    }
}
