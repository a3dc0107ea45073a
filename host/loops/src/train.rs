//! The train loop: has the learner compute the step that is due, asks the gate, and publishes the next version.
//!
//! Which batch is due is the [`Line`]'s word, a fold over the ledger. Publishing is: blobs durable, then one group of records
//! (the version, what the gate found, the end of each of its samples, the new head), then the swap. A kill between any two of
//! these leaves the old version or the new one, and no sample is trained twice or lost. It knows no algorithm and sees no
//! weights. Orders from outside ([`crate::orders`]) are obeyed by it (`train/obeying.rs`), since nothing else moves the line.

mod obeying;
mod trial;

use std::{collections::VecDeque, sync::Arc};

use ledger::{Digest, Ledger, lineage::VersionRecord};
use parking_lot::Mutex;
use rl::{
    AdapterName, Batch, Learner, Policy, PolicyVersion, Proposal, Sample, SampleId, Seed, Shelf,
};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{OwnedMutexGuard, mpsc},
    time::{Duration, Instant, sleep},
};

use crate::{
    Error, Result, Shutdown,
    bench::{MakeBench, Turn},
    forget,
    gate::GateConfig,
    gating,
    guard::{GuardConfig, StageConfig},
    host::{OnErase, OnForgotten},
    line::{self, Line, Step},
    orders::{Given, Order, Orders},
    records::{Fate, RunRecord},
    retreat::{self, Stride},
    schedule::{Due, Rules},
    status::Board,
    watch::Watch,
};

/// The wait before a learner that is not available is asked again.
const RETRY: Duration = Duration::from_secs(1);

/// `[loops.train]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Effective samples in a batch; one step per batch.
    pub batch_size: usize,
    /// A sample may lag by at most this many optimizer steps; older ones are dropped and counted.
    pub max_lag: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            batch_size: 16,
            max_lag: 4,
        }
    }
}

impl Config {
    pub(crate) fn validate(&self) -> Result<()> {
        if (1..=4096).contains(&self.batch_size) {
            return Ok(());
        }
        let value = self.batch_size.to_string();
        Err(Error::Config {
            key: "batch-size",
            value,
            allowed: "1 to 4096 are allowed",
        })
    }

    /// The same as the fold's rules.
    pub fn rules(&self) -> Rules {
        Rules {
            batch_size: self.batch_size,
            max_lag: self.max_lag,
        }
    }
}

/// The learner behind a lock that only this loop takes: a panic inside it loses the call, not the learner.
pub(crate) type SharedLearner = Arc<Mutex<Box<dyn Learner>>>;

/// What training needs.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) config: Config,
    pub(crate) gate: GateConfig,
    pub(crate) guard: GuardConfig,
    pub(crate) stage: StageConfig,
    pub(crate) adapter: AdapterName,
    pub(crate) model: String,
    pub(crate) seed: Seed,
    /// The learner's settings, as it writes them.
    pub(crate) settings: serde_json::Value,
    pub(crate) ledger: Ledger,
    pub(crate) learner: SharedLearner,
    pub(crate) shelf: Arc<dyn Shelf>,
    pub(crate) policy: Arc<dyn Policy>,
    pub(crate) bench: MakeBench,
    pub(crate) turn: Turn,
    pub(crate) orders: Orders,
    pub(crate) erased: OnErase,
    pub(crate) forgotten: OnForgotten,
    pub(crate) watch: Watch,
    pub(crate) board: Board,
}

/// The loop.
pub(crate) struct Training {
    parts: Parts,
    /// Away only while a thread works on it.
    line: Option<Line>,
    /// The learner holds other weights than the head's: it goes on from those before its next step.
    strayed: bool,
    /// The learner is in a step, or its proposal is being examined.
    busy: bool,
    /// Orders that must wait for the end of a step.
    later: VecDeque<Given>,
    shutdown: Shutdown,
}

/// What orders come from.
type Heard = OwnedMutexGuard<mpsc::Receiver<Given>>;

/// What a step led to.
enum Outcome {
    Proposed(Box<Proposal>),
    Refused(rl::Error),
    Later(rl::Error),
}

impl Training {
    pub(crate) fn new(parts: Parts, line: Line, shutdown: Shutdown) -> Self {
        expects(&parts.board, &line);
        Self {
            parts,
            line: Some(line),
            strayed: false,
            busy: false,
            later: VecDeque::new(),
            shutdown,
        }
    }

