//! Our own side: the same model, kernels and passes that serve and train, answering as the peers do.

use std::io::{BufRead as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, bail};
use kernels::adamw::AdamW;
use policy::{
    Adapter, AdapterGrads, Checkpoint, Dtype, Kv, Logits, Model, Pool, Scratch, Segment, Special,
    Tape, Target, Trainee,
};
use serde_json::json;

use super::beside;
use super::contender::Answer;
use super::machine;
use super::rows::Ask;

/// Rank and α of every adapter that is measured.
pub(super) const RANK: usize = 16;
pub(super) const ALPHA: f32 = 32.0;

/// What everybody reads: text as a model is used to.
const STORY: &str = "The lighthouse keeper wrote a letter every evening. He told his sister about the ships that had passed, the \
    birds that rested on the railing, and the storm that was still far out at sea. When the supply boat came on Thursday, he gave \
    the letters to the captain and asked for lamp oil, flour, coffee and a new pane of glass for the north window. The captain \
    laughed and said that glass does not travel well. \"Then bring me two,\" the keeper answered, \"and one of them may break.\" ";

/// The story in the model's tokens.
///
/// # Errors
/// When the model or its tokenizer cannot be read.
pub(super) fn text(model: &Path) -> anyhow::Result<Vec<u32>> {
    let checkpoint = Checkpoint::open(model).context("open the model")?;
    let tokenizer = checkpoint.tokenizer().context("read the tokenizer")?;
    Ok(tokenizer.encode(STORY, Special::Plain)?)
}

/// Answers standard input until it ends.
///
/// # Errors
/// When the model cannot be loaded or standard output is gone.
pub(super) fn answer(path: &str, dtype: Dtype, threads: usize) -> anyhow::Result<()> {
    let checkpoint = Checkpoint::open(Path::new(path)).context("open the model")?;
    let pool = Arc::new(Pool::new(threads)?);
    let model = Model::load(&checkpoint, dtype, pool).context("load the model")?;
    drop(checkpoint);
    machine::forget_peak();
    let isa = model.pool().isa();
    let about = json!({
        "name": "ours",
        "version": concat!("nextstate ", env!("CARGO_PKG_VERSION")),
        "mode": format!("{dtype:?} weights, f32 sums and cache, {isa:?}, {threads} threads; training keeps activations up to 256 MiB"),
    });
    let mut output = std::io::stdout().lock();
    writeln!(output, "{about}").context("write standard output")?;
    let mut training = None;
    for line in std::io::stdin().lock().lines() {
        let line = line.context("read standard input")?;
        let ask: Ask = serde_json::from_str(&line).context("read what is asked")?;
        let said = match work(&model, Path::new(path), &mut training, ask) {
            Ok(answer) => serde_json::to_string(&answer)?,
            Err(error) => json!({ "error": format!("{error:#}") }).to_string(),
        };
        writeln!(output, "{said}").context("write standard output")?;
        output.flush().context("write standard output")?;
    }
    Ok(())
}

fn work(
    model: &Model,
    path: &Path,
    training: &mut Option<Training>,
    ask: Ask,
) -> anyhow::Result<Answer> {
    let mut distances = None;
    let (seconds, tokens, first) = match ask {
        Ask::Decode {
            prompts,
            steps,
            adapters,
        } => decode(model, &prompts, steps, adapters)?,
        Ask::Prefill { prompts } => prefill(model, &prompts)?,
        Ask::Train { prompts } => {
            let training = match training {
                Some(training) => training,
                None => training.insert(Training::new(model)?),
            };
            training.step(model, &prompts)?
        }
        Ask::Beside {
            prompts,
            samples,
            tokens,
        } => {
            let (seconds, found) = beside::run(model, path, &prompts, &samples, tokens)?;
            distances = Some(found);
            (seconds, tokens * prompts.len(), Vec::new())
        }
    };
    Ok(Answer {
        seconds,
        tokens: tokens as u64,
        first,
        peak_bytes: machine::peak_bytes(),
        distances,
    })
}

type Timed = (f64, usize, Vec<u32>);

