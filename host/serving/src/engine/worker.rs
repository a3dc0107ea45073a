//! The engine's thread: admit, plan a batch, forward, sample, tell.
//!
//! Rows of a step: one for every reply that grows; then prompts, users' before the loops', each kind sharing its
//! budget evenly, so that a long prompt only slows a short one down and never blocks it.

use std::any::Any;
use std::cell::OnceCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use policy::{Deployed, Detokenizer, Kv, Model, NO_BUCKET, Sampler, Scratch, Segment};
use rl::{FinishReason, LEAST_TEMPERATURE, ScoreRequest, TokenId};
use tokio::sync::mpsc::UnboundedSender;

use super::config::Config;
use super::follow::follow;
use super::handle::Inner;
use super::job::{Event, Priority, Refusal, SampleJob, Started};
use super::prefix::{PrefixCache, Scope};
use super::queue::{Entry, Fit, Permit, Work};
use super::sequence::{After, Loaded, Machine, SampleTask, ScoreTask, Sequence, Task, broken};
use super::versions::Held;
use crate::error::{Error, Result};

/// While users wait for tokens, the loops' prompts get this share of a step's prompt rows.
const LOOP_SHARE: usize = 4;
/// Panics without a completed request between them, after which the engine gives up.
const MAX_PANICS: u32 = 3;

/// The weights that a job begins with.
type Found = Result<Arc<Deployed>, Refusal>;

/// The owner of everything that is computed.
pub(crate) struct Worker {
    config: Config,
    model: Arc<Model>,
    inner: Arc<Inner>,
    /// Bytes and tokens of one block of keys and values.
    block: u64,
    block_tokens: usize,
    live: Vec<Sequence>,
    /// Sequences that have begun.
    begun: u64,
    reserved: u64,
    prefixes: PrefixCache,
    scratch: Scratch,
    /// Rows of each live sequence in this step.
    plan: Vec<usize>,
    /// Memory of the list of segments.
    segments: Vec<Segment<'static>>,
    /// Places of the sequences that a step ended.
    ended: Vec<usize>,
    #[cfg(test)]
    pub(crate) before_step: Option<Box<dyn FnMut() + Send>>,
}

impl Worker {
    pub(crate) fn new(
        config: Config,
        model: Arc<Model>,
        inner: Arc<Inner>,
        block: u64,
        block_tokens: usize,
    ) -> Self {
        Self {
            prefixes: PrefixCache::new(config.prefix_bytes),
            config,
            model,
            inner,
            block,
            block_tokens,
            live: Vec::new(),
            begun: 0,
            reserved: 0,
            scratch: Scratch::new(),
            plan: Vec::new(),
            segments: Vec::new(),
            ended: Vec::new(),
            #[cfg(test)]
            before_step: None,
        }
    }

