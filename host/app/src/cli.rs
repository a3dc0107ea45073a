//! The command line: one enum, each command in its own file under [`crate::commands`].

use clap::{Parser, Subcommand};
use ledger::lineage::RefKind;

use crate::{bench, commands, demo, interop, models, plugins, rollout};

/// nextstate trains an agent's language model while it is being used, from what happens next:
/// the user's reply, a tool's output, a page that changed.
#[derive(Debug, Parser)]
#[command(
    name = "nextstate",
    version,
    arg_required_else_help = true,
    after_help = "Start with `nextstate demo`: a real model learns to suit a user by talking with them, on this machine.\n\
                  Then `nextstate serve`, and point any OpenAI client at http://127.0.0.1:8321/v1."
)]
pub struct Cli {
    /// Say more on standard error: -v for operators, -vv for developers.
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub verbose: u8,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch a real model grow to suit a user by talking with them
    Demo(demo::Args),
    /// Serve the policy to real traffic, and train it from what happens next
    Serve(commands::serve::Args),
    /// Practise on the tasks that an environment hosts, with an exam before and after
    Rollout(rollout::Args),
    /// Host an environment plugin for OpenEnv's clients
    ServeEnv(interop::command::Args),
    /// Show a running host: loops, queues, versions, and why a turn was not trainable
    Status(commands::status::Args),
    /// List the versions of the weights with their lineage and metrics
    Log(commands::log::Args),
    /// Read an episode or a conversation turn by turn, with what was made of each reply
    Episode(commands::episode::Args),
    /// Show a version: its samples, where they came from, votes, hints, advantages
    Show(commands::history::Show),
    /// Compare two versions: weights, metrics, and replies side by side
    Diff(commands::history::Diff),
    /// Go back: a new version with the weights of an old one, live at once
    Revert(commands::history::Goto),
    /// Let a version answer that does not: a held, imported or branched one
    Promote(commands::history::Goto),
    /// Name versions; a branch may be moved
    Branch(commands::history::Name),
    /// Name versions; a tag stays where it is
    Tag(commands::history::Name),
    /// Train again from the ledger and compare bit for bit
    Replay(commands::history::Replay),
    /// Find the samples that moved the log-prob of a reply most
    Blame(commands::history::Blame),
    /// Find the version and the sample that broke a behaviour
    Bisect(commands::history::Bisect),
    /// Erase what somebody said and everything that was learned from it
    Forget(commands::history::Forget),
    /// Write a version's weights to files
    Export(commands::transfer::ExportArgs),
    /// Take an adapter in as a version
    Import(commands::transfer::ImportArgs),
    /// Check or repair the ledger
    Ledger(commands::history::Ledger),
    /// Judge a reply yourself: 👍, 👎 or a correction; it outranks the judge model
    Feedback(commands::feedback::Args),
    /// Get, list and inspect models
    Model(models::ModelCommand),
    /// Make, build, check, test and install plugins: environments, judges, reward rules
    Plugin(plugins::PluginCommand),
    /// Log-probs of given tokens or conversations, one JSON object a line
    Score(commands::score::Args),
    /// Replies to prompts or conversations, one JSON object a line
    Generate(commands::generate::Args),
    /// Optimizer steps on samples; writes a PEFT adapter
    Train(commands::train::Args),
    /// Measure the judge on labelled reactions
    JudgeEval(commands::judge_eval::Args),
    /// Prove on this machine what the engine claims about itself
    #[command(subcommand)]
    Verify(commands::verify::Command),
    /// List what can compute: the processor, and each GPU, or why there is none
    Devices(commands::devices::Args),
    /// Measure this engine against llama.cpp and PyTorch on this machine
    Bench(bench::Args),
    /// Be a worker process of a host, which starts it and speaks to it
    #[command(hide = true)]
    Worker,
}

/// Runs one command.
///
/// # Errors
/// What the command ran into, with its causes.
pub fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Demo(args) => demo::run(args),
        Command::Serve(args) => commands::serve::run(args),
        Command::Rollout(args) => rollout::run(&args),
        Command::ServeEnv(args) => interop::command::run(&args),
        Command::Status(args) => commands::status::run(args),
        Command::Log(args) => commands::log::run(args),
        Command::Episode(args) => commands::episode::run(args),
        Command::Show(args) => commands::history::show(args),
        Command::Diff(args) => commands::history::diff(args),
        Command::Revert(args) => commands::history::revert(args),
        Command::Promote(args) => commands::history::promote(args),
        Command::Branch(args) => commands::history::name(args, RefKind::Branch),
        Command::Tag(args) => commands::history::name(args, RefKind::Tag),
        Command::Replay(args) => commands::history::replay(args),
        Command::Blame(args) => commands::history::blame(args),
        Command::Bisect(args) => commands::history::bisect(args),
        Command::Forget(args) => commands::history::forget(args),
        Command::Export(args) => commands::transfer::export(args),
        Command::Import(args) => commands::transfer::import(args),
        Command::Ledger(args) => commands::history::ledger(args),
        Command::Feedback(args) => commands::feedback::run(args),
        Command::Model(args) => models::run(args),
        Command::Plugin(args) => plugins::run(args),
        Command::Score(args) => commands::score::run(args),
        Command::Generate(args) => commands::generate::run(args),
        Command::Train(args) => commands::train::run(args),
        Command::JudgeEval(args) => commands::judge_eval::run(args),
        Command::Verify(command) => commands::verify::run(command),
        Command::Devices(args) => commands::devices::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Worker => Ok(worker::run()?),
    }
}
