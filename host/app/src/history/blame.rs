//! `blame`: which training samples moved the log-prob of a reply most.
//!
//! By gradient: TracIn over the steps that made the weights ([`trainer::influence`]), a first-order estimate for every sample. By
//! replay: the training run again without each of the top candidates, which is the exact difference, and takes as long as that.

use std::collections::HashSet;
use std::sync::Arc;

use anyhow::Context as _;
use ledger::lineage::{Origin, VersionRecord};
use loops::replay;
use policy::Adapter;
use rl::TokenId;
use trainer::influence::{StepTaken, reply_gradient, sample_gradient};

use super::log::Rows;
use super::moves;
use super::records;
use super::request::BlameMethod;
use super::response::{Blame, Blamed, Progress, Tell};
use super::stage::{Place, Stage, mean};
use super::workbench::{Point, Workbench};

/// Most tokens of a reply that nobody gave.
const REPLY_TOKENS: u32 = 64;

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) prompt: &'a str,
    pub(crate) reply: Option<&'a str>,
    pub(crate) at: &'a str,
    pub(crate) method: BlameMethod,
    pub(crate) top: usize,
}

pub(crate) fn blame(
    bench: &Workbench,
    asked: Asked<'_>,
    progress: &mut Tell<'_>,
) -> anyhow::Result<Blame> {
    let rows = Rows::read(bench)?;
    let record = bench.version(&rows.lineage, asked.at)?;
    let point = Point::from(Some(&record));
    let live = rows.lineage.live(bench.adapter_name());
    let is_head = live.is_some_and(|live| live.version == record.version);
    anyhow::ensure!(
        asked.method == BlameMethod::Gradient || is_head,
        "a replay leaves samples out of the training that led to the head; for {} ask --method gradient",
        point.name()
    );
    let stage = Stage::new(bench)?;
    stage.put(Place::A, bench.adapter(&point)?);
    let prompt = stage.prompt(asked.prompt)?;
    let (reply, text) = match asked.reply {
        Some(text) => (stage.reply(text)?, text.to_owned()),
        None => {
            let reply = stage.greedy(Place::A, &prompt, REPLY_TOKENS)?;
            (reply.tokens, reply.text)
        }
    };
    let logprob = mean(&stage.logprobs(Place::A, &prompt, &reply)?);
    let logprob_base = mean(&stage.logprobs(Place::B, &prompt, &reply)?);
    let mut traced = Traced {
        bench,
        prompt: &prompt,
        reply: &reply,
        found: Vec::new(),
        erased: 0,
    };
    traced.walk(&rows, &record, progress)?;
    let (erased, mut found) = (traced.erased, traced.found);
    let looked_at = found.len();
    found.sort_by(|x, y| y.gradient.abs().total_cmp(&x.gradient.abs()));
    found.truncate(asked.top);
    let ledger = bench.ledger()?;
    let mut samples = Vec::with_capacity(found.len());
    for one in found {
        samples.push(Blamed {
            version: one.version,
            gradient: one.gradient,
            replay: None,
            sample: records::describe(ledger, &one.id)?,
        });
    }
    if asked.method == BlameMethod::Replay {
        for blamed in &mut samples {
            let without = left_out(
                bench,
                &stage,
                (&prompt, &reply),
                &blamed.sample.turn,
                progress,
            )?;
            blamed.replay = Some(logprob - without);
        }
        let by = |x: &Blamed| x.replay.unwrap_or_default().abs();
        samples.sort_by(|x, y| by(y).total_cmp(&by(x)));
    }
    Ok(Blame {
        prompt: asked.prompt.to_owned(),
        reply: text,
        version: point.name(),
        method: asked.method,
        logprob_base,
        logprob,
        looked_at,
        erased,
        samples,
    })
}

