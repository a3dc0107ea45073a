//! `bisect`: the first version that lost a behaviour, by halving; then the sample in its batch that did it, by leaving each out.
//!
//! Leaving out is exact: the step is taken again from the same weights with the same settings, without one sample. What later
//! steps would have become is not asked.

use std::sync::Arc;

use anyhow::Context as _;
use ledger::lineage::VersionRecord;
use policy::{Adapter, Deployed, Slot};
use rl::{Batch, Learner as _, PolicyVersion, Seed};
use trainer::LoraLearner;

use super::log::Rows;
use super::records;
use super::request::{Probe, Test};
use super::response::{Asked, Bisect, Culprit, Finding, Progress, Tell};
use super::stage::{Place, Stage};
use super::workbench::{Point, Workbench};

pub(crate) fn bisect(
    bench: &Workbench,
    probe: &Probe,
    (good, bad): (&str, &str),
    progress: &mut Tell<'_>,
) -> anyhow::Result<Bisect> {
    let rows = Rows::read(bench)?;
    let good = bench.point(&rows.lineage, good)?;
    let bad = bench.version(&rows.lineage, bad)?;
    let mut chain: Vec<Point> = Vec::new();
    for ancestor in rows.lineage.ancestors(&bad) {
        if Some(ancestor) == good.record() {
            break;
        }
        chain.push(Point::from(Some(ancestor)));
    }
    let oldest = chain.last().and_then(Point::record);
    let before = oldest.and_then(|record| rows.parent(record));
    anyhow::ensure!(
        Point::from(before) == good && !chain.is_empty(),
        "{} is not an ancestor of v{}: `nextstate log --graph` shows what is",
        good.name(),
        bad.version
    );
    chain.push(good);
    chain.reverse();

    let stage = Stage::new(bench)?;
    let mut asked = Vec::new();
    let halvings = u64::from(chain.len().ilog2()) + 3;
    let mut ask = |at: usize| -> anyhow::Result<(bool, String)> {
        let point = &chain[at];
        progress(Progress {
            what: format!("asking {}", point.name()),
            done: asked.len() as u64,
            total: halvings.max(asked.len() as u64 + 1),
        })?;
        stage.put(Place::A, bench.adapter(point)?);
        let (passes, answer) = answer(&stage, probe)?;
        let said = match &probe.test {
            Test::Likely { min_logprob, .. } => {
                format!("the log-prob is {answer}, the probe wants {min_logprob}")
            }
            _ => format!("it says {answer:?}"),
        };
        asked.push(Asked {
            version: point.name(),
            passes,
            answer,
        });
        Ok((passes, said))
    };
    let (mut low, mut high) = (0, chain.len() - 1);
    let (passes, said) = ask(low)?;
    anyhow::ensure!(
        passes,
        "{} fails the probe already ({said}): name a --good version that passes it",
        chain[low].name()
    );
    let (passes, said) = ask(high)?;
    anyhow::ensure!(
        !passes,
        "{} passes the probe ({said}): there is nothing to find",
        chain[high].name()
    );
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if ask(middle)?.0 {
            low = middle;
        } else {
            high = middle;
        }
    }
    let first = chain[high]
        .record()
        .context("the first bad version is the base model")?;
    let parent = rows.parent(first);
    let finding = find(bench, &stage, probe, (first, parent), progress)?;
    Ok(Bisect {
        probe: probe.clone(),
        asked,
        good: chain[low].name(),
        bad: rows.row(bench, first)?,
        finding,
    })
}

/// Whether what stands in place A passes, and what it says.
fn answer(stage: &Stage, probe: &Probe) -> anyhow::Result<(bool, String)> {
    let prompt = stage.prompt(&probe.prompt)?;
    if let Test::Likely { reply, min_logprob } = &probe.test {
        let reply = stage.reply(reply)?;
        let logprobs = stage.logprobs(Place::A, &prompt, &reply)?;
        let sum: f64 = logprobs.iter().map(|x| f64::from(*x)).sum();
        return Ok((sum >= *min_logprob, format!("{sum:.4}")));
    }
    let reply = stage.greedy(Place::A, &prompt, probe.max_tokens)?.text;
    let passes = match &probe.test {
        Test::Expect(text) => reply.contains(text.as_str()),
        Test::Forbid(text) => !reply.contains(text.as_str()),
        Test::Likely { .. } => false,
    };
    Ok((passes, reply))
}

