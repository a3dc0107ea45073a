//! One sequence while it is computed: a reply that grows, or given tokens that are scored.
//!
//! Keeps the weights that it started with to its end, whatever is published meanwhile. Does not decide when it is
//! computed ([`super::worker`]) and holds no logits.

use std::sync::Arc;

use policy::{
    Adapter, Deployed, Detokenizer, Drawn, Kv, Logits, Model, Sampler, Segment, Tokenizer,
};
use rl::{FinishReason, PolicyVersion, Sampling, ScoreRequest, TokenId};
use tokio::sync::{mpsc, oneshot};

use super::job::{Event, Priority, Refusal, Token};
use super::prefix::Scope;
use crate::metrics::EngineMetrics;

/// The weights of one sequence.
#[derive(Debug, Clone)]
pub(crate) struct Loaded {
    pub(crate) version: PolicyVersion,
    pub(crate) digest: Arc<str>,
    pub(crate) adapter: Option<Arc<Adapter>>,
}

impl From<&Deployed> for Loaded {
    fn from(deployed: &Deployed) -> Self {
        let Deployed { version, adapter } = deployed.clone();
        // Every parameter is read for the first digest of a version; the adapter remembers it.
        let digest = adapter.as_ref().map(|a| a.digest()).unwrap_or_default();
        Self {
            version,
            digest: digest.into(),
            adapter,
        }
    }
}

/// A sequence that is being computed.
#[derive(Debug)]
pub(crate) struct Sequence {
    pub(crate) scope: Scope,
    pub(crate) priority: Priority,
    pub(crate) weights: Loaded,
    pub(crate) kv: Kv,
    /// All tokens known; the first `kv.len()` are computed.
    pub(crate) tokens: Vec<TokenId>,
    pub(crate) prompt: usize,
    pub(crate) reserved: u64,
    /// Whether its keys and values may be used for prompts that begin alike.
    pub(crate) keep: bool,
    /// Sequences are numbered as they begin.
    pub(crate) number: u64,
    /// Whether an older sequence computes what this one begins with, which is then copied.
    pub(crate) waits: bool,
    pub(crate) task: Task,
}

#[derive(Debug)]
pub(crate) enum Task {
    Sample(Box<SampleTask>),
    Score(ScoreTask),
}

#[derive(Debug)]
pub(crate) struct SampleTask {
    pub(crate) events: mpsc::UnboundedSender<Event>,
    pub(crate) sampling: Sampling,
    pub(crate) sampler: Sampler,
    pub(crate) text: Detokenizer,
    pub(crate) top: usize,
    pub(crate) sampled: u32,
    /// Most tokens of prompt and reply.
    pub(crate) context: usize,
}

#[derive(Debug)]
pub(crate) struct ScoreTask {
    /// Taken when it is answered.
    pub(crate) answer: Option<oneshot::Sender<Result<Vec<Vec<f32>>, Refusal>>>,
    pub(crate) request: ScoreRequest,
    /// The continuation whose tokens follow the prompt; none while the prompt is computed.
    pub(crate) current: Option<usize>,
    pub(crate) scores: Vec<Vec<f32>>,
}

/// What a step computes with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Machine<'a> {
    pub(crate) model: &'a Model,
    pub(crate) tokenizer: &'a Tokenizer,
    pub(crate) metrics: &'a EngineMetrics,
}

/// Whether a sequence goes on after a step.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum After {
    GoesOn,
    Ended,
}

impl Sequence {
    /// Tokens that are known and not computed.
    pub(crate) fn pending(&self) -> usize {
        self.tokens.len() - self.kv.len()
    }

    /// The end of what may be copied from a sequence that begins alike: the last row's logits are this one's own business. None when
    /// the prompt is behind it.
    pub(crate) fn copies_until(&self) -> Option<usize> {
        let end = self.prompt - 1;
        (self.kv.len() < end).then_some(end)
    }

    /// Whether its next row continues a reply: such rows are in every step.
    pub(crate) fn is_decoding(&self) -> bool {
        matches!(self.task, Task::Sample(_)) && self.kv.len() >= self.prompt
    }

