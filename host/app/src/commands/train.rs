//! `nextstate train`: optimizer steps on samples from a file, without a server.
//!
//! Formats: the help text of [`Args`] is the contract. The train loop of `serve` feeds the same learner; where samples
//! come from is `rl::algorithm`'s business.

use std::fs::{self, File};
use std::io::{BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use policy::{Slot, peft};
use rl::{Batch, Learner as _, PolicyVersion, Proposal, Sample, Seed, StepMetrics};
use serde::{Deserialize, Serialize};
use trainer::LoraLearner;

use super::lines;
use super::opened::ModelArgs;

/// The formats of input and output: a contract. Shown by `--help`.
pub const FORMAT: &str = r#"--samples: one JSON object a line, a sample as the trainer sees it; the four lists have one entry a response token:

  {"id":"s1","turn":"t1","adapter":"main","version":0,"prompt":[1,2],"response":[3,4],
   "behaviour":[-1.5,-0.2],"advantage":[1.0,1.0],"weight":[1.0,1.0],"temperature":1.0}

`behaviour` are the log-probs recorded when the tokens were sampled, at `temperature`, by `version`. A token of weight
0 is left out of the loss and of its denominator.

--recipe: a TOML file; every key may be left out, unknown ones are refused:

  steps = 1            # optimizer steps; default: one walk over the samples
  batch-size = 16      # samples a step, in the file's order, from the start again at its end
  seed = 0             # of the adapter's first weights
  [train]              # lr, betas, eps, weight-decay, grad-clip, passes, policy-loss, clip-low, clip-high, tis-cap,
                       # kl-beta, max-ratio, rank, alpha

--out: a folder that does not exist or is empty. Written at the end, all at once:

  adapter_config.json, adapter_model.safetensors    the adapter, as PEFT reads it
  optimizer.safetensors                             AdamW's moments
  metrics.jsonl                                     one object a step: loss, pg_loss, kl, grad_norm, ratio_mean, …
  train.json                                        the version reached, and every setting with its value

A bad line of the samples ends the command with an error that names it, and a step whose numbers are not finite with an
error that says which; nothing is written then."#;

/// Optimizer steps on samples; writes a PEFT adapter.
///
/// The formats are in [`FORMAT`].
#[derive(Clone, Debug, clap::Args)]
#[command(about, long_about = "Optimizer steps on samples; writes a PEFT adapter.", after_long_help = FORMAT)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Samples, one JSON object a line
    #[arg(long, value_name = "FILE")]
    samples: PathBuf,
    /// Settings, TOML
    #[arg(long, value_name = "FILE")]
    recipe: PathBuf,
    /// Where the adapter is written
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Go on from the adapter, optimizer and version in the --out of an earlier call
    #[arg(long, value_name = "DIR")]
    resume: Option<PathBuf>,
}

/// What a recipe says.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct Recipe {
    /// Optimizer steps; none walks over the samples once.
    steps: Option<usize>,
    /// Samples a step.
    batch_size: usize,
    /// Of the adapter's first weights.
    seed: u64,
    train: trainer::Config,
}

/// Samples a step: small enough to answer a user within minutes, large enough to average out single verdicts.
const BATCH_SIZE: usize = 16;

impl Default for Recipe {
    fn default() -> Self {
        Self {
            steps: None,
            batch_size: BATCH_SIZE,
            seed: 0,
            train: trainer::Config::default(),
        }
    }
}

/// `train.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    version: PolicyVersion,
    model: String,
    adapter_digest: String,
    recipe: Recipe,
}

const OPTIMIZER: &str = "optimizer.safetensors";
const METRICS: &str = "metrics.jsonl";
const RECORD: &str = "train.json";

/// Trains, and writes the folder.
///
/// # Errors
/// When an argument, the recipe or a sample is refused, a step is refused, or the folder cannot be written.
pub fn run(args: Args) -> anyhow::Result<()> {
    check_out(&args.out)?;
    let recipe = read_recipe(&args.recipe)?;
    let samples = read_samples(&args.samples)?;
    let mut learner = build_learner(&args, &recipe)?;
    let (proposal, metrics) = train(&mut learner, &recipe, &samples)?;
    let record = Record {
        version: learner.version(),
        model: args.model.model.clone(),
        adapter_digest: proposal.adapter_digest.clone(),
        recipe: Recipe {
            train: recipe.train.resolved(),
            ..recipe
        },
    };
    write_out(&args.out, &proposal, &metrics, &record)
}

fn check_out(out: &Path) -> anyhow::Result<()> {
    match fs::read_dir(out) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                bail!("--out {} is not empty", out.display());
            }
            Ok(())
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("read --out {}", out.display())),
    }
}

fn read_recipe(path: &Path) -> anyhow::Result<Recipe> {
    let text =
        fs::read_to_string(path).with_context(|| format!("read the recipe {}", path.display()))?;
    let recipe: Recipe =
        toml::from_str(&text).with_context(|| format!("read the recipe {}", path.display()))?;
    recipe
        .train
        .validate()
        .with_context(|| format!("recipe {}", path.display()))?;
    if recipe.batch_size == 0 || recipe.steps == Some(0) {
        bail!(
            "recipe {}: `batch-size` and `steps` must be at least 1",
            path.display()
        );
    }
    Ok(recipe)
}