    /// Brings the head to life, then trains until the shutdown. A step that has begun is committed.
    pub(crate) async fn run(mut self) -> Result<()> {
        let shutdown = self.shutdown.clone();
        let mut orders = self.parts.orders.clone().lock_owned().await;
        self.restore().await?;
        self.with_line("erasing", |line| forget::sweep(line).map(drop))
            .await?;
        self.begin_run().await?;
        self.try_out().await?;
        loop {
            if shutdown.is_now() {
                return Ok(());
            }
            self.forget_what_was_begun(&mut orders).await?;
            // It may have waited until now, and nothing is trained before it.
            if shutdown.is_now() {
                return Ok(());
            }
            if let Some(given) = self.later.pop_front() {
                self.obey(given, &mut orders).await?;
                continue;
            }
            if self.line()?.waits_for_a_trial() {
                // What comes next starts from the weights that win: until then batches wait, and the fold reads no further.
                tokio::select! {
                    () = shutdown.wait() => return Ok(()),
                    Some(given) = orders.recv() => self.obey(given, &mut orders).await?,
                }
                continue;
            }
            if let Some(due) = self.due().await? {
                if self.train(due, &mut orders).await? {
                    self.parts.board.training_waits(None);
                    continue;
                }
                tokio::select! {
                    () = shutdown.wait() => return Ok(()),
                    Some(given) = orders.recv() => self.obey(given, &mut orders).await?,
                    () = sleep(RETRY) => {}
                }
                continue;
            }
            tokio::select! {
                () = shutdown.wait() => return Ok(()),
                Some(given) = orders.recv() => self.obey(given, &mut orders).await?,
                () = self.parts.board.train.rung() => {}
            }
        }
    }

    /// Makes the head live.
    async fn restore(&mut self) -> Result<()> {
        restore_head(&self.parts, self.line()?).await?;
        self.strayed = false;
        Ok(())
    }

    async fn begin_run(&mut self) -> Result<()> {
        let run = RunRecord {
            adapter: self.parts.adapter.to_string(),
            model: self.parts.model.clone(),
            seed: self.parts.seed,
            rules: self.parts.config.rules(),
            learner: self.parts.settings.clone(),
            through: ledger::Seq::ZERO,
        };
        self.with_line("recording the run's settings", move |line| {
            line.begin_run(run)
        })
        .await
    }

    async fn due(&mut self) -> Result<Option<Due>> {
        let read = |line: &mut Line| {
            line.pull()?;
            let due = line.due();
            Ok((due, line.drop_stale()?))
        };
        let (due, stale) = self.with_line("reading judged turns", read).await?;
        let newest = self.line()?.version();
        for _ in &stale {
            self.parts.board.spent(&Fate::Stale { newest });
        }
        Ok(due)
    }

    /// One step; false when the learner or the gate asks for patience.
    async fn train(&mut self, due: Due, orders: &mut Heard) -> Result<bool> {
        if self.strayed {
            self.restore().await?;
        }
        let start = Instant::now();
        let head = self.line()?.version();
        let samples = {
            let due = due.clone();
            self.with_line("reading samples", move |line| line.samples(&due))
                .await?
        };
        if self.set_aside(&due, &samples).await? {
            return Ok(true);
        }
        let learner = self.parts.learner.clone();
        let tokens = samples.iter().map(|s| s.response.len() as u64).sum();
        let batch = Batch { samples };
        let stepping = blocking("the learner", move || learner.lock().step(&batch));
        let stepped = self.meanwhile(stepping, orders).await??;
        let time = start.elapsed().as_secs_f64();
        self.parts.board.metrics.step_time.0.observe(time);
        // Whatever becomes of the step: a token that training sees otherwise than it was served may be why nothing does.
        match &stepped {
            Ok(proposal) => self.parts.board.recomputed(head, &proposal.metrics),
            Err(rl::Error::Refused { .. }) => self.parts.board.uncompared(tokens),
            Err(_) => {}
        }
        if self.line()?.version() != head && !ledger::mutant::on("overtaken-step-committed") {
            // The head moved meanwhile: the step started from weights that no longer answer, and is due again from those that do.
            self.parts.board.step("overtaken");
            return Ok(true);
        }
        let outcome = match stepped {
            Ok(proposal) => match line::check(&proposal, head) {
                Ok(()) => Outcome::Proposed(Box::new(proposal)),
                Err(why) => Outcome::Refused(why),
            },
            Err(error) if error.is_retryable() && !ledger::mutant::on("busy-is-refused") => {
                Outcome::Later(error)
            }
            Err(error) if error.is_retryable() => Outcome::Refused(error),
            Err(error @ rl::Error::Refused { .. }) => Outcome::Refused(error),
            Err(error) => return Err(Error::seam("train", "compute a step")(error)),
        };
        match outcome {
            Outcome::Proposed(proposal) => self.publish(due, *proposal, orders).await,
            Outcome::Refused(error) => {
                tracing::error!(%error, version = %head, "a step was refused; the version did not move");
                let (why, count) = (error.to_string(), due.samples.len());
                self.with_line("recording a refused step", move |line| {
                    line.refuse(&due, &why)
                })
                .await?;
                self.spent(count, Fate::StepRefused);
                self.parts.board.step("refused");
                Ok(true)
            }
            Outcome::Later(error) => {
                tracing::warn!(%error, "the learner is not available");
                self.postponed(&error);
                Ok(false)
            }
        }
    }

