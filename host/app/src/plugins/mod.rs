//! `nextstate plugin`: everything that is done with a plugin before a host runs it.
//!
//! A plugin is named as the configuration names it: a shipped or installed one by its name, any other by its folder, which holds
//! `plugin.toml` and, once it is built, `plugin.wasm`. Runs no model and no host. Read next: [`source`] for where a plugin is found,
//! [`drive`] for what `check` and `test` do with it, [`package`] and [`store`] for what is installed, [`oci`] for registries.

mod build;
mod check;
pub mod crossings;
pub mod drive;
mod inspect;
mod install;
mod language;
mod new;
pub mod oci;
pub mod package;
mod play;
mod replay;
pub mod source;
pub mod store;
mod test;
mod watch;
mod wit;

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

pub use language::Language;

/// Makes, builds, checks, tests and installs plugins: environments, judges and reward rules.
#[derive(Debug, Clone, Args)]
pub struct PluginCommand {
    /// What to do.
    #[command(subcommand)]
    pub action: PluginAction,
}

/// What to do with plugins.
#[derive(Debug, Clone, Subcommand)]
pub enum PluginAction {
    /// Make a project that builds and passes its own test
    New(NewArgs),
    /// Compile a plugin to plugin.wasm
    Build(Folder),
    /// Check imports, exports, manifest and limits; call it twice and compare
    Check(Which),
    /// Run its unit tests, then call it with made-up traffic and show what it answers; no model is needed
    Test(TestArgs),
    /// Build and check it again whenever its sources change; a host that uses the folder takes the new build at its next turn
    Watch(Folder),
    /// Play an episode of an environment by hand: you are the policy, and no model is needed
    Play(play::PlayArgs),
    /// Play recorded episodes to another build, and say where it answers otherwise
    Replay(replay::ReplayArgs),
    /// Show what a plugin is and asks for
    Inspect(InspectArgs),
    /// Show the contract between host and plugins: what a plugin exports, and what it can be granted
    Wit(wit::WitArgs),
    /// Put a built plugin into one signed file
    Pack(install::PackArgs),
    /// Put a package into an OCI registry, for others to install from there
    Push(oci::PushArgs),
    /// Fetch a package from an OCI registry into a file
    Pull(oci::PullArgs),
    /// Install a package whose author is trusted; shows what it asks for, and asks
    Install(install::InstallArgs),
    /// Use another installed version: pin one, or roll back
    Use {
        /// name@version
        plugin: String,
    },
    /// Remove an installed plugin, or one version of it
    Remove {
        /// name, or name@version
        plugin: String,
    },
    /// Trust an author's key, or no more; without arguments, list who is trusted
    Trust(install::TrustArgs),
    /// Show the public key that `pack` signs with here
    Key,
    /// List the plugins that are shipped and installed
    List {
        /// Machine-readable
        #[arg(long)]
        json: bool,
    },
}

/// What a plugin is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// A modality: reads live traffic, hosts episodes of its own tasks
    Environment,
    /// Prompts for the judge model, and how to read its answers
    Judge,
    /// Votes and outcomes in, rewards and advantages out
    Reward,
}

/// `nextstate plugin new`
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Example: nextstate plugin new my-reward --kind reward --lang python\n\
                        Then:    nextstate plugin build my-reward && nextstate plugin test my-reward"
)]
pub struct NewArgs {
    /// The folder to make; its last part is the plugin's name: lower-case words joined by `-`
    pub folder: PathBuf,
    /// What the plugin is for
    #[arg(long, value_enum)]
    pub kind: Kind,
    /// What it is written in
    #[arg(long, value_enum, default_value_t = Language::Rust)]
    pub lang: Language,
}

/// A plugin's folder.
#[derive(Debug, Clone, Args)]
pub struct Folder {
    /// The plugin's folder
    #[arg(default_value = ".")]
    pub folder: PathBuf,
}

/// A plugin and its config.
#[derive(Debug, Clone, Args)]
pub struct Which {
    /// A folder, or the name of a shipped plugin
    #[arg(default_value = ".")]
    pub plugin: String,
    /// A key of its config, as in a recipe: --set rl-weight=2.0, --set mode='\"slow\"'
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// `nextstate plugin test`
#[derive(Debug, Clone, Args)]
pub struct TestArgs {
    /// The plugin.
    #[command(flatten)]
    pub which: Which,
    /// Leave out the project's own tests (`cargo test`, `python -m unittest`, `node --test`), which run outside the sandbox
    #[arg(long)]
    pub no_unit: bool,
    /// Machine-readable: one call a line
    #[arg(long)]
    pub json: bool,
}

/// `nextstate plugin inspect`
#[derive(Debug, Clone, Args)]
pub struct InspectArgs {
    /// The plugin.
    #[command(flatten)]
    pub which: Which,
    /// Machine-readable
    #[arg(long)]
    pub json: bool,
}

/// Runs `nextstate plugin`.
///
/// # Errors
/// What went wrong, with its causes.
pub fn run(command: PluginCommand) -> anyhow::Result<()> {
    match command.action {
        PluginAction::New(args) => new::run(&args),
        PluginAction::Build(args) => build::run(&args),
        PluginAction::Check(args) => check::run(&args),
        PluginAction::Test(args) => test::run(&args),
        PluginAction::Watch(args) => watch::run(&args),
        PluginAction::Play(args) => play::run(&args),
        PluginAction::Replay(args) => replay::run(&args),
        PluginAction::Inspect(args) => inspect::run(&args),
        PluginAction::Wit(args) => wit::run(&args),
        PluginAction::Pack(args) => install::pack(&args),
        PluginAction::Push(args) => oci::push(&args),
        PluginAction::Pull(args) => oci::pull(&args),
        PluginAction::Install(args) => install::install(&args),
        PluginAction::Use { plugin } => install::use_version(&plugin),
        PluginAction::Remove { plugin } => install::remove(&plugin),
        PluginAction::Trust(args) => install::trust(&args),
        PluginAction::Key => install::key(),
        PluginAction::List { json } => inspect::list(json),
    }
}
