//! The forward pass for training: log-probs of given tokens, with what the backward pass needs on a [`Tape`].
//!
//! Each layer's input is kept. Its other intermediate results are, too, while they fit the tape's budget; otherwise a layer is
//! computed again when its gradient is. The vocabulary's logits exist for one
//! tile of rows at a time.

use crate::adapter::Adapter;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::model::block::{self, Activations, Batch, Span, fit};
use kernels::softmax::{self, Normalizer};
use kernels::{CacheShape, KvCache, Slice, elementwise, gemm, rmsnorm};
use std::ops::Range;

pub use kernels::softmax::Target;

/// Rows whose logits exist at the same time.
const TILE: usize = 128;

/// What a forward pass leaves for its backward pass; reused from sample to sample.
#[derive(Debug)]
pub struct Tape {
    /// Of the layer at hand, when they are not kept.
    pub(super) acts: Activations,
    /// Of every layer, when they are.
    pub(super) kept: Vec<Activations>,
    pub(super) keeps: bool,
    /// Bytes that kept intermediate results may take.
    budget: usize,
    /// (L + 1, N, C): each layer's input, then the last layer's output.
    pub(super) inputs: Vec<f32>,
    pub(super) rows: usize,
    /// Targets ordered by row.
    pub(super) targets: Vec<Target>,
    /// The caller's number of each of `targets`.
    pub(super) order: Vec<usize>,
    pub(super) temperature: f32,
    pub(super) output: Output,
    pub(super) keys: Option<KvCache>,
    pub(super) mirror: Option<KvCache>,
    pub(super) grads: super::backward::Buffers,
}

/// Buffers of one tile of the output layer.
#[derive(Debug, Default)]
pub(super) struct Output {
    pub(super) hidden: Vec<f32>,
    pub(super) normed: Vec<f32>,
    pub(super) logits: Vec<f32>,
    pub(super) normalizers: Vec<Normalizer>,
    /// The tile's targets, rows counted from its first.
    pub(super) targets: Vec<Target>,
    /// The distinct rows of the tile.
    pub(super) rows: Vec<usize>,
}

impl Tape {
    /// An empty tape that keeps intermediate results as long as they fit 256 MiB: a sequence of some 300 tokens of a model
    /// with 135 M parameters.
    pub fn new() -> Tape {
        Tape::with_budget(256 << 20)
    }

    /// An empty tape that may spend `bytes` on intermediate results. What does not fit is computed again in the backward
    /// pass, with the same bits: a third more work in exchange for memory.
    pub fn with_budget(bytes: usize) -> Tape {
        Tape {
            acts: Activations::default(),
            kept: Vec::new(),
            keeps: false,
            budget: bytes,
            inputs: Vec::new(),
            rows: 0,
            targets: Vec::new(),
            order: Vec::new(),
            temperature: 1.0,
            output: Output::default(),
            keys: None,
            mirror: None,
            grads: super::backward::Buffers::default(),
        }
    }
}

impl Default for Tape {
    fn default() -> Self {
        Tape::new()
    }
}

/// One sequence from its start, with a cache of one layer.
pub(super) struct Whole<'a> {
    pub(super) cache: &'a mut KvCache,
    pub(super) rows: usize,
    pub(super) adapter: Option<&'a Adapter>,
}

impl Batch for Whole<'_> {
    fn sequences(&self) -> usize {
        1
    }

    fn span(&self, _: usize) -> Span<'_> {
        Span {
            first: 0,
            count: self.rows,
            start: 0,
            adapter: self.adapter,
        }
    }

    fn cache(&self, _: usize) -> &KvCache {
        self.cache
    }

    fn cache_mut(&mut self, _: usize) -> &mut KvCache {
        self.cache
    }
}

impl Model {
    /// The log-probs of `targets` in one sequence, at a temperature: bit for bit those that serving records.
    ///
    /// A target's row r asks for the token *after* `tokens[r]`. A row may have several targets. Lets serving take its turn
    /// after every layer.
    ///
    /// # Errors
    /// As [`Model::forward`]; [`Error::TargetRow`] for a row that is not there; [`Error::Compute`] for a temperature that
    /// is not positive.
    pub fn train_forward(
        &self,
        tape: &mut Tape,
        adapter: Option<&Adapter>,
        tokens: &[u32],
        targets: &[Target],
        temperature: f32,
    ) -> Result<Vec<f32>> {
        self.check_tokens(0, tokens)?;
        self.check_adapter(adapter)?;
        for &Target { row, token } in targets {
            if row >= tokens.len() {
                return Err(Error::TargetRow {
                    row,
                    rows: tokens.len(),
                });
            }
            self.check_tokens(0, &[token])?;
        }
        tape.rows = tokens.len();
        tape.temperature = temperature;
        tape.order.clear();
        tape.order.extend(0..targets.len());
        tape.order.sort_by_key(|&i| targets[i].row);
        tape.targets.clear();
        tape.targets.extend(tape.order.iter().map(|&i| targets[i]));
        let mut turn = self.pool.enter();
        self.layers_forward(tape, adapter, tokens, &mut turn)?;
        let mut log_probs = vec![0.0; targets.len()];
        let mut done = 0;
        while let Some(tile) = self.output_tile(tape, done)? {
            for (i, target) in tile.clone().zip(&tape.output.targets) {
                let logits = &tape.output.logits[target.row * self.config.vocab_size..];
                let normalizer = &tape.output.normalizers[target.row];
                log_probs[tape.order[i]] = normalizer.log_prob(logits[target.token as usize]);
            }
            done = tile.end;
            turn.breathe();
        }
        Ok(log_probs)
    }

