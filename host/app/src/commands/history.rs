//! The commands on a history: parsed into a [`Request`], asked and printed by a [`Place`].
//!
//! Nothing is decided here; see [`crate::history`].

use std::io::IsTerminal as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Subcommand;
use ledger::lineage::RefKind;

use super::place::Place;
use crate::history::{
    Behaviour, BlameMethod, CANARIES, Probe, Request, Response, Selector, Test, parse_probes,
    render,
};

/// The prompts that replies are compared on.
#[derive(Debug, Clone, clap::Args)]
pub struct Probes {
    /// Prompts to compare replies on, one a line; a few everyday ones by default
    #[arg(long, value_name = "FILE")]
    probes: Option<PathBuf>,
    /// Most tokens of a reply
    #[arg(long, value_name = "N", default_value_t = 48, value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: u32,
}

impl Probes {
    fn behaviour(&self) -> anyhow::Result<Behaviour> {
        let prompts = match &self.probes {
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("failed to read the probes {}", path.display()))?;
                parse_probes(&text)
            }
            None => CANARIES.map(str::to_owned).to_vec(),
        };
        anyhow::ensure!(!prompts.is_empty(), "the probes hold no prompt");
        Ok(Behaviour {
            prompts,
            max_tokens: self.max_tokens,
        })
    }
}

/// Shows one version: its samples, whom and what they came from, votes, hints, advantages, metrics.
#[derive(Debug, clap::Args)]
pub struct Show {
    /// The version: 7, v7, head, head~2, base, a name, or the first digits of a hash
    version: String,
    /// Also its replies beside its parent's
    #[arg(long)]
    behaviour: bool,
    #[command(flatten)]
    probes: Probes,
    #[command(flatten)]
    place: Place,
}

/// Runs `nextstate show`.
///
/// # Errors
/// As [`crate::history::run`].
pub fn show(args: Show) -> anyhow::Result<()> {
    let behaviour = args
        .behaviour
        .then(|| args.probes.behaviour())
        .transpose()?;
    args.place.print(Request::Show {
        version: args.version,
        behaviour,
    })
}

/// Compares two versions: the update of each layer, metrics, and greedy replies side by side with the exact KL.
#[derive(Debug, clap::Args)]
pub struct Diff {
    /// The one
    a: String,
    /// The other
    #[arg(default_value = "head")]
    b: String,
    /// Weights and metrics only: no replies
    #[arg(long)]
    weights_only: bool,
    #[command(flatten)]
    probes: Probes,
    #[command(flatten)]
    place: Place,
}

/// Runs `nextstate diff`.
///
/// # Errors
/// As [`crate::history::run`].
pub fn diff(args: Diff) -> anyhow::Result<()> {
    let behaviour = (!args.weights_only)
        .then(|| args.probes.behaviour())
        .transpose()?;
    args.place.print(Request::Diff {
        a: args.a,
        b: args.b,
        behaviour,
    })
}

/// A version to go to.
#[derive(Debug, clap::Args)]
pub struct Goto {
    /// The version: 7, v7, head~2, base, a name, or the first digits of a hash
    version: String,
    #[command(flatten)]
    place: Place,
}

/// Runs `nextstate revert`.
///
/// # Errors
/// As [`crate::history::run`].
pub fn revert(args: Goto) -> anyhow::Result<()> {
    let version = args.version;
    args.place.print(Request::Revert { version })
}

/// Runs `nextstate promote`.
///
/// # Errors
/// As [`crate::history::run`].
pub fn promote(args: Goto) -> anyhow::Result<()> {
    let version = args.version;
    args.place.print(Request::Promote { version })
}

/// A name for a version.
#[derive(Debug, clap::Args)]
pub struct Name {
    /// The name; all names are listed without one
    name: Option<String>,
    /// The version that it shall name
    #[arg(default_value = "head")]
    version: String,
    /// Remove the name; the version stays
    #[arg(long, requires = "name")]
    delete: bool,
    #[command(flatten)]
    place: Place,
}

