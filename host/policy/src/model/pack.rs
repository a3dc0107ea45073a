//! Sequences that are trained in one pass; what they have in common at their beginning is computed once.
//!
//! A pack is a forest: each span of rows follows the span that it goes on from. A row's numbers are those that it would have alone; only the
//! gradients, which are sums over rows, are added in another order. Does not know what the sequences are. Start at [`Pack::push`].

use crate::error::{Error, Result};
use kernels::softmax::Target;

/// Tokens that sequences must have in common before it is worth to compute them once: below, the bookkeeping costs as much.
pub const SHARED: usize = 16;

/// Rows that follow each other in one sequence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Node {
    /// First row of the pack.
    pub(crate) first: usize,
    /// Rows.
    pub(crate) count: usize,
    /// Position of the first row.
    pub(crate) start: usize,
    /// The node that ends where this one starts; none at position 0.
    pub(crate) parent: Option<usize>,
}

/// Sequences to train together, with the log-probs that are asked of them.
///
/// ```
/// use policy::{Pack, Target};
/// # fn main() -> Result<(), policy::Error> {
/// let prompt: Vec<u32> = (0..100).collect();
/// let mut pack = Pack::default();
/// for reply in [[7, 8], [7, 9]] {
///     let tokens: Vec<u32> = prompt.iter().copied().chain(reply).collect();
///     let ask = |row| Target { row, token: tokens[row + 1] };
///     pack.push(&tokens, &[ask(99), ask(100)])?;
/// }
/// assert_eq!((pack.rows(), pack.targets().len()), (103, 4)); // instead of 204 rows: the prompt and the 7 are shared
/// # Ok(()) }
/// ```
#[derive(Clone, Default, Debug)]
pub struct Pack {
    tokens: Vec<u32>,
    nodes: Vec<Node>,
    /// In the order in which they were asked, their rows those of the pack.
    targets: Vec<Target>,
}

impl Pack {
    /// Forgets all sequences, keeps the memory.
    pub fn clear(&mut self) {
        self.tokens.clear();
        self.nodes.clear();
        self.targets.clear();
    }

    /// Rows that are computed.
    pub fn rows(&self) -> usize {
        self.tokens.len()
    }

    /// What is asked, in the order of [`Pack::push`]; rows are the pack's.
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    pub(crate) fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Parents before children.
    pub(crate) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The tokens that a sequence would share, as far as they count: 0 below [`SHARED`].
    pub fn shared(&self, tokens: &[u32]) -> usize {
        match self.walk(tokens) {
            Some((_, _, shared)) if shared >= SHARED => shared,
            _ => 0,
        }
    }

    /// Adds a sequence. A target's row r asks for the token after `tokens[r]`.
    ///
    /// # Errors
    /// [`Error::EmptySequence`] without tokens, [`Error::TargetRow`] for a row that is not there.
    pub fn push(&mut self, tokens: &[u32], targets: &[Target]) -> Result<()> {
        if tokens.is_empty() {
            return Err(Error::EmptySequence);
        }
        let rows = tokens.len();
        if let Some(Target { row, .. }) = targets.iter().find(|t| t.row >= rows) {
            return Err(Error::TargetRow { row: *row, rows });
        }
        let place = self.walk(tokens).filter(|&(_, _, shared)| shared >= SHARED);
        let (parent, start) = match place {
            None => (None, 0),
            Some((node, within, shared)) => (Some(self.split(node, within)), shared),
        };
        let leaf = if start == rows {
            parent
        } else {
            self.nodes.push(Node {
                first: self.tokens.len(),
                count: rows - start,
                start,
                parent,
            });
            self.tokens.extend_from_slice(&tokens[start..]);
            Some(self.nodes.len() - 1)
        };
        for target in targets {
            let row = self.row(leaf, target.row);
            self.targets.push(Target { row, ..*target });
        }
        Ok(())
    }

    /// Whether every node starts at a multiple of `unit`.
    pub(crate) fn is_aligned(&self, unit: usize) -> bool {
        self.nodes
            .iter()
            .all(|node| node.start.is_multiple_of(unit))
    }