    /// Fills the tape's layer inputs.
    fn layers_forward(
        &self,
        tape: &mut Tape,
        adapter: Option<&Adapter>,
        tokens: &[u32],
        turn: &mut Slice<'_>,
    ) -> Result<()> {
        let (rows, len) = (tokens.len(), tokens.len() * self.config.hidden);
        tape.keeps = self.kept_bytes(rows, adapter) <= tape.budget;
        let kept = if tape.keeps { self.layers.len() } else { 0 };
        tape.kept.resize_with(kept, Activations::default);
        let cache = tape
            .keys
            .get_or_insert_with(|| KvCache::new(self.one_layer()));
        cache.reserve(rows);
        let inputs = fit(&mut tape.inputs, (self.layers.len() + 1) * len);
        elementwise::embed(&self.pool, &self.embedding, tokens, &mut inputs[..len])?;
        for layer in 0..self.layers.len() {
            let (before, after) = inputs.split_at_mut((layer + 1) * len);
            let acts = if tape.keeps {
                &mut tape.kept[layer]
            } else {
                &mut tape.acts
            };
            fit(&mut acts.x, len).copy_from_slice(&before[layer * len..]);
            let mut batch = Whole {
                cache,
                rows,
                adapter,
            };
            block::forward(self, layer, 0, &mut batch, acts, &mut after[..len])?;
            turn.breathe();
        }
        Ok(())
    }

    /// Memory of the intermediate results of a whole pass.
    fn kept_bytes(&self, rows: usize, adapter: Option<&Adapter>) -> usize {
        let config = &self.config;
        let queries = config.heads * config.head_dim;
        let qkv = queries + 2 * config.kv_heads * config.head_dim;
        let raw = if config.qk_norm { qkv } else { 0 };
        let inner = 7 * adapter.map_or(0, Adapter::rank);
        let row = 4 * config.hidden + qkv + raw + queries + 3 * config.ffn + inner;
        self.layers.len() * rows * row * size_of::<f32>()
    }

    /// Computes the logits of the next tile of target rows, from the `done`-th target on: which targets they answer.
    pub(super) fn output_tile(&self, tape: &mut Tape, done: usize) -> Result<Option<Range<usize>>> {
        let (c, vocab) = (self.config.hidden, self.config.vocab_size);
        let Output {
            hidden,
            normed,
            logits,
            normalizers,
            targets,
            rows,
        } = &mut tape.output;
        targets.clear();
        rows.clear();
        for target in &tape.targets[done..] {
            if rows.last() != Some(&target.row) {
                if rows.len() == TILE {
                    break;
                }
                rows.push(target.row);
            }
            targets.push(Target {
                row: rows.len() - 1,
                token: target.token,
            });
        }
        if targets.is_empty() {
            return Ok(None);
        }
        let last = &tape.inputs[self.layers.len() * tape.rows * c..];
        let hidden = fit(hidden, rows.len() * c);
        for (to, row) in hidden.chunks_exact_mut(c).zip(&*rows) {
            to.copy_from_slice(&last[row * c..][..c]);
        }
        let normed = fit(normed, rows.len() * c);
        rmsnorm::forward(
            &self.pool,
            rows.len(),
            hidden,
            &self.norm,
            self.config.rms_eps,
            normed,
        )?;
        let logits = fit(logits, rows.len() * vocab);
        gemm::forward(&self.pool, rows.len(), normed, self.output(), logits)?;
        softmax::normalizers(&self.pool, logits, vocab, tape.temperature, normalizers)?;
        Ok(Some(done..done + targets.len()))
    }

    /// The shape of a cache of one layer.
    pub(super) fn one_layer(&self) -> CacheShape {
        let (kv_heads, head_dim) = (self.config.kv_heads, self.config.head_dim);
        CacheShape {
            layers: 1,
            kv_heads,
            head_dim,
        }
    }
}
