//! The forward pass for training: log-probs of given tokens, with what the backward pass needs on a [`Tape`].
//!
//! Each layer's input is kept. The other intermediate results are, too, of as many layers as fit the tape's budget, the last ones first; the
//! others are computed again when their gradients are. The vocabulary's logits never exist as a whole.

use crate::adapter::Adapter;
use crate::config::ModelConfig;
use crate::device::{Cpu, Cuda, EachCache, Sequences, Site, Span, There, Trains, Turn};
use crate::error::Result;
use crate::model::block::{self, Activations, Room};
use crate::model::pack::{Node, Pack};
use crate::model::weights::on;
use crate::model::{Model, Net};
use kernels::output::Wanted;
use kernels::{CacheShape, Pool};

pub use kernels::softmax::Target;

/// What a forward pass leaves for its backward pass; reused from pass to pass.
#[derive(Debug)]
pub struct Tape {
    pub(crate) cpu: Buffers<Cpu>,
    pub(crate) cuda: There<Buffers<Cuda>>,
    pub(crate) asked: Asked,
}

/// What a pass was asked, and about which sequences.
#[derive(Debug)]
pub(crate) struct Asked {
    /// Bytes that kept intermediate results may take.
    budget: usize,
    /// The first layer whose intermediate results are kept; those before share the first place of `acts`.
    pub(super) kept: usize,
    pub(super) nodes: Vec<Node>,
    /// Rows of the pass.
    pub(super) rows: usize,
    /// The distinct rows that have targets, ascending.
    pub(super) answering: Vec<usize>,
    /// Targets ordered by row; rows count those of `answering`.
    pub(super) targets: Vec<Target>,
    /// The caller's number of each of `targets`.
    pub(super) order: Vec<usize>,
}

/// What a pass on one device writes to.
#[derive(Debug)]
pub(crate) struct Buffers<D: Trains> {
    /// Of every layer from [`Asked::kept`] on; before them, if there are others, of the one at hand.
    pub(super) acts: Vec<Activations<D>>,
    /// Each layer's input, then the last layer's output: (N, C).
    pub(super) inputs: Vec<D::Wide>,
    /// Keys and values of each node and those before it, of the layer at hand.
    pub(super) caches: Vec<D::Cache>,
    /// The rows that have targets, and their norm.
    pub(super) hidden: D::Wide,
    pub(super) normed: D::Narrow,
    pub(super) output: D::Output,
    pub(super) plan: D::Plan,
    pub(super) grads: super::backward::Gradients<D>,
}

impl<D: Trains> Default for Buffers<D> {
    fn default() -> Self {
        Buffers {
            acts: Vec::new(),
            inputs: Vec::new(),
            caches: Vec::new(),
            hidden: D::Wide::default(),
            normed: D::Narrow::default(),
            output: D::Output::default(),
            plan: D::Plan::default(),
            grads: super::backward::Gradients::default(),
        }
    }
}

impl Buffers<Cpu> {
    /// What every layer of a pass goes through.
    pub(crate) fn sizes(&mut self, config: &ModelConfig, rows: usize) -> Vec<Room<'_>> {
        let layers = self.acts.iter_mut();
        let mut sizes: Vec<Room<'_>> = layers.flat_map(|a| a.sizes(config, rows)).collect();
        let wide = self.inputs.iter_mut();
        sizes.extend(wide.map(|input| (input, rows * config.hidden)));
        sizes.push((&mut self.grads.dgate_up, rows * 2 * config.ffn));
        sizes
    }
}

impl Tape {
    /// An empty tape that keeps intermediate results up to 256 MiB: all of a sequence of some 300 tokens of a model with 135 M parameters.
    pub fn new() -> Tape {
        Tape::with_budget(256 << 20)
    }

    /// An empty tape that may spend `bytes` on intermediate results. What does not fit is computed again in the backward
    /// pass, with the same bits: a third more work in exchange for memory. On a GPU it may spend half of what is free there when training
    /// begins, but nothing when `bytes` is 0.
    pub fn with_budget(bytes: usize) -> Tape {
        Tape {
            cpu: Buffers::default(),
            cuda: There::default(),
            asked: Asked {
                budget: bytes,
                kept: 0,
                nodes: Vec::new(),
                rows: 0,
                answering: Vec::new(),
                targets: Vec::new(),
                order: Vec::new(),
            },
        }
    }
}

impl Default for Tape {
    fn default() -> Self {
        Tape::new()
    }
}

impl Asked {
    /// Where among `acts` a layer's intermediate results are; of the number of layers, how many places there are.
    pub(super) fn place(&self, layer: usize) -> usize {
        layer - self.kept.saturating_sub(1).min(layer)
    }

