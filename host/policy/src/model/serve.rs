//! The forward pass for serving: rows of many sequences in one batch.
//!
//! A decode step, a chunk of a prompt and a scoring pass are all [`Segment`]s. A row's logits have the same bits alone or
//! in any batch, in one chunk or in many, and whatever adapters its neighbours use.

use crate::adapter::Adapter;
use crate::config::ModelConfig;
use crate::device::{Cpu, Cuda, Device, EachCache, Sequences, Span, There};
use crate::error::{Error, Result};
use crate::kv::Kv;
use crate::model::block::{self, Activations, Room};
use crate::model::weights::on;
use crate::model::{Model, Net};
use crate::sample::{Draw, Drawn};
use kernels::Pool;
use rl::LEAST_TEMPERATURE;
use std::ops::Range;

/// Which rows of a segment get logits.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Logits<'a> {
    /// None: a chunk in the middle of a prompt.
    None,
    /// The last row: what decoding needs.
    Last,
    /// Every row: scoring.
    All,
    /// The last row, to draw a token in the same turn: [`Scratch::drawn`].
    Draw(Draw),
    /// None: what is wanted of every row is the log-prob of a given token, one for each row, at a temperature: [`Scratch::given`].
    Given(&'a [u32], f32),
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
    pub logits: Logits<'a>,
}

/// Buffers of the forward pass and its results; reused, so that a step like the one before allocates nothing.
#[derive(Debug, Default)]
pub struct Scratch {
    pub(crate) cpu: Buffers<Cpu>,
    pub(crate) cuda: There<Buffers<Cuda>>,
    pub(crate) results: Results,
}

/// What a pass hands over, in the host's memory.
#[derive(Debug, Default)]
pub(crate) struct Results {
    /// Rows of `logits` of each segment.
    ranges: Vec<Range<usize>>,
    logits: Vec<f32>,
    vocab: usize,
    /// Of each segment, which of `drawn` are its own.
    places: Vec<Range<usize>>,
    drawn: Vec<Drawn>,
}

/// What is asked of the rows that get logits.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    /// Rows that get logits, ascending.
    pub(crate) rows: Vec<usize>,
    /// Of each segment, which of `rows` are its own: always its last ones.
    own: Vec<Range<usize>>,
    /// How a token of each is drawn; empty when none is drawn or given.
    pub(crate) draws: Vec<Draw>,
    /// The tokens that are given and not drawn, at the temperature of the draw; as many as `draws`.
    pub(crate) given: Vec<Option<u32>>,
    /// Which of `rows` come to the host's memory.
    pub(crate) fetched: Vec<Range<usize>>,
}

/// What a pass on one device writes to.
#[derive(Debug)]
pub(crate) struct Buffers<D: Device> {
    acts: Activations<D>,
    /// A layer's input and its output.
    x: D::Wide,
    next: D::Wide,
    tokens: Vec<u32>,
    /// The rows of each segment.
    rows: Vec<Range<usize>>,
    asked: Asked,
    chosen: D::Wide,
    normed: D::Narrow,
    /// Logits that are not in the host's memory yet.
    logits: D::Wide,
    drawing: D::Drawing,
    plan: D::Plan,
    steps: D::Steps,
}

impl<D: Device> Default for Buffers<D> {
    fn default() -> Self {
        Buffers {
            acts: Activations::default(),
            x: D::Wide::default(),
            next: D::Wide::default(),
            tokens: Vec::new(),
            rows: Vec::new(),
            asked: Asked::default(),
            chosen: D::Wide::default(),
            normed: D::Narrow::default(),
            logits: D::Wide::default(),
            drawing: D::Drawing::default(),
            plan: D::Plan::default(),
            steps: D::Steps::default(),
        }
    }
}

impl Buffers<Cpu> {
    /// What every layer of a pass goes through; a step of decoding allocates nothing to ask.
    pub(crate) fn sizes(&mut self, config: &ModelConfig, rows: usize) -> [Room<'_>; 10] {
        let [a, b, c, d, e, f, g, h] = self.acts.sizes(config, rows);
        let wide = rows * config.hidden;
        let (x, next) = ((&mut self.x, wide), (&mut self.next, wide));
        [a, b, c, d, e, f, g, h, x, next]
    }
}

impl Scratch {
    /// Empty buffers.
    pub fn new() -> Scratch {
        Scratch::default()
    }

