//! `nextstate verify`: proves on the model and the machine at hand what the engine claims about itself.
//!
//! `on-policy`: what is asked is in `verify/requests.rs`, how it is computed and compared in `verify/check.rs`. Times nothing;
//! that is `nextstate bench`.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use indicatif::{ProgressBar, ProgressStyle};
use policy::peft;

use crate::config::{Dtype, ModelSection};
use crate::host::Loaded;
use crate::placement::Placement;

mod check;
mod found;
mod report;
mod requests;

/// Prove what the engine claims about itself.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// Log-probs recorded while serving are those that training computes, bit for bit
    OnPolicy(OnPolicy),
}

/// What `--help` says at its end.
const HELP: &str = "\
What is done:
  Replies are sampled by the engine that `serve` runs, several requests at once. Each reply's tokens then go through
  the forward pass that `train` runs, and the two log-probs of every token are compared as 32-bit patterns. Everything
  that must not matter is varied:
    threads             --threads, for serving and for training
    prompt rows         how many rows of prompts a step takes: 5, 32, 128
    requests at once    1, 3, 16
    prefix cache        cold, and warm: the same conversations go on, their beginnings are copied
    weights             the base, adapters of ranks 1, 7 and 16 made for this, and every --adapter, side by side
    temperature         0, 0.7 and 1, some of them with top-p
    instruction set     training again with every narrower one that this processor has, over the replies to cold prompts;
                        with the plain one, a hundred times as slow, over a few of them (on a GPU: not at all)
    the same again      a request's reply under every other setting, with its log-probs

What it says:
  A table of tokens compared and mismatched by each of these. One token that differs in one bit is a mismatch: the
  command then shows the first of them and exits with 1. A token that training sees otherwise than it was served is
  off-policy by rounding alone, which importance ratios would have to repair.

  nextstate verify on-policy smollm2-135m-instruct
  nextstate verify on-policy ./my-model --adapter ./my-adapter --tokens 10000 --json
  nextstate verify on-policy ./my-model --device gpu";

/// The arguments of `nextstate verify on-policy`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = HELP)]
pub struct OnPolicy {
    /// A Hugging Face folder, a .gguf file, or the name of a model in the cache (`nextstate model list`)
    #[arg(value_name = "MODEL")]
    model: String,
    /// A PEFT adapter folder that takes part; may be given several times
    #[arg(long, value_name = "DIR")]
    adapter: Vec<PathBuf>,
    /// Numbers in which the base weights are kept
    #[arg(long, value_enum, default_value_t = Dtype::Bf16)]
    dtype: Dtype,
    /// Where it computes: cpu, gpu, gpu:1, or auto, a GPU where one can be used; on a GPU weights are bf16
    #[arg(long, value_name = "DEVICE", default_value_t)]
    device: Placement,
    /// Numbers of compute threads to try
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [1, 2, 4],
          value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Vec<u16>,
    /// Tokens to sample, at least
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    tokens: u32,
    /// Where prompts, adapters and draws come from
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// One JSON object on standard output instead of the table
    #[arg(long)]
    json: bool,
}

/// Runs a check.
///
/// # Errors
/// When it cannot be run, and when it finds that the claim does not hold.
pub fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::OnPolicy(args) => on_policy(&args),
    }
}

fn on_policy(args: &OnPolicy) -> anyhow::Result<()> {
    let (loaded, found) = find(args)?;
    if args.json {
        let report = report::json(&loaded, args, &found);
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{}", report::page(&loaded, args, &found));
    }
    match found.mismatched {
        0 => Ok(()),
        n => bail!(
            "{n} of {} log-probs differ: what training computes is not what was served",
            found.compared
        ),
    }
}

fn find(args: &OnPolicy) -> anyhow::Result<(Loaded, found::Found)> {
    let threads: Vec<usize> = args.threads.iter().map(|n| usize::from(*n)).collect();
    let mut section = ModelSection {
        name: args.model.clone(),
        dtype: args.dtype,
        threads: threads.first().copied().unwrap_or(1),
        device: args.device,
        ..ModelSection::default()
    };
    let loaded = Loaded::for_engine(&mut section, &check::most())?;
    let config = loaded.model.config();
    let mut weights = requests::made_adapters(config, args.seed)?;
    for folder in &args.adapter {
        let adapter = peft::load(folder, config)
            .with_context(|| format!("load the adapter {}", folder.display()))?;
        weights.push((folder.display().to_string(), Arc::new(adapter)));
    }
    let settings = check::settings(&threads);
    let progress = ProgressBar::new(settings.len() as u64).with_style(
        ProgressStyle::with_template("{bar:30} setting {pos} of {len}, {elapsed}")?,
    );
    let plan = requests::Plan {
        weights,
        tokens: args.tokens as usize,
        settings: settings.len(),
        seed: args.seed,
    };
    let found = check::check(&loaded, &plan, &settings, &progress);
    progress.finish_and_clear();
    Ok((loaded, found?))
}

#[cfg(test)]
mod tests;