fn read_samples(path: &Path) -> anyhow::Result<Vec<Sample>> {
    let file = File::open(path).with_context(|| format!("open the samples {}", path.display()))?;
    let what = format!("samples {}", path.display());
    let mut samples = Vec::new();
    for line in lines::read::<Sample>(BufReader::new(file), &what) {
        let (number, sample) = line?;
        sample
            .validate()
            .with_context(|| format!("{what}, line {number}"))?;
        samples.push(sample);
    }
    if samples.is_empty() {
        bail!("{what} holds no sample");
    }
    Ok(samples)
}

fn build_learner(args: &Args, recipe: &Recipe) -> anyhow::Result<LoraLearner> {
    let (opened, _) = args.model.open(None)?;
    let (settings, seed) = (recipe.train.clone(), Seed::new(recipe.seed));
    let mut learner = LoraLearner::new(opened.model, Arc::new(Slot::default()), settings, seed)?;
    if let Some(folder) = &args.resume {
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read(&path).with_context(|| format!("read {}", path.display()))
        };
        let record: Record = serde_json::from_slice(&read(RECORD)?)
            .with_context(|| format!("read {}", folder.join(RECORD).display()))?;
        learner
            .restore(record.version, &read(peft::WEIGHTS)?, &read(OPTIMIZER)?)
            .with_context(|| format!("resume from {}", folder.display()))?;
    }
    Ok(learner)
}

/// The steps; progress on standard error.
fn train(
    learner: &mut LoraLearner,
    recipe: &Recipe,
    samples: &[Sample],
) -> anyhow::Result<(Proposal, Vec<StepMetrics>)> {
    let batch_size = recipe.batch_size.min(samples.len());
    let steps = recipe
        .steps
        .unwrap_or_else(|| samples.len().div_ceil(batch_size));
    let mut metrics = Vec::with_capacity(steps);
    let mut last = None;
    for step in 0..steps {
        let batch = batch(
            samples,
            step * batch_size,
            batch_size,
            recipe.steps.is_some(),
        );
        let proposal = learner
            .step(&batch)
            .with_context(|| format!("step {}", step + 1))?;
        let m = proposal.metrics;
        eprintln!(
            "step {}/{steps}: loss {:.6}, kl {:.6}, gradient {:.4}, ratio {:.4} (at most {:.4}), {} tokens, {:.2} s",
            step + 1,
            m.loss,
            m.kl,
            m.grad_norm,
            m.ratio_mean,
            m.ratio_max,
            m.tokens,
            m.seconds,
        );
        learner.deploy(proposal.parent.next())?;
        metrics.push(m);
        last = Some(proposal);
    }
    let last = last.context("no step was made")?;
    Ok((last, metrics))
}

/// `size` samples from `start` on; past the file's end from its start again, or cut off there.
fn batch(samples: &[Sample], start: usize, size: usize, again: bool) -> Batch {
    let size = if again {
        size
    } else {
        size.min(samples.len() - start)
    };
    let chosen = samples
        .iter()
        .cycle()
        .skip(start % samples.len())
        .take(size);
    Batch {
        samples: chosen.cloned().collect(),
    }
}

/// Writes a folder beside `out` and gives it its name when it is whole and on disk.
fn write_out(
    out: &Path,
    proposal: &Proposal,
    metrics: &[StepMetrics],
    record: &Record,
) -> anyhow::Result<()> {
    let parent = match out.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(".nextstate-train-");
    // A result for others to read, not a secret; the process's umask still applies.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
    let folder = builder
        .tempdir_in(parent)
        .with_context(|| format!("create a folder in {}", parent.display()))?;
    let mut jsonl = String::new();
    for step in metrics {
        jsonl.push_str(&serde_json::to_string(step)?);
        jsonl.push('\n');
    }
    let settings = &record.recipe.train;
    let config = peft::config_json(&record.model, settings.rank, settings.alpha);
    let record = serde_json::to_string_pretty(record)?;
    for (name, bytes) in [
        (peft::CONFIG, config.as_bytes()),
        (peft::WEIGHTS, proposal.adapter.as_slice()),
        (OPTIMIZER, proposal.optimizer.as_slice()),
        (METRICS, jsonl.as_bytes()),
        (RECORD, record.as_bytes()),
    ] {
        let path = folder.path().join(name);
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&path)?;
            file.write_all(bytes)?;
            file.sync_all()
        };
        write().with_context(|| format!("write {}", path.display()))?;
    }
    if out.is_dir() {
        fs::remove_dir(out).with_context(|| format!("replace {}", out.display()))?;
    }
    let made = folder.path();
    fs::rename(made, out)
        .with_context(|| format!("rename {} to {}", made.display(), out.display()))?;
    let _its_old_name = folder.keep();
    Ok(())
}

#[cfg(test)]
mod tests;
