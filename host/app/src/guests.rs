//! The plugins of a host: found, granted, loaded, put behind their seams, and exchanged while the host runs.
//!
//! A plugin in a folder or an installed one is looked at every second: when its component or the version in use is another, the new one
//! is loaded beside the old, and takes its place at the next turn. Episodes that run end on the old one. What cannot be loaded
//! changes nothing.

use std::{
    path::Path,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use plugin::{
    Capability, GuestEnvironment, GuestJudge, GuestReward, PluginHost, compiled::Cache,
    outside::Outside,
};
use rl::{Environment, Judge, RewardRule, Seed};
use worker::{Given, Program, SealedEnvironment, SealedJudge, SealedReward, Workers};

use crate::{
    compiled,
    config::{Isolation, Plugins},
    interop::openenv,
    live::Live,
    plugins::{
        source::{COMPONENT, MANIFEST, Source},
        store::{Store, split},
    },
};

/// The command that makes this program a worker.
const WORKER: &str = "worker";

/// How often plugins are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// The guests of a host, behind their seams.
pub struct Guests {
    /// Reads live traffic and hosts episodes.
    pub environment: Arc<dyn Environment>,
    /// Judges.
    pub judge: Arc<dyn Judge>,
    /// Rewards.
    pub reward: Arc<dyn RewardRule>,
    /// Ends the looking when it is dropped.
    _watch: Option<mpsc::Sender<()>>,
}

impl std::fmt::Debug for Guests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guests").finish_non_exhaustive()
    }
}

/// What loading needs, kept for the next time.
struct Loader {
    place: Place,
    plugins: Plugins,
    seed: Seed,
}

/// Where guests run.
enum Place {
    Here(PluginHost),
    Apart(Outside, Option<Cache>),
}

/// A plugin where it runs.
enum Loaded {
    Here(plugin::Plugin),
    Apart(Workers),
}

/// Loads the configured plugins. `offers` is what stands behind their capabilities.
///
/// # Errors
/// The plugin that is unknown, asks for more than it was granted, or is damaged.
pub fn load_plugins(plugins: &Plugins, seed: Seed, offers: Outside) -> anyhow::Result<Guests> {
    let cache = plugins.cache.then(|| compiled::cache(plugins.cache_bytes));
    let cache = cache.flatten();
    let place = match plugins.isolation {
        Isolation::Wasm => {
            let limits = plugin::Limits::default();
            Place::Here(PluginHost::keeping(limits, offers, cache)?)
        }
        Isolation::Process => Place::Apart(offers, cache),
    };
    let loader = Loader {
        place,
        plugins: plugins.clone(),
        seed,
    };
    let judge = Arc::new(Live::<dyn Judge>::new(loader.judge()?));
    let reward = Arc::new(Live::<dyn RewardRule>::new(loader.reward()?));
    let environment = Arc::new(Live::<dyn Environment>::new(loader.environment()?));
    let used = [&plugins.environment, &plugins.judge, &plugins.reward];
    for section in plugins.config.keys() {
        let read = used.iter().any(|name| plugin_name(name) == *section);
        anyhow::ensure!(
            read,
            "[plugins.config.{section}] is set, but no such plugin is used by this host"
        );
    }
    let seams = Seams {
        environment: Arc::clone(&environment),
        judge: Arc::clone(&judge),
        reward: Arc::clone(&reward),
    };
    Ok(Guests {
        environment,
        judge,
        reward,
        _watch: watch(loader, seams)?,
    })
}

impl Loader {
    fn judge(&self) -> anyhow::Result<Arc<dyn Judge>> {
        Ok(match self.plugins.judge.as_str() {
            "words" => Arc::new(rl::seam::WordJudge),
            "none" => Arc::new(rl::seam::NoJudge),
            name => match self.plugin(name)? {
                Loaded::Here(plugin) => Arc::new(GuestJudge::new(&plugin)?),
                Loaded::Apart(workers) => Arc::new(SealedJudge::new(workers)?),
            },
        })
    }

    fn reward(&self) -> anyhow::Result<Arc<dyn RewardRule>> {
        Ok(match self.plugins.reward.as_str() {
            "majority" => Arc::new(rl::seam::MajorityRule),
            "step-wise" => Arc::new(rl::seam::StepwiseRule),
            name => match self.plugin(name)? {
                Loaded::Here(plugin) => Arc::new(GuestReward::new(&plugin)?),
                Loaded::Apart(workers) => Arc::new(SealedReward::new(workers)?),
            },
        })
    }

    fn environment(&self) -> anyhow::Result<Arc<dyn Environment>> {
        if let Some(address) = openenv::address(&self.plugins.environment) {
            let section = self.plugins.config.get(openenv::SECTION);
            let section = section.cloned().unwrap_or_default();
            return Ok(Arc::new(openenv::open(address, &section)?));
        }
        Ok(match self.plugin(&self.plugins.environment)? {
            Loaded::Here(plugin) => Arc::new(GuestEnvironment::new(&plugin, self.run())?),
            Loaded::Apart(workers) => Arc::new(SealedEnvironment::new(workers)?),
        })
    }

    /// Where an environment's random numbers on live traffic come from.
    fn run(&self) -> Seed {
        self.seed.derive("environment")
    }

    fn plugin(&self, name: &str) -> anyhow::Result<Loaded> {
        let plugins = &self.plugins;
        let section_name = plugin_name(name);
        let section = plugins.config.get(&section_name);
        let section = section.cloned().unwrap_or_default();
        let source = Source::find(name)?;
        let grants = granted(plugins, &section_name)?;
        let grants = grants.unwrap_or_else(|| source.grants.clone());
        let loaded = match &self.place {
            Place::Here(host) => source.load(host, &grants, &section).map(Loaded::Here),
            Place::Apart(offers, cache) => {
                let given = Given {
                    manifest: source.manifest,
                    component: source.component,
                    grants,
                    section,
                    limits: plugin::Limits::default(),
                    run: self.run(),
                    cache: cache.clone(),
                };
                let config = plugins.workers.clone();
                let started = Workers::start(given, offers.clone(), program(&config)?, config);
                started.map(Loaded::Apart).map_err(Into::into)
            }
        };
        loaded.map_err(|error| hinted(error, &section_name))
    }
}