    fn read(&mut self, pack: &Pack) {
        let targets = pack.targets();
        self.rows = pack.rows();
        self.nodes.clear();
        self.nodes.extend_from_slice(pack.nodes());
        self.order.clear();
        self.order.extend(0..targets.len());
        self.order.sort_by_key(|&i| targets[i].row);
        self.answering.clear();
        self.targets.clear();
        for target in self.order.iter().map(|&i| targets[i]) {
            if self.answering.last() != Some(&target.row) {
                self.answering.push(target.row);
            }
            self.targets.push(Target {
                row: self.answering.len() - 1,
                ..target
            });
        }
    }
}

/// The nodes of a pack, with a cache of one layer each.
pub(super) struct Forest<'a, D: Trains> {
    pub(super) nodes: &'a [Node],
    pub(super) caches: &'a mut [D::Cache],
    pub(super) adapter: Option<&'a Adapter>,
}

impl Node {
    fn span(self, adapter: Option<&Adapter>) -> Span<'_> {
        let Node {
            first,
            count,
            start,
            parent,
        } = self;
        Span {
            first,
            count,
            start,
            parent,
            adapter,
        }
    }
}

impl<D: Trains> Sequences<D> for Forest<'_, D> {
    fn count(&self) -> usize {
        self.nodes.len()
    }

    fn span(&self, i: usize) -> Span<'_> {
        self.nodes[i].span(self.adapter)
    }

    fn cache(&self, i: usize) -> &D::Cache {
        &self.caches[i]
    }

    fn cache_mut(&mut self, i: usize) -> &mut D::Cache {
        &mut self.caches[i]
    }

    fn each(&mut self, pool: &Pool, work: &EachCache<'_, D>) {
        let (nodes, adapter) = (self.nodes, self.adapter);
        pool.each(self.caches, &|i, cache| work(nodes[i].span(adapter), cache));
    }

    fn family(&mut self, parent: usize, child: usize) -> Option<(&mut D::Cache, &mut D::Cache)> {
        let (before, rest) = self.caches.split_at_mut(child);
        Some((&mut before[parent], &mut rest[0]))
    }
}

impl Model {
    /// Rows up to which it is worth to fill a pass with any sequences, each counted whole; none where it is worth only for what they share. A
    /// function of the kind of device alone, so that a replay packs as the first time.
    pub fn filled(&self) -> Option<usize> {
        on!(self, net => net.filled())
    }

    /// The log-probs of `targets` in one sequence, at a temperature: bit for bit those that serving records.
    ///
    /// A target's row r asks for the token *after* `tokens[r]`. A row may have several targets. Lets serving take its turn
    /// after every layer.
    ///
    /// # Errors
    /// As [`Model::train_pack`]; [`Error::EmptySequence`](crate::Error::EmptySequence) without tokens;
    /// [`Error::TargetRow`](crate::Error::TargetRow) for a row that is not there.
    pub fn train_forward(
        &self,
        tape: &mut Tape,
        adapter: Option<&Adapter>,
        tokens: &[u32],
        targets: &[Target],
        temperature: f32,
    ) -> Result<Vec<f32>> {
        let mut pack = Pack::default();
        pack.push(tokens, targets)?;
        self.train_pack(tape, adapter, &pack, temperature)
    }

    /// The log-probs that a pack asks for, in its order: each has the bits that it has when its sequence is alone.
    ///
    /// # Errors
    /// [`Error::TooLong`](crate::Error::TooLong) beyond the context, [`Error::Token`](crate::Error::Token) for an id outside of the vocabulary,
    /// [`Error::AdapterSetting`](crate::Error::AdapterSetting) for another model's adapter, [`Error::Compute`](crate::Error::Compute) for a temperature that
    /// is not positive.
    pub fn train_pack(
        &self,
        tape: &mut Tape,
        adapter: Option<&Adapter>,
        pack: &Pack,
        temperature: f32,
    ) -> Result<Vec<f32>> {
        on!(self, net => net.train_pack(tape, adapter, pack, temperature, true))
    }

    /// [`Model::train_pack`] for whoever wants no gradient: the same bits without what only [`Model::backward`] needs, which is refused
    /// after it.
    ///
    /// # Errors
    /// As [`Model::train_pack`].
    pub fn score_pack(
        &self,
        tape: &mut Tape,
        adapter: Option<&Adapter>,
        pack: &Pack,
        temperature: f32,
    ) -> Result<Vec<f32>> {
        on!(self, net => net.train_pack(tape, adapter, pack, temperature, false))
    }
}

impl<D: Trains> Net<D> {
    fn filled(&self) -> Option<usize> {
        D::FILLED
    }

