//! The loops of one host, put together: what the application builds, runs, and keeps a handle to.
//!
//! Wiring only. Each loop's behaviour is in its own file.

use std::{fmt, sync::Arc};

use ledger::Ledger;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use rl::{
    AdapterName, Agent, Environment, Judge, Learner, Policy, PolicyVersion, RewardRule, Seed, Sees,
    Shelf, TurnId, TurnSink,
};
use serde::{Deserialize, Serialize};

use crate::{
    Result, Shutdown,
    bench::{MakeBench, Turn},
    forget::Forgotten,
    gate::GateConfig,
    guard::{GuardConfig, StageConfig},
    judge::{self, Judging},
    line::Line,
    metrics::Metrics,
    orders::{self, Control},
    recovery::{self, Keeper, Places},
    rollout::{self, Rollout},
    serve,
    status::{Board, Status},
    store::Stores,
    supervisor::Supervisor,
    train::{self, Training},
    watch::Watch,
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
    /// What a version must pass before it is served.
    pub gate: GateConfig,
    /// What a live version must keep to.
    pub guard: GuardConfig,
    /// Whether a share of the sessions gets a new version first.
    pub stage: StageConfig,
    /// How often a start's reading is made shorter.
    pub checkpoint: recovery::Config,
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
            gate: GateConfig::default(),
            guard: GuardConfig::default(),
            stage: StageConfig::default(),
            checkpoint: recovery::Config::default(),
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
        self.gate.validate()?;
        self.guard.validate()?;
        self.stage.validate()?;
        self.checkpoint.validate()?;
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
    /// What is trained.
    pub trained: Trained,
}

/// Hears of turns whose text is about to be erased.
pub type OnErase = Arc<dyn Fn(&[TurnId]) + Send + Sync>;
/// Hears of a request to forget that is through.
pub type OnForgotten = Arc<dyn Fn(&Forgotten) + Send + Sync>;

/// The optimizer and what belongs to it.
pub struct Trained {
    /// The optimizer.
    pub learner: Box<dyn Learner>,
    /// Its settings, as it writes them: recorded, so that a replay can go by them.
    pub settings: serde_json::Value,
    /// The base model's name, for the record.
    pub model: String,
    /// What is served, switched without the optimizer.
    pub shelf: Arc<dyn Shelf>,
    /// Makes a learner on which steps can be computed again.
    pub bench: MakeBench,
    /// Held while that one computes; operators' requests that compute hold it, too.
    pub turn: Turn,
    /// Called when turns are forgotten, before their text is erased: whoever keeps something of them in memory drops it.
    pub erased: OnErase,
    /// Called when a request to forget is through, also one that an earlier process had begun.
    pub forgotten: OnForgotten,
}

/// The loops, not yet running.
pub struct Loops {
    config: Config,
    ledger: Ledger,
    serve: serve::Serve,
    judge: judge::Parts,
    train: train::Parts,
    places: Places,
    line: Line,
    board: Board,
}