    /// Its next `rows` tokens, and what they need.
    pub(crate) fn segment(&mut self, rows: usize) -> Segment<'_> {
        let (start, last) = (self.kv.len(), rows == self.pending());
        let logits = match &self.task {
            Task::Score(task) => match task.current {
                // Row r of the continuation knows its token r + 1.
                Some(index) => {
                    let known = start + 1 - self.prompt;
                    let tokens = &task.request.continuations[index][known..known + rows];
                    Logits::Given(tokens, task.request.temperature)
                }
                None if last => Logits::Last,
                None => Logits::None,
            },
            Task::Sample(_) if !last => Logits::None,
            // Who wants to see other tokens' log-probs, too, needs the logits.
            Task::Sample(task) if task.top == 0 => {
                let draw = task.sampler.plain(self.tokens.len() as u64);
                draw.map_or(Logits::Last, Logits::Draw)
            }
            Task::Sample(_) => Logits::Last,
        };
        Segment {
            kv: &mut self.kv,
            tokens: &self.tokens[start..start + rows],
            adapter: self.weights.adapter.as_deref(),
            logits,
        }
    }

    pub(crate) fn is_abandoned(&self) -> bool {
        match &self.task {
            Task::Sample(task) => task.events.is_closed(),
            Task::Score(task) => task.answer.as_ref().is_none_or(oneshot::Sender::is_closed),
        }
    }

    /// Tells whoever waits that there will be no result.
    pub(crate) fn fail(&mut self, refusal: Refusal) {
        match &mut self.task {
            Task::Sample(task) => drop(task.events.send(Event::Failed(refusal))),
            Task::Score(task) => {
                if let Some(answer) = task.answer.take() {
                    let _ = answer.send(Err(refusal));
                }
            }
        }
    }

    /// Ends a reply before its time: what was sampled stays valid.
    pub(crate) fn cut_off(&mut self) {
        match &mut self.task {
            Task::Sample(task) => {
                let text = task.text.finish();
                let _ = task.events.send(Event::Done {
                    finish: FinishReason::Cancelled,
                    text,
                });
            }
            Task::Score(_) => self.fail(Refusal::Draining),
        }
    }

    /// Takes what was drawn or given of the rows just computed, or else their logits.
    pub(crate) fn advance<'l>(
        &mut self,
        machine: Machine<'_>,
        found: &[Drawn],
        mut rows: impl Iterator<Item = &'l [f32]>,
    ) -> Result<After, Refusal> {
        if self.pending() > 0
            && !matches!(
                self.task,
                Task::Score(ScoreTask {
                    current: Some(_),
                    ..
                })
            )
        {
            return Ok(After::GoesOn);
        }
        match &mut self.task {
            Task::Sample(task) => match (found.first().copied(), rows.next()) {
                (Some(drawn), _) => task.take(machine, drawn, Vec::new(), &mut self.tokens),
                (None, Some(logits)) => task.draw(machine, logits, &mut self.tokens),
                (None, None) => Ok(After::GoesOn),
            },
            Task::Score(task) => {
                match task.current {
                    None => {
                        if let Some(logits) = rows.next() {
                            task.first_tokens(machine.model, logits)?;
                        }
                    }
                    Some(index) => {
                        for token in found {
                            task.scores[index].push(finite(token.log_prob)?);
                        }
                        if self.tokens.len() > self.kv.len() {
                            return Ok(After::GoesOn);
                        }
                    }
                }
                self.next_continuation()
            }
        }
    }

    /// Puts the next continuation behind the prompt, or answers when there is none.
    fn next_continuation(&mut self) -> Result<After, Refusal> {
        let Task::Score(task) = &mut self.task else {
            return Ok(After::GoesOn);
        };
        let from = task.current.map_or(0, |index| index + 1);
        let longer = |c: &Vec<TokenId>| c.len() > 1;
        let next = task
            .request
            .continuations
            .iter()
            .skip(from)
            .position(longer);
        let Some(index) = next.map(|skipped| from + skipped) else {
            if let Some(answer) = task.answer.take() {
                let _ = answer.send(Ok(std::mem::take(&mut task.scores)));
            }
            return Ok(After::Ended);
        };
        task.current = Some(index);
        self.tokens.truncate(self.prompt);
        // The last token's own logits are not asked for.
        if let Some((_, all_but_last)) = task.request.continuations[index].split_last() {
            self.tokens.extend_from_slice(all_but_last);
        }
        self.kv.truncate(self.prompt).map_err(broken)?;
        Ok(After::GoesOn)
    }
}

