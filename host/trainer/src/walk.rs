//! One walk over a batch: forward, loss and backward of every sample into one gradient.
//!
//! Samples that begin alike (attempts at one task, turns of one conversation) go through the model together, and what they have in common
//! once; on a GPU, which is idle with few rows, any do. Which ones is a function of the batch and the kind of device alone, so that a replay
//! packs as the first time. Does not move a weight; both
//! learners use it. [`crate::loss`] is the arithmetic between forward and backward.

use std::sync::Arc;

use parking_lot::Mutex;
use policy::{Adapter, AdapterGrads, Model, Pack, Slot, Tape, Target};
use rl::{Batch, PolicyVersion, Sample, StepMetrics};

use crate::loss::{Figures, Objective, Streams};
use crate::{Config, Error, Result};

/// Rows that a pack may reach by taking one more sample: its layers' inputs are in memory at once. A sample alone may be longer.
pub const PACK_ROWS: usize = 2048;

/// Samples that go through the model together.
struct Packed {
    pack: Pack,
    /// Their places in the batch.
    members: Vec<usize>,
    /// Rows that they have one by one.
    whole: usize,
    temperature: f32,
}

/// Every sample of a batch in a pack: with those that begin like it, or, with a model that fills its passes, with any.
fn packed(samples: &[Sample], filled: Option<usize>) -> Result<Vec<Packed>> {
    let mut packs: Vec<Packed> = Vec::new();
    for (index, sample) in samples.iter().enumerate() {
        let (tokens, targets) = inputs(sample);
        let temperature = sample.temperature;
        let same = |p: &Packed| p.temperature.to_bits() == temperature.to_bits();
        let found = match filled {
            Some(rows) => packs
                .iter()
                .position(|p| same(p) && p.whole + tokens.len() <= rows),
            None => most_shared(&packs, &tokens, same),
        };
        let place = match found {
            Some(place) => &mut packs[place],
            None => packs.push_mut(Packed {
                pack: Pack::default(),
                members: Vec::new(),
                whole: 0,
                temperature,
            }),
        };
        place.pack.push(&tokens, &targets).map_err(forward)?;
        place.members.push(index);
        place.whole += tokens.len();
    }
    Ok(packs)
}

/// The first of the packs that share the most with a sequence, if any does and has room for the rest.
fn most_shared(packs: &[Packed], tokens: &[u32], same: impl Fn(&Packed) -> bool) -> Option<usize> {
    let mut best = (0, None);
    for (place, packed) in packs.iter().enumerate() {
        let shared = packed.pack.shared(tokens);
        let room = packed.pack.rows() + tokens.len() - shared <= PACK_ROWS;
        if same(packed) && room && shared > best.0 {
            best = (shared, Some(place));
        }
    }
    best.1
}

/// The memory in which samples go through the model. Learners that share one take turns in it, pack by pack: what a live learner
/// and one that computes old steps again need of it exists once.
#[derive(Clone, Debug, Default)]
pub struct Workspace {
    pub(crate) tape: Arc<Mutex<Tape>>,
    /// Most tokens of a sample; the model's context without.
    longest: Option<usize>,
}

impl Workspace {
    /// Memory that may keep up to `bytes` of a pack's intermediate results; what does not fit is computed again. No result depends on it.
    pub fn new(bytes: usize) -> Self {
        Self {
            tape: Arc::new(Mutex::new(Tape::with_budget(bytes))),
            longest: None,
        }
    }

    /// The same for samples of at most so many tokens: a longer one, recorded when the host had more memory, is [`Error::TooLong`].
    #[must_use]
    pub fn with_longest(mut self, tokens: usize) -> Self {
        self.longest = Some(tokens);
        self
    }

    /// The same memory, for samples as long as the model takes: where a step must be what it was, whatever it needs.
    #[must_use]
    pub fn without_longest(mut self) -> Self {
        self.longest = None;
        self
    }

    /// Most tokens of a sample, when that is not the model's context.
    pub fn longest(&self) -> Option<usize> {
        self.longest
    }

    /// Refuses a sample that is longer than the memory is planned for.
    pub(crate) fn check_room(&self, sample: &Sample) -> Result<()> {
        let tokens = rows(sample);
        match self.longest {
            Some(most) if tokens > most => Err(Error::TooLong {
                sample: sample.id.to_string(),
                tokens,
                most,
            }),
            _ => Ok(()),
        }
    }
}

