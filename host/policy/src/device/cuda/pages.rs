//! Keys and values on a GPU: pages of 64 positions, shared by sequences that begin alike.
//!
//! Every layer has its own pools; a page has the same number in all of them. A page that is full never changes, so a copy of a
//! sequence has the same one; the page that is still being filled is copied. Start at [`Cache::hold`].

use crate::error::{Error, Result};
use kernels::cuda::kv::{self, Layer, PAGE};
use kernels::cuda::{Gpu, Stream};
use kernels::{CacheShape, Error as Refused};
use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;

/// The pools of all layers.
#[derive(Debug)]
pub(crate) struct Pages {
    layers: Vec<Mutex<Layer>>,
    shape: kv::Shape,
    free: Mutex<Vec<usize>>,
}

impl Pages {
    pub(super) fn new(gpu: &Gpu, shape: CacheShape, pages: usize) -> Result<Arc<Pages>> {
        let of_layer = kv::Shape {
            pages,
            kv_heads: shape.kv_heads,
            head_dim: shape.head_dim,
        };
        let layer = |_| Ok(Mutex::new(Layer::new(gpu, of_layer)?));
        Ok(Arc::new(Pages {
            layers: (0..shape.layers).map(layer).collect::<Result<_>>()?,
            shape: of_layer,
            free: Mutex::new((0..pages).rev().collect()),
        }))
    }

    pub(super) fn count(&self) -> usize {
        self.shape.pages
    }

    /// Memory of a page in all layers.
    fn page_bytes(&self) -> usize {
        2 * self.layers.len() * self.page_elements() * size_of::<half::bf16>()
    }

    fn page_elements(&self) -> usize {
        self.shape.elements() / self.shape.pages.max(1)
    }

    pub(super) fn layer(&self, slot: usize) -> Result<MutexGuard<'_, Layer>> {
        match self.layers.get(slot) {
            Some(layer) => Ok(layer.lock()),
            None => Err(Error::Compute(Refused::Argument {
                op: "policy.cuda",
                what: "layer",
                rule: "the cache has fewer",
                found: slot as f64,
            })),
        }
    }

    fn take(self: &Arc<Pages>) -> Result<Arc<Page>> {
        match self.free.lock().pop() {
            Some(number) => Ok(Arc::new(Page {
                pages: Arc::clone(self),
                number,
            })),
            None => Err(Error::Compute(Refused::Argument {
                op: "policy.cuda",
                what: "pages",
                rule: "all pages of the cache are taken",
                found: self.count() as f64,
            })),
        }
    }

    /// Copies a page in every layer.
    fn copy(&self, on: &Stream, from: usize, to: usize) -> Result<()> {
        let len = self.page_elements();
        let range = |page: usize| page * len..(page + 1) * len;
        for layer in &self.layers {
            let layer = &mut *layer.lock();
            // By way of no other memory: to give that back would wait for everything that is queued, training, too.
            for pool in [&mut layer.keys, &mut layer.values] {
                on.copy_within(&mut pool.view_mut(), range(from), to * len)?;
            }
        }
        Ok(())
    }
}

/// One page, given back when nobody holds it.
#[derive(Debug)]
struct Page {
    pages: Arc<Pages>,
    number: usize,
}

impl Drop for Page {
    fn drop(&mut self) {
        self.pages.free.lock().push(self.number);
    }
}

/// One sequence's pages.
#[derive(Debug)]
pub(crate) struct Cache {
    pages: Arc<Pages>,
    held: Vec<Arc<Page>>,
}

impl Cache {
    pub(super) fn new(pages: Arc<Pages>) -> Cache {
        Cache {
            pages,
            held: Vec::new(),
        }
    }

    pub(super) fn pages(&self) -> &Arc<Pages> {
        &self.pages
    }

    /// The numbers of its pages, by position.
    pub(super) fn numbers(&self) -> impl Iterator<Item = usize> {
        self.held.iter().map(|page| page.number)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.held.len() * self.pages.page_bytes()
    }

    /// Makes room for `tokens` tokens, of which `filled` are there: what comes is written to pages that nobody else has.
    pub(super) fn hold(&mut self, on: &Stream, filled: usize, tokens: usize) -> Result<()> {
        for (i, page) in self.held.iter_mut().enumerate().skip(filled / PAGE) {
            if Arc::strong_count(page) == 1 {
                continue;
            }
            let own = self.pages.take()?;
            if i * PAGE < filled {
                self.pages.copy(on, page.number, own.number)?;
            }
            *page = own;
        }
        while self.held.len() * PAGE < tokens {
            self.held.push(self.pages.take()?);
        }
        Ok(())
    }

    /// Gives back the pages behind the first `tokens` tokens.
    pub(crate) fn shrink(&mut self, tokens: usize) {
        self.held.truncate(tokens.div_ceil(PAGE));
    }

    /// The first `tokens` tokens of another sequence.
    pub(crate) fn beginning(&self, tokens: usize) -> Cache {
        Cache {
            pages: Arc::clone(&self.pages),
            held: self.held[..tokens.div_ceil(PAGE)].to_vec(),
        }
    }
}