impl ScoreTask {
    /// The prompt's last row knows the first token of every continuation.
    fn first_tokens(&mut self, model: &Model, logits: &[f32]) -> Result<(), Refusal> {
        let normalizer = model
            .normalizer(logits, self.request.temperature)
            .map_err(broken)?;
        for (scores, continuation) in self.scores.iter_mut().zip(&self.request.continuations) {
            if let Some(&id) = continuation.first() {
                scores.push(finite(normalizer.log_prob(logits[id as usize]))?);
            }
        }
        Ok(())
    }
}

impl SampleTask {
    /// Draws the next token.
    fn draw(
        &mut self,
        machine: Machine<'_>,
        logits: &[f32],
        tokens: &mut Vec<TokenId>,
    ) -> Result<After, Refusal> {
        let temperature = self.sampling.logprob_temperature();
        let normalizer = machine
            .model
            .normalizer(logits, temperature)
            .map_err(broken)?;
        let log_prob = |id: TokenId| normalizer.log_prob(logits[id as usize]);
        let token = self.sampler.draw(logits, tokens.len() as u64);
        let drawn = Drawn {
            token,
            log_prob: token.map_or(f32::NAN, log_prob),
        };
        let top = best(logits, self.top);
        let top = top.into_iter().map(|id| (id, log_prob(id))).collect();
        self.take(machine, drawn, top, tokens)
    }

    /// Takes the next token and tells the caller.
    fn take(
        &mut self,
        machine: Machine<'_>,
        drawn: Drawn,
        top: Vec<(TokenId, f32)>,
        tokens: &mut Vec<TokenId>,
    ) -> Result<After, Refusal> {
        let id = drawn.token.ok_or_else(|| Refusal::Stopped {
            why: "no token is possible".into(),
        })?;
        self.sampler.observe(id);
        let logprob = finite(drawn.log_prob)?;
        tokens.push(id);
        self.sampled += 1;
        // Before the caller hears of it, so that whoever has a reply finds it counted.
        machine.metrics.sampled_tokens.inc();
        let is_stop = machine.model.config().eos.contains(&id);
        let text = if is_stop {
            String::new()
        } else {
            self.text.push(machine.tokenizer, id)
        };
        let _ = self.events.send(Event::Token(Token {
            id,
            logprob,
            top,
            text,
            is_stop,
        }));
        let finish = if is_stop || self.text.stopped() {
            FinishReason::Stop
        } else if self.sampled >= self.sampling.max_tokens || tokens.len() >= self.context {
            FinishReason::Length
        } else {
            return Ok(After::GoesOn);
        };
        let text = self.text.finish();
        let _ = self.events.send(Event::Done { finish, text });
        Ok(After::Ended)
    }
}

/// The ids of the `count` largest logits, best first; the lowest id wins a tie.
fn best(logits: &[f32], count: usize) -> Vec<TokenId> {
    if count == 0 {
        return Vec::new();
    }
    let mut ids: Vec<TokenId> = (0..).take(logits.len()).collect();
    let order = |a: &TokenId, b: &TokenId| {
        logits[*b as usize]
            .total_cmp(&logits[*a as usize])
            .then(a.cmp(b))
    };
    let count = count.min(ids.len());
    if count < ids.len() {
        ids.select_nth_unstable_by(count, order);
        ids.truncate(count);
    }
    ids.sort_unstable_by(order);
    ids
}

fn finite(logprob: f32) -> Result<f32, Refusal> {
    if logprob.is_finite() {
        Ok(logprob)
    } else {
        Err(Refusal::Stopped {
            why: format!("a log-prob is {logprob}: the weights are broken"),
        })
    }
}

pub(crate) fn broken(error: policy::Error) -> Refusal {
    Refusal::Stopped {
        why: super::text::with_causes(&error),
    }
}

#[cfg(test)]
mod tests {
    use super::best;

    #[test]
    fn the_best_ids_come_first_and_ties_go_to_the_lowest() {
        assert_eq!(best(&[0.5, 2.0, 2.0, -1.0, 3.0], 3), [4, 1, 2]);
        assert_eq!(best(&[1.0, 1.0], 5), [0, 1]);
        assert!(best(&[1.0], 0).is_empty());
    }
}