/// Takes the step again without each of its samples.
fn find(
    bench: &Workbench,
    stage: &Stage,
    probe: &Probe,
    (version, parent): (&VersionRecord, Option<&VersionRecord>),
    progress: &mut Tell<'_>,
) -> anyhow::Result<Finding> {
    if !version.origin.is_step() {
        return Ok(Finding::NotAStep);
    }
    let Some(mut again) = Again::new(bench, version, parent)? else {
        return Ok(Finding::Erased);
    };
    let mut culprits = Vec::new();
    for (at, id) in version.samples.iter().enumerate() {
        progress(Progress {
            what: "leaving out one sample at a time".into(),
            done: at as u64,
            total: version.samples.len() as u64,
        })?;
        stage.put(Place::A, again.without(at)?);
        let (passes, said) = answer(stage, probe)?;
        if passes {
            culprits.push(Culprit {
                sample: records::describe(bench.ledger()?, id)?,
                answer: said,
            });
        }
    }
    if culprits.is_empty() {
        let tried = version.samples.len();
        return Ok(Finding::NoneAlone { tried });
    }
    Ok(Finding::Samples(culprits))
}

/// A step that can be taken again.
struct Again<'a> {
    bench: &'a Workbench,
    learner: LoraLearner,
    start: Option<(Vec<u8>, Vec<u8>)>,
    parent: Option<Arc<Adapter>>,
    samples: Vec<rl::Sample>,
    alpha: f32,
    number: u64,
}

impl<'a> Again<'a> {
    /// None when a text or the parent's weights are erased.
    fn new(
        bench: &'a Workbench,
        version: &VersionRecord,
        parent: Option<&VersionRecord>,
    ) -> anyhow::Result<Option<Self>> {
        let ledger = bench.ledger()?;
        let mut samples = Vec::new();
        for id in &version.samples {
            let Some(sample) = records::trained(ledger, id)? else {
                return Ok(None);
            };
            samples.push(sample);
        }
        if parent.is_some_and(|parent| !bench.is_whole(parent).unwrap_or(false)) {
            return Ok(None);
        }
        let start = parent
            .and_then(|parent| Some((parent.adapter_blob?, parent.optimizer_blob?)))
            .map(|(adapter, optimizer)| -> anyhow::Result<_> {
                Ok((ledger.get_blob(&adapter)?, ledger.get_blob(&optimizer)?))
            })
            .transpose()?;
        let config = trainer::Config::from_json(&version.settings["learner"])
            .with_context(|| format!("the settings of v{} cannot be read", version.version))?;
        let seed = version.seeds.get("run").copied();
        let seed = seed.map_or(bench.config().loops.seed, Seed::new);
        let slot = Arc::new(Slot::new(Deployed::default()));
        let alpha = config.alpha;
        let loaded = bench.loaded()?;
        let learner = LoraLearner::new(Arc::clone(&loaded.model), slot, config, seed)?;
        let learner = learner.with_one_version();
        Ok(Some(Self {
            bench,
            learner: learner.with_workspace(loaded.workspace.clone()),
            start,
            parent: bench.adapter(&Point::from(parent))?,
            samples,
            alpha,
            number: 0,
        }))
    }

    /// What the step gives without the sample at this place.
    fn without(&mut self, at: usize) -> anyhow::Result<Option<Arc<Adapter>>> {
        let mut samples = self.samples.clone();
        samples.remove(at);
        if samples.is_empty() {
            return Ok(self.parent.clone());
        }
        self.number += 1;
        let number = PolicyVersion::new(self.number);
        match &self.start {
            Some((adapter, optimizer)) => self.learner.restore(number, adapter, optimizer)?,
            None => self.learner.reset(number)?,
        }
        let proposal = self.learner.step(&Batch { samples })?;
        let config = self.bench.loaded()?.model.config();
        let adapter = Adapter::from_safetensors(&proposal.adapter, config, self.alpha)?;
        Ok(Some(Arc::new(adapter)))
    }
}