    /// Serves until the queue is drained or closed. A panic fails the requests that it met, not the engine.
    pub(crate) fn run(mut self) -> Result<()> {
        let mut panics = 0;
        loop {
            let step = catch_unwind(AssertUnwindSafe(|| self.turn()));
            match step {
                Ok(Turn { done: true, .. }) => break,
                Ok(Turn { completed, .. }) => panics = if completed > 0 { 0 } else { panics },
                Err(panic) => {
                    panics += 1;
                    let why = message(panic.as_ref());
                    tracing::error!(why, "the engine panicked; its running requests fail");
                    self.abandon_all(&why);
                    if panics >= MAX_PANICS {
                        self.inner.queue.close(&why);
                        return Err(Error::EngineStopped { why });
                    }
                }
            }
        }
        self.inner.queue.close("the host is stopping");
        for mut sequence in self.live.drain(..) {
            sequence.cut_off();
        }
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn running(&self) -> &[Sequence] {
        &self.live
    }

    /// Once around: admit, plan, compute, tell.
    pub(crate) fn turn(&mut self) -> Turn {
        let queue = Arc::clone(&self.inner.queue);
        if self.live.is_empty() && !queue.wait() || queue.is_closed() {
            return Turn {
                done: true,
                completed: 0,
            };
        }
        #[cfg(test)]
        if let Some(hook) = &mut self.before_step {
            hook();
        }
        if queue.take_forget() {
            self.forget();
        }
        let forgotten = queue.tidy();
        self.inner.metrics.cancelled.inc_by(forgotten as u64);
        self.drop_abandoned();
        self.admit();
        let copied = follow(&mut self.live);
        self.inner.metrics.reused_tokens.inc_by(copied as u64);
        let completed = self.step();
        self.show();
        Turn {
            done: false,
            completed,
        }
    }

    /// Nothing that was computed until now is ever reused.
    fn forget(&mut self) {
        self.prefixes.clear();
        for sequence in &mut self.live {
            sequence.keep = false;
        }
    }

    fn show(&self) {
        let metrics = &self.inner.metrics;
        let gauge = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        metrics
            .waiting
            .set(gauge(self.inner.queue.waiting() as u64));
        metrics.live.set(gauge(self.live.len() as u64));
        metrics.kv_bytes.set(gauge(self.reserved));
        metrics.prefix_bytes.set(gauge(self.prefixes.bytes()));
    }

    fn abandon_all(&mut self, why: &str) {
        for mut sequence in self.live.drain(..) {
            sequence.fail(Refusal::Stopped {
                why: why.to_owned(),
            });
        }
        // Whatever was half written is gone with them.
        self.reserved = 0;
        self.prefixes.clear();
        self.scratch = Scratch::new();
        self.show();
    }

    fn drop_abandoned(&mut self) {
        for index in (0..self.live.len()).rev() {
            if self.live[index].is_abandoned() {
                self.inner.metrics.cancelled.inc();
                self.retire(index);
            }
        }
    }

    /// Takes a sequence out and keeps what it computed for prompts that begin alike.
    fn retire(&mut self, index: usize) {
        let Sequence {
            scope,
            tokens,
            kv,
            reserved,
            keep,
            ..
        } = self.live.swap_remove(index);
        self.reserved -= reserved;
        let served = self.inner.digests();
        self.prefixes.retain(|digest| served.contains(digest));
        if keep && served.contains(&scope.digest) {
            self.prefixes.keep(scope, tokens, kv);
        }
    }

    fn admit(&mut self) {
        while self.live.len() < self.config.max_sequences {
            let live = &self.live;
            let running =
                |tenant: &rl::TenantId| live.iter().filter(|s| s.scope.tenant == *tenant).count();
            let loops = live.iter().filter(|s| s.priority == Priority::Loop).count();
            let allowed = loops < self.config.max_loop_sequences;
            // Only when a job waits: most steps find none, and allocate nothing.
            let held = OnceCell::new();
            let by = || Held::by(live, self.config.max_versions);
            let fits = |entry: &Entry| self.fit(entry, held.get_or_init(by));
            let Some((entry, found)) = self.inner.queue.pop(running, allowed, fits) else {
                return;
            };
            let Entry { permit, work, .. } = entry;
            let reserved = self.bytes_for(&work);
            match work {
                Work::Sample { job, events } => {
                    match self.prepare_sample(&permit, job, &events, (found, reserved)) {
                        Ok(Some(sequence)) => self.begin(sequence),
                        Ok(None) => {}
                        Err(refusal) => drop(events.send(Event::Failed(refusal))),
                    }
                }
                Work::Score { request, answer } => {
                    let mut task = ScoreTask {
                        answer: Some(answer),
                        scores: vec![Vec::new(); request.continuations.len()],
                        request,
                        current: None,
                    };
                    if let Err(refusal) = self.start_score(&permit, &mut task, (found, reserved))
                        && let Some(answer) = task.answer.take()
                    {
                        let _ = answer.send(Err(refusal));
                    }
                }
            }
        }
    }

    /// Whether a job can begin now, and with which weights: what is published after this is not what it gets.
    fn fit(&self, entry: &Entry, held: &Held) -> Fit<Found> {
        let (weights, bucket) = match &entry.work {
            Work::Sample { job, .. } => (&job.weights, job.bucket),
            Work::Score { request, .. } => (&request.weights, NO_BUCKET),
        };
        // Weights that are not there are refused when it begins.
        let found = self.inner.find(weights, bucket);
        let placed = found
            .as_ref()
            .map_or(true, |next| held.has_place(next, entry.permit.priority()));
        if !placed {
            return Fit::NoPlace;
        }
        match self.bytes_for(&entry.work) <= self.config.kv_bytes - self.reserved {
            true => Fit::Now(found),
            false => Fit::NoRoom,
        }
    }

    /// Most bytes of keys and values that this work can come to hold.
    fn bytes_for(&self, work: &Work) -> u64 {
        let tokens = match work {
            Work::Sample { job, .. } => job
                .prompt
                .len()
                .saturating_add(job.sampling.max_tokens as usize),
            Work::Score { request, .. } => {
                let longest = request
                    .continuations
                    .iter()
                    .map(Vec::len)
                    .max()
                    .unwrap_or(0);
                request.prompt.len().saturating_add(longest)
            }
        };
        let tokens = tokens.min(self.inner.card.context);
        tokens.div_ceil(self.block_tokens) as u64 * self.block
    }

    fn prepare_sample(
        &mut self,
        permit: &Permit,
        job: SampleJob,
        events: &UnboundedSender<Event>,
        (found, reserved): (Found, u64),
    ) -> Result<Option<Sequence>, Refusal> {
        let SampleJob {
            prompt,
            sampling,
            top_logprobs,
            ..
        } = job;
        self.check_ids(&prompt, 1)?;
        let vocab = self.inner.card.vocab_size;
        let mut sampler = Sampler::new(&sampling, 0, vocab).map_err(|error| Refusal::Invalid {
            why: super::text::with_causes(&error),
        })?;
        if sampling.repetition_penalty != 1.0 {
            prompt.iter().for_each(|&id| sampler.observe(id));
        }
        let weights = Loaded::from(&*found?);
        let scope = Scope {
            tenant: permit.tenant().clone(),
            digest: Arc::clone(&weights.digest),
        };
        let mut kv = Kv::new(self.model.config());
        let reused = self
            .prefixes
            .reuse(&scope, &prompt, prompt.len() - 1, &mut kv)
            .map_err(broken)?;
        let metrics = &self.inner.metrics;
        metrics.prompt_tokens.inc_by(prompt.len() as u64);
        metrics.reused_tokens.inc_by(reused as u64);
        let started = Started {
            version: weights.version,
            adapter_digest: Arc::clone(&weights.digest),
            reused,
        };
        let _ = events.send(Event::Started(started));
        if sampling.max_tokens == 0 {
            let finish = FinishReason::Length;
            let _ = events.send(Event::Done {
                finish,
                text: String::new(),
            });
            return Ok(None);
        }
        Ok(Some(Sequence {
            scope,
            priority: permit.priority(),
            weights,
            kv,
            prompt: prompt.len(),
            tokens: prompt,
            reserved,
            keep: true,
            number: 0,
            waits: false,
            task: Task::Sample(Box::new(SampleTask {
                events: events.clone(),
                text: Detokenizer::new(&self.inner.text.tokenizer, &sampling.stop),
                sampler,
                top: top_logprobs,
                sampled: 0,
                context: self.inner.card.context,
                sampling,
            })),
        }))
    }

    /// On success the task is taken over.
    fn start_score(
        &mut self,
        permit: &Permit,
        task: &mut ScoreTask,
        (found, reserved): (Found, u64),
    ) -> Result<(), Refusal> {
        let ScoreRequest {
            prompt,
            continuations,
            temperature,
            ..
        } = &task.request;
        let longest = continuations.iter().map(Vec::len).max().unwrap_or(0);
        self.check_ids(prompt, longest)?;
        for continuation in continuations {
            self.check_range(continuation)?;
        }
        if !(temperature.is_finite() && *temperature >= LEAST_TEMPERATURE) {
            return Err(Refusal::Invalid {
                why: format!("temperature is {temperature}, below {LEAST_TEMPERATURE}"),
            });
        }
        let weights = Loaded::from(&*found?);
        let scope = Scope {
            tenant: permit.tenant().clone(),
            digest: Arc::clone(&weights.digest),
        };
        let mut kv = Kv::new(self.model.config());
        let reused = self
            .prefixes
            .reuse(&scope, prompt, prompt.len() - 1, &mut kv)
            .map_err(broken)?;
        let metrics = &self.inner.metrics;
        metrics.prompt_tokens.inc_by(prompt.len() as u64);
        metrics.reused_tokens.inc_by(reused as u64);
        metrics
            .scored_tokens
            .inc_by(continuations.iter().map(Vec::len).sum::<usize>() as u64);
        let task = ScoreTask {
            answer: task.answer.take(),
            request: task.request.clone(),
            current: None,
            scores: std::mem::take(&mut task.scores),
        };
        self.begin(Sequence {
            scope,
            priority: permit.priority(),
            weights,
            kv,
            prompt: task.request.prompt.len(),
            tokens: task.request.prompt.clone(),
            reserved,
            keep: true,
            number: 0,
            waits: false,
            task: Task::Score(task),
        });
        Ok(())
    }

    fn begin(&mut self, sequence: Sequence) {
        self.reserved += sequence.reserved;
        let number = self.begun;
        self.begun += 1;
        self.live.push(Sequence { number, ..sequence });
    }

    /// A prompt that the model can take, with room for `more` tokens behind it.
    fn check_ids(&self, prompt: &[TokenId], more: usize) -> Result<(), Refusal> {
        let context = self.inner.card.context;
        if prompt.is_empty() {
            return Err(Refusal::Invalid {
                why: "the prompt holds no token".into(),
            });
        }
        if prompt.len().saturating_add(more) > context {
            return Err(Refusal::PromptTooLong {
                prompt: prompt.len(),
                context,
            });
        }
        self.check_range(prompt)
    }

    fn check_range(&self, ids: &[TokenId]) -> Result<(), Refusal> {
        let vocab = self.inner.card.vocab_size;
        match ids.iter().find(|id| **id as usize >= vocab) {
            Some(id) => Err(Refusal::Invalid {
                why: format!("there is no token {id}"),
            }),
            None => Ok(()),
        }
    }

    /// One forward pass. Gives how many requests it completed.
    fn step(&mut self) -> usize {
        self.make_plan();
        let Self {
            model,
            live,
            scratch,
            plan,
            inner,
            segments: list,
            ..
        } = self;
        let mut segments = emptied(std::mem::take(list));
        let mut rows_in_all = 0;
        for (sequence, &rows) in live.iter_mut().zip(&*plan).filter(|(_, rows)| **rows > 0) {
            rows_in_all += rows as u64;
            segments.push(sequence.segment(rows));
        }
        if segments.is_empty() {
            return 0;
        }
        let computed = model.forward(scratch, &mut segments);
        *list = emptied(segments);
        inner.metrics.steps.inc();
        inner.metrics.rows.inc_by(rows_in_all);
        if let Err(error) = computed {
            let refusal = broken(error);
            tracing::error!(%refusal, "a forward pass failed; its requests fail");
            let failed = self.plan.iter().filter(|rows| **rows > 0).count();
            for index in (0..self.live.len())
                .rev()
                .filter(|i| self.plan[*i] > 0)
                .collect::<Vec<_>>()
            {
                self.live[index].fail(refusal.clone());
                self.retire(index);
            }
            return failed;
        }
        self.tell()
    }

    /// Gives every sequence of the step its logits.
    fn tell(&mut self) -> usize {
        let machine = Machine {
            model: &self.model,
            tokenizer: &self.inner.text.tokenizer,
            metrics: &self.inner.metrics,
        };
        let mut ended = std::mem::take(&mut self.ended);
        let in_step = self
            .live
            .iter_mut()
            .enumerate()
            .filter(|(index, _)| self.plan[*index] > 0);
        for (segment, (index, sequence)) in in_step.enumerate() {
            let (found, rows) = (self.scratch.given(segment), self.scratch.logits(segment));
            match sequence.advance(machine, found, rows) {
                Ok(After::GoesOn) => {}
                Ok(After::Ended) => ended.push(index),
                Err(refusal) => {
                    tracing::error!(%refusal, "a sequence failed");
                    sequence.fail(refusal);
                    ended.push(index);
                }
            }
        }
        for &index in ended.iter().rev() {
            self.retire(index);
        }
        let count = ended.len();
        ended.clear();
        self.ended = ended;
        count
    }

    /// How many rows each live sequence gets.
    fn make_plan(&mut self) {
        let Self {
            live, plan, config, ..
        } = self;
        plan.clear();
        plan.extend(
            live.iter()
                .map(|sequence| usize::from(sequence.is_decoding())),
        );
        let users_wait = live.iter().any(|s| s.priority == Priority::User);
        let left = share(live, plan, Priority::User, config.prefill_rows);
        let loops = if users_wait {
            left.min(config.prefill_rows.div_ceil(LOOP_SHARE))
        } else {
            left
        };
        share(live, plan, Priority::Loop, loops);
    }
}

/// The same memory for a list of other segments: the standard library collects in place.
fn emptied<'a>(mut list: Vec<Segment<'_>>) -> Vec<Segment<'a>> {
    list.clear();
    list.into_iter().map_while(|_| None).collect()
}

/// Shares `budget` rows evenly among the prompts of one priority; what a short one does not need goes to the others.
fn share(live: &[Sequence], plan: &mut [usize], priority: Priority, budget: usize) -> usize {
    let mut left = budget;
    loop {
        let hungry = |(sequence, rows): (&Sequence, usize)| {
            let wants = !sequence.is_decoding() && !sequence.waits && sequence.pending() > rows;
            sequence.priority == priority && wants
        };
        let count = live
            .iter()
            .zip(plan.iter().copied())
            .filter(|pair| hungry(*pair))
            .count();
        if count == 0 || left == 0 {
            return left;
        }
        let each = (left / count).max(1);
        for (sequence, rows) in live.iter().zip(plan.iter_mut()) {
            if left > 0 && hungry((sequence, *rows)) {
                let more = each.min(sequence.pending() - *rows).min(left);
                *rows += more;
                left -= more;
            }
        }
    }
}

/// What one turn of the thread did.
pub(crate) struct Turn {
    done: bool,
    completed: usize,
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without a message").to_owned()
}