    /// The logits of the i-th segment of the last pass, one row for each token that asked for them; none where a token was drawn.
    ///
    /// # Panics
    /// When there was no such segment.
    pub fn logits(&self, i: usize) -> std::slice::ChunksExact<'_, f32> {
        let Results {
            ranges,
            logits,
            vocab,
            ..
        } = &self.results;
        let rows = ranges[i].clone();
        logits[rows.start * vocab..rows.end * vocab].chunks_exact((*vocab).max(1))
    }

    /// What was drawn for the i-th segment of the last pass, or the first of its given tokens; none when its logits are here instead.
    ///
    /// # Panics
    /// When there was no such segment.
    pub fn drawn(&self, i: usize) -> Option<Drawn> {
        self.given(i).first().copied()
    }

    /// The given tokens of the i-th segment of the last pass with their log-probs, one for each row; see [`Logits::Given`].
    ///
    /// # Panics
    /// When there was no such segment.
    pub fn given(&self, i: usize) -> &[Drawn] {
        &self.results.drawn[self.results.places[i].clone()]
    }
}

impl Asked {
    /// Lists what segments ask for, and where each will find it.
    fn read(&mut self, segments: &[Segment<'_>], all: &[Range<usize>], to: &mut Results) {
        self.rows.clear();
        self.own.clear();
        self.draws.clear();
        self.fetched.clear();
        to.ranges.clear();
        to.places.clear();
        self.given.clear();
        let (mut drawn, mut fetched) = (0, 0);
        for (segment, all) in segments.iter().zip(all) {
            let rows = match segment.logits {
                Logits::None => all.end..all.end,
                Logits::All | Logits::Given(..) => all.clone(),
                Logits::Last | Logits::Draw(_) => all.end - 1..all.end,
            };
            let own = self.rows.len()..self.rows.len() + rows.len();
            // Rows lie as they come: what is drawn of others is not looked at.
            let (draw, given) = match segment.logits {
                Logits::Draw(draw) => (draw, &[][..]),
                Logits::Given(tokens, temperature) => {
                    let draw = Draw {
                        temperature,
                        ..Draw::GREEDY
                    };
                    (draw, tokens)
                }
                _ => (Draw::GREEDY, &[][..]),
            };
            let handed = matches!(segment.logits, Logits::Draw(_) | Logits::Given(..));
            self.draws.extend(rows.clone().map(|_| draw));
            let tokens = given.iter().copied().map(Some);
            self.given
                .extend(tokens.chain(std::iter::repeat(None)).take(own.len()));
            self.rows.extend(rows);
            self.own.push(own.clone());
            let (places, own) = if handed {
                drawn += own.len();
                (own.clone(), own.start..own.start)
            } else {
                (0..0, own)
            };
            to.ranges.push(fetched..fetched + own.len());
            to.places.push(places);
            fetched += own.len();
            match self.fetched.last_mut() {
                Some(last) if last.end == own.start => last.end = own.end,
                _ if own.is_empty() => {}
                _ => self.fetched.push(own),
            }
        }
        if drawn == 0 {
            self.draws.clear();
            self.given.clear();
        }
    }
}

/// Segments as the block sees them.
struct Segments<'s, 'a> {
    list: &'s mut [Segment<'a>],
    /// Of each, where its last rows lie among those that are computed: all of them, or those that get logits.
    rows: &'s [Range<usize>],
}

impl<'a> Segment<'a> {
    fn span(&self, rows: &Range<usize>) -> Span<'a> {
        Span {
            first: rows.start,
            count: rows.len(),
            start: self.kv.len() + self.tokens.len() - rows.len(),
            parent: None,
            adapter: self.adapter,
        }
    }
}

impl<D: Device> Sequences<D> for Segments<'_, '_> {
    fn count(&self) -> usize {
        self.list.len()
    }

    fn span(&self, i: usize) -> Span<'_> {
        self.list[i].span(&self.rows[i])
    }

    fn cache(&self, i: usize) -> &D::Cache {
        D::cached(self.list[i].kv)
    }

    fn cache_mut(&mut self, i: usize) -> &mut D::Cache {
        D::cached_mut(self.list[i].kv)
    }

    fn each(&mut self, pool: &Pool, work: &EachCache<'_, D>) {
        let rows = self.rows;
        pool.each(self.list, &|i, segment| {
            work(segment.span(&rows[i]), D::cached_mut(segment.kv));
        });
    }

    fn family(&mut self, _: usize, _: usize) -> Option<(&mut D::Cache, &mut D::Cache)> {
        None
    }
}