struct Seams {
    environment: Arc<Live<dyn Environment>>,
    judge: Arc<Live<dyn Judge>>,
    reward: Arc<Live<dyn RewardRule>>,
}

/// What changes when a plugin does: its files' size and time, or the version in use. None for what is built into the host.
fn stamp(name: &str) -> Option<Vec<(u64, SystemTime, String)>> {
    let folder = Path::new(name);
    if folder.is_dir() {
        let file = |file: &str| {
            let data = std::fs::metadata(folder.join(file)).ok()?;
            Some((data.len(), data.modified().ok()?, String::new()))
        };
        return [MANIFEST, COMPONENT].into_iter().map(file).collect();
    }
    if bundled::find(name).is_some() || split(name).1.is_some() {
        return None;
    }
    let state = Store::from_environment().ok()?.state(name).ok()??;
    Some(vec![(0, SystemTime::UNIX_EPOCH, state.current)])
}

/// Looks at the plugins until the sender is dropped; none when all are built in or pinned.
fn watch(loader: Loader, seams: Seams) -> anyhow::Result<Option<mpsc::Sender<()>>> {
    let plugins = &loader.plugins;
    let names = [&plugins.environment, &plugins.judge, &plugins.reward].map(String::clone);
    let mut stamps = names.clone().map(|name| stamp(&name));
    if !plugins.reload || stamps.iter().all(Option::is_none) {
        return Ok(None);
    }
    let (sender, ended) = mpsc::channel();
    let look = move || {
        while ended.recv_timeout(LOOK) == Err(mpsc::RecvTimeoutError::Timeout) {
            for (index, name) in names.iter().enumerate() {
                let now = stamp(name);
                // A build writes one file after the other: what is half there is looked at again.
                if now.is_none() || now == stamps[index] {
                    continue;
                }
                stamps[index] = now;
                match exchange(&loader, &seams, index) {
                    Ok(now) => tracing::info!(plugin = name, now, "a plugin was exchanged"),
                    Err(error) => {
                        let error = format!("{error:#}");
                        tracing::error!(
                            plugin = name,
                            error,
                            "a plugin changed and cannot be used; the old one goes on"
                        );
                    }
                }
            }
        }
    };
    thread::Builder::new()
        .name("plugin-watch".into())
        .spawn(look)
        .context("failed to start the thread that looks at plugins")?;
    Ok(Some(sender))
}

/// Loads the plugin of a seam anew and puts it in place; says which it is.
fn exchange(loader: &Loader, seams: &Seams, index: usize) -> anyhow::Result<String> {
    Ok(match index {
        0 => {
            let new = loader.environment()?;
            let card = new.card();
            seams.environment.exchange(new);
            format!("{} {}", card.name, card.version)
        }
        1 => {
            let new = loader.judge()?;
            let name = new.name();
            seams.judge.exchange(new);
            name
        }
        _ => {
            let new = loader.reward()?;
            // Which turns wait for their group was decided by what the rule saw when the host started.
            anyhow::ensure!(
                new.sees() == seams.reward.sees(),
                "it sees {:?} where the old one saw {:?}: start the host again",
                new.sees(),
                seams.reward.sees()
            );
            let name = new.name();
            seams.reward.exchange(new);
            name
        }
    })
}

/// What a plugin's sections are called: its name, without the version of an installed one, or its folder's.
pub(crate) fn plugin_name(name: &str) -> String {
    if openenv::address(name).is_some() {
        return openenv::SECTION.to_owned();
    }
    let last = Path::new(name).file_name();
    let last = last.map_or_else(|| name.into(), |last| last.to_string_lossy());
    split(&last).0.to_owned()
}

/// What to write where, when it is a grant that is missing.
fn hinted(error: anyhow::Error, section: &str) -> anyhow::Error {
    match error.downcast_ref() {
        Some(plugin::Error::Load {
            problem: plugin::LoadProblem::NotGranted(capability),
            ..
        }) => {
            let hint = format!(
                "plugin `{section}` was not granted `{capability}`; to grant it: [plugins.grants] {section} = [\"{capability}\"]"
            );
            error.context(hint)
        }
        _ => error,
    }
}

/// What to start as a worker: this program, unless the operator names another.
fn program(config: &worker::Config) -> anyhow::Result<Program> {
    // By its file's own link: the name may belong to another version by now, which speaks otherwise.
    let own = if cfg!(target_os = "linux") {
        Ok("/proc/self/exe".into())
    } else {
        std::env::current_exe()
    };
    let own = || own.context("failed to find this program's own file");
    Ok(Program {
        path: config.program.clone().map_or_else(own, Ok)?,
        arguments: vec![WORKER.into()],
    })
}

/// What the configuration grants a plugin; none where it does not name it.
fn granted(plugins: &Plugins, section: &str) -> anyhow::Result<Option<Vec<Capability>>> {
    let Some(names) = plugins.grants.get(section) else {
        return Ok(None);
    };
    let capability = |name: &String| {
        let mut all = Capability::ALL.into_iter();
        all.find(|known| known.as_str() == name)
            .with_context(|| format!("[plugins.grants] {section}: there is no capability `{name}`"))
    };
    let granted: anyhow::Result<Vec<_>> = names.iter().map(capability).collect();
    granted.map(Some)
}