fn decode(
    model: &Model,
    prompts: &[Vec<u32>],
    steps: usize,
    adapters: usize,
) -> anyhow::Result<Timed> {
    let adapters: Vec<Adapter> = (0..adapters as u64)
        .map(|seed| Adapter::random(model.config(), RANK, ALPHA, seed))
        .collect::<policy::Result<_>>()?;
    let adapter = |index: usize| adapters.get(index % adapters.len().max(1));
    let mut scratch = Scratch::new();
    let mut kvs: Vec<Kv> = prompts.iter().map(|_| Kv::new(model.config())).collect();
    let mut last = Vec::with_capacity(prompts.len());
    for (index, (kv, prompt)) in kvs.iter_mut().zip(prompts).enumerate() {
        kv.reserve(prompt.len() + steps);
        let segment = Segment {
            kv,
            tokens: prompt,
            adapter: adapter(index),
            logits: Logits::Last,
        };
        model.forward(&mut scratch, &mut [segment])?;
        last.push(best(&scratch, 0)?);
    }
    let mut first = vec![last[0]];
    let start = Instant::now();
    for _ in 0..steps {
        let mut segments: Vec<Segment<'_>> = (kvs.iter_mut().zip(&last).enumerate())
            .map(|(index, (kv, token))| Segment {
                kv,
                tokens: std::slice::from_ref(token),
                adapter: adapter(index),
                logits: Logits::Last,
            })
            .collect();
        model.forward(&mut scratch, &mut segments)?;
        drop(segments);
        for (index, token) in last.iter_mut().enumerate() {
            *token = best(&scratch, index)?;
        }
        first.push(last[0]);
    }
    Ok((start.elapsed().as_secs_f64(), steps * prompts.len(), first))
}

fn prefill(model: &Model, prompts: &[Vec<u32>]) -> anyhow::Result<Timed> {
    let [prompt] = prompts else {
        bail!("prefill takes one prompt, not {}", prompts.len());
    };
    let (mut scratch, mut kv) = (Scratch::new(), Kv::new(model.config()));
    let start = Instant::now();
    let segment = Segment {
        kv: &mut kv,
        tokens: prompt,
        adapter: None,
        logits: Logits::Last,
    };
    model.forward(&mut scratch, &mut [segment])?;
    let first = vec![best(&scratch, 0)?];
    Ok((start.elapsed().as_secs_f64(), prompt.len(), first))
}

/// The most likely token of a sequence's last row.
fn best(scratch: &Scratch, sequence: usize) -> anyhow::Result<u32> {
    let row = scratch
        .logits(sequence)
        .last()
        .context("there are no logits")?;
    // In lanes, which the compiler makes vectors of: the peers' numpy and torch do the same.
    let mut lanes = [f32::NEG_INFINITY; 16];
    let (lines, rest) = row.as_chunks::<16>();
    for line in lines {
        for (most, logit) in lanes.iter_mut().zip(line) {
            *most = most.max(*logit);
        }
    }
    let most = lanes
        .iter()
        .chain(rest)
        .copied()
        .fold(f32::NEG_INFINITY, f32::max);
    let best = row.iter().position(|logit| *logit == most);
    Ok(u32::try_from(best.context("every logit is NaN")?)?)
}

/// What is kept from step to step.
struct Training {
    trainee: Trainee,
    tape: Tape,
    grads: AdapterGrads,
    step: u64,
}

impl Training {
    fn new(model: &Model) -> anyhow::Result<Self> {
        let adapter = Adapter::init(model.config(), RANK, ALPHA, 1)?;
        Ok(Self {
            tape: Tape::new(),
            grads: AdapterGrads::zeros(&adapter),
            trainee: Trainee::new(model, Arc::new(adapter), Default::default())?,
            step: 0,
        })
    }

    /// Forward, backward, clipping and AdamW, as `trainer` does it.
    fn step(&mut self, model: &Model, prompts: &[Vec<u32>]) -> anyhow::Result<Timed> {
        let settings = AdamW {
            lr: 1e-4,
            beta1: 0.9,
            beta2: 0.98,
            eps: 1e-8,
            weight_decay: 0.0,
        };
        let predicted: usize = prompts.iter().map(|p| p.len().saturating_sub(1)).sum();
        let start = Instant::now();
        self.grads.clear();
        for tokens in prompts {
            let targets: Vec<Target> = tokens
                .iter()
                .skip(1)
                .enumerate()
                .map(|(row, &token)| Target { row, token })
                .collect();
            let slope = vec![-1.0 / predicted as f32; targets.len()];
            let (tape, adapter) = (&mut self.tape, &**self.trainee.adapter());
            model.train_forward(tape, Some(adapter), tokens, &targets, 1.0)?;
            model.backward(tape, adapter, &slope, &mut self.grads)?;
        }
        self.step += 1;
        let scale = (1.0 / self.grads.norm(model.pool())?).min(1.0) as f32;
        self.trainee
            .step(model, &settings, self.step, scale, &self.grads)
            .context("take an optimizer step")?;
        let tokens = prompts.iter().map(Vec::len).sum();
        Ok((start.elapsed().as_secs_f64(), tokens, Vec::new()))
    }
}
