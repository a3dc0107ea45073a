//! One sequence's keys and values, as the engine holds them between steps.
//!
//! Grows as [`crate::Model::forward`] appends tokens, on the device of the model that appends the first; forgetting a tail or copying a
//! prefix is exact: going on from either gives the same bits as computing everything anew.

use crate::config::ModelConfig;
use crate::device::Paged;
use crate::error::{Error, Result};
use kernels::{CacheShape, KvCache};

/// The cache of one sequence.
#[derive(Debug)]
pub struct Kv {
    shape: CacheShape,
    store: Store,
}

/// Where the keys and values are.
#[derive(Debug)]
enum Store {
    /// In this process.
    Host(KvCache),
    /// On a GPU, with the number of tokens.
    Gpu(Paged, usize),
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
            shape,
            store: Store::Host(KvCache::new(shape)),
        }
    }

    /// Tokens in the cache.
    pub fn len(&self) -> usize {
        match &self.store {
            Store::Host(cache) => cache.len(),
            Store::Gpu(_, len) => *len,
        }
    }

    /// Whether there is no token.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Memory of the cache.
    pub fn bytes(&self) -> usize {
        match &self.store {
            Store::Host(cache) => cache.bytes(),
            Store::Gpu(cache, _) => cache.bytes(),
        }
    }

    /// The next `tokens` tokens are complete.
    pub(crate) fn grow(&mut self, tokens: usize) -> Result<()> {
        match &mut self.store {
            Store::Host(cache) => Ok(cache.set_len(cache.len() + tokens)?),
            Store::Gpu(_, len) => {
                *len += tokens;
                Ok(())
            }
        }
    }

    /// Makes room for `tokens` tokens in all, so that appending up to there allocates nothing. A GPU's pages are there already.
    pub fn reserve(&mut self, tokens: usize) {
        if let Store::Host(cache) = &mut self.store {
            cache.reserve(tokens);
        }
    }

    /// Forgets all but the first `tokens` tokens; nothing happens when there are fewer. Keeps the memory.
    ///
    /// # Errors
    /// None in practice; the signature is that of the op.
    pub fn truncate(&mut self, tokens: usize) -> Result<()> {
        let tokens = tokens.min(self.len());
        match &mut self.store {
            Store::Host(cache) => cache.set_len(tokens)?,
            Store::Gpu(_, len) => *len = tokens,
        }
        Ok(())
    }

    /// Gives back the memory behind the last token.
    pub fn shrink(&mut self) {
        match &mut self.store {
            Store::Host(cache) => cache.shrink(),
            Store::Gpu(cache, len) => cache.shrink(*len),
        }
    }

    /// Becomes a copy of the first `tokens` tokens of another sequence of the same model and adapter. On a GPU both have the same pages until
    /// one of them goes on.
    ///
    /// # Errors
    /// [`crate::Error::Compute`] when `other` has fewer tokens or belongs to another model.
    pub fn copy_prefix_from(&mut self, other: &Kv, tokens: usize) -> Result<()> {
        match &other.store {
            Store::Host(from) => {
                if matches!(self.store, Store::Gpu(..)) {
                    self.store = Store::Host(KvCache::new(self.shape));
                }
                if let Store::Host(cache) = &mut self.store {
                    cache.copy_prefix_from(from, tokens)?;
                }
                Ok(())
            }
            Store::Gpu(_, len) if tokens > *len => Err(refuse(tokens, "the other cache has fewer")),
            Store::Gpu(..) if self.shape != other.shape => Err(refuse(tokens, "the shapes differ")),
            Store::Gpu(from, _) => {
                self.store = Store::Gpu(from.beginning(tokens), tokens);
                Ok(())
            }
        }
    }

    /// The cache in this process; an empty one is put here.
    pub(crate) fn host_mut(&mut self) -> Result<&mut KvCache> {
        if self.is_empty() && matches!(self.store, Store::Gpu(..)) {
            self.store = Store::Host(KvCache::new(self.shape));
        }
        match &mut self.store {
            Store::Host(cache) => Ok(cache),
            Store::Gpu(_, len) => Err(refuse(*len, ELSEWHERE)),
        }
    }

    pub(crate) fn host(&self) -> Option<&KvCache> {
        match &self.store {
            Store::Host(cache) => Some(cache),
            Store::Gpu(..) => None,
        }
    }

    /// The pages of one model on a GPU, which `own` tells from others'; an empty sequence gets `new` ones.
    pub(crate) fn pages_or(
        &mut self,
        own: impl Fn(&Paged) -> bool,
        new: impl FnOnce() -> Paged,
    ) -> Result<&mut Paged> {
        if self.is_empty() && !self.pages().is_some_and(&own) {
            self.store = Store::Gpu(new(), 0);
        }
        let tokens = self.len();
        match &mut self.store {
            Store::Gpu(cache, _) if own(cache) => Ok(cache),
            _ => Err(refuse(tokens, ELSEWHERE)),
        }
    }

    pub(crate) fn pages_mut(&mut self) -> Option<&mut Paged> {
        match &mut self.store {
            Store::Gpu(cache, _) => Some(cache),
            Store::Host(_) => None,
        }
    }

    pub(crate) fn pages(&self) -> Option<&Paged> {
        match &self.store {
            Store::Gpu(cache, _) => Some(cache),
            Store::Host(_) => None,
        }
    }
}

const ELSEWHERE: &str = "they were computed on another device, or by another model";

fn refuse(tokens: usize, rule: &'static str) -> Error {
    Error::Compute(kernels::Error::Argument {
        op: "a sequence's cache",
        what: "tokens",
        rule,
        found: tokens as f64,
    })
}