/// The reply's mean log-prob under weights that were never trained on a turn.
fn left_out(
    bench: &Workbench,
    stage: &Stage,
    (prompt, reply): (&[TokenId], &[TokenId]),
    turn: &str,
    progress: &mut Tell<'_>,
) -> anyhow::Result<f64> {
    let options = replay::Options {
        without: HashSet::from([turn.into()]),
        find: true,
        gate: bench.config().loops.gate.clone(),
        ..replay::Options::default()
    };
    let replayed = moves::replayed(bench, options, &mut |mut heard| {
        heard.what = format!("without {turn}: {}", heard.what);
        progress(heard)
    })?;
    let adapter = match replayed.adapter {
        Some(bytes) => {
            let alpha = replayed.head.as_ref().map(|head| bench.alpha(head));
            let alpha = alpha.unwrap_or(bench.config().train.alpha);
            let config = bench.loaded()?.model.config();
            Some(Arc::new(Adapter::from_safetensors(&bytes, config, alpha)?))
        }
        None => None,
    };
    stage.put(Place::B, adapter);
    Ok(mean(&stage.logprobs(Place::B, prompt, reply)?))
}

struct Found {
    version: u64,
    id: String,
    gradient: f64,
}

struct Traced<'a> {
    bench: &'a Workbench,
    prompt: &'a [TokenId],
    reply: &'a [TokenId],
    found: Vec<Found>,
    erased: usize,
}

impl Traced<'_> {
    /// Every step that is in these weights: what a revert left behind is not.
    fn walk(
        &mut self,
        rows: &Rows,
        end: &VersionRecord,
        progress: &mut Tell<'_>,
    ) -> anyhow::Result<()> {
        let total = end.steps();
        let mut done = 0;
        let mut at = Some(end);
        while let Some(version) = at {
            let number = match version.origin {
                Origin::Reverted { to: of } | Origin::Promoted { from: of } => Some(of),
                _ => None,
            };
            if let Some(number) = number {
                at = rows.lineage.get(&version.adapter, number);
                continue;
            }
            if !version.origin.is_step() {
                return Ok(());
            }
            progress(Progress {
                what: format!("gradients of v{}", version.version),
                done,
                total,
            })?;
            done += 1;
            let parent = rows.parent(version);
            self.step(version, parent)?;
            at = parent;
        }
        Ok(())
    }

    fn step(
        &mut self,
        version: &VersionRecord,
        parent: Option<&VersionRecord>,
    ) -> anyhow::Result<()> {
        let bench = self.bench;
        let ledger = bench.ledger()?;
        let gone = !bench.is_whole(version)?
            || match parent {
                Some(parent) => !bench.is_whole(parent)?,
                None => false,
            };
        let Some(digest) = version.optimizer_blob.filter(|_| !gone) else {
            self.erased += version.samples.len();
            return Ok(());
        };
        let loaded = bench.loaded()?;
        let (model, space) = (&loaded.model, &loaded.workspace);
        let what = || format!("failed to trace the step of v{}", version.version);
        let config = trainer::Config::from_json(&version.settings["learner"]).with_context(what)?;
        let adapter = match bench.adapter(&Point::from(parent))? {
            Some(adapter) => adapter,
            None => {
                let seed = version.seeds.get("run").copied();
                let seed = seed.unwrap_or(bench.config().loops.seed.get());
                let fresh = Adapter::init(model.config(), config.rank, config.alpha, seed);
                Arc::new(fresh.with_context(what)?)
            }
        };
        let optimizer = ledger.get_blob(&digest)?;
        let norm = version.metrics.get("grad_norm").copied().unwrap_or(0.0);
        let taken = StepTaken::adamw(&config, &optimizer, adapter.params().len(), norm)
            .with_context(what)?;
        let toward = reply_gradient(model, space, &adapter, self.prompt, self.reply, 1.0)
            .with_context(what)?;
        let mut samples = Vec::new();
        for id in &version.samples {
            match records::trained(ledger, id)? {
                Some(sample) => samples.push(sample),
                None => self.erased += 1,
            }
        }
        // Every sample's share of its batch, those whose text is gone included: the step counted them.
        let weighted = |sample: &rl::Sample| sample.weight.iter().any(|w| *w > 0.0);
        let missing = version.samples.len() - samples.len();
        let counted = samples.iter().filter(|s| weighted(s)).count() + missing;
        for sample in samples.iter().filter(|s| weighted(s)) {
            let gradient = sample_gradient(model, space, &adapter, &config, sample, counted);
            let gradient = gradient.with_context(what)?;
            self.found.push(Found {
                version: version.version,
                id: sample.id.to_string(),
                gradient: taken.influence(&toward.values, &gradient)?,
            });
        }
        Ok(())
    }
}
