//! Streams of the engine, alone and while a learner steps without a pause: how far apart their tokens come.
//!
//! Everything is what a host runs: the engine with its thread and channels, the learner with its slot. Only requests and samples are
//! made up. A distance is measured where the token is heard.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context as _, bail};
use parking_lot::Mutex;
use policy::{Checkpoint, Deployed, Model, Slot};
use prometheus_client::registry::Registry;
use rl::{
    AdapterName, Batch, Learner as _, PolicyVersion, Sample, SampleId, Sampling, Seed, TenantId,
    Weights,
};
use serving::engine::{
    Config, Engine, EngineHandle, Event, Parts, Priority, SampleJob, TokenStream,
};
use trainer::LoraLearner;

use super::contender::Distances;
use super::ours::{ALPHA, RANK};

/// Tokens of a stream before its distances count: prompts are still being taken in.
const WARM: usize = 8;
/// The adapter that streams use and that is trained.
const NAME: &str = "main";

/// Seconds of the streams beside training, and all distances.
///
/// # Errors
/// When the engine cannot be started, refuses a stream, or the learner refuses the samples.
pub(super) fn run(
    model: &Model,
    path: &Path,
    prompts: &[Vec<u32>],
    samples: &[Vec<u32>],
    tokens: usize,
) -> anyhow::Result<(f64, Distances)> {
    let model = Arc::new(model.clone());
    let slot = Arc::new(Slot::new(Deployed::default()));
    let checkpoint = Checkpoint::open(path).context("open the model")?;
    let parts = Parts {
        name: checkpoint.name.clone(),
        model: Arc::clone(&model),
        tokenizer: Arc::new(checkpoint.tokenizer().context("read the tokenizer")?),
        template: Arc::new(checkpoint.template().context("read the template")?),
        adapters: BTreeMap::from([(AdapterName::new(NAME), Arc::clone(&slot))]),
    };
    drop(checkpoint);
    let settings = trainer::Config {
        rank: RANK,
        alpha: ALPHA,
        // The recorded log-probs are made up.
        max_ratio: f32::MAX,
        ..trainer::Config::default()
    };
    let mut learner = LoraLearner::new(Arc::clone(&model), slot, settings, Seed::new(1))?;
    let batch = batch(samples);
    // The first step allocates, and makes an adapter live: streams have one in both halves.
    advance(&mut learner, &batch)?;

    let registry = Arc::new(Mutex::new(Registry::default()));
    let engine = Engine::build(Config::default(), parts, &registry)?.start()?;
    let eos = model.config().eos.clone();
    let stream = |handle: &EngineHandle| streams(handle, prompts, tokens, &eos);
    let idle = stream(&engine.handle())?;
    let (stop, steps) = (AtomicBool::new(false), AtomicU64::new(0));
    let (seconds, training) = std::thread::scope(|scope| {
        let trains = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                advance(&mut learner, &batch)?;
                steps.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(())
        });
        let start = Instant::now();
        let heard = stream(&engine.handle());
        let seconds = start.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        trains.join().ok().context("the learner panicked")??;
        anyhow::Ok((start.elapsed().as_secs_f64().max(seconds), heard?))
    })?;
    engine.shutdown()?;
    let rows: usize = samples.iter().map(Vec::len).sum();
    let trained = steps.load(Ordering::Relaxed) as f64 * rows as f64 / seconds;
    let distances = Distances {
        idle: percentiles(idle)?,
        training: percentiles(training)?,
        trained,
    };
    Ok((seconds, distances))
}

fn advance(learner: &mut LoraLearner, batch: &Batch) -> rl::Result<()> {
    let proposal = learner.step(batch)?;
    learner.deploy(proposal.parent.next())
}

/// Samples of which all but the first tokens are a response.
fn batch(samples: &[Vec<u32>]) -> Batch {
    let sample = |(index, tokens): (usize, &Vec<u32>)| {
        let (prompt, response) = tokens.split_at(tokens.len().min(8));
        let all = |value: f32| vec![value; response.len()];
        Sample {
            id: SampleId::new(format!("sample-{index}")),
            turn: "turn".into(),
            adapter: NAME.into(),
            version: PolicyVersion::BASE,
            prompt: prompt.to_vec(),
            response: response.to_vec(),
            behaviour: all(-2.0),
            advantage: all(if index % 2 == 0 { 1.0 } else { -1.0 }),
            weight: all(1.0),
            temperature: 1.0,
        }
    };
    Batch {
        samples: samples.iter().enumerate().map(sample).collect(),
    }
}

/// Seconds between the tokens of every stream.
fn streams(
    handle: &EngineHandle,
    prompts: &[Vec<u32>],
    tokens: usize,
    eos: &[u32],
) -> anyhow::Result<Vec<f64>> {
    let sampling = Sampling {
        temperature: 0.0,
        max_tokens: u32::try_from(tokens + WARM)?,
        logit_bias: eos.iter().map(|id| (*id, f32::NEG_INFINITY)).collect(),
        ..Sampling::default()
    };
    let submitted = prompts.iter().map(|prompt| {
        let permit = handle.reserve(Priority::User, &TenantId::new("bench"))?;
        Ok(permit.submit(SampleJob {
            weights: Weights::Adapter(AdapterName::new(NAME)),
            bucket: 0,
            prompt: prompt.clone(),
            sampling: sampling.clone(),
            top_logprobs: 0,
        }))
    });
    let submitted: Vec<TokenStream> = submitted.collect::<anyhow::Result<_>>()?;
    std::thread::scope(|scope| {
        let listening: Vec<_> = (submitted.into_iter())
            .map(|stream| scope.spawn(|| listen(stream)))
            .collect();
        let mut all = Vec::new();
        for heard in listening {
            all.extend(heard.join().ok().context("a listener panicked")??);
        }
        Ok(all)
    })
}

fn listen(mut stream: TokenStream) -> anyhow::Result<Vec<f64>> {
    let (mut distances, mut last) = (Vec::new(), None);
    while let Some(event) = stream.blocking_next() {
        match event {
            Event::Token(_) => {
                let now = Instant::now();
                if let Some(before) = last.replace(now) {
                    distances.push(now.duration_since(before).as_secs_f64());
                }
            }
            Event::Started(_) | Event::Done { .. } => {}
            Event::Failed(refusal) => bail!("a stream failed: {refusal}"),
        }
    }
    distances.drain(..WARM.min(distances.len()));
    Ok(distances)
}

/// Median, 95th and 99th percentile, in milliseconds.
fn percentiles(mut distances: Vec<f64>) -> anyhow::Result<[f64; 3]> {
    distances.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let place = (share * (distances.len() as f64 - 1.0)).round() as usize;
        distances.get(place).map(|seconds| seconds * 1e3)
    };
    match [0.5, 0.95, 0.99].map(at) {
        [Some(middle), Some(high), Some(most)] => Ok([middle, high, most]),
        _ => bail!("no stream said two tokens"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_places_in_the_sorted_list() {
        let distances = (1..=101).rev().map(|ms| f64::from(ms) / 1e3).collect();
        let found = percentiles(distances).unwrap();
        for (found, expected) in found.into_iter().zip([51.0, 96.0, 100.0]) {
            assert!((found - expected).abs() < 1e-9, "{found} for {expected}");
        }
        assert!(percentiles(Vec::new()).is_err());
    }
}
