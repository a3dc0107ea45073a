//! The train loop: has the learner compute the step that is due, asks the gate, and publishes the next version.
//!
//! Which batch is due is the [`Line`]'s word, a fold over the ledger. Publishing is: blobs durable, then one group of records
//! (the version, what the gate found, the end of each of its samples, the new head), then the swap. A kill between any two of
//! these leaves the old version or the new one, and no sample is trained twice or lost. It knows no algorithm and sees no
//! weights. Orders from outside ([`crate::orders`]) are obeyed here, since nothing else moves the line.

use std::{collections::VecDeque, sync::Arc};

use ledger::{Digest, Ledger, lineage::VersionRecord};
use parking_lot::Mutex;
use rl::{AdapterName, Batch, Learner, Policy, PolicyVersion, Proposal, Seed, Shelf, Stored};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{OwnedMutexGuard, mpsc},
    time::{Duration, Instant, sleep},
};

use crate::{
    Error, Result, Shutdown,
    bench::MakeBench,
    forget::{self, Forgotten},
    gate::GateConfig,
    gating,
    guard::Trip,
    host::{OnErase, OnForgotten},
    line::{self, Line, Step},
    orders::{Done, Given, Order, Orders},
    records::{Fate, RunRecord},
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
}

/// What a step led to.
enum Outcome {
    Proposed(Box<Proposal>),
    Refused(rl::Error),
    Later(rl::Error),
}

impl Training {
    pub(crate) fn new(parts: Parts, line: Line) -> Self {
        parts.board.train.reset(line.waiting());
        Self {
            parts,
            line: Some(line),
            strayed: false,
            busy: false,
            later: VecDeque::new(),
        }
    }

    /// Brings the head to life, then trains until the shutdown. A step that has begun is committed.
    pub(crate) async fn run(mut self, shutdown: Shutdown) -> Result<()> {
        let mut orders = self.parts.orders.clone().lock_owned().await;
        self.restore().await?;
        self.with_line("erasing", |line| forget::sweep(line).map(drop))
            .await?;
        self.begin_run().await?;
        loop {
            if shutdown.is_now() {
                return Ok(());
            }
            self.forget_what_was_begun().await?;
            if let Some(given) = self.later.pop_front() {
                self.obey(given).await?;
                continue;
            }
            if let Some(due) = self.due().await? {
                if !self.train(due, &mut orders).await? {
                    tokio::select! {
                        () = shutdown.wait() => return Ok(()),
                        Some(given) = orders.recv() => self.obey(given).await?,
                        () = sleep(RETRY) => {}
                    }
                }
                continue;
            }
            tokio::select! {
                () = shutdown.wait() => return Ok(()),
                Some(given) = orders.recv() => self.obey(given).await?,
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
        self.parts.board.train.finished(stale.len());
        Ok(due)
    }

    /// One step; false when the learner or the gate asks for patience.
    async fn train(
        &mut self,
        due: Due,
        orders: &mut OwnedMutexGuard<mpsc::Receiver<Given>>,
    ) -> Result<bool> {
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
        let learner = self.parts.learner.clone();
        let batch = Batch { samples };
        let stepping = blocking("the learner", move || learner.lock().step(&batch));
        let stepped = self.meanwhile(stepping, orders).await??;
        let time = start.elapsed().as_secs_f64();
        self.parts.board.metrics.step_time.0.observe(time);
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
                self.parts.board.step("postponed");
                Ok(false)
            }
        }
    }

    /// Asks the gate and commits; false when the gate cannot be asked now.
    async fn publish(
        &mut self,
        due: Due,
        proposal: Proposal,
        orders: &mut OwnedMutexGuard<mpsc::Receiver<Given>>,
    ) -> Result<bool> {
        let head = self.line()?.version();
        let gate = match self.examine(orders).await? {
            Ok(gate) => gate,
            // The step is taken again later: waiting here would hold up a shutdown for as long as nobody answers.
            Err(error) => {
                tracing::warn!(%error, "the gate must wait");
                self.parts.board.step("postponed");
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
        let step = Step {
            proposal,
            seed: self.parts.seed,
            gate,
        };
        let count = due.samples.len();
        let record = self
            .with_line("committing a version", move |line| line.commit(&due, step))
            .await?;
        let version = PolicyVersion::new(record.version);
        if !passed {
            self.spent(count, Fate::Held(version));
            self.parts.board.step("held");
            tracing::warn!(%version, "the gate held a version: it is kept and not served");
            return Ok(true);
        }
        self.parts.board.committed(version);
        self.spent(count, Fate::Trained(version));
        self.parts.board.step("committed");
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

    /// Asks the gate about the learner's last proposal, when there is a gate.
    async fn examine(
        &mut self,
        orders: &mut OwnedMutexGuard<mpsc::Receiver<Given>>,
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
        orders: &mut OwnedMutexGuard<mpsc::Receiver<Given>>,
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
                    _ => self.obey(given).await?,
                },
            }
        }
    }

