//! A host: the model, the engine, the plugins, the learner, the loops and the gateway, joined through the
//! seams of `rl`.
//!
//! Config → [`Host::start`] → [`Host::run_until`] (or [`Host::stop`]). Wiring only: no loop's behaviour is here.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use ledger::Ledger;
use parking_lot::Mutex;
use plugin::outside::Outside;
use policy::{Checkpoint, Deployed, Model, Slot};
use prometheus_client::registry::Registry;
use rl::{AdapterName, Environment, Judge, Weights};
use serving::engine::{Engine, EngineHandle, Parts, Running};
use serving::gateway::{Backend, Gateway};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::config::Config;
use crate::guests::{Guests, load_plugins};
use crate::history::{self, Workbench};
use crate::memory;
use crate::named_models::{self, NamedModels};
use crate::outside::{outside, with_models};
use crate::placement::{self, Placement};
use crate::training;

/// What a host may be given instead of reading it from disk: tests bring a tiny model.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The base model's name, as clients ask for it.
    pub name: String,
    /// The weights.
    pub model: Arc<Model>,
    /// Text to ids and back.
    pub tokenizer: Arc<policy::Tokenizer>,
    /// Conversations to text.
    pub template: Arc<policy::ChatTemplate>,
    /// The memory in which every learner of this model trains.
    pub workspace: trainer::Workspace,
    /// Held by whoever computes beside serving and training: an operator's request, or the steps that forgetting takes again. The
    /// plan of the memory has one of them.
    pub aside: Arc<tokio::sync::Mutex<()>>,
}

impl Loaded {
    /// Loads the model that a configuration names, getting it first when it is not there.
    ///
    /// # Errors
    /// The model cannot be had, or its files are damaged.
    pub fn from_config(config: &crate::config::ModelSection) -> anyhow::Result<Self> {
        Self::read(config, &open(config)?, trainer::Workspace::default())
    }

    /// The same, with room on a GPU for what an engine may hold.
    ///
    /// # Errors
    /// As [`Loaded::from_config`].
    pub fn for_engine(
        config: &mut crate::config::ModelSection,
        engine: &serving::engine::Config,
    ) -> anyhow::Result<Self> {
        let checkpoint = open(config)?;
        make_room(config, engine, &checkpoint);
        Self::read(config, &checkpoint, trainer::Workspace::default())
    }

    /// Loads the model of a host, when [`memory::plan`] says that it fits, with the configuration that it fits with.
    ///
    /// # Errors
    /// As [`Loaded::from_config`] and [`memory::plan`].
    pub fn for_host(config: &mut Config) -> anyhow::Result<Self> {
        let checkpoint = open(&config.model)?;
        memory::plan(config, &checkpoint)?;
        make_room(&mut config.model, &config.engine, &checkpoint);
        let kept = usize::try_from(config.activation_bytes).unwrap_or(usize::MAX);
        let context = config.engine.context.min(checkpoint.config.context);
        // The plan has as many rows as a pack takes, however small the context is.
        let longest = context.max(trainer::PACK_ROWS);
        let workspace = trainer::Workspace::new(kept).with_longest(longest);
        Self::read(&config.model, &checkpoint, workspace)
    }

    fn read(
        config: &crate::config::ModelSection,
        checkpoint: &Checkpoint,
        workspace: trainer::Workspace,
    ) -> anyhow::Result<Self> {
        let threads = if config.threads == 0 {
            policy::Pool::default_threads()
        } else {
            config.threads
        };
        let pool = Arc::new(policy::Pool::new(threads)?);
        let place = (config.device, config.gpu_tokens);
        let model = placement::load(checkpoint, place, config.dtype.into(), pool)
            .with_context(|| format!("failed to load the model {}", checkpoint.path().display()))?;
        Ok(Self {
            // A model from a path is called as its file; one from the cache as it was asked for.
            name: if Path::new(&config.name).exists() {
                checkpoint.name.clone()
            } else {
                config.name.clone()
            },
            model: Arc::new(model),
            tokenizer: Arc::new(checkpoint.tokenizer()?),
            template: Arc::new(checkpoint.template()?),
            workspace,
            aside: Arc::default(),
        })
    }
}

