//! The workers of one plugin: the one that answers, and one that waits to take its place.

use std::{
    collections::VecDeque,
    fmt,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::bounded;
use parking_lot::{Condvar, Mutex};
use plugin::{
    Capability, Error, Limits, LoadProblem, Manifest, World,
    compiled::{Cache, ForWorkers},
    outside::Outside,
};
use rl::{Archive, Seed, store::Session};
use serde::de::DeserializeOwned;
use serde_bytes::ByteBuf;

use crate::{
    config::{Config, Program},
    process::{Failed, Launch, Process},
    things::Things,
    wire::{Begin, Call, TO_WORKER, frame},
};

/// Deaths within [`RECENT`] after which the next worker waits for [`PAUSE`]: a guest that kills its worker again and again may not
/// keep a core busy with starting them.
const DEATHS: usize = 4;
const RECENT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_secs(2);

/// A plugin as an operator gives it to workers.
#[derive(Clone, Debug)]
pub struct Given {
    /// `plugin.toml`
    pub manifest: String,
    /// `plugin.wasm`
    pub component: Vec<u8>,
    /// What is granted to it.
    pub grants: Vec<Capability>,
    /// Its section of the recipe.
    pub section: toml::Table,
    /// What its instances may use.
    pub limits: Limits,
    /// Where its random numbers on live traffic come from.
    pub run: Seed,
    /// Where its compiled code is kept for the next worker.
    pub cache: Option<Cache>,
}

/// One plugin's worker processes. Cheap to clone; the last clone ends them.
#[derive(Clone)]
pub struct Workers {
    inner: Arc<Inner>,
}

/// Ends the keeper when the last clone is gone.
struct Inner {
    shared: Arc<Shared>,
    manifest: Manifest,
    offers: Outside,
}

struct Shared {
    launch: Launch,
    slots: Mutex<Slots>,
    changed: Condvar,
}

#[derive(Default)]
struct Slots {
    current: Option<Arc<Process>>,
    spare: Option<Process>,
    deaths: VecDeque<Instant>,
    /// Why the last start failed.
    failure: Option<String>,
    closed: bool,
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workers")
            .field("plugin", &self.inner.manifest.name)
            .finish_non_exhaustive()
    }
}

impl Workers {
    /// Checks a plugin's manifest, grants and section here, and has the rest of the checking and the compiling done by a worker
    /// process. Whatever its guests ask for outside is asked of `offers`, in this process.
    ///
    /// # Errors
    /// [`Error::Load`] as from [`plugin::PluginHost::load`], and [`Error::Start`] when a worker cannot be started.
    pub fn start(
        given: Given,
        offers: Outside,
        program: Program,
        config: Config,
    ) -> Result<Self, Error> {
        let manifest = Manifest::admit(&given.manifest, &given.grants, &given.section)?;
        let plugin: Arc<str> = manifest.name.as_str().into();
        let offered = [
            (Capability::Shell, offers.shell.is_some()),
            (Capability::Browser, offers.browser.is_some()),
            (Capability::Http, offers.http.is_some()),
            (Capability::Model, offers.model.is_some()),
            (Capability::Store, offers.store.is_some()),
        ];
        let limits = given.limits.clone();
        let kept = given
            .cache
            .map(|cache| ForWorkers::new(cache, &given.component, &limits, manifest.world))
            .transpose()?;
        let begin = Begin {
            memory_bytes: config.memory_bytes,
            offers: offered
                .into_iter()
                .filter_map(|(capability, is)| is.then_some(capability))
                .collect(),
            manifest: given.manifest,
            component: ByteBuf::from(given.component),
            grants: given.grants,
            section: given.section.to_string(),
            limits: given.limits,
            run: given.run,
        };
        let begin = frame(&begin, TO_WORKER).map_err(|error| Error::Start {
            problem: format!("a worker process for plugin {plugin}: {error}"),
        })?;
        let shared = Arc::new(Shared {
            launch: Launch {
                plugin,
                program,
                config,
                limits,
                begin,
                kept,
            },
            slots: Mutex::default(),
            changed: Condvar::new(),
        });
        // Every worker is started by one thread, which ends after all of them: the system kills a worker when the thread that started it
        // ends.
        let (keeping, (say, first)) = (Arc::clone(&shared), bounded(1));
        let keep = move || {
            let launched = Shared::launch(&keeping);
            let launched = launched.map(|first| {
                keeping.slots.lock().current = Some(Arc::new(first));
            });
            let good = launched.is_ok();
            if say.send(launched).is_ok() && good {
                Shared::keep(&keeping);
            }
        };
        let start = |problem: String| Error::Start { problem };
        thread::Builder::new()
            .name("worker-keeper".into())
            .spawn(keep)
            .map_err(|error| start(format!("start the thread that replaces workers: {error}")))?;
        first
            .recv()
            .unwrap_or_else(|error| Err(start(error.to_string())))?;
        Ok(Self {
            inner: Arc::new(Inner {
                shared,
                manifest,
                offers,
            }),
        })
    }