/// Runs `nextstate branch` and `nextstate tag`.
///
/// # Errors
/// As [`crate::history::run`].
pub fn name(args: Name, kind: RefKind) -> anyhow::Result<()> {
    args.place.print(match (args.name, args.delete) {
        (None, _) => Request::Names { kind },
        (Some(name), true) => Request::Unname { kind, name },
        (Some(name), false) => Request::Name {
            kind,
            name,
            version: args.version,
        },
    })
}

/// Trains again from the ledger, every step, and compares with what it holds.
#[derive(Debug, clap::Args)]
pub struct Replay {
    /// Up to this version; to the end without it
    #[arg(long, value_name = "VERSION")]
    to: Option<String>,
    /// Fail when any step gives another byte than the ledger holds
    #[arg(long)]
    verify: bool,
    #[command(flatten)]
    place: Place,
}

/// Runs `nextstate replay`.
///
/// # Errors
/// As [`crate::history::run`]; with `--verify`, a step that gives other bytes.
pub fn replay(args: Replay) -> anyhow::Result<()> {
    let response = args.place.ask(Request::Replay { to: args.to })?;
    args.place.show(&response)?;
    let exact = matches!(&response, Response::Replay(replay) if replay.exact);
    anyhow::ensure!(
        exact || !args.verify,
        "the replay does not give what the ledger holds"
    );
    Ok(())
}

/// Finds the training samples that moved the log-prob of a reply most.
#[derive(Debug, clap::Args)]
pub struct Blame {
    /// What the user says
    prompt: String,
    /// The reply; what the version answers by itself, without one
    #[arg(long, value_name = "TEXT")]
    reply: Option<String>,
    /// The version
    #[arg(long, value_name = "VERSION", default_value = "head")]
    at: String,
    /// gradient: a first-order estimate for all samples; replay: then the exact difference for the top ones
    #[arg(long, value_enum, default_value_t = BlameMethod::Gradient)]
    method: BlameMethod,
    /// So many samples
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    top: u16,
    #[command(flatten)]
    place: Place,
}

/// Runs `nextstate blame`.
///
/// # Errors
/// As [`crate::history::run`].
pub fn blame(args: Blame) -> anyhow::Result<()> {
    args.place.print(Request::Blame {
        prompt: args.prompt,
        reply: args.reply,
        at: args.at,
        method: args.method,
        top: args.top.into(),
    })
}

/// Finds the version, then the sample in its batch, that broke a behaviour.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("test").required(true).args(["expect", "forbid", "min_logprob"]))]
pub struct Bisect {
    /// The probe: what the user says
    #[arg(long, visible_alias = "test", value_name = "TEXT")]
    prompt: String,
    /// The greedy reply must contain this
    #[arg(long, value_name = "TEXT")]
    expect: Option<String>,
    /// The greedy reply must not contain this
    #[arg(long, value_name = "TEXT")]
    forbid: Option<String>,
    /// The log-prob of --reply, summed over its tokens, must be at least this
    #[arg(
        long,
        value_name = "X",
        requires = "reply",
        allow_negative_numbers = true
    )]
    min_logprob: Option<f64>,
    /// The reply of --min-logprob
    #[arg(long, value_name = "TEXT", requires = "min_logprob")]
    reply: Option<String>,
    /// A version that passes
    #[arg(long, value_name = "VERSION", default_value = "base")]
    good: String,
    /// A later version that fails
    #[arg(long, value_name = "VERSION", default_value = "head")]
    bad: String,
    /// Most tokens of a greedy reply
    #[arg(long, value_name = "N", default_value_t = 48, value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: u32,
    #[command(flatten)]
    place: Place,
}