    fn postponed(&self, error: &rl::Error) {
        self.parts.board.step("postponed");
        self.parts.board.training_waits(Some(error.to_string()));
    }

    /// Takes samples out of the batch that the learner has no memory for: the others need not wait for a host with more. Says whether there
    /// were any; then another batch is due.
    async fn set_aside(&mut self, due: &Due, samples: &[Sample]) -> Result<bool> {
        let long = self.too_long(samples);
        if long.is_empty() {
            return Ok(false);
        }
        let (due, count) = (due.clone(), long.len());
        let through = due.through;
        self.with_line("setting samples aside", move |line| {
            line.set_aside(&due, &long)
        })
        .await?;
        self.spent(count, Fate::TooLong { through });
        Ok(true)
    }

    fn too_long(&self, samples: &[Sample]) -> Vec<SampleId> {
        let learner = self.parts.learner.lock();
        let long = samples.iter().filter(|sample| {
            let why = learner.no_room_for(sample);
            if let Some(why) = &why {
                tracing::error!(why, "a sample is set aside; the others are trained");
            }
            why.is_some()
        });
        long.map(|sample| sample.id.clone()).collect()
    }

    /// Asks the gate and commits; false when the gate cannot be asked now.
    async fn publish(&mut self, due: Due, proposal: Proposal, orders: &mut Heard) -> Result<bool> {
        let head = self.line()?.version();
        let gate = match self.examine(orders).await? {
            Ok(gate) => gate,
            // The step is taken again later: waiting here would hold up a shutdown for as long as nobody answers.
            Err(error) => {
                tracing::warn!(%error, "the gate must wait");
                self.postponed(&error);
                return Ok(false);
            }
        };
        if self.line()?.version() != head {
            self.parts.board.step("overtaken");
            return Ok(true);
        }
        let start = Instant::now();
        let passed = gate.as_ref().is_none_or(|(passed, _)| *passed);
        let (loss, grad_norm) = (proposal.metrics.loss, proposal.metrics.grad_norm);
        let share = self.parts.stage.share.filter(|_| passed);
        let back = match &gate {
            Some((false, found)) => self.back(Stride::of(found))?,
            _ => 0,
        };
        let step = Step {
            proposal,
            seed: self.parts.seed,
            gate,
            back,
            share,
        };
        let count = due.samples.len();
        let record = self
            .with_line("committing a version", move |line| line.commit(&due, step))
            .await?;
        let version = PolicyVersion::new(record.version);
        if !passed {
            self.spent(count, Fate::Held(version));
            self.parts.board.step("held");
            tracing::warn!(%version, back, "the gate held a version: it is kept and not served");
            if back > 0 {
                self.retreated().await?;
            }
            return Ok(true);
        }
        self.spent(count, Fate::Trained(version));
        self.parts.board.step("committed");
        if share.is_some() {
            tracing::info!(%version, loss, grad_norm, "committed, and on trial");
            self.try_out().await?;
            return Ok(true);
        }
        self.parts.board.committed(version);
        let learner = self.parts.learner.clone();
        blocking("deploying a version", move || {
            learner.lock().deploy(version)
        })
        .await?
        .map_err(Error::seam("train", "make the committed version live"))?;
        self.parts.board.live(version);
        self.parts.watch.moved(version, false);
        let time = start.elapsed().as_secs_f64();
        self.parts.board.metrics.publish_time.0.observe(time);
        tracing::info!(%version, loss, grad_norm, "published");
        Ok(true)
    }

    /// How many versions are taken back with one that is held.
    fn back(&self, held: Stride) -> Result<usize> {
        let strides = self.line()?.strides();
        let before: Vec<Option<f64>> = strides.iter().map(|(_, nats)| *nats).collect();
        let back = retreat::versions(held, &before, self.parts.gate.retreat);
        // What is to answer must be there.
        let whole = strides
            .get(back)
            .map(|(older, _)| self.line()?.whole(*older));
        Ok(whole.filter(Result::is_ok).map_or(0, |_| back))
    }