/// What the rest of the host holds. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    serve: serve::Handle,
    ledger: Ledger,
    board: Board,
    control: Control,
    /// What the reward rule pays at once.
    sees: Sees,
    stores: Stores,
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
        let recovered = recovery::recover(&ledger, &config.adapter, config.train.rules())?;
        tracing::info!(
            records = recovered.status.ledger_records,
            version = %recovered.status.version,
            to_judge = recovered.places.to_judge.len(),
            to_train = recovered.line.waiting(),
            "recovered"
        );
        let board = Board::new(Metrics::register(registry), recovered.status);
        judge::expects(&board, &recovered.places);
        train::expects(&board, &recovered.line);
        let (control, orders) = orders::channel();
        let live = recovered.line.version();
        let stores = Stores::new(ledger.clone());
        let watch = Watch::new(config.guard.clone(), live, control.clone());
        let (serve, serve_handle) = serve::build(
            config.serve.clone(),
            vec![config.adapter.clone()],
            config.seed.derive("serve"),
            ledger.clone(),
            (seams.environment, stores.clone()),
            (board.clone(), watch.clone()),
            recovered.sessions,
        );
        let judge = judge::Parts {
            config: config.judge.clone(),
            algorithm: config.algorithm,
            seed: config.seed.derive("judge"),
            ledger: ledger.clone(),
            judge: seams.judge,
            rule: seams.rule,
            policy: seams.policy.clone(),
            watch: watch.clone(),
            board: board.clone(),
            praise: Arc::new(Mutex::new(recovered.praise)),
        };
        let erased = on_erase(&serve_handle, &stores, seams.trained.erased);
        let train = train::Parts {
            config: config.train.clone(),
            gate: config.gate.clone(),
            guard: config.guard.clone(),
            stage: config.stage.clone(),
            adapter: config.adapter.clone(),
            model: seams.trained.model,
            seed: config.seed,
            settings: seams.trained.settings,
            ledger: ledger.clone(),
            learner: Arc::new(Mutex::new(seams.trained.learner)),
            shelf: seams.trained.shelf,
            policy: seams.policy,
            bench: seams.trained.bench,
            turn: seams.trained.turn,
            orders,
            erased,
            forgotten: seams.trained.forgotten,
            watch,
            board: board.clone(),
        };
        let handle = Handle {
            serve: serve_handle,
            ledger: ledger.clone(),
            board: board.clone(),
            control,
            sees: judge.rule.sees(),
            stores,
        };
        let all = Self {
            config,
            ledger,
            serve,
            judge,
            train,
            places: recovered.places,
            line: recovered.line,
            board,
        };
        Ok((all, handle))
    }

    /// Makes the newest committed version live, before anything is served: call it before the gateway opens.
    ///
    /// # Errors
    /// The ledger's, or the learner's when the stored weights do not fit the model.
    pub async fn restore(&self) -> Result<PolicyVersion> {
        train::restore_head(&self.train, &self.line).await
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
            line,
            board,
        } = self;
        let mut supervisor = Supervisor::new(ledger.clone(), board.clone(), shutdown.clone());
        // A loop that failed reads anew: what it had in memory is worth nothing.
        let (places, line) = (
            Arc::new(Mutex::new(Some(places))),
            Arc::new(Mutex::new(Some(line))),
        );
        let rules = config.train.rules();
        let keeper = Keeper {
            config: config.checkpoint,
            ledger: ledger.clone(),
            adapter: config.adapter.clone(),
            rules,
        };
        let again = move || recovery::recover(&ledger, &config.adapter, rules);
        let stop = shutdown.clone();
        supervisor.keep("serve", move || {
            let (serve, stop) = (serve.another(), stop.clone());
            Box::pin(async move { serve.run(stop).await })
        });
        let (stop, kept) = (shutdown.clone(), keeper.clone());
        supervisor.keep("checkpoint", move || {
            Box::pin(kept.clone().run(board.clone(), stop.clone()))
        });
        let (stop, read) = (shutdown.clone(), again.clone());
        supervisor.keep("judge", move || {
            let (stop, parts, read) = (stop.clone(), judge.clone(), read.clone());
            let known = places.lock().take();
            Box::pin(async move {
                let places = match known {
                    Some(places) => places,
                    None => read()?.places,
                };
                Judging::new(parts, &places).run(stop).await
            })
        });
        supervisor.keep("train", move || {
            let (stop, parts, read) = (shutdown.clone(), train.clone(), again.clone());
            let known = line.lock().take();
            Box::pin(async move {
                let line = match known {
                    Some(line) => line,
                    None => read()?.line,
                };
                Training::new(parts, line, stop).run().await
            })
        });
        supervisor.wait().await?;
        keeper.stop().await
    }
}

/// Everybody here who keeps something of turns in memory, and then whoever else does.
fn on_erase(sessions: &serve::Handle, stores: &Stores, others: OnErase) -> OnErase {
    let (sessions, stores) = (sessions.clone(), stores.clone());
    Arc::new(move |turns| {
        sessions.forget(turns);
        stores.forget();
        others(turns);
    })
}

impl Handle {
    /// What the gateway records turns with.
    pub fn sink(&self) -> Arc<dyn TurnSink> {
        Arc::new(self.serve.clone())
    }

    /// Gives orders to the train loop: revert, promote, forget.
    pub fn control(&self) -> &Control {
        &self.control
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
        let kept = (board, self.stores.clone());
        Rollout::new(config, ledger, environment, agent, serve, kept, self.sees)
    }
}

impl fmt::Debug for Loops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loops")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Trained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trained")
            .field("model", &self.model)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Seams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seams").finish_non_exhaustive()
    }
}