impl Model {
    /// Appends tokens to sequences and computes the logits that they ask for; see [`Scratch::logits`].
    ///
    /// Takes one turn on the pool. On an error no sequence has grown.
    ///
    /// # Errors
    /// [`Error::EmptySequence`](crate::Error::EmptySequence) for a segment without tokens, [`Error::TooLong`](crate::Error::TooLong) beyond the
    /// context, [`Error::Token`](crate::Error::Token) for an id outside of the vocabulary, [`Error::AdapterSetting`](crate::Error::AdapterSetting)
    /// for another model's adapter, [`Error::Compute`](crate::Error::Compute) for another model's cache, and for given tokens that are not one for
    /// each row or a temperature for them below [`LEAST_TEMPERATURE`].
    pub fn forward(&self, scratch: &mut Scratch, segments: &mut [Segment<'_>]) -> Result<()> {
        on!(self, net => net.forward(scratch, segments))
    }
}

impl<D: Device> Net<D> {
    fn forward(&self, scratch: &mut Scratch, segments: &mut [Segment<'_>]) -> Result<()> {
        for segment in &*segments {
            self.check_tokens(segment.kv.len(), segment.tokens)?;
            self.check_adapter(segment.adapter)?;
            if let Logits::Given(tokens, temperature) = segment.logits {
                self.check_tokens(0, tokens)?;
                check_given(tokens.len(), segment.tokens.len(), temperature)?;
            }
        }
        let device = &self.device;
        let (buffers, results) = device.scratch(scratch);
        let count = segments.iter().map(|segment| segment.tokens.len()).sum();
        device.settle(&self.config, count, buffers);
        let Buffers {
            acts,
            x,
            next,
            tokens,
            rows,
            asked,
            chosen,
            normed,
            logits,
            drawing,
            plan,
            steps,
        } = buffers;
        rows.clear();
        tokens.clear();
        for segment in &mut *segments {
            let first = tokens.len();
            tokens.extend_from_slice(segment.tokens);
            rows.push(first..tokens.len());
            let len = segment.kv.len() + segment.tokens.len();
            device.adopt(segment.kv, len)?;
        }
        asked.read(segments, rows, results);
        results.vocab = self.config.vocab_size;
        let _turn = device.enter();
        let list = &mut *segments;
        let mut batch = Segments { list, rows };
        device.plan(&self.config, &batch, tokens, plan)?;
        let whole = asked.rows.len() == tokens.len();
        device.step(whole, plan, steps, |device| {
            device.embed(&self.embedding, tokens, plan, x)?;
            let trimmed = !whole && D::TRIMS;
            let last = self.layers.len() - usize::from(trimmed);
            for layer in 0..last {
                let at = self.site(plan, layer);
                block::forward(device, at, &mut batch, x, acts, next)?;
                std::mem::swap(x, next);
            }
            if trimmed {
                let at = self.site(plan, last);
                block::place(device, at, &mut batch, x, acts)?;
                let answering = Segments {
                    list: &mut *batch.list,
                    rows: &asked.own,
                };
                block::finish(device, at, &answering, (x, &asked.rows), acts, next, chosen)?;
            } else if !whole {
                device.gather(self.config.hidden, x, &asked.rows, chosen)?;
            }
            let answering = if whole { &*x } else { &*chosen };
            device.norm(&self.config, answering, &self.norm, normed)?;
            device.logits(normed, self.output(), logits, &mut results.logits)
        })?;
        let (drawn, out) = (&mut results.drawn, &mut results.logits);
        device.hand_over(self.config.vocab_size, logits, asked, drawing, drawn, out)?;
        for segment in segments {
            segment.kv.grow(segment.tokens.len())?;
        }
        Ok(())
    }
}

/// What [`Logits::Given`] asks can be answered.
fn check_given(tokens: usize, rows: usize, temperature: f32) -> Result<()> {
    let refuse = |what, found, rule| {
        let op = "policy.forward";
        Err(Error::Compute(kernels::Error::Argument {
            op,
            what,
            rule,
            found,
        }))
    };
    if tokens != rows {
        return refuse("given", tokens as f64, "a token is given for each row");
    }
    if !(temperature >= LEAST_TEMPERATURE && temperature.is_finite()) {
        let found = f64::from(temperature);
        return refuse("temperature", found, "it is too low to divide by");
    }
    Ok(())
}
