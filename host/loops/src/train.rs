//! The train loop: collects samples into a batch, has the learner compute a step, and publishes the next version.
//!
//! Publishing is: blobs durable, then one group of records (the version and the end of each of its samples), then the swap.
//! A kill between any two of these leaves the old version or the new one, and no sample is trained twice or lost: what is
//! not *spent* in the ledger is still to be trained. It knows no algorithm and sees no weights.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use ledger::{
    Entry, Ledger,
    lineage::{Lineage, VersionRecord},
};
use parking_lot::Mutex;
use rl::{
    AdapterName, Batch, Learner, PolicyVersion, Proposal, Sample, SampleId, Seed, StepMetrics,
    TurnId,
};
use serde::{Deserialize, Serialize};
use tokio::time::{Duration, Instant, sleep};

use crate::{
    Error, Result, Shutdown,
    queue::Tail,
    records::{self, Fate, JUDGED, JudgedRecord, STEP_REFUSED, SpentRecord, StepRefusedRecord},
    recovery::Places,
    status::Board,
};

/// The wait before a learner that is not available is asked again.
const RETRY: Duration = Duration::from_secs(1);

/// `[loops.train]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Effective samples in a batch; one step per batch.
    pub batch_size: usize,
    /// A sample may lag the newest version by at most this; older ones are dropped and counted.
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
}

/// The learner behind a lock that only this loop takes: a panic inside it loses the call, not the learner.
pub(crate) type SharedLearner = Arc<Mutex<Box<dyn Learner>>>;

/// What training needs.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) config: Config,
    pub(crate) adapter: AdapterName,
    pub(crate) seed: Seed,
    pub(crate) ledger: Ledger,
    pub(crate) learner: SharedLearner,
    pub(crate) board: Board,
}

/// The loop.
pub(crate) struct Training {
    parts: Parts,
    judged: Tail,
    /// Turns with a sample, in the order in which they were judged.
    pending: VecDeque<TurnId>,
    newest: Option<VersionRecord>,
}

/// What a step led to.
enum Outcome {
    Proposed(Box<Proposal>),
    Refused(rl::Error),
    Later(rl::Error),
}

impl Training {
    pub(crate) fn new(parts: Parts, places: &Places) -> Self {
        parts.board.train.reset(places.to_train);
        let judged = Tail::new(parts.ledger.clone(), "train", JUDGED, places.judged);
        Self {
            parts,
            judged,
            pending: VecDeque::new(),
            newest: None,
        }
    }

    /// Brings the newest committed version to life, then trains until the shutdown. A step that has begun is committed.
    pub(crate) async fn run(mut self, shutdown: Shutdown) -> Result<()> {
        self.restore().await?;
        loop {
            if shutdown.is_now() {
                return Ok(());
            }
            if let Some(batch) = self.batch().await? {
                if !self.train(batch).await? {
                    tokio::select! {
                        () = shutdown.wait() => return Ok(()),
                        () = sleep(RETRY) => {}
                    }
                }
                continue;
            }
            tokio::select! {
                () = shutdown.wait() => return Ok(()),
                () = self.parts.board.train.rung() => {}
            }
        }
    }

    fn version(&self) -> PolicyVersion {
        self.newest
            .as_ref()
            .map_or(PolicyVersion::BASE, |v| PolicyVersion::new(v.version))
    }

    /// Makes the newest committed version live.
    pub(crate) async fn restore(&mut self) -> Result<PolicyVersion> {
        let ledger = self.parts.ledger.clone();
        let lineage = blocking("reading the lineage", move || Lineage::read(&ledger))
            .await?
            .map_err(Error::ledger("train", "read the lineage"))?;
        self.newest = lineage.newest(self.parts.adapter.as_str()).cloned();
        let version = self.version();
        self.parts.board.committed(version);
        if let Some(newest) = self.newest.clone() {
            let (ledger, learner) = (self.parts.ledger.clone(), self.parts.learner.clone());
            blocking("restoring a version", move || {
                restore(&ledger, &learner, &newest)
            })
            .await??;
        }
        self.parts.board.live(version);
        Ok(version)
    }