/// Runs `nextstate bisect`.
///
/// # Errors
/// As [`crate::history::run`].
pub fn bisect(args: Bisect) -> anyhow::Result<()> {
    let test = match (args.expect, args.forbid, args.min_logprob) {
        (Some(text), ..) => Test::Expect(text),
        (_, Some(text), _) => Test::Forbid(text),
        (.., min_logprob) => Test::Likely {
            reply: args.reply.unwrap_or_default(),
            min_logprob: min_logprob.unwrap_or_default(),
        },
    };
    args.place.print(Request::Bisect {
        probe: Probe {
            prompt: args.prompt,
            test,
            max_tokens: args.max_tokens,
        },
        good: args.good,
        bad: args.bad,
    })
}

/// Erases what somebody said, and everything that was learned from it.
///
/// The text's keys are destroyed, every version that learned from it is trained again without it, and a signed manifest is
/// written. First it is said what that takes. It can be interrupted: the host goes on by itself; on a folder, ask again.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("who").required(true).multiple(true).args(["user", "session", "sample", "tenant"]))]
pub struct Forget {
    /// Everything that this user said: the `user` of their requests, or the name of their API key
    #[arg(long, value_name = "USER", conflicts_with_all = ["session", "sample"])]
    user: Option<String>,
    /// This conversation
    #[arg(long, value_name = "SESSION", conflicts_with = "sample")]
    session: Option<String>,
    /// The turn of this sample, and what quotes it
    #[arg(long, value_name = "SAMPLE", conflicts_with = "tenant")]
    sample: Option<String>,
    /// Of this tenant only; alone, everything of this tenant
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// Only say what it would take
    #[arg(long)]
    plan: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    place: Place,
}

/// Runs `nextstate forget`.
///
/// # Errors
/// As [`crate::history::run`]; nobody said yes.
pub fn forget(args: Forget) -> anyhow::Result<()> {
    let selector = match (args.user, args.session, args.sample, args.tenant) {
        (Some(user), _, _, tenant) => Selector::User { user, tenant },
        (_, Some(session), _, tenant) => Selector::Session { session, tenant },
        (_, _, Some(sample), _) => Selector::Sample(sample),
        (_, _, _, tenant) => Selector::Tenant(tenant.unwrap_or_default()),
    };
    if !args.yes || args.plan {
        let plan = args.place.ask(Request::Forget {
            selector: selector.clone(),
            plan: true,
        })?;
        if args.plan {
            return args.place.show(&plan);
        }
        eprint!("{}", render::text(&plan));
        anyhow::ensure!(
            std::io::stdin().is_terminal() && !args.place.json,
            "this cannot be undone; --yes says that it is meant"
        );
        eprint!("This cannot be undone. Forget it? [y/N] ");
        let mut answer = String::new();
        std::io::stdin()
            .read_line(&mut answer)
            .context("failed to read the answer")?;
        anyhow::ensure!(
            matches!(answer.trim(), "y" | "Y" | "yes"),
            "nothing was forgotten"
        );
    }
    args.place.print(Request::Forget {
        selector,
        plan: false,
    })
}

/// Checks or repairs a ledger.
#[derive(Debug, clap::Args)]
pub struct Ledger {
    /// What to do.
    #[command(subcommand)]
    action: LedgerAction,
}

/// What to do with a ledger.
#[derive(Debug, Subcommand)]
enum LedgerAction {
    /// Check every byte and count every invariant; fails when anything is not as it was written
    Verify {
        /// Also train everything again and compare bit for bit
        #[arg(long)]
        replay: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Copy what is sound into a new folder, with a report of what was lost
    Repair {
        /// The new data folder
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
        #[command(flatten)]
        place: Place,
    },
}

/// Runs `nextstate ledger`.
///
/// # Errors
/// As [`crate::history::run`]; the ledger is not sound.
pub fn ledger(args: Ledger) -> anyhow::Result<()> {
    match args.action {
        LedgerAction::Verify { replay, place } => {
            let response = place.ask(Request::Verify { replay })?;
            place.show(&response)?;
            let sound = matches!(&response, Response::Verify(found) if found.sound);
            anyhow::ensure!(sound, "the ledger is not sound");
            Ok(())
        }
        LedgerAction::Repair { to, place } => place.print(Request::Repair { to }),
    }
}