    /// Obeys an order and answers it. Only the ledger's failure is an error here.
    async fn obey(&mut self, given: Given) -> Result<()> {
        let Given {
            order,
            progress,
            reply,
        } = given;
        let done = match order {
            Order::Revert { to, why } => self.switch(move |line| line.revert(to, &why)).await,
            Order::Promote { from, why } => self.switch(move |line| line.promote(from, &why)).await,
            Order::Trip(trip) => self.trip(trip).await,
            Order::Import(weights) => self
                .with_line("importing", move |line| line.import(*weights))
                .await
                .map(|version| Done::Version(Box::new(version))),
            Order::Name(name) => self
                .with_line("naming a version", move |line| line.name(name))
                .await
                .map(|()| Done::Named),
            Order::Forget(selector) => {
                let begun = self
                    .with_line("planning to forget", move |line| {
                        forget::begin(line, &selector)
                    })
                    .await;
                match begun {
                    Ok(()) => self
                        .forget(progress)
                        .await
                        .map(|f| Done::Forgotten(Box::new(f))),
                    Err(error) => Err(error),
                }
            }
        };
        let fatal = match &done {
            Err(error) if self.parts.ledger.health().is_err() => Some(error.clone()),
            _ => None,
        };
        // Whoever asked may be gone; what was done is in the ledger.
        let _ = reply.send(done);
        fatal.map_or(Ok(()), Err)
    }

    /// Back to what the live version was made from, unless another one answers by now.
    async fn trip(&mut self, trip: Trip) -> Result<Done> {
        let Some(to) = before(self.line()?, trip.version) else {
            return Ok(Done::Nothing);
        };
        let why = format!(
            "trip: {}: {} ({} bad of {} replies)",
            trip.guard, trip.why, trip.bad_replies, trip.seen
        );
        self.parts.board.tripped();
        self.switch(move |line| line.revert(to, &why)).await
    }

    /// Moves the head to weights that are stored: the record, the swap, then the learner, when it is free.
    async fn switch(
        &mut self,
        change: impl FnOnce(&mut Line) -> Result<VersionRecord> + Send + 'static,
    ) -> Result<Done> {
        let start = Instant::now();
        let version = self.with_line("moving the head", change).await?;
        // From here on the learner holds other weights than the head's, also when something below fails.
        self.strayed = !ledger::mutant::on("revert-leaves-the-learner");
        if !ledger::mutant::on("revert-waits-for-the-step") {
            self.show(&version).await?;
        }
        let time = start.elapsed().as_secs_f64();
        self.parts.board.metrics.publish_time.0.observe(time);
        self.parts
            .board
            .committed(PolicyVersion::new(version.version));
        if self.strayed && !self.busy {
            self.restore().await?;
        }
        Ok(Done::Version(Box::new(version)))
    }

    /// Serves a version's weights from now on, without the learner.
    async fn show(&mut self, version: &VersionRecord) -> Result<()> {
        let number = PolicyVersion::new(version.version);
        // Whatever number they had: weights that are still in memory need no bytes.
        let all = self.line()?.lineage().all().iter().rev();
        let same = all.filter(|v| v.adapter == version.adapter);
        let same = same.filter(|v| v.adapter_blob == version.adapter_blob);
        let same: Vec<PolicyVersion> = same.map(|v| PolicyVersion::new(v.version)).collect();
        let (ledger, shelf) = (self.parts.ledger.clone(), self.parts.shelf.clone());
        let blob = version.adapter_blob;
        let expected = version.fingerprint().map(str::to_owned);
        blocking("serving a version", move || -> Result<()> {
            let held = match blob {
                None => shelf.show_as(number, PolicyVersion::BASE),
                Some(_) => same.iter().any(|of| shelf.show_as(number, *of)),
            };
            if held {
                return Ok(());
            }
            let bytes = match blob {
                Some(digest) => get(&ledger, &digest)?,
                None => Vec::new(),
            };
            let stored = Stored {
                bytes: &bytes,
                digest: expected.as_deref(),
            };
            shelf
                .show(number, Some(stored))
                .map_err(Error::seam("train", "serve a version"))
        })
        .await??;
        self.parts.board.live(number);
        self.parts.watch.moved(number, true);
        Ok(())
    }

    async fn forget_what_was_begun(&mut self) -> Result<()> {
        if self.line()?.forgetting().is_some() && !ledger::mutant::on("begun-forgetting-dropped") {
            let forgotten = self.forget(Arc::new(|_, _, _| {})).await?;
            tracing::info!(id = %forgotten.record.id, "a request to forget was finished");
        }
        Ok(())
    }

    /// Finishes the request to forget that the ledger holds.
    async fn forget(&mut self, progress: crate::orders::Progress) -> Result<Forgotten> {
        if let Some(begun) = self.line()?.forgetting() {
            (self.parts.erased)(&begun.turns);
        }
        let bench = self.parts.bench.clone();
        let gate = self.parts.gate.clone();
        let forgotten = self
            .with_line("forgetting", move |line| {
                forget::finish(line, &bench, &gate, &*progress)
            })
            .await?;
        let head = self.line()?.head().cloned();
        if forgotten.record.after != forgotten.record.before {
            if let Some(head) = head {
                self.show(&head).await?;
            }
            self.restore().await?;
        }
        self.parts.shelf.forget();
        let waiting = self.line()?.waiting();
        self.parts.board.train.reset(waiting);
        (self.parts.forgotten)(&forgotten);
        Ok(forgotten)
    }

    fn spent(&self, count: usize, fate: Fate) {
        for _ in 0..count {
            self.parts.board.spent(&fate);
        }
        self.parts.board.train.finished(count);
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
        self.line = Some(line);
        done
    }
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

/// The last version before the head whose weights are there; `None` when `version` is not the head.
fn before(line: &Line, version: PolicyVersion) -> Option<PolicyVersion> {
    let head = line.head().filter(|_| line.version() == version)?;
    let numbers = line.lineage().ancestors(head).skip(1);
    let mut numbers = numbers.map(|v| PolicyVersion::new(v.version));
    let whole = numbers.find(|number| line.whole(*number).is_ok());
    Some(whole.unwrap_or(PolicyVersion::BASE))
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