fn make_room(
    config: &mut crate::config::ModelSection,
    engine: &serving::engine::Config,
    checkpoint: &Checkpoint,
) {
    if config.device != Placement::Cpu {
        let least = placement::tokens_of(engine, &checkpoint.config);
        config.gpu_tokens = config.gpu_tokens.max(least);
    }
}

fn open(config: &crate::config::ModelSection) -> anyhow::Result<Checkpoint> {
    let path = crate::models::resolve(&config.name)?;
    Checkpoint::open(&path).with_context(|| format!("failed to open the model {}", path.display()))
}

/// A running host.
pub struct Host {
    config: Config,
    model_name: String,
    addr: SocketAddr,
    engine: Option<Running>,
    handle: loops::Handle,
    guests: Guests,
    ledger: Ledger,
    stop: loops::Stop,
    shutdown: loops::Shutdown,
    gateway: Option<JoinHandle<()>>,
    loops: Option<JoinHandle<loops::Result<()>>>,
    failures: mpsc::Receiver<anyhow::Error>,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host")
            .field("addr", &self.addr)
            .field("model", &self.model_name)
            .finish_non_exhaustive()
    }
}

impl Host {
    /// Starts everything: binds the address, recovers from the ledger, puts the newest committed version in
    /// place, and only then opens the gateway.
    ///
    /// # Errors
    /// What could not be started, with its causes. Nothing is left running.
    pub async fn start(config: Config, loaded: Loaded) -> anyhow::Result<Self> {
        Self::start_with(config, loaded, |seams| seams).await
    }

