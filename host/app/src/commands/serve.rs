//! `nextstate serve`: the policy as a service that trains while it is used.

use std::path::PathBuf;

use anyhow::Context as _;

use crate::config::Config;
use crate::host::{Host, Loaded};
use crate::memory::Size;

/// Serve the policy to real traffic, and train it from what happens next.
///
/// Point any OpenAI client at the printed address and ask for `<model>:main`, the adapter that is trained. What the
/// user says next is judged, and becomes the next version. Ctrl-C or SIGTERM finishes open streams, commits and exits 0.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration (TOML); without it the defaults: SmolLM2-135M-Instruct on 127.0.0.1
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where to listen, instead of the configuration's address
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<std::net::SocketAddr>,
    /// The folder of the ledger, instead of the configuration's
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Most memory that this process may hold, 3GiB for example, instead of the configuration's `memory`
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<Size>,
    /// Print the configuration with every default, and exit
    #[arg(long)]
    pub print_config: bool,
}

/// Runs the command.
///
/// # Errors
/// What could not be started, or the part that failed.
pub fn run(args: Args) -> anyhow::Result<()> {
    let mut config = match &args.config {
        Some(path) => Config::read(path)?,
        None => Config::default(),
    };
    if let Some(listen) = args.listen {
        config.gateway.listen = listen;
    }
    if let Some(data) = args.data {
        config.data = data;
    }
    config.memory = args.memory.or(config.memory);
    config.validate()?;
    if args.print_config {
        print!("{}", toml::to_string(&config)?);
        return Ok(());
    }
    announce(&config);
    let loaded = Loaded::for_host(&mut config)?;
    runtime()?.block_on(async move {
        let data = config.data.clone();
        let host = Host::start(config, loaded).await?;
        eprintln!(
            "nextstate serves {} at {}/v1",
            host.trained_model(),
            host.url()
        );
        eprintln!(
            "  data {} · `nextstate status` shows the loops · Ctrl-C stops",
            data.display()
        );
        host.run_until(signal()?).await?;
        eprintln!("stopped: streams finished, everything acknowledged is in the ledger");
        Ok(())
    })
}

/// Says what is being started: a model takes seconds to load, a plugin with a language's runtime inside half a minute to compile.
pub(crate) fn announce(config: &Config) {
    let plugins = &config.plugins;
    eprintln!(
        "starting: model {}, environment {}, judge {}, reward {}",
        config.model.name, plugins.environment, plugins.judge, plugins.reward
    );
}

/// The runtime of a host: two workers carry the gateway and the loops; computing has threads of its own.
///
/// # Errors
/// When the system gives no threads.
pub fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("failed to start the async runtime")
}

fn signal() -> anyhow::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut term = signal(SignalKind::terminate()).context("failed to listen for SIGTERM")?;
    let mut int = signal(SignalKind::interrupt()).context("failed to listen for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    })
}
