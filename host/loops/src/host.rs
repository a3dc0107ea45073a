//! The loops of one host, put together: what the application builds, runs, and keeps a handle to.
//!
//! Wiring only. Each loop's behaviour is in its own file.

use std::{fmt, sync::Arc};

use ledger::Ledger;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use rl::{
    AdapterName, Agent, Environment, Judge, Learner, Policy, PolicyVersion, RewardRule, Seed,
    TurnSink,
};
use serde::{Deserialize, Serialize};

use crate::{
    Result, Shutdown,
    judge::{self, Judging},
    metrics::Metrics,
    recovery::{self, Places},
    rollout::{self, Rollout},
    serve,
    status::{Board, Status},
    supervisor::Supervisor,
    train::{self, Training},
};

/// `[loops]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// The adapter that is trained.
    pub adapter: AdapterName,
    /// Every random choice of the loops is derived from it.
    pub seed: Seed,
    /// Sessions.
    pub serve: serve::Config,
    /// Votes and hints.
    pub judge: judge::Config,
    /// How a judged turn becomes a sample.
    pub algorithm: judge::Algorithm,
    /// Batches.
    pub train: train::Config,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            adapter: AdapterName::new("main"),
            seed: Seed::new(0),
            serve: serve::Config::default(),
            judge: judge::Config::default(),
            algorithm: judge::Algorithm::default(),
            train: train::Config::default(),
        }
    }
}

impl Config {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`crate::Error::Config`] naming the key.
    pub fn validate(&self) -> Result<()> {
        self.serve.validate()?;
        self.judge.validate()?;
        self.train.validate()?;
        let settings = self.algorithm.settings.validate();
        settings.map_err(crate::Error::seam("judge", "use the algorithm's settings"))
    }
}

/// The other sides of the seams.
pub struct Seams {
    /// Reads live traffic.
    pub environment: Arc<dyn Environment>,
    /// Writes the judge's prompts and reads its answers.
    pub judge: Arc<dyn Judge>,
    /// Decides rewards.
    pub rule: Arc<dyn RewardRule>,
    /// The model: judge, teacher and policy.
    pub policy: Arc<dyn Policy>,
    /// The optimizer.
    pub learner: Box<dyn Learner>,
}

/// The loops, not yet running.
pub struct Loops {
    config: Config,
    ledger: Ledger,
    serve: serve::Serve,
    judge: judge::Parts,
    train: train::Parts,
    places: Places,
    board: Board,
}

/// What the rest of the host holds. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    serve: serve::Handle,
    ledger: Ledger,
    board: Board,
}

impl Loops {
    /// Reads the ledger and builds the loops on what it says.
    ///
    /// # Errors
    /// A setting out of range; damage in the ledger.
    pub fn build(
        config: Config,
        ledger: Ledger,
        seams: Seams,
        registry: &mut Registry,
    ) -> Result<(Self, Handle)> {
        config.validate()?;
        let recovered = recovery::recover(&ledger, &config.adapter)?;
        tracing::info!(
            records = recovered.status.ledger_records,
            version = %recovered.status.version,
            to_judge = recovered.places.to_judge,
            to_train = recovered.places.to_train,
            "recovered"
        );
        let board = Board::new(Metrics::register(registry), recovered.status);
        board.judge.reset(recovered.places.to_judge);
        board.train.reset(recovered.places.to_train);
        let (serve, serve_handle) = serve::build(
            config.serve.clone(),
            vec![config.adapter.clone()],
            config.seed.derive("serve"),
            ledger.clone(),
            seams.environment,
            board.clone(),
            recovered.sessions,
        );
        let judge = judge::Parts {
            config: config.judge.clone(),
            algorithm: config.algorithm,
            seed: config.seed.derive("judge"),
            ledger: ledger.clone(),
            judge: seams.judge,
            rule: seams.rule,
            policy: seams.policy,
            board: board.clone(),
        };
        let train = train::Parts {
            config: config.train.clone(),
            adapter: config.adapter.clone(),
            seed: config.seed,
            ledger: ledger.clone(),
            learner: Arc::new(Mutex::new(seams.learner)),
            board: board.clone(),
        };
        let handle = Handle {
            serve: serve_handle,
            ledger: ledger.clone(),
            board: board.clone(),
        };
        let places = recovered.places;
        Ok((
            Self {
                config,
                ledger,
                serve,
                judge,
                train,
                places,
                board,
            },
            handle,
        ))
    }

