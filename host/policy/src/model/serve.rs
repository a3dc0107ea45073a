//! The forward pass for serving: rows of many sequences in one batch.
//!
//! A decode step, a chunk of a prompt and a scoring pass are all [`Segment`]s. A row's logits have the same bits alone or
//! in any batch, in one chunk or in many, and whatever adapters its neighbours use.

use crate::adapter::Adapter;
use crate::error::{Error, Result};
use crate::kv::Kv;
use crate::model::Model;
use crate::model::block::{self, Activations, Batch, Span, fit};
use kernels::{KvCache, elementwise, gemm, rmsnorm};
use std::ops::Range;

/// Which rows of a segment get logits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Logits {
    /// None: a chunk in the middle of a prompt.
    None,
    /// The last row: what decoding needs.
    Last,
    /// Every row: scoring.
    All,
}

/// Tokens to append to one sequence.
#[derive(Debug)]
pub struct Segment<'a> {
    /// The sequence so far; grows by the tokens.
    pub kv: &'a mut Kv,
    /// At least one token.
    pub tokens: &'a [u32],
    /// The policy's adapter; none for the base model.
    pub adapter: Option<&'a Adapter>,
    /// The rows that get logits.
    pub logits: Logits,
}

/// Buffers of the forward pass and its results; reused, so that a step like the one before allocates nothing.
#[derive(Debug, Default)]
pub struct Scratch {
    acts: Activations,
    /// A layer's output.
    next: Vec<f32>,
    /// First row of each segment.
    firsts: Vec<usize>,
    /// Rows of `logits` of each segment.
    ranges: Vec<Range<usize>>,
    /// Hidden rows that get logits.
    chosen: Vec<f32>,
    normed: Vec<f32>,
    logits: Vec<f32>,
    vocab: usize,
}

impl Scratch {
    /// Empty buffers.
    pub fn new() -> Scratch {
        Scratch::default()
    }

    /// The logits of the i-th segment of the last pass, one row for each token that asked for them.
    ///
    /// # Panics
    /// When there was no such segment.
    pub fn logits(&self, i: usize) -> std::slice::ChunksExact<'_, f32> {
        let rows = self.ranges[i].clone();
        let range = rows.start * self.vocab..rows.end * self.vocab;
        self.logits[range].chunks_exact(self.vocab.max(1))
    }
}

/// Segments as the block sees them.
struct Segments<'s, 'a> {
    list: &'s mut [Segment<'a>],
    firsts: &'s [usize],
}

impl Batch for Segments<'_, '_> {
    fn sequences(&self) -> usize {
        self.list.len()
    }

    fn span(&self, i: usize) -> Span<'_> {
        let segment = &self.list[i];
        Span {
            first: self.firsts[i],
            count: segment.tokens.len(),
            start: segment.kv.len(),
            adapter: segment.adapter,
        }
    }

    fn cache(&self, i: usize) -> &KvCache {
        &self.list[i].kv.cache
    }

    fn cache_mut(&mut self, i: usize) -> &mut KvCache {
        &mut self.list[i].kv.cache
    }
}

impl Model {
    /// Appends tokens to sequences and computes the logits that they ask for; see [`Scratch::logits`].
    ///
    /// Takes one turn on the pool. On an error no sequence has grown.
    ///
    /// # Errors
    /// [`Error::EmptySequence`] for a segment without tokens, [`Error::TooLong`] beyond the context, [`Error::Token`] for an
    /// id outside of the vocabulary, [`Error::AdapterSetting`] for another model's adapter, [`Error::Compute`] for another
    /// model's cache.
    pub fn forward(&self, scratch: &mut Scratch, segments: &mut [Segment<'_>]) -> Result<()> {
        for segment in &*segments {
            self.check_tokens(segment.kv.len(), segment.tokens)?;
            self.check_adapter(segment.adapter)?;
        }
        let Scratch {
            acts,
            next,
            firsts,
            ranges,
            chosen,
            normed,
            logits,
            vocab,
        } = scratch;
        let c = self.config.hidden;
        *vocab = self.config.vocab_size;
        firsts.clear();
        let mut rows = 0;
        for segment in &mut *segments {
            firsts.push(rows);
            rows += segment.tokens.len();
            segment
                .kv
                .cache
                .reserve(segment.kv.len() + segment.tokens.len());
        }
        let _turn = self.pool.enter();
        let x = fit(&mut acts.x, rows * c);
        for (segment, first) in segments.iter().zip(&*firsts) {
            let to = &mut x[first * c..][..segment.tokens.len() * c];
            elementwise::embed(&self.pool, &self.embedding, segment.tokens, to)?;
        }
        let mut batch = Segments {
            list: &mut *segments,
            firsts,
        };
        for layer in 0..self.layers.len() {
            let mut out = std::mem::take(next);
            block::forward(
                self,
                layer,
                layer,
                &mut batch,
                acts,
                fit(&mut out, rows * c),
            )?;
            *next = std::mem::replace(&mut acts.x, out);
        }
        ranges.clear();
        let mut wanted = 0;
        for (segment, &first) in segments.iter().zip(&*firsts) {
            let count = segment.tokens.len();
            let (skip, take) = match segment.logits {
                Logits::None => (count, 0),
                Logits::Last => (count - 1, 1),
                Logits::All => (0, count),
            };
            let from = &acts.x[(first + skip) * c..][..take * c];
            fit(chosen, (wanted + take) * c)[wanted * c..].copy_from_slice(from);
            ranges.push(wanted..wanted + take);
            wanted += take;
        }
        let normed = fit(normed, wanted * c);
        let chosen = &chosen[..wanted * c];
        rmsnorm::forward(
            &self.pool,
            wanted,
            chosen,
            &self.norm,
            self.config.rms_eps,
            normed,
        )?;
        let logits = fit(logits, wanted * self.config.vocab_size);
        gemm::forward(&self.pool, wanted, normed, self.output(), logits)?;
        for segment in segments {
            let len = segment.kv.len() + segment.tokens.len();
            segment.kv.cache.set_len(len)?;
        }
        Ok(())
    }

    /// Refuses tokens that the model cannot take.
    pub(super) fn check_tokens(&self, before: usize, tokens: &[u32]) -> Result<()> {
        if tokens.is_empty() {
            return Err(Error::EmptySequence);
        }
        let (len, context) = (before + tokens.len(), self.context());
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