    /// The head is an older version again, by the record of what was held: it answers from now on.
    async fn retreated(&mut self) -> Result<()> {
        let Some(head) = self.line()?.head().cloned() else {
            return Ok(());
        };
        let version = PolicyVersion::new(head.version);
        tracing::warn!(%version, "what answered says nearly the same as what was held: an older version answers again");
        self.parts.board.step("retreated");
        self.show(&head, true).await?;
        self.parts.board.committed(version);
        self.restore().await
    }

    /// Asks the gate about the learner's last proposal, when there is a gate.
    async fn examine(
        &mut self,
        orders: &mut Heard,
    ) -> Result<rl::Result<Option<(bool, serde_json::Value)>>> {
        if !self.parts.gate.enabled {
            return Ok(Ok(None));
        }
        let asked = gating::Asked {
            config: self.parts.gate.clone(),
            adapter: self.parts.adapter.clone(),
            memory: gating::memory(self.line()?),
            steps: self.line()?.head().map_or(0, VersionRecord::steps),
        };
        let (learner, policy) = (self.parts.learner.clone(), self.parts.policy.clone());
        let examining = blocking("the gate", move || {
            asked.examine(&mut **learner.lock(), &*policy)
        });
        let examined = self.meanwhile(examining, orders).await??;
        Ok(examined.map(Some))
    }

    /// Waits for `work`; obeys orders that cannot wait for it.
    async fn meanwhile<T>(
        &mut self,
        work: impl Future<Output = Result<T>>,
        orders: &mut Heard,
    ) -> Result<Result<T>> {
        let mut work = std::pin::pin!(work);
        self.busy = true;
        loop {
            tokio::select! {
                done = &mut work => {
                    self.busy = false;
                    return Ok(done);
                }
                Some(given) = orders.recv() => match given.order {
                    Order::Forget(_) => self.later.push_back(given),
                    _ => self.obey_now(given).await?,
                },
            }
        }
    }

    fn spent(&self, count: usize, fate: Fate) {
        for _ in 0..count {
            self.parts.board.spent(&fate);
        }
    }

    fn line(&self) -> Result<&Line> {
        self.line.as_ref().ok_or_else(|| Error::Panicked {
            what: "work on the line".to_owned(),
        })
    }

    /// Runs `f` on the line, off the runtime's threads.
    async fn with_line<T: Send + 'static>(
        &mut self,
        what: &'static str,
        f: impl FnOnce(&mut Line) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let mut line = self.line.take().ok_or_else(|| Error::Panicked {
            what: "work on the line".to_owned(),
        })?;
        let (line, done) = blocking(what, move || {
            let done = f(&mut line);
            (line, done)
        })
        .await?;
        tell(&self.parts.board, &line);
        self.line = Some(line);
        done
    }
}

/// The gauge shows what a train loop with this line finds.
pub(crate) fn expects(board: &Board, line: &Line) {
    board.train.reset([], &[line.place()]);
    tell(board, line);
}

fn tell(board: &Board, line: &Line) {
    board.train.taken(&[line.place()], line.waiting());
}

/// Has the learner go on from a line's head, and makes that live.
pub(crate) async fn restore_head(parts: &Parts, line: &Line) -> Result<PolicyVersion> {
    let (version, head) = (line.version(), line.head().cloned());
    parts.board.committed(version);
    if let Some(head) = head {
        let (ledger, learner) = (parts.ledger.clone(), parts.learner.clone());
        blocking("restoring a version", move || {
            load(&ledger, &mut **learner.lock(), &head)
        })
        .await??;
    }
    parts.board.live(version);
    Ok(version)
}

pub(crate) fn get(ledger: &Ledger, digest: &Digest) -> Result<Vec<u8>> {
    ledger
        .get_blob(digest)
        .map_err(Error::ledger("train", "load a version"))
}

/// Has a learner go on from a version.
pub(crate) fn load(
    ledger: &Ledger,
    learner: &mut dyn Learner,
    version: &VersionRecord,
) -> Result<()> {
    let number = PolicyVersion::new(version.version);
    let done = match (&version.adapter_blob, &version.optimizer_blob) {
        (Some(adapter), Some(optimizer)) => {
            let (adapter, optimizer) = (get(ledger, adapter)?, get(ledger, optimizer)?);
            learner.restore(number, &adapter, &optimizer)
        }
        _ => learner.reset(number),
    };
    done.map_err(Error::seam("train", "restore a version"))
}

/// Runs blocking code off the runtime's threads; the loop waits for it.
async fn blocking<T: Send + 'static>(
    what: &'static str,
    f: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(f)
        .await
        .map_err(|_| Error::Panicked {
            what: what.to_owned(),
        })
}
