//! `nextstate rollout`: the policy practises on the tasks that its environment hosts, and an exam on tasks that are never trained says
//! what it learned.
//!
//! One run: exam → rounds of groups (play, judge, pay, train) → exam. The run folder is the ledger's: the same command goes on where it
//! was. [`play`] is the run, [`report`] what people read.

pub mod play;
pub mod report;

use std::path::PathBuf;

use anyhow::Context as _;
use rl::{Sampling, Seed};
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::host::Loaded;
use crate::memory::Size;

/// `[rollout]`: how `nextstate rollout` practises.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Section {
    /// Rounds: in each, groups are played, judged and trained before the next begins.
    pub rounds: u32,
    /// Tasks of a round.
    pub groups: u32,
    /// Attempts at each task, compared with each other by rules that see a group.
    pub attempts: u32,
    /// Episodes at once. (The paper's: 128 terminal, 64 GUI and SWE, 32 tool-call.)
    pub concurrency: usize,
    /// Replies after which the host ends an episode that does not end by itself.
    pub max_turns: u32,
    /// Tasks of the exam, from the split that is never trained; 0 leaves the exam out.
    pub exam: u32,
    /// Attempts at each task of the exam.
    pub exam_attempts: u32,
    /// How the policy's tokens are drawn while it practises.
    pub sampling: Sampling,
    /// How they are drawn in the exam; its seed is always the same.
    pub exam_sampling: Sampling,
}

impl Default for Section {
    fn default() -> Self {
        let sampling = Sampling {
            max_tokens: 96,
            ..Sampling::default()
        };
        Self {
            rounds: 20,
            groups: 2,
            attempts: 8,
            concurrency: 16,
            max_turns: 20,
            exam: 24,
            exam_attempts: 1,
            exam_sampling: Sampling {
                temperature: 0.0,
                ..sampling.clone()
            },
            sampling,
        }
    }
}

impl Section {
    /// Checks the ranges.
    ///
    /// # Errors
    /// The first key that is out of range.
    pub fn validate(&self) -> anyhow::Result<()> {
        let positive = [
            ("rounds", self.rounds),
            ("groups", self.groups),
            ("attempts", self.attempts),
            ("max-turns", self.max_turns),
            ("exam-attempts", self.exam_attempts),
        ];
        for (key, value) in positive {
            anyhow::ensure!(
                (1..=100_000).contains(&value),
                "`{key}` is {value}; 1 to 100000 are allowed"
            );
        }
        Ok(())
    }
}

/// Practise on the tasks that the environment hosts, and prove what was learned on tasks that are never trained.
///
/// Plays groups of attempts, lets the reward rule compare them, trains, and publishes each version at once. The exam before and
/// after is played whole, and marked by the environment's oracle. A run that was interrupted goes on: give the same command again.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The recipe (TOML), for example examples/tool-call/run.toml
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Rounds, instead of the recipe's
    #[arg(long)]
    pub rounds: Option<u32>,
    /// The run's seed: which tasks come when, and every token
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// The run folder, instead of the recipe's `data` with the seed's number
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// The base model, instead of the recipe's: a name known to `nextstate model`, or a path
    #[arg(long)]
    pub model: Option<String>,
    /// Most memory that this process may hold, 3GiB for example, instead of the configuration's `memory`
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<Size>,
    /// Write down what crosses between host and environment in every episode, for `nextstate plugin replay`
    #[arg(long, value_name = "DIR")]
    pub record: Option<PathBuf>,
    /// Print the result as JSON, and nothing else on standard output
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
///
/// # Errors
/// What could not be started or played, with its causes; the run folder keeps what was recorded.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let mut config = Config::read(&args.config)?;
    if let Some(rounds) = args.rounds {
        config.rollout.rounds = rounds;
    }
    if let Some(model) = &args.model {
        config.model.name.clone_from(model);
    }
    config.memory = args.memory.or(config.memory);
    config.data = args.data.clone().unwrap_or_else(|| {
        let mut name = config.data.clone().into_os_string();
        name.push(format!("-{}", args.seed));
        PathBuf::from(name)
    });
    config.loops.seed = Seed::new(args.seed);
    // Any free port: a host that serves already is not disturbed.
    config.gateway.listen.set_port(0);
    config
        .validate()
        .with_context(|| format!("failed to use the recipe {}", args.config.display()))?;
    let folder = config.data.clone();
    crate::commands::serve::announce(&config);
    let loaded = Loaded::for_host(&mut config)?;
    let story = crate::commands::serve::runtime()?.block_on(play::play(
        config,
        loaded,
        args.record.clone(),
    ))?;
    report::write(&folder, &story)?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&story)?);
    } else {
        println!("{}", report::table(&story));
        println!("{}", report::conclusion(&story));
        println!("curve and numbers: {}", folder.join("curve.svg").display());
        println!(
            "an episode, turn by turn: nextstate episode last --data {}",
            folder.display()
        );
    }
    Ok(())
}