    /// Makes the newest committed version live, before anything is served: call it before the gateway opens.
    ///
    /// # Errors
    /// The ledger's, or the learner's when the stored weights do not fit the model.
    pub async fn restore(&self) -> Result<PolicyVersion> {
        let mut training = Training::new(self.train.clone(), &self.places);
        training.restore().await
    }

    /// Runs the loops until the shutdown. A loop that fails is started again where the ledger says that it was.
    ///
    /// # Errors
    /// The ledger's failure: the process should say so and exit.
    pub async fn run(self, shutdown: Shutdown) -> Result<()> {
        let Self {
            config,
            ledger,
            serve,
            judge,
            train,
            places,
            board,
        } = self;
        let mut supervisor = Supervisor::new(ledger.clone(), board, shutdown.clone());
        let first = Arc::new(Mutex::new([Some(places), Some(places)]));
        let place = move |which: usize, first: &Mutex<[Option<Places>; 2]>| {
            let known = first.lock()[which].take();
            match known {
                Some(places) => Ok(places),
                // A loop that failed reads anew: what it had in memory is worth nothing.
                None => recovery::recover(&ledger, &config.adapter).map(|found| found.places),
            }
        };
        let stop = shutdown.clone();
        supervisor.keep("serve", move || {
            let (serve, stop) = (serve.another(), stop.clone());
            Box::pin(async move { serve.run(stop).await })
        });
        let (stop, firsts, find) = (shutdown.clone(), first.clone(), place.clone());
        supervisor.keep("judge", move || {
            let (stop, parts, firsts, find) =
                (stop.clone(), judge.clone(), firsts.clone(), find.clone());
            Box::pin(async move { Judging::new(parts, &find(0, &firsts)?).run(stop).await })
        });
        supervisor.keep("train", move || {
            let (stop, parts, firsts, find) = (
                shutdown.clone(),
                train.clone(),
                first.clone(),
                place.clone(),
            );
            Box::pin(async move { Training::new(parts, &find(1, &firsts)?).run(stop).await })
        });
        supervisor.wait().await
    }
}

impl Handle {
    /// What the gateway records turns with.
    pub fn sink(&self) -> Arc<dyn TurnSink> {
        Arc::new(self.serve.clone())
    }

    /// The serve loop's handle.
    pub fn serve(&self) -> &serve::Handle {
        &self.serve
    }

    /// Everything at this moment; also brings the gauges up to date.
    pub fn status(&self) -> Status {
        self.with_ledger(self.board.status())
    }

    /// Waits until the status is as wanted, and returns it. Looks whenever a loop has written something down.
    pub async fn until(&self, wanted: impl Fn(&Status) -> bool + Send) -> Status {
        self.with_ledger(self.board.until(wanted).await)
    }

    fn with_ledger(&self, mut status: Status) -> Status {
        status.ledger_records = self.ledger.durable().get();
        status.ledger_error = self.ledger.health().err().map(|error| error.to_string());
        status
    }

    /// Plays hosted episodes of an environment against an agent.
    ///
    /// # Errors
    /// A setting out of range.
    pub fn rollout(
        &self,
        config: rollout::Config,
        environment: Arc<dyn Environment>,
        agent: Arc<dyn Agent>,
    ) -> Result<Rollout> {
        let (ledger, serve, board) = (self.ledger.clone(), self.serve.clone(), self.board.clone());
        Rollout::new(config, ledger, environment, agent, serve, board)
    }
}

impl fmt::Debug for Loops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loops")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Seams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seams").finish_non_exhaustive()
    }
}