    fn train_pack(
        &self,
        tape: &mut Tape,
        adapter: Option<&Adapter>,
        pack: &Pack,
        temperature: f32,
        gradient: bool,
    ) -> Result<Vec<f32>> {
        for node in pack.nodes() {
            self.check_tokens(node.start, &pack.tokens()[node.first..][..node.count])?;
        }
        for target in pack.targets() {
            self.check_tokens(0, &[target.token])?;
        }
        self.check_adapter(adapter)?;
        let aligned;
        let pack = if pack.is_aligned(D::SHARES) {
            pack
        } else {
            aligned = pack.aligned(D::SHARES);
            &aligned
        };
        let device = &self.device.background();
        let (buffers, asked) = self.device.tape(tape);
        asked.read(pack);
        let layers = self.layers.len();
        let keeps = device.keeps(asked.budget, asked.rows, self.kept_bytes(adapter))?;
        asked.kept = layers - keeps.min(layers);
        let mut turn = device.enter();
        self.layers_forward(device, buffers, asked, adapter, pack.tokens(), &mut turn)?;
        let last = &buffers.inputs[self.layers.len()];
        let (hidden, normed) = (&mut buffers.hidden, &mut buffers.normed);
        device.gather(self.config.hidden, last, &asked.answering, hidden)?;
        device.norm(&self.config, hidden, &self.norm, normed)?;
        let mut ordered = vec![0.0; asked.targets.len()];
        let wanted = Wanted {
            targets: &asked.targets,
            temperature,
            gradient,
        };
        let (to, head) = (&mut buffers.output, self.output());
        device.log_probs(&mut turn, normed, head, wanted, to, &mut ordered)?;
        if !gradient {
            asked.rows = 0;
            asked.targets.clear();
        }
        let mut log_probs = vec![0.0; ordered.len()];
        for (&i, v) in asked.order.iter().zip(ordered) {
            log_probs[i] = v;
        }
        Ok(log_probs)
    }

    /// Fills the tape's layer inputs.
    fn layers_forward(
        &self,
        device: &D,
        buffers: &mut Buffers<D>,
        asked: &Asked,
        adapter: Option<&Adapter>,
        tokens: &[u32],
        turn: &mut D::Turn<'_>,
    ) -> Result<()> {
        let places = asked.place(self.layers.len());
        if buffers.acts.len() != places {
            // Buffers of a pass that kept more, or longer rows, would exceed the budget together with this one's.
            buffers.acts.clear();
        }
        buffers.acts.resize_with(places, Activations::default);
        let wide = self.layers.len() + 1;
        buffers.inputs.resize_with(wide, D::Wide::default);
        device.settle_tape(&self.config, asked.rows, buffers);
        let Buffers {
            acts,
            inputs,
            caches,
            plan,
            ..
        } = buffers;
        let lengths: Vec<usize> = asked.nodes.iter().map(|n| n.start + n.count).collect();
        device.caches(self.one_layer(), &lengths, caches)?;
        let mut batch = Forest {
            nodes: &asked.nodes,
            caches,
            adapter,
        };
        device.plan(&self.config, &batch, tokens, plan)?;
        device.embed(&self.embedding, tokens, plan, &mut inputs[0])?;
        for layer in 0..self.layers.len() {
            let (before, after) = inputs.split_at_mut(layer + 1);
            let acts = &mut acts[asked.place(layer)];
            let at = self.lone_site(plan, layer);
            block::forward(device, at, &mut batch, &before[layer], acts, &mut after[0])?;
            turn.breathe();
        }
        Ok(())
    }

    /// A layer of a pass whose caches hold one layer.
    pub(super) fn lone_site<'a>(&'a self, plan: &'a D::Plan, layer: usize) -> Site<'a, D> {
        Site {
            slot: 0,
            ..self.site(plan, layer)
        }
    }

    /// Memory of the intermediate results of a row in one layer.
    fn kept_bytes(&self, adapter: Option<&Adapter>) -> usize {
        let config = &self.config;
        let queries = config.heads * config.head_dim;
        let qkv = queries + 2 * config.kv_heads * config.head_dim;
        let raw = if config.qk_norm { qkv } else { 0 };
        let inner = 7 * adapter.map_or(0, Adapter::rank);
        let row = 3 * config.hidden + qkv + raw + queries + 3 * config.ffn + inner;
        row * size_of::<f32>()
    }

    /// The shape of a cache of one layer.
    fn one_layer(&self) -> CacheShape {
        let (kv_heads, head_dim) = (self.config.kv_heads, self.config.head_dim);
        CacheShape {
            layers: 1,
            kv_heads,
            head_dim,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_that_are_not_kept_share_one_place_and_the_last_are_kept() {
        let places = |kept| {
            let asked = Asked {
                kept,
                ..Tape::default().asked
            };
            let of: Vec<usize> = (0..4).map(|layer| asked.place(layer)).collect();
            (of, asked.place(4))
        };
        assert_eq!(places(0), (vec![0, 1, 2, 3], 4));
        assert_eq!(places(1), (vec![0, 1, 2, 3], 4));
        assert_eq!(places(3), (vec![0, 0, 0, 1], 2));
        assert_eq!(places(4), (vec![0, 0, 0, 0], 1));
    }
}