    /// The plugin's manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.inner.manifest
    }

    /// The process that answers now, by the system's number.
    ///
    /// # Errors
    /// [`rl::Error::Unavailable`] when none could be started in time.
    pub fn pid(&self) -> rl::Result<u32> {
        Ok(self.current()?.pid())
    }

    /// Name and version, for the ledger.
    pub(crate) fn name(&self) -> String {
        let manifest = self.manifest();
        format!("{} {}", manifest.name, manifest.version)
    }

    /// What an episode, or else a call on live traffic, begins with: nothing held.
    pub(crate) fn things(&self, hosted: bool) -> Things {
        Things::new(self.inner.offers.clone(), hosted)
    }

    /// What the plugin stored; none for one that stores nothing.
    pub(crate) fn session(&self, archive: &dyn Archive) -> rl::Result<Option<Session>> {
        let manifest = self.manifest();
        let stores = manifest.capabilities.contains(&Capability::Store);
        stores.then(|| archive.open(&manifest.name)).transpose()
    }

    pub(crate) fn check_world(&self, wanted: World) -> Result<(), Error> {
        let is = self.manifest().world;
        if is == wanted {
            return Ok(());
        }
        Err(Error::Load {
            plugin: self.manifest().name.clone(),
            problem: LoadProblem::Kind {
                is: is.as_str().into(),
                wanted: wanted.as_str().into(),
            },
        })
    }

    /// A call that keeps nothing: when its worker ends, which may be another call's doing, the next one is asked, and should that have died
    /// with it, the one after.
    pub(crate) fn call<T: DeserializeOwned>(&self, call: &Call<'_>) -> rl::Result<T> {
        self.call_with(call, || Ok(self.things(false)))
    }

    /// The same with things of its own, made anew for each worker that is asked.
    pub(crate) fn call_with<T: DeserializeOwned>(
        &self,
        call: &Call<'_>,
        things: impl Fn() -> rl::Result<Things>,
    ) -> rl::Result<T> {
        let ask = || {
            let failed = |why| Failed { why, ended: false };
            let current = self.current().map_err(failed)?;
            current.call(call, &mut things().map_err(failed)?)
        };
        let mut answer = ask();
        for _ in 0..2 {
            match answer {
                Err(failed) if failed.ended => answer = ask(),
                _ => break,
            }
        }
        answer.map_err(|failed| failed.why)
    }

    /// The worker answered with something that the contract rules out.
    pub(crate) fn refuse(&self, call: &Call<'_>, what: String) -> rl::Error {
        let function = call.function();
        let plugin = self.manifest().name.clone();
        Error::Answer {
            plugin,
            function,
            what,
        }
        .into()
    }

    /// The worker that answers now; one that ended has its place taken.
    pub(crate) fn current(&self) -> rl::Result<Arc<Process>> {
        let shared = &self.inner.shared;
        let deadline = Instant::now() + shared.launch.config.load;
        let mut slots = shared.slots.lock();
        loop {
            slots.promote(&shared.changed);
            if let Some(current) = &slots.current {
                return Ok(Arc::clone(current));
            }
            let failure = slots.failure.clone();
            if failure.is_some() || shared.changed.wait_until(&mut slots, deadline).timed_out() {
                let why = failure.or_else(|| slots.failure.clone());
                return Err(rl::Error::Unavailable {
                    what: format!("a worker process for plugin {}", self.inner.manifest.name),
                    why: why.unwrap_or_else(|| "none could be started in time".into()),
                });
            }
        }
    }
}

impl Slots {
    /// Clears away what ended, and puts the spare in its place.
    fn promote(&mut self, changed: &Condvar) {
        if self.spare.as_ref().is_some_and(|spare| !spare.is_alive()) {
            self.spare = None;
        }
        if self.current.as_ref().is_some_and(|now| !now.is_alive()) {
            self.current = None;
        }
        if self.current.is_none() {
            self.current = self.spare.take().map(Arc::new);
            changed.notify_all();
        }
    }

    fn died(&mut self) {
        self.deaths.push_back(Instant::now());
        while self.deaths.len() > DEATHS {
            self.deaths.pop_front();
        }
    }

    fn dies_too_often(&self) -> bool {
        let first = self.deaths.front();
        self.deaths.len() == DEATHS && first.is_some_and(|at| at.elapsed() < RECENT)
    }
}

impl Shared {
    fn launch(this: &Arc<Self>) -> Result<Process, Error> {
        let shared = Arc::downgrade(this);
        this.launch.start(move || {
            if let Some(shared) = shared.upgrade() {
                let mut slots = shared.slots.lock();
                slots.died();
                slots.promote(&shared.changed);
                shared.changed.notify_all();
            }
        })
    }

    /// Starts workers where one is missing, until it is closed.
    fn keep(this: &Arc<Self>) {
        let spare = this.launch.config.spare;
        loop {
            {
                let mut slots = this.slots.lock();
                slots.promote(&this.changed);
                while !slots.closed && slots.current.is_some() && (!spare || slots.spare.is_some())
                {
                    this.changed.wait(&mut slots);
                    slots.promote(&this.changed);
                }
                if slots.dies_too_often() {
                    tracing::warn!(plugin = %this.launch.plugin, "its workers die again and again; the next waits a little");
                    let until = Instant::now() + PAUSE;
                    while !slots.closed && !this.changed.wait_until(&mut slots, until).timed_out() {
                    }
                }
                if slots.closed {
                    // Their end is theirs alone: nobody is called back under this lock.
                    let left = (slots.current.take(), slots.spare.take());
                    drop(slots);
                    drop(left);
                    return;
                }
            }
            let started = Self::launch(this);
            let mut slots = this.slots.lock();
            match started {
                Ok(process) => {
                    slots.failure = None;
                    slots.spare = Some(process);
                    slots.promote(&this.changed);
                }
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::error!(plugin = %this.launch.plugin, error, "a worker process could not be started");
                    slots.failure = Some(error);
                    let until = Instant::now() + PAUSE;
                    while !slots.closed && !this.changed.wait_until(&mut slots, until).timed_out() {
                    }
                }
            }
            this.changed.notify_all();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.slots.lock().closed = true;
        self.shared.changed.notify_all();
    }
}