    /// The next batch, when there are enough samples that are fresh enough.
    async fn batch(&mut self) -> Result<Option<Batch>> {
        loop {
            while self.pending.len() < self.parts.config.batch_size {
                let records = self.judged.take(self.parts.config.batch_size).await?;
                if records.is_empty() {
                    return Ok(None);
                }
                for record in &records {
                    let judged: JudgedRecord = records::decode(record)?;
                    if judged.sample.is_some() && !self.pending.contains(&judged.turn) {
                        self.pending.push_back(judged.turn);
                    }
                }
            }
            let take = self.pending.len().min(self.parts.config.batch_size);
            let turns: Vec<TurnId> = self.pending.iter().take(take).cloned().collect();
            let (ledger, adapter) = (self.parts.ledger.clone(), self.parts.adapter.clone());
            let read = move || {
                let samples = turns.iter().map(|turn| load(&ledger, &adapter, turn));
                samples.collect::<Result<Vec<Option<Sample>>>>()
            };
            let loaded = blocking("reading samples", read).await??;
            let newest = self.version();
            let mut samples = Vec::with_capacity(loaded.len());
            let mut stale = Vec::new();
            let mut kept = VecDeque::new();
            for (turn, sample) in self.pending.drain(..take).zip(loaded) {
                let Some(sample) = sample else { continue };
                if sample.version.lag(newest) > self.parts.config.max_lag {
                    stale.push(sample);
                } else {
                    kept.push_back(turn);
                    samples.push(sample);
                }
            }
            kept.append(&mut self.pending);
            self.pending = kept;
            if !stale.is_empty() {
                self.spend(Vec::new(), &stale, Fate::Stale { newest })
                    .await?;
            }
            if samples.len() == self.parts.config.batch_size {
                return Ok(Some(Batch { samples }));
            }
        }
    }

