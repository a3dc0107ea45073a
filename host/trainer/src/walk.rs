//! One walk over a batch: forward, loss and backward of every sample, in order, into one gradient.
//!
//! Does not move a weight; both learners use it. [`crate::loss`] is the arithmetic between forward and backward.

use policy::{Adapter, AdapterGrads, Model, Tape, Target};
use rl::{Batch, PolicyVersion, Sample, StepMetrics};

use crate::loss::{Figures, Objective, Streams};
use crate::{Config, Error, Result};

/// The buffers of a walk, kept between steps, and what a later pass needs from the first.
#[derive(Debug)]
pub(crate) struct Walk {
    tape: Tape,
    pub(crate) grads: AdapterGrads,
    dlogprobs: Vec<f32>,
    /// Log-probs of the first pass, a list a sample.
    old: Vec<Vec<f32>>,
    /// Log-probs of the base, a list a sample; empty when β is 0.
    reference: Vec<Vec<f32>>,
}

impl Walk {
    pub(crate) fn new(adapter: &Adapter) -> Self {
        Self {
            tape: Tape::new(),
            grads: AdapterGrads::zeros(adapter),
            dlogprobs: Vec::new(),
            old: Vec::new(),
            reference: Vec::new(),
        }
    }

    /// Pass number `pass` (from 1) over a batch that [`check`] accepted. Afterwards `self.grads` is the gradient.
    pub(crate) fn pass(
        &mut self,
        model: &Model,
        adapter: &Adapter,
        current: PolicyVersion,
        config: &Config,
        batch: &Batch,
        pass: u32,
    ) -> Result<StepMetrics> {
        if pass == 1 {
            self.old.clear();
            self.reference.clear();
        }
        self.grads.clear();
        let objective = config.objective();
        let share = 1.0
            / count(
                batch
                    .samples
                    .iter()
                    .filter(|s| s.weight.iter().any(|w| *w > 0.0)),
            );
        let mut total = Figures::default();
        let (mut mismatched, mut fresh) = (0, 0);
        for (index, sample) in batch.samples.iter().enumerate() {
            let (figures, differ) =
                self.sample(model, adapter, &objective, sample, index, share, pass)?;
            if sample.version == current {
                mismatched += differ;
                fresh += sample.response.len() as u64;
            }
            check_ratio(&figures, config, pass)?;
            total.pg += share * figures.pg;
            total.kl += share * figures.kl;
            total.ratio_sum += figures.ratio_sum;
            total.ratio_max = total.ratio_max.max(figures.ratio_max);
            total.clipped += figures.clipped;
            total.tokens += figures.tokens;
        }
        let tokens = total.tokens as f64;
        let loss = total.pg + objective.kl_beta * total.kl;
        finite("the loss", loss, pass)?;
        let grad_norm = kernels::adamw::norm(model.pool(), self.grads.values());
        finite("the gradient's norm", grad_norm, pass)?;
        Ok(StepMetrics {
            loss,
            pg_loss: total.pg,
            kl: total.kl,
            grad_norm,
            ratio_mean: total.ratio_sum / tokens,
            ratio_max: total.ratio_max,
            clipped: total.clipped as f64 / tokens,
            mismatched,
            fresh,
            tokens: total.tokens,
            samples: batch.samples.len() as u64,
            ..StepMetrics::default()
        })
    }

    /// One sample's figures, its gradient added; and how many tokens differ in any bit from what was recorded.
    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of a pass, each named once"
    )]
    pub(crate) fn sample(
        &mut self,
        model: &Model,
        adapter: &Adapter,
        objective: &Objective,
        sample: &Sample,
        index: usize,
        share: f64,
        pass: u32,
    ) -> Result<(Figures, u64)> {
        let (tokens, targets) = inputs(sample);
        let temperature = sample.temperature;
        if pass == 1 && objective.kl_beta > 0.0 {
            let reference = model
                .train_forward(&mut self.tape, None, &tokens, &targets, temperature)
                .map_err(forward)?;
            self.reference.push(reference);
        }
        let logprobs = model
            .train_forward(
                &mut self.tape,
                Some(adapter),
                &tokens,
                &targets,
                temperature,
            )
            .map_err(forward)?;
        for logprob in &logprobs {
            finite("a log-prob", (*logprob).into(), pass)?;
        }
        if pass == 1 {
            self.old.push(logprobs.clone());
        }
        let streams = Streams {
            logprobs: &logprobs,
            old: &self.old[index],
            reference: self.reference.get(index).map(Vec::as_slice),
            behaviour: &sample.behaviour,
            advantage: &sample.advantage,
            weight: &sample.weight,
        };
        let figures = objective.sample(&streams, share, &mut self.dlogprobs);
        if self.dlogprobs.iter().any(|d| *d != 0.0) {
            model
                .backward(&mut self.tape, adapter, &self.dlogprobs, &mut self.grads)
                .map_err(backward)?;
        }
        let pairs = logprobs.iter().zip(&sample.behaviour);
        let differ = pairs
            .filter(|(now, then)| now.to_bits() != then.to_bits())
            .count();
        Ok((figures, differ as u64))
    }
}