/// The buffers of a walk, kept between steps, and what a later pass needs from the first.
#[derive(Debug)]
pub(crate) struct Walk {
    pub(crate) space: Workspace,
    pub(crate) grads: AdapterGrads,
    dlogprobs: Vec<f32>,
    /// Log-probs of the first pass, a list a sample.
    old: Vec<Vec<f32>>,
    /// Log-probs of the base, a list a sample; empty lists when β is 0.
    reference: Vec<Vec<f32>>,
}

impl Walk {
    pub(crate) fn new(adapter: &Adapter, space: Workspace) -> Self {
        Self {
            space,
            grads: AdapterGrads::zeros(adapter),
            dlogprobs: Vec::new(),
            old: Vec::new(),
            reference: Vec::new(),
        }
    }

    /// Pass number `pass` (from 1) over a batch that [`check`] accepted. Afterwards `self.grads` is the gradient. The adapter is version
    /// `current`; `kept` may still have older ones.
    pub(crate) fn pass(
        &mut self,
        model: &Model,
        (adapter, current, kept): (&Adapter, PolicyVersion, &Slot),
        config: &Config,
        batch: &Batch,
        pass: u32,
    ) -> Result<StepMetrics> {
        self.grads.clear();
        let objective = config.objective();
        let share = 1.0
            / count(
                batch
                    .samples
                    .iter()
                    .filter(|s| s.weight.iter().any(|w| *w > 0.0)),
            );
        let outcomes = self.samples(model, adapter, &objective, &batch.samples, share, pass)?;
        let mut total = Figures::default();
        let (mut mismatched, mut fresh, mut all) = (0, 0, 0);
        for (sample, (figures, differ)) in batch.samples.iter().zip(outcomes) {
            all += sample.response.len() as u64;
            if sample.version == current {
                mismatched += differ;
                fresh += sample.response.len() as u64;
            }
            check_ratio(&figures, config, pass)?;
            total.pg += share * figures.pg;
            total.kl += share * figures.kl;
            total.ratio_sum += figures.ratio_sum;
            total.ratio_max = total.ratio_max.max(figures.ratio_max);
            total.clipped += figures.clipped;
            total.tokens += figures.tokens;
        }
        let tokens = total.tokens as f64;
        let loss = total.pg + objective.kl_beta * total.kl;
        finite("the loss", loss, pass)?;
        let grad_norm = self.grads.norm(model.pool()).map_err(backward)?;
        finite("the gradient's norm", grad_norm, pass)?;
        let mut rechecked = 0;
        if pass == 1 {
            let older = recheck(&self.space, model, current, kept, &batch.samples)?;
            rechecked = older.0;
            mismatched += older.1;
        }
        Ok(StepMetrics {
            loss,
            pg_loss: total.pg,
            kl: total.kl,
            grad_norm,
            ratio_mean: total.ratio_sum / tokens,
            ratio_max: total.ratio_max,
            clipped: total.clipped as f64 / tokens,
            mismatched,
            fresh,
            rechecked,
            uncompared: all - fresh - rechecked,
            tokens: total.tokens,
            samples: batch.samples.len() as u64,
            ..StepMetrics::default()
        })
    }

    /// Each sample's figures, its gradient added; and how many of its tokens differ in any bit from what was recorded.
    pub(crate) fn samples(
        &mut self,
        model: &Model,
        adapter: &Adapter,
        objective: &Objective,
        samples: &[Sample],
        share: f64,
        pass: u32,
    ) -> Result<Vec<(Figures, u64)>> {
        if pass == 1 {
            self.old = vec![Vec::new(); samples.len()];
            self.reference = vec![Vec::new(); samples.len()];
        }
        let mut outcomes = vec![(Figures::default(), 0); samples.len()];
        let space = self.space.clone();
        for packed in packed(samples, model.filled())? {
            let tape = &mut space.tape.lock();
            let members = &packed.members;
            if pass == 1 && objective.kl_beta > 0.0 {
                let found = log_probs(model, tape, None, &packed, pass)?;
                for (&i, own) in members.iter().zip(parts(samples, members, &found)) {
                    self.reference[i] = own.to_vec();
                }
            }
            let found = log_probs(model, tape, Some(adapter), &packed, pass)?;
            let mut upstream = Vec::with_capacity(found.len());
            for (&i, logprobs) in members.iter().zip(parts(samples, members, &found)) {
                let sample = &samples[i];
                if pass == 1 {
                    self.old[i] = logprobs.to_vec();
                }
                let streams = Streams {
                    logprobs,
                    old: &self.old[i],
                    reference: (objective.kl_beta > 0.0).then_some(&*self.reference[i]),
                    behaviour: &sample.behaviour,
                    advantage: &sample.advantage,
                    weight: &sample.weight,
                };
                let figures = objective.sample(&streams, share, &mut self.dlogprobs);
                upstream.extend_from_slice(&self.dlogprobs);
                outcomes[i] = (figures, unlike(logprobs, &sample.behaviour));
            }
            model
                .backward(tape, adapter, &upstream, &mut self.grads)
                .map_err(backward)?;
        }
        Ok(outcomes)
    }
}