    /// One step; false when the learner asks for patience.
    async fn train(&mut self, batch: Batch) -> Result<bool> {
        let start = Instant::now();
        let learner = self.parts.learner.clone();
        let given = batch.clone();
        let stepped = blocking("the learner", move || learner.lock().step(&given)).await?;
        self.parts
            .board
            .metrics
            .step_time
            .0
            .observe(start.elapsed().as_secs_f64());
        let outcome = match stepped {
            Ok(proposal) => match check(&proposal, self.version()) {
                Ok(()) => Outcome::Proposed(Box::new(proposal)),
                Err(why) => Outcome::Refused(why),
            },
            Err(error) if error.is_retryable() => Outcome::Later(error),
            Err(error @ rl::Error::Refused { .. }) => Outcome::Refused(error),
            Err(error) => return Err(Error::seam("train", "compute a step")(error)),
        };
        match outcome {
            Outcome::Proposed(proposal) => {
                self.publish(&batch.samples, *proposal).await?;
                self.parts.board.step("committed");
                Ok(true)
            }
            Outcome::Refused(error) => {
                tracing::error!(%error, version = %self.version(), "a step was refused; the version did not move");
                self.refuse(&batch.samples, &error).await?;
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

    async fn publish(&mut self, samples: &[Sample], proposal: Proposal) -> Result<()> {
        let start = Instant::now();
        let version = self.version().next();
        let ledger = self.parts.ledger.clone();
        let Proposal {
            adapter,
            optimizer,
            adapter_digest,
            metrics,
            settings,
            ..
        } = proposal;
        let put = move || Ok((ledger.put_blob(&adapter)?, ledger.put_blob(&optimizer)?));
        let (adapter_blob, optimizer_blob) = blocking("storing weights", put)
            .await?
            .map_err(Error::ledger("train", "store the next version's weights"))?;
        let record = VersionRecord {
            version: version.get(),
            adapter: self.parts.adapter.to_string(),
            parent: self.newest.as_ref().map(VersionRecord::hash),
            samples: samples.iter().map(|sample| sample.id.to_string()).collect(),
            seeds: BTreeMap::from([("run".to_owned(), self.parts.seed.get())]),
            settings: serde_json::json!({
                "learner": settings,
                "train": self.parts.config,
                "adapter-digest": adapter_digest,
            }),
            metrics: metrics_map(&metrics),
            adapter_blob: Some(adapter_blob),
            optimizer_blob: Some(optimizer_blob),
            ..VersionRecord::default()
        };
        let entry = record
            .to_entry()
            .map_err(Error::ledger("train", "write a version"))?;
        self.spend(vec![entry], samples, Fate::Trained(version))
            .await?;
        self.newest = Some(record);
        self.parts.board.committed(version);
        let learner = self.parts.learner.clone();
        blocking("deploying a version", move || {
            learner.lock().deploy(version)
        })
        .await?
        .map_err(Error::seam("train", "make the committed version live"))?;
        self.parts.board.live(version);
        self.parts
            .board
            .metrics
            .publish_time
            .0
            .observe(start.elapsed().as_secs_f64());
        tracing::info!(%version, loss = metrics.loss, grad_norm = metrics.grad_norm, "published");
        Ok(())
    }

    async fn refuse(&mut self, samples: &[Sample], why: &rl::Error) -> Result<()> {
        let record = StepRefusedRecord {
            parent: self.version(),
            samples: samples.iter().map(|sample| sample.id.clone()).collect(),
            why: why.to_string(),
            metrics: None,
        };
        let entry = records::encode(STEP_REFUSED, self.parts.adapter.as_str(), &record)?;
        self.spend(vec![entry], samples, Fate::StepRefused).await
    }

    /// Records the end of samples, together with what ended them: all or nothing.
    async fn spend(&mut self, mut with: Vec<Entry>, samples: &[Sample], fate: Fate) -> Result<()> {
        for sample in samples {
            let (sample, turn) = (sample.id.clone(), sample.turn.clone());
            with.push(SpentRecord { sample, turn, fate }.to_entry()?);
        }
        self.parts
            .ledger
            .append_all(with)
            .await
            .map_err(Error::ledger("train", "record the end of samples"))?;
        for sample in samples {
            self.parts.board.spent(&fate);
            self.pending.retain(|turn| *turn != sample.turn);
        }
        self.parts.board.train.finished(samples.len());
        Ok(())
    }
}

/// Whether a proposal may become the version after `newest`.
fn check(proposal: &Proposal, newest: PolicyVersion) -> rl::Result<()> {
    let refuse = |why: String| {
        Err(rl::Error::Refused {
            what: "the learner's proposal".to_owned(),
            why,
        })
    };
    if proposal.parent != newest {
        return refuse(format!(
            "it starts from {}, the newest is {newest}",
            proposal.parent
        ));
    }
    match metrics_map(&proposal.metrics)
        .into_iter()
        .find(|(_, value)| !value.is_finite())
    {
        Some((name, value)) => refuse(format!("{name} is {value}")),
        None => Ok(()),
    }
}

fn metrics_map(metrics: &StepMetrics) -> BTreeMap<String, f64> {
    let StepMetrics {
        step,
        loss,
        pg_loss,
        kl,
        grad_norm,
        ratio_mean,
        ratio_max,
        clipped,
        mismatched,
        tokens,
        samples,
        seconds,
    } = *metrics;
    // Counts in a metrics file stay far below 2^53.
    let count = |n: u64| n as f64;
    [
        ("step", count(step)),
        ("loss", loss),
        ("pg_loss", pg_loss),
        ("kl", kl),
        ("grad_norm", grad_norm),
        ("ratio_mean", ratio_mean),
        ("ratio_max", ratio_max),
        ("clipped", clipped),
        ("mismatched", count(mismatched)),
        ("tokens", count(tokens)),
        ("samples", count(samples)),
        ("seconds", seconds),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

fn restore(ledger: &Ledger, learner: &SharedLearner, version: &VersionRecord) -> Result<()> {
    let get = |digest: &Option<ledger::Digest>| match digest {
        Some(digest) => ledger
            .get_blob(digest)
            .map_err(Error::ledger("train", "load a version")),
        None => Ok(Vec::new()),
    };
    let (adapter, optimizer) = (get(&version.adapter_blob)?, get(&version.optimizer_blob)?);
    learner
        .lock()
        .restore(PolicyVersion::new(version.version), &adapter, &optimizer)
        .map_err(Error::seam("train", "restore the newest version"))
}

/// The sample of a turn as it was last decided, unless it is spent or belongs to another adapter.
fn load(ledger: &Ledger, adapter: &AdapterName, turn: &TurnId) -> Result<Option<Sample>> {
    let mut latest = None;
    for record in ledger.by_subject(turn.as_str()) {
        let record = record.map_err(Error::ledger("train", "read a turn's records"))?;
        if record.kind == JUDGED {
            latest = records::decode::<JudgedRecord>(&record)?.sample;
        }
    }
    let Some(sample) = latest.filter(|sample| sample.adapter == *adapter) else {
        return Ok(None);
    };
    let spent = is_spent(ledger, &sample.id)?;
    Ok((!spent).then_some(sample))
}

fn is_spent(ledger: &Ledger, sample: &SampleId) -> Result<bool> {
    let found = ledger
        .by_key(&records::spent_key(sample))
        .map_err(Error::ledger("train", "read the end of a sample"))?;
    Ok(found.is_some())
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
