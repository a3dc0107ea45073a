//! One sequence's keys and values, as the engine holds them between steps.
//!
//! Grows in blocks as [`crate::Model::forward`] appends tokens; forgetting a tail or copying a prefix is exact: going on
//! from either gives the same bits as computing everything anew.

use crate::config::ModelConfig;
use crate::error::Result;
use kernels::{CacheShape, KvCache};

/// The cache of one sequence.
#[derive(Debug)]
pub struct Kv {
    pub(crate) cache: KvCache,
}

impl Kv {
    /// An empty cache for a model of this shape.
    pub fn new(config: &ModelConfig) -> Kv {
        let shape = CacheShape {
            layers: config.layers,
            kv_heads: config.kv_heads,
            head_dim: config.head_dim,
        };
        Kv {
            cache: KvCache::new(shape),
        }
    }

    /// Tokens in the cache.
    pub fn len(&self) -> usize {
        self.cache.len()
    }

    /// Whether there is no token.
    pub fn is_empty(&self) -> bool {
        self.cache.is_empty()
    }

    /// Memory of the cache.
    pub fn bytes(&self) -> usize {
        self.cache.bytes()
    }

    /// The next `tokens` tokens are complete.
    pub(crate) fn grow(&mut self, tokens: usize) -> Result<()> {
        Ok(self.cache.set_len(self.len() + tokens)?)
    }

    /// Makes room for `tokens` tokens in all, so that appending up to there allocates nothing.
    pub fn reserve(&mut self, tokens: usize) {
        self.cache.reserve(tokens);
    }

    /// Forgets all but the first `tokens` tokens; nothing happens when there are fewer. Keeps the memory.
    ///
    /// # Errors
    /// None in practice; the signature is that of the op.
    pub fn truncate(&mut self, tokens: usize) -> Result<()> {
        Ok(self.cache.set_len(tokens.min(self.len()))?)
    }

    /// Gives back the memory behind the last token.
    pub fn shrink(&mut self) {
        self.cache.shrink();
    }

    /// Becomes a copy of the first `tokens` tokens of another sequence of the same model and adapter.
    ///
    /// # Errors
    /// [`crate::Error::Compute`] when `other` has fewer tokens or belongs to another model.
    pub fn copy_prefix_from(&mut self, other: &Kv, tokens: usize) -> Result<()> {
        Ok(self.cache.copy_prefix_from(&other.cache, tokens)?)
    }
}
