//! The paged cache of keys and values: one layer's pools, and which page belongs to which sequence.
//!
//! `cuda/kv.cuh` draws the layout. RoPE writes the pools, attention reads them; who gets which page is the engine's
//! business. A page number that a kernel meets is always one of the pools': [`PageTable`] lets no other in.

use std::ops::Range;

use half::bf16;

use super::{Buffer, Gpu, Stream, View};
use crate::Result;
use crate::error::require;

/// Positions of a page, and keys of a block of attention's sums.
pub const PAGE: usize = 64;

/// Keys of a split: what one block of the decode kernel sums, and every attention kernel sums apart.
pub const SPLIT: usize = 512;

/// Sizes of a layer's pools.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// Pages of each pool.
    pub pages: usize,
    /// Key heads.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
}

impl Shape {
    /// Elements of one pool.
    pub fn elements(self) -> usize {
        self.pages * self.kv_heads * PAGE * self.head_dim
    }
}

/// One layer's keys and values.
#[derive(Debug)]
pub struct Layer {
    shape: Shape,
    /// (page, key head, position in page, D).
    pub keys: Buffer<bf16>,
    /// The same of values.
    pub values: Buffer<bf16>,
}

impl Layer {
    /// New pools, with whatever is in them.
    ///
    /// # Errors
    /// [`crate::Error::Driver`] when there is not enough memory.
    pub fn new(gpu: &Gpu, shape: Shape) -> Result<Layer> {
        Ok(Layer {
            shape,
            keys: gpu.buffer(shape.elements())?,
            values: gpu.buffer(shape.elements())?,
        })
    }

    /// Its sizes.
    pub fn shape(&self) -> Shape {
        self.shape
    }
}

/// Which page holds which positions of which sequence: the pages of positions 64·i to 64·i + 63.
#[derive(Debug)]
pub struct PageTable {
    pages: usize,
    ld: usize,
    host: Vec<i32>,
    device: Buffer<i32>,
    /// The first to the last sequence of which the GPU has other pages.
    changed: Range<usize>,
}

impl PageTable {
    /// A table for `sequences` of up to `ld` pages each, over pools of `pages`. Every entry is page 0 at first.
    ///
    /// # Errors
    /// [`crate::Error::Argument`] without pages, or for more than an `i32` counts; [`crate::Error::Driver`].
    pub fn new(on: &Stream, sequences: usize, ld: usize, pages: usize) -> Result<PageTable> {
        let counted = (1..=i32::MAX as usize).contains(&pages);
        require!(
            "kv.table",
            pages = pages as f64,
            counted,
            "a pool has one to 2^31 - 1 pages"
        );
        let positions = ld.saturating_mul(PAGE);
        require!(
            "kv.table",
            positions = positions as f64,
            positions < i32::MAX as usize,
            "positions are counted in 31 bits"
        );
        let host = vec![0; sequences * ld];
        let device = on.upload(&host)?;
        Ok(PageTable {
            pages,
            ld,
            host,
            device,
            changed: 0..0,
        })
    }

    /// Gives a sequence a page for its positions from 64·`index` on; the kernels see it after [`PageTable::upload`].
    ///
    /// # Errors
    /// [`crate::Error::Argument`] for a place outside the table, or a page outside the pools.
    pub fn set(&mut self, sequence: usize, index: usize, page: usize) -> Result<()> {
        let inside = sequence < self.sequences() && index < self.ld;
        require!(
            "kv.set",
            index = index as f64,
            inside,
            "the table has no such place"
        );
        require!(
            "kv.set",
            page = page as f64,
            page < self.pages,
            "the pools have fewer pages"
        );
        let place = &mut self.host[sequence * self.ld + index];
        let page = i32::try_from(page).unwrap_or(0);
        if std::mem::replace(place, page) != page {
            let own = sequence..sequence + 1;
            self.changed = if self.changed.is_empty() {
                own
            } else {
                self.changed.start.min(own.start)..self.changed.end.max(own.end)
            };
        }
        Ok(())
    }

    /// Copies what has changed to the GPU: once in 64 tokens of a sequence.
    ///
    /// # Errors
    /// [`crate::Error::Driver`].
    pub fn upload(&mut self, on: &Stream) -> Result<()> {
        let places = self.changed.start * self.ld..self.changed.end * self.ld;
        let mut there = self.device.part_mut(places.clone())?;
        on.write(&self.host[places], &mut there)?;
        self.changed = 0..0;
        Ok(())
    }

    /// The table on the GPU: (sequence, `ld`), every entry below `pages`.
    pub fn view(&self) -> View<'_, i32> {
        self.device.view()
    }

    /// Entries of a sequence.
    pub fn ld(&self) -> usize {
        self.ld
    }

    /// Sequences.
    pub fn sequences(&self) -> usize {
        self.host.len() / self.ld.max(1)
    }

    /// Pages that the pools have.
    pub fn pages(&self) -> usize {
        self.pages
    }

    /// Positions that a sequence has room for.
    pub fn room(&self) -> usize {
        self.ld * PAGE
    }
}