    /// The same with less shared, so that every node starts at a multiple of `unit`: what is between that and where it started is there for
    /// each. The targets are asked once, in the same order.
    pub(crate) fn aligned(&self, unit: usize) -> Pack {
        let mut pack = Pack::default();
        let lowered = |node: &Node| node.start - node.start % unit;
        // A node that its first child begins with, as a whole, is part of that one.
        let mut owner: Vec<usize> = (0..self.nodes.len()).collect();
        for (child, node) in self.nodes.iter().enumerate().rev() {
            if let Some(parent) = node.parent
                && lowered(node) <= lowered(&self.nodes[parent])
            {
                owner[parent] = child;
            }
        }
        for i in (0..owner.len()).rev() {
            owner[i] = owner[owner[i]];
        }
        // Where each row and each node is now.
        let mut moved = vec![0; self.tokens.len()];
        let mut place = vec![0; self.nodes.len()];
        for (i, node) in self.nodes.iter().enumerate() {
            if owner[i] != i {
                continue;
            }
            let (start, first) = (lowered(node), pack.tokens.len());
            let count = node.start + node.count - start;
            pack.tokens.resize(first + count, 0);
            // Its rows and, as far as they are behind `start`, those before it.
            let (mut from, mut end) = (i, node.start + node.count);
            let parent = loop {
                let there = self.nodes[from];
                for position in there.start.max(start)..end {
                    let (old, new) = (
                        there.first + position - there.start,
                        first + position - start,
                    );
                    pack.tokens[new] = self.tokens[old];
                    if owner[from] == i {
                        moved[old] = new;
                    }
                }
                match there.parent {
                    Some(before) if there.start > start => (from, end) = (before, there.start),
                    parent if there.start == start => break parent,
                    _ => break Some(from),
                }
            };
            place[i] = pack.nodes.len();
            pack.nodes.push(Node {
                first,
                count,
                start,
                parent: parent.map(|parent| place[parent]),
            });
        }
        pack.targets
            .extend(self.targets.iter().map(|target| Target {
                row: moved[target.row],
                ..*target
            }));
        pack
    }

    /// The node in which the longest common beginning ends, how many of its rows belong to it, and the tokens in common.
    fn walk(&self, tokens: &[u32]) -> Option<(usize, usize, usize)> {
        let mut best: Option<(usize, usize, usize)> = None;
        for (i, node) in self.nodes.iter().enumerate() {
            let shared = self.common_until(i, tokens);
            if shared > node.start && best.is_none_or(|(_, _, most)| shared > most) {
                best = Some((i, shared - node.start, shared));
            }
        }
        best
    }

    /// How far the tokens agree with the path that ends in a node.
    fn common_until(&self, node: usize, tokens: &[u32]) -> usize {
        let Node {
            first,
            count,
            start,
            parent,
        } = self.nodes[node];
        if let Some(parent) = parent
            && self.common_until(parent, tokens) < start
        {
            return 0;
        }
        let own = &self.tokens[first..][..count];
        let rest = tokens.get(start..).unwrap_or(&[]);
        start + own.iter().zip(rest).take_while(|(a, b)| a == b).count()
    }

    /// Makes the first `within` rows of a node a node of their own: which.
    fn split(&mut self, node: usize, within: usize) -> usize {
        let Node {
            first,
            count,
            start,
            parent,
        } = self.nodes[node];
        if within == count {
            return node;
        }
        // The front takes the node's place, everything behind moves by one: parents stay before their children.
        for other in &mut self.nodes {
            if let Some(parent) = &mut other.parent
                && *parent >= node
            {
                *parent += 1;
            }
        }
        self.nodes[node] = Node {
            first: first + within,
            count: count - within,
            start: start + within,
            parent: Some(node),
        };
        let front = Node {
            first,
            count: within,
            start,
            parent,
        };
        self.nodes.insert(node, front);
        node
    }

    /// The row of a position on the path that ends in a leaf.
    fn row(&self, leaf: Option<usize>, position: usize) -> usize {
        let mut at = leaf;
        while let Some(i) = at {
            let node = self.nodes[i];
            if position >= node.start {
                return node.first + position - node.start;
            }
            at = node.parent;
        }
        unreachable!("a path begins at position 0")
    }
}

#[cfg(test)]
mod tests;