/// One sample of an older version that is still at hand, computed by that version: its tokens, and how many of them differ in any bit from
/// what was recorded.
///
/// One a step, not all: it takes a forward pass of its own, a third of what a sample costs, and where turns come faster than steps most of a
/// batch is older than the learner's version.
fn recheck(
    space: &Workspace,
    model: &Model,
    current: PolicyVersion,
    kept: &Slot,
    samples: &[Sample],
) -> Result<(u64, u64)> {
    let older = samples.iter().filter(|sample| sample.version != current);
    let mut found = older.filter_map(|sample| Some((sample, kept.recent(sample.version)?)));
    let Some((sample, version)) = found.next() else {
        return Ok((0, 0));
    };
    let (tokens, targets) = inputs(sample);
    let mut pack = Pack::default();
    pack.push(&tokens, &targets).map_err(forward)?;
    let (adapter, tape) = (version.adapter.as_deref(), &mut space.tape.lock());
    let now = model
        .score_pack(tape, adapter, &pack, sample.temperature)
        .map_err(forward)?;
    Ok((now.len() as u64, unlike(&now, &sample.behaviour)))
}

/// Numbers that differ in any bit.
fn unlike(now: &[f32], then: &[f32]) -> u64 {
    let pairs = now.iter().zip(then);
    let differ = pairs.filter(|(now, then)| now.to_bits() != then.to_bits());
    differ.count() as u64
}

/// What a pack asks for, all of it finite. Of the base no gradient will be wanted.
fn log_probs(
    model: &Model,
    tape: &mut Tape,
    adapter: Option<&Adapter>,
    packed: &Packed,
    pass: u32,
) -> Result<Vec<f32>> {
    let (pack, temperature) = (&packed.pack, packed.temperature);
    let found = match adapter {
        Some(_) => model.train_pack(tape, adapter, pack, temperature),
        None => model.score_pack(tape, None, pack, temperature),
    };
    let found = found.map_err(forward)?;
    for logprob in &found {
        finite("a log-prob", (*logprob).into(), pass)?;
    }
    Ok(found)
}

/// What belongs to each member of a pack.
fn parts<'a>(
    samples: &'a [Sample],
    members: &'a [usize],
    mut found: &'a [f32],
) -> impl Iterator<Item = &'a [f32]> {
    members.iter().map(move |&i| {
        let (own, rest) = found.split_at(samples[i].response.len());
        found = rest;
        own
    })
}

pub(crate) fn forward(source: policy::Error) -> Error {
    Error::Policy {
        action: "run the model forward",
        source,
    }
}

pub(crate) fn backward(source: policy::Error) -> Error {
    Error::Policy {
        action: "run the model backward",
        source,
    }
}

pub(crate) fn prepare(source: policy::Error) -> Error {
    Error::Policy {
        action: "put the adapter where it will be served",
        source,
    }
}

/// What is fed, and which token each row must predict. The last token is predicted, never fed.
fn inputs(sample: &Sample) -> (Vec<u32>, Vec<Target>) {
    fed(&sample.prompt, &sample.response)
}

/// Tokens that are fed.
fn rows(sample: &Sample) -> usize {
    (sample.prompt.len() + sample.response.len()).saturating_sub(1)
}

/// As [`inputs`], of a prompt and a response that both hold tokens.
pub(crate) fn fed(prompt: &[u32], response: &[u32]) -> (Vec<u32>, Vec<Target>) {
    let mut tokens = prompt.to_vec();
    tokens.extend_from_slice(&response[..response.len() - 1]);
    let first = prompt.len() - 1;
    let targets = response.iter().enumerate();
    let targets = targets
        .map(|(t, token)| Target {
            row: first + t,
            token: *token,
        })
        .collect();
    (tokens, targets)
}