    /// The same for whoever puts something of their own around the seams: `around` gets everything that the loops will
    /// call, and gives what they call instead.
    ///
    /// # Errors
    /// As [`Host::start`].
    pub async fn start_with(
        config: Config,
        loaded: Loaded,
        around: impl FnOnce(loops::Seams) -> loops::Seams + Send,
    ) -> anyhow::Result<Self> {
        config.validate()?;
        std::fs::create_dir_all(&config.data).with_context(|| {
            format!("failed to create the data folder {}", config.data.display())
        })?;
        let registry = Arc::new(Mutex::new(prometheus_registry()));
        let gateway = Gateway::build(
            config.gateway.clone(),
            Arc::clone(&registry),
            Arc::new(unix_seconds),
        )
        .await?;
        let ledger = Ledger::open(config.data.join("ledger"), ledger::Options::default())?;
        write_resolved(&config)?;

        let trained = config.loops.adapter.clone();
        let slot = Arc::new(Slot::default());
        let candidate = Arc::new(Slot::new(Deployed::default()));
        let mut adapters = static_adapters(&config, &loaded.model)?;
        adapters.insert(rl::candidate_of(&trained), Arc::clone(&candidate));
        adapters.insert(trained, Arc::clone(&slot));
        let made = training::trained(&config, &loaded, slot, candidate)?;
        let kept = loaded.clone();
        let Loaded {
            name,
            model,
            tokenizer,
            template,
            ..
        } = loaded;
        let parts = Parts {
            name: name.clone(),
            model,
            tokenizer,
            template,
            adapters,
        };
        let engine = Engine::build(config.engine.clone(), parts, &registry)?.start()?;

        let offers = offers(&config, &engine.handle(), &mut registry.lock())?;
        let guests = load_plugins(&config.plugins, config.loops.seed, offers)?;
        // The first failure ends the host; there is no second.
        let (failed, failures) = mpsc::channel(1);
        let seams = around(seams(
            &guests,
            engine.handle(),
            made,
            (config.data.clone(), ledger.clone()),
            failed,
        ));
        let (all, handle) = loops::Loops::build(
            config.loops.clone(),
            ledger.clone(),
            seams,
            &mut registry.lock(),
        )?;
        all.restore()
            .await
            .context("failed to restore the newest committed version")?;
        crate::manifest::write_missing(&config.data, &ledger).or_else(unless_full)?;

        let (stop, shutdown) = loops::shutdown();
        let addr = gateway.handle().addr();
        gateway
            .handle()
            .open(backend(&config, kept, &engine.handle(), &handle, &ledger));
        let until = shutdown.clone();
        // The host owns these two tasks and joins them in `stop`.
        let gateway = tokio::spawn(gateway.run(async move { until.wait().await }));
        let loops = tokio::spawn(all.run(shutdown.clone()));
        Ok(Self {
            config,
            model_name: name,
            addr,
            engine: Some(engine),
            handle,
            guests,
            ledger,
            stop,
            shutdown,
            gateway: Some(gateway),
            loops: Some(loops),
            failures,
        })
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The name by which clients ask for the adapter that is trained.
    pub fn trained_model(&self) -> String {
        format!("{}:{}", self.model_name, self.config.loops.adapter)
    }

    /// The base model's name.
    pub fn base_model(&self) -> &str {
        &self.model_name
    }

    /// The loops' handle.
    pub fn loops(&self) -> &loops::Handle {
        &self.handle
    }

    /// The engine's handle.
    ///
    /// # Panics
    /// Never while the host runs.
    pub fn engine(&self) -> Option<EngineHandle> {
        self.engine.as_ref().map(Running::handle)
    }

    /// The environment plugin.
    pub fn environment(&self) -> &Arc<dyn Environment> {
        &self.guests.environment
    }

    /// The judge plugin.
    pub fn judge(&self) -> &Arc<dyn Judge> {
        &self.guests.judge
    }

    /// The ledger.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// A promise that the host stops some day.
    pub fn shutdown(&self) -> loops::Shutdown {
        self.shutdown.clone()
    }

    /// Runs until `signal`, or until a part fails that cannot be healed; then stops everything in order.
    ///
    /// # Errors
    /// The part that failed.
    pub async fn run_until(mut self, signal: impl Future<Output = ()>) -> anyhow::Result<()> {
        let ended = async {
            match self.loops.as_mut() {
                Some(task) => task.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = signal => {}
            result = ended => {
                self.loops = None;
                self.stop().await?;
                result.context("the loops panicked")??;
                anyhow::bail!("the loops ended by themselves");
            }
            Some(error) = self.failures.recv() => {
                self.stop().await?;
                return Err(error);
            }
        }
        self.stop().await
    }

    /// Stops: streams finish, turns become durable, loops end, then the engine.
    ///
    /// # Errors
    /// The first part that did not stop cleanly.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.stop.stop();
        if let Some(gateway) = self.gateway.take() {
            gateway.await.context("the gateway panicked")?;
        }
        if let Some(loops) = self.loops.take() {
            loops.await.context("the loops panicked")??;
        }
        if let Some(engine) = self.engine.take() {
            tokio::task::spawn_blocking(move || engine.shutdown()).await??;
        }
        let ledger = self.ledger.clone();
        tokio::task::spawn_blocking(move || ledger.settle()).await??;
        Ok(())
    }
}

fn backend(
    config: &Config,
    loaded: Loaded,
    engine: &EngineHandle,
    handle: &loops::Handle,
    ledger: &Ledger,
) -> Backend {
    let control = history::Control::Live {
        control: handle.control().clone(),
        runtime: tokio::runtime::Handle::current(),
    };
    let bench = Workbench::live(config.clone(), loaded, ledger.clone(), control);
    let (status, stats, ledger) = (handle.clone(), engine.clone(), ledger.clone());
    // Without keys only this machine can ask, and whoever is on it is its operator.
    let open = config.gateway.keys.is_empty();
    let operators = config.operators.clone();
    Backend {
        engine: engine.clone(),
        sink: handle.sink(),
        status: Arc::new(move |tenant| {
            let whole = status.status();
            if !open && !operators.iter().any(|name| name == tenant.as_str()) {
                return tenants_view(&whole);
            }
            let mut value = serde_json::to_value(whole).unwrap_or_default();
            value["engine"] = serde_json::to_value(stats.stats()).unwrap_or_default();
            if let Ok(lineage) = ledger::lineage::Lineage::read(&ledger) {
                value["versions"] = serde_json::to_value(lineage.all()).unwrap_or_default();
            }
            value
        }),
        operator: history::live::operator(bench),
    }
}

/// What a tenant that is not an operator may know: which version answers. Counts, sessions, turns and samples are of all
/// tenants together.
fn tenants_view(whole: &loops::Status) -> serde_json::Value {
    let seen = loops::Status {
        version: whole.version,
        live: whole.live,
        ..loops::Status::default()
    };
    let mut value = serde_json::to_value(seen).unwrap_or_default();
    value["versions"] = serde_json::json!([]);
    value["restricted"] = "only tenants in `operators` see the rest".into();
    value
}

fn seams(
    guests: &Guests,
    engine: EngineHandle,
    mut trained: loops::Trained,
    (data, ledger): (std::path::PathBuf, Ledger),
    failed: mpsc::Sender<anyhow::Error>,
) -> loops::Seams {
    let kept = engine.clone();
    trained.erased = Arc::new(move |_| kept.forget_prefixes());
    // Also those that there was no space for before.
    trained.forgotten = Arc::new(move |_| {
        if let Err(error) = crate::manifest::write_missing(&data, &ledger).or_else(unless_full) {
            let _ = failed.try_send(error);
        }
    });
    loops::Seams {
        environment: Arc::clone(&guests.environment),
        judge: Arc::clone(&guests.judge),
        rule: Arc::clone(&guests.reward),
        policy: Arc::new(engine),
        trained,
    }
}

/// A manifest that there was no space for is written after the next request or at the next start; a disk that fails is no place to go on with.
fn unless_full(error: anyhow::Error) -> anyhow::Result<()> {
    let full = error.chain().any(|cause| {
        cause.downcast_ref().is_some_and(|cause: &std::io::Error| {
            matches!(
                cause.kind(),
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded
            )
        })
    });
    if !full {
        return Err(error);
    }
    tracing::error!(error = %format!("{error:#}"), "a forget manifest waits for space and the next start");
    Ok(())
}

/// What guests may reach, the models of `[models]` included: what clients can ask for, they can.
fn offers(
    config: &Config,
    engine: &EngineHandle,
    registry: &mut Registry,
) -> anyhow::Result<Outside> {
    let base = &engine.card().model;
    let adapters = engine.adapters().filter(|name| !rl::is_candidate(name));
    let served = adapters
        .map(|name| (format!("{base}:{name}"), Weights::Adapter(name.clone())))
        .chain([(base.clone(), Weights::Base)])
        .collect();
    let engine = Arc::new(engine.clone());
    let at_once = named_models::at_once(&config.engine);
    let models = NamedModels::new(&config.models, engine, &served, at_once, registry)?;
    let offers = outside(config, config.data.join("sandbox"));
    Ok(with_models(offers, Arc::new(models)))
}

fn prometheus_registry() -> Registry {
    Registry::with_prefix("nextstate")
}

fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

fn write_resolved(config: &Config) -> anyhow::Result<()> {
    let path = config.data.join("config.json");
    let mut resolved = serde_json::to_value(config)?;
    // Keys are stored hashed, but a file that people attach to bug reports needs none of it.
    if let Some(keys) = resolved["gateway"]["keys"].as_array_mut() {
        for key in keys {
            key["sha256"] = serde_json::Value::from("…");
        }
    }
    crate::durable::write(&path, &serde_json::to_vec_pretty(&resolved)?, 0o644)
        .with_context(|| format!("failed to write {}", path.display()))
}

fn static_adapters(
    config: &Config,
    model: &Model,
) -> anyhow::Result<BTreeMap<AdapterName, Arc<Slot>>> {
    config
        .adapters
        .iter()
        .map(|(name, folder)| {
            let adapter = policy::peft::load(folder, model.config()).with_context(|| {
                format!(
                    "failed to load the adapter {name} from {}",
                    folder.display()
                )
            })?;
            let deployed = Deployed {
                adapter: Some(Arc::new(adapter)),
                ..Deployed::default()
            };
            Ok((
                AdapterName::new(name.as_str()),
                Arc::new(Slot::new(deployed)),
            ))
        })
        .collect()
}
