//! `show` and `diff`: what is in a version, and what lies between two.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use policy::Adapter;
use rl::TokenId;

use super::log::Rows;
use super::records;
use super::request::Behaviour;
use super::response::{Diff, Divergence, Progress, Replies, Show, Tell};
use super::stage::{Place, Stage, mean};
use super::weights;
use super::workbench::{Point, Workbench};
use crate::host::Loaded;

pub(crate) fn show(
    bench: &Workbench,
    version: &str,
    behaviour: Option<&Behaviour>,
    progress: &mut Tell<'_>,
) -> anyhow::Result<Show> {
    let rows = Rows::read(bench)?;
    let record = bench.version(&rows.lineage, version)?;
    let ledger = bench.ledger()?;
    let samples = record.samples.iter();
    let samples = samples
        .map(|id| records::describe(ledger, id))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let parent = rows.parent(&record);
    let before = parent.map(|v| v.metrics.clone()).unwrap_or_default();
    let points = (Point::from(parent), Point::from(Some(&record)));
    let behaviour = behaviour
        .map(|asked| replies(bench, &points.0, &points.1, asked, progress))
        .transpose()?;
    Ok(Show {
        row: rows.row(bench, &record)?,
        samples,
        before,
        behaviour,
    })
}

/// The replies of two versions to the same prompts.
pub(crate) fn replies(
    bench: &Workbench,
    a: &Point,
    b: &Point,
    asked: &Behaviour,
    progress: &mut Tell<'_>,
) -> anyhow::Result<Vec<Replies>> {
    let adapters = (bench.adapter(a)?, bench.adapter(b)?);
    let loaded = bench.loaded()?;
    let stage = Stage::new(bench)?;
    stage.put(Place::A, adapters.0.clone());
    stage.put(Place::B, adapters.1.clone());
    let mut all = Vec::with_capacity(asked.prompts.len());
    for (done, prompt) in asked.prompts.iter().enumerate() {
        progress(Progress {
            what: "replies".into(),
            done: done as u64,
            total: asked.prompts.len() as u64,
        })?;
        let ids = stage.prompt(prompt)?;
        let ask = |place| {
            let reply = stage.greedy(place, &ids, asked.max_tokens);
            reply.with_context(|| format!("failed to ask {prompt:?}"))
        };
        let (of_a, of_b) = (ask(Place::A)?, ask(Place::B)?);
        let divergence = apart(loaded, &adapters, &ids, &of_a.tokens)?;
        all.push(Replies {
            prompt: prompt.clone(),
            a: of_a.text,
            b: of_b.text,
            divergence,
        });
    }
    Ok(all)
}

/// How far b is from a along a's reply; none along an empty one.
fn apart(
    loaded: &Loaded,
    (a, b): &(Option<Arc<Adapter>>, Option<Arc<Adapter>>),
    prompt: &[TokenId],
    reply: &[TokenId],
) -> anyhow::Result<Option<Divergence>> {
    if reply.is_empty() {
        return Ok(None);
    }
    let (a, b) = (a.as_deref(), b.as_deref());
    let found = policy::divergence(&loaded.model, prompt, reply, a, b, 1.0)?;
    Ok(Some(Divergence {
        mean_kl: found.mean,
        max_kl: found.max,
        logprob_drift: mean(&found.log_probs_b) - mean(&found.log_probs_a),
    }))
}

pub(crate) fn diff(
    bench: &Workbench,
    a: &str,
    b: &str,
    behaviour: Option<&Behaviour>,
    progress: &mut Tell<'_>,
) -> anyhow::Result<Diff> {
    let lineage = bench.lineage()?;
    let (a, b) = (bench.point(&lineage, a)?, bench.point(&lineage, b)?);
    let weights = weights::compare(bench, &a, &b)?;
    let mut metrics: BTreeMap<String, (Option<f64>, Option<f64>)> = BTreeMap::new();
    for (name, value) in a.record().into_iter().flat_map(|v| &v.metrics) {
        metrics.entry(name.clone()).or_default().0 = Some(*value);
    }
    for (name, value) in b.record().into_iter().flat_map(|v| &v.metrics) {
        metrics.entry(name.clone()).or_default().1 = Some(*value);
    }
    let samples_between = b.record().and_then(|b| {
        let mut count = 0;
        for ancestor in lineage.ancestors(b) {
            if Some(ancestor) == a.record() {
                return Some(count);
            }
            count += ancestor.samples.len();
        }
        (a == Point::Base).then_some(count)
    });
    let behaviour = behaviour
        .map(|asked| replies(bench, &a, &b, asked, progress))
        .transpose()?;
    Ok(Diff {
        a: a.name(),
        b: b.name(),
        weights,
        metrics,
        samples_between,
        behaviour,
    })
}