/// Refuses a batch that this model cannot run, or that would move nothing.
pub(crate) fn check(
    model: &Model,
    space: &Workspace,
    config: &Config,
    batch: &Batch,
) -> Result<()> {
    for sample in &batch.samples {
        check_sample(model, space, sample)?;
    }
    let weighted = |sample: &&Sample| sample.weight.iter().any(|w| *w > 0.0);
    let moves = if config.kl_beta > 0.0 {
        batch.samples.iter().any(|s| weighted(&s))
    } else {
        batch.samples.iter().any(Sample::is_effective)
    };
    if moves {
        Ok(())
    } else {
        Err(Error::NothingToLearn {
            samples: batch.samples.len(),
        })
    }
}

/// Refuses a sample that this model cannot run.
pub(crate) fn check_sample(model: &Model, space: &Workspace, sample: &Sample) -> Result<()> {
    let shape = model.config();
    let refuse = |why: String| {
        Err(Error::Sample {
            sample: sample.id.to_string(),
            why,
        })
    };
    if let Err(error) = sample.validate() {
        return match error {
            rl::Error::Refused { why, .. } => refuse(why),
            other => refuse(other.to_string()),
        };
    }
    let (fed, context) = (rows(sample), model.context());
    if fed > context {
        return refuse(format!(
            "its {fed} tokens exceed the model's context of {context}"
        ));
    }
    space.check_room(sample)?;
    let mut ids = sample.prompt.iter().chain(&sample.response);
    if let Some(id) = ids.find(|id| **id as usize >= shape.vocab_size) {
        return refuse(format!(
            "token {id} is not in the vocabulary of {}",
            shape.vocab_size
        ));
    }
    Ok(())
}

pub(crate) fn check_ratio(figures: &Figures, config: &Config, pass: u32) -> Result<()> {
    let (ratio, limit) = (figures.ratio_max, f64::from(config.max_ratio));
    finite("a ratio", ratio, pass)?;
    if ratio > limit {
        return Err(Error::Ratio { ratio, limit, pass });
    }
    Ok(())
}

pub(crate) fn finite(what: &'static str, value: f64, pass: u32) -> Result<()> {
    if value.is_finite() {
        Ok(())
    } else {
        Err(Error::NotFinite { what, value, pass })
    }
}

fn count<T>(items: impl Iterator<Item = T>) -> f64 {
    items.count() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(number: usize, prompt: &[u32], response: usize, temperature: f32) -> Sample {
        Sample {
            id: rl::SampleId::new(format!("sample-{number}")),
            turn: "turn".into(),
            adapter: "main".into(),
            version: PolicyVersion::new(0),
            behaviour: vec![-1.0; response],
            advantage: vec![1.0; response],
            weight: vec![1.0; response],
            temperature,
            prompt: prompt.to_vec(),
            response: vec![number as u32; response],
        }
    }

    /// Which samples are packed together.
    fn check(samples: &[Sample], filled: Option<usize>, expected: &[&[usize]]) {
        let packs = packed(samples, filled).unwrap();
        let members: Vec<&[usize]> = packs.iter().map(|p| &p.members[..]).collect();
        assert_eq!(members, expected, "{filled:?}");
    }

    #[test]
    fn a_pass_is_filled_in_order_or_by_what_is_shared() {
        let (one, other) = ([7; 40], [8; 40]);
        // 49, 49, 49, 49 and 59 rows are fed.
        let samples = [
            sample(1, &one, 10, 1.0),
            sample(2, &other, 10, 1.0),
            sample(3, &one, 10, 0.5),
            sample(4, &one, 10, 1.0),
            sample(5, &other, 20, 1.0),
        ];
        check(&samples, None, &[&[0, 3], &[1, 4], &[2]]);
        check(&samples, Some(1000), &[&[0, 1, 3, 4], &[2]]);
        check(&samples, Some(147), &[&[0, 1, 3], &[2], &[4]]);
        check(&samples, Some(146), &[&[0, 1], &[2], &[3, 4]]);
        // One that is longer than a pass has one of its own.
        check(&samples, Some(48), &[&[0], &[1], &[2], &[3], &[4]]);
    }
}
