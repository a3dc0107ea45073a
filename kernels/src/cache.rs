//! Keys and values of one sequence, in blocks of 32 tokens at absolute positions.
//!
//! Within a block keys are transposed, so that one vector holds the same element of 16 keys; values are rows. Blocks are
//! allocated as the sequence grows and never move. Read [`crate::attention`] next.

use crate::error::{check, require};
use crate::packed::{Line, PANEL};
use crate::{Pool, Result};

/// Tokens of a block.
pub const BLOCK: usize = PANEL;

/// Sizes of a cache, the same for every sequence of a model.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CacheShape {
    /// Layers.
    pub layers: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
}

/// Keys and values of one sequence.
pub struct KvCache {
    shape: CacheShape,
    /// Each (layer, head, keys then values, `head_dim` lines).
    blocks: Vec<Vec<Line<f32>>>,
    len: usize,
}

impl std::fmt::Debug for KvCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "KvCache({} tokens, {} blocks)",
            self.len,
            self.blocks.len()
        )
    }
}

impl KvCache {
    /// An empty cache.
    pub fn new(shape: CacheShape) -> KvCache {
        KvCache {
            shape,
            blocks: Vec::new(),
            len: 0,
        }
    }

    /// The sizes.
    pub fn shape(&self) -> CacheShape {
        self.shape
    }

    /// Tokens whose keys and values are complete.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no token is complete.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Memory of the blocks.
    pub fn bytes(&self) -> usize {
        self.blocks.len() * self.lines() * size_of::<Line<f32>>()
    }

    /// Makes room for `tokens` tokens in all.
    pub fn reserve(&mut self, tokens: usize) {
        while self.blocks.len() * BLOCK < tokens {
            self.blocks.push(vec![Line([0.0; PANEL]); self.lines()]);
        }
    }

    /// Declares the first `tokens` tokens complete: after a forward pass wrote every layer, or to forget later ones.
    ///
    /// # Errors
    /// [`crate::Error::Argument`] beyond what is reserved.
    pub fn set_len(&mut self, tokens: usize) -> Result<()> {
        let room = tokens <= self.blocks.len() * BLOCK;
        require!(
            "cache.set_len",
            tokens = tokens as f64,
            room,
            "fewer are reserved"
        );
        self.len = tokens;
        Ok(())
    }

    /// Frees the blocks beyond the complete tokens.
    pub fn shrink(&mut self) {
        self.blocks.truncate(self.len.div_ceil(BLOCK));
    }

    /// Becomes a copy of the first `tokens` tokens of `other`.
    ///
    /// # Errors
    /// [`crate::Error::Argument`] when `other` has fewer, or another shape.
    pub fn copy_prefix_from(&mut self, other: &KvCache, tokens: usize) -> Result<()> {
        let layers = other.shape.layers;
        let same = other.shape == self.shape;
        require!(
            "cache.copy_prefix_from",
            layers = layers as f64,
            same,
            "the shapes differ"
        );
        let has = tokens <= other.len;
        require!(
            "cache.copy_prefix_from",
            tokens = tokens as f64,
            has,
            "the other cache has fewer"
        );
        self.reserve(tokens);
        for (to, from) in self
            .blocks
            .iter_mut()
            .zip(&other.blocks)
            .take(tokens.div_ceil(BLOCK))
        {
            to.copy_from_slice(from);
        }
        self.len = tokens;
        Ok(())
    }

    /// Writes keys and values of consecutive tokens, `(kv_heads, head_dim)` each, from the columns of some rows.
    ///
    /// # Shapes
    /// `rows`: (N, `ld`); keys at columns `keys..`, values at columns `values..`; the first row is token `start`.
    ///
    /// # Errors
    /// [`crate::Error::Shape`]; [`crate::Error::Argument`] beyond what is reserved.
    pub fn write(
        &mut self,
        pool: &Pool,
        layer: usize,
        start: usize,
        (rows, ld): (&[f32], usize),
        keys: usize,
        values: usize,
    ) -> Result<()> {
        let CacheShape {
            layers,
            kv_heads,
            head_dim,
        } = self.shape;
        let count = rows.len() / ld.max(1);
        check!("cache.write", rows: count * ld);
        require!(
            "cache.write",
            layer = layer as f64,
            layer < layers,
            "the model has fewer layers"
        );
        let end = start + count;
        let room = end <= self.blocks.len() * BLOCK;
        require!(
            "cache.write",
            end = end as f64,
            room,
            "fewer tokens are reserved"
        );
        let last = keys.max(values) + kv_heads * head_dim;
        require!(
            "cache.write",
            last = last as f64,
            last <= ld,
            "columns end inside a row"
        );
        if count == 0 {
            return Ok(());
        }
        let first = start / BLOCK;
        let blocks = &mut self.blocks[first..end.div_ceil(BLOCK)];
        pool.each(blocks, &|at, lines| {
            let tokens = (first + at) * BLOCK..(first + at + 1) * BLOCK;
            for token in tokens.start.max(start)..tokens.end.min(end) {
                let row = &rows[(token - start) * ld..][..ld];
                let slot = token - tokens.start;
                for head in 0..kv_heads {
                    let first = (layer * kv_heads + head) * 2 * head_dim;
                    let lines = &mut lines[first..][..2 * head_dim];
                    let (to_keys, to_values) = lines.split_at_mut(head_dim);
                    for (line, &v) in to_keys.iter_mut().zip(&row[keys + head * head_dim..]) {
                        line.0[slot] = v;
                    }
                    flat_mut(to_values)[slot * head_dim..][..head_dim]
                        .copy_from_slice(&row[values + head * head_dim..][..head_dim]);
                }
            }
        });
        Ok(())
    }

    /// Keys of a block, transposed: (`head_dim`, 32).
    pub(crate) fn keys(&self, layer: usize, head: usize, block: usize) -> &[f32] {
        let first = (layer * self.shape.kv_heads + head) * 2 * self.shape.head_dim;
        flat(&self.blocks[block][first..][..self.shape.head_dim])
    }

    /// Values of a block: (32, `head_dim`).
    pub(crate) fn values(&self, layer: usize, head: usize, block: usize) -> &[f32] {
        let first = ((layer * self.shape.kv_heads + head) * 2 + 1) * self.shape.head_dim;
        flat(&self.blocks[block][first..][..self.shape.head_dim])
    }

    /// Tokens that there is room for.
    pub(crate) fn room(&self) -> usize {
        self.blocks.len() * BLOCK
    }

    fn lines(&self) -> usize {
        self.shape.layers * self.shape.kv_heads * 2 * self.shape.head_dim
    }
}

fn flat(lines: &[Line<f32>]) -> &[f32] {
    // SAFETY: a line is 32 f32 without padding (its size is a multiple of its alignment).
    unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), lines.len() * PANEL) }
}

fn flat_mut(lines: &mut [Line<f32>]) -> &mut [f32] {
    // SAFETY: a line is 32 f32 without padding (its size is a multiple of its alignment).
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), lines.len() * PANEL) }
}