pub(crate) fn forward(source: policy::Error) -> Error {
    Error::Policy {
        action: "run the model forward",
        source,
    }
}

pub(crate) fn backward(source: policy::Error) -> Error {
    Error::Policy {
        action: "run the model backward",
        source,
    }
}

/// What is fed, and which token each row must predict. The last token is predicted, never fed.
fn inputs(sample: &Sample) -> (Vec<u32>, Vec<Target>) {
    fed(&sample.prompt, &sample.response)
}

/// As [`inputs`], of a prompt and a response that both hold tokens.
pub(crate) fn fed(prompt: &[u32], response: &[u32]) -> (Vec<u32>, Vec<Target>) {
    let mut tokens = prompt.to_vec();
    tokens.extend_from_slice(&response[..response.len() - 1]);
    let first = prompt.len() - 1;
    let targets = response.iter().enumerate();
    let targets = targets
        .map(|(t, token)| Target {
            row: first + t,
            token: *token,
        })
        .collect();
    (tokens, targets)
}

/// Refuses a batch that this model cannot run, or that would move nothing.
pub(crate) fn check(model: &Model, config: &Config, batch: &Batch) -> Result<()> {
    for sample in &batch.samples {
        check_sample(model, sample)?;
    }
    let weighted = |sample: &&Sample| sample.weight.iter().any(|w| *w > 0.0);
    let moves = if config.kl_beta > 0.0 {
        batch.samples.iter().any(|s| weighted(&s))
    } else {
        batch.samples.iter().any(Sample::is_effective)
    };
    if moves {
        Ok(())
    } else {
        Err(Error::NothingToLearn {
            samples: batch.samples.len(),
        })
    }
}

/// Refuses a sample that this model cannot run.
pub(crate) fn check_sample(model: &Model, sample: &Sample) -> Result<()> {
    let shape = model.config();
    let refuse = |why: String| {
        Err(Error::Sample {
            sample: sample.id.to_string(),
            why,
        })
    };
    if let Err(error) = sample.validate() {
        return match error {
            rl::Error::Refused { why, .. } => refuse(why),
            other => refuse(other.to_string()),
        };
    }
    let (fed, context) = (
        sample.prompt.len() + sample.response.len() - 1,
        model.context(),
    );
    if fed > context {
        return refuse(format!(
            "its {fed} tokens exceed the model's context of {context}"
        ));
    }
    let mut ids = sample.prompt.iter().chain(&sample.response);
    if let Some(id) = ids.find(|id| **id as usize >= shape.vocab_size) {
        return refuse(format!(
            "token {id} is not in the vocabulary of {}",
            shape.vocab_size
        ));
    }
    Ok(())
}

pub(crate) fn check_ratio(figures: &Figures, config: &Config, pass: u32) -> Result<()> {
    let (ratio, limit) = (figures.ratio_max, f64::from(config.max_ratio));
    finite("a ratio", ratio, pass)?;
    if ratio > limit {
        return Err(Error::Ratio { ratio, limit, pass });
    }
    Ok(())
}

pub(crate) fn finite(what: &'static str, value: f64, pass: u32) -> Result<()> {
    if value.is_finite() {
        Ok(())
    } else {
        Err(Error::NotFinite { what, value, pass })
    }
}

fn count<T>(items: impl Iterator<Item = T>) -> f64 {
    items.count() as f64
}
