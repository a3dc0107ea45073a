//! `nextstate serve-env`: an environment plugin for OpenEnv's clients.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::Context as _;
use rl::Seed;

use super::serve::{Limits, Server};
use crate::{
    commands::serve::runtime,
    config::{Config, Plugins},
    guests::{Guests, load_plugins, plugin_name},
    outside::outside,
    plugins::source,
};

/// Host an environment plugin for OpenEnv's clients.
///
/// Any OpenEnv client plays it: GenericEnvClient(base_url="http://127.0.0.1:8001"). No model runs here; the client brings its own.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: nextstate serve-env tool-call --set difficulty=2")]
pub struct Args {
    /// The environment: a shipped or installed plugin by name, or a folder
    pub plugin: String,
    /// A key of its config, as in a recipe: --set difficulty=2, --set mode='\"slow\"'
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// A capability granted to it, beside those of the shipped plugins
    #[arg(long = "grant", value_name = "CAPABILITY")]
    pub grant: Vec<String>,
    /// A recipe, for what stands behind `shell`, `browser` and `http`
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where to listen; only this machine can be reached from
    #[arg(long, default_value = "127.0.0.1:8001")]
    pub listen: SocketAddr,
    /// Episodes open at once
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    pub episodes: u16,
    /// Seconds after which an episode that nobody plays is given up
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..))]
    pub idle: u32,
}

/// An environment that is loaded, and listened for.
#[derive(Debug)]
pub struct Hosting {
    /// Answers clients.
    pub server: Server,
    /// Kept while it serves: a plugin that changes is exchanged.
    guests: Guests,
    /// Files of machines and pages.
    _folder: tempfile::TempDir,
}

/// Loads the plugin and listens.
///
/// # Errors
/// The plugin cannot be used, or the address cannot be listened on.
pub fn host(args: &Args) -> anyhow::Result<Hosting> {
    let config = match &args.config {
        Some(path) => Config::read(path)?,
        None => Config::default(),
    };
    let name = plugin_name(&args.plugin);
    let mut grants = config.plugins.grants.clone();
    if !args.grant.is_empty() {
        let granted = grants.entry(name.clone()).or_default();
        granted.extend(args.grant.iter().cloned());
    }
    let section = config.plugins.config.get(&name).cloned();
    let mut section = section.unwrap_or_default();
    section.extend(source::section(&args.set)?);
    let plugins = Plugins {
        environment: args.plugin.clone(),
        judge: "none".into(),
        reward: "majority".into(),
        grants,
        cache: config.plugins.cache,
        cache_bytes: config.plugins.cache_bytes,
        config: BTreeMap::from([(name, section)]),
        ..Plugins::default()
    };
    let folder = tempfile::tempdir().context("failed to make a folder for machines and pages")?;
    let offers = outside(&config, folder.path().to_owned());
    let guests = load_plugins(&plugins, Seed::new(1), offers)?;
    let limits = Limits {
        episodes: usize::from(args.episodes),
        idle: Duration::from_secs(u64::from(args.idle)),
        ..Limits::default()
    };
    let server = Server::bind(args.listen, guests.environment.clone(), limits)
        .with_context(|| format!("failed to listen on {}", args.listen))?;
    Ok(Hosting {
        server,
        guests,
        _folder: folder,
    })
}

/// Runs the command until Ctrl-C.
///
/// # Errors
/// As [`host`], and the listener's.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let hosting = host(args)?;
    let handle = hosting.server.handle();
    let card = hosting.guests.environment.card();
    println!(
        "{} {} for OpenEnv's clients: http://{} (stop with Ctrl-C)",
        card.name,
        card.version,
        handle.addr()
    );
    let runtime = runtime()?;
    runtime.spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            handle.stop();
        }
    });
    let served = hosting.server.run().context("failed to go on listening");
    runtime.shutdown_background();
    served
}
