//! Which training samples moved a reply's log-prob, to first order: dot products of gradients.
//!
//! One step's effect on the mean log-prob `L(θ)` of a reply is `L(θ + Δ) − L(θ) ≈ ∇L · Δ`, and Δ is a sum of the samples'
//! parts, so that each sample has its share. This is TracIn (Pruthi et al. 2020, arXiv 2002.08484, eq. 1) at one version
//! of the weights; a caller sums over the versions between two.
//!
//! What is stated: the derivative of the log-prob along that sample's part of that step, at the weights where the gradients
//! were taken. What is approximated: the log-prob's curvature along the step; everything later (a sample's gradient stays in
//! AdamW's first moment and moves the following steps, and later samples would have been sampled from other weights); and with
//! several passes a step, every pass after the first, whose gradient is taken at moved weights. It is not the counterfactual:
//! leaving a sample out also changes the other samples' share, the clip and AdamW's second moment. A replay without it tells.
//!
//! Both kinds of gradient are taken in a [`Workspace`] that is handed in: on a live host the learner's, so that looking back takes no
//! memory that training has not.
//!
//! Start at [`reply_gradient`] and [`sample_gradient`]; then [`influence`] for plain descent or [`StepTaken`] for AdamW.

use policy::{Adapter, AdapterGrads, Model};
use rl::Sample;

use crate::adamw::Moments;
use crate::lora::{check_shape, clip_scale};
use crate::walk::{self, Walk};
use crate::{Config, Error, Result, Workspace};

/// A reply's mean log-prob and its gradient.
#[derive(Clone, Debug)]
pub struct ReplyGradient {
    /// The mean of the response's log-probs.
    pub mean_log_prob: f64,
    /// The derivative of that mean with respect to the adapter's parameters, in their flat order.
    pub values: Vec<f32>,
}

/// The gradient of the mean log-prob of `response` after `prompt`. Temperature 0 (greedy) counts as 1, as in serving.
/// Waits for whoever computes in `space`.
///
/// # Errors
/// [`Error::Sample`] for an empty prompt or response; [`Error::Policy`] for what the model refuses; [`Error::NotFinite`].
pub fn reply_gradient(
    model: &Model,
    space: &Workspace,
    adapter: &Adapter,
    prompt: &[u32],
    response: &[u32],
    temperature: f32,
) -> Result<ReplyGradient> {
    if prompt.is_empty() || response.is_empty() {
        return Err(Error::Sample {
            sample: "of the reply".into(),
            why: "its prompt or its response holds no token".into(),
        });
    }
    let temperature = if temperature == 0.0 { 1.0 } else { temperature };
    let (tokens, targets) = walk::fed(prompt, response);
    let tape = &mut space.tape.lock();
    let log_probs = model
        .train_forward(tape, Some(adapter), &tokens, &targets, temperature)
        .map_err(walk::forward)?;
    let mean = log_probs.iter().map(|l| f64::from(*l)).sum::<f64>() / log_probs.len() as f64;
    walk::finite("the reply's log-prob", mean, 1)?;
    let mut grads = AdapterGrads::zeros(adapter);
    let share = vec![1.0 / log_probs.len() as f32; log_probs.len()];
    model
        .backward(tape, adapter, &share, &mut grads)
        .map_err(walk::backward)?;
    Ok(ReplyGradient {
        mean_log_prob: mean,
        values: finite(model, &grads)?,
    })
}

/// The gradient of one sample's share of the loss, as the first pass of a step adds it to the batch's.
///
/// `counted`: how many samples of that batch have any weight above 0; each has the share `1 / counted`. The adapter is that
/// of the version that the step started from. A sample that moves nothing has a gradient of zeros.
///
/// # Errors
/// [`Error::Setting`] for settings that are out of range, or an adapter of another shape than they say;
/// [`Error::Sample`] for a count of 0; as a step for a sample that it would refuse.
pub fn sample_gradient(
    model: &Model,
    space: &Workspace,
    adapter: &Adapter,
    config: &Config,
    sample: &Sample,
    counted: usize,
) -> Result<Vec<f32>> {
    config.validate()?;
    check_shape(config, adapter)?;
    walk::check_sample(model, space, sample)?;
    if counted == 0 {
        return Err(Error::Sample {
            sample: sample.id.to_string(),
            why: "its batch counts no sample".into(),
        });
    }
    let mut walk = Walk::new(adapter, space.clone());
    let (objective, share) = (config.objective(), 1.0 / counted as f64);
    let alone = std::slice::from_ref(sample);
    for (figures, _) in walk.samples(model, adapter, &objective, alone, share, 1)? {
        walk::check_ratio(&figures, config, 1)?;
    }
    finite(model, &walk.grads)
}

/// The first-order change of the reply's mean log-prob that this sample caused in one step of plain gradient descent.
///
/// # Errors
/// [`Error::Length`] when the two are not of the same adapter.
pub fn influence(reply: &[f32], sample: &[f32], lr: f64) -> Result<f64> {
    Ok(-lr * dot(reply, sample)?)
}

/// What one AdamW step did to every gradient that was part of it.
///
/// A step moves the parameters by `−η (β₁ m + (1 − β₁) s g) / (1 − β₁ᵗ) / (√(v / (1 − β₂ᵗ)) + ε) − η λ θ`, with the second
/// moment v *after* the step, the clip's factor s and `g = Σ gᵢ`. With v and s as recorded, this is linear in g: the
/// sample's part is exact, and all parts together with what the momentum and the decay did are the step. That v and s
/// themselves depend on the sample is left out.
#[derive(Clone, Debug)]
pub struct StepTaken {
    /// What a gradient is multiplied with, per parameter; below 0.
    factors: Vec<f64>,
}

impl StepTaken {
    /// From the settings, the optimizer's bytes and the gradient's norm that the step's *result* was recorded with. For a step
    /// of several passes this is its last pass.
    ///
    /// # Errors
    /// [`Error::Setting`]; [`Error::Optimizer`] when the bytes are not the state of `params` parameters after a step.
    pub fn adamw(config: &Config, optimizer: &[u8], params: usize, grad_norm: f64) -> Result<Self> {
        config.validate()?;
        let moments = Moments::from_bytes(optimizer, params)?;
        if moments.step == 0 {
            return Err(Error::Optimizer {
                why: "it has made no step".into(),
            });
        }
        let steps = moments.step as f64;
        let [beta1, beta2] = config.betas.map(f64::from);
        let (one, two) = (1.0 - beta1.powf(steps), 1.0 - beta2.powf(steps));
        let clip = f64::from(clip_scale(config.grad_clip, grad_norm));
        let step_size = f64::from(config.lr) * (1.0 - beta1) * clip / one;
        let eps = f64::from(config.eps);
        let factor = |v: &f32| -step_size / ((f64::from(*v) / two).sqrt() + eps);
        Ok(Self {
            factors: moments.second.iter().map(factor).collect(),
        })
    }

    /// The part of the parameters' change that came from this gradient.
    ///
    /// # Errors
    /// [`Error::Length`].
    pub fn preconditioned(&self, sample: &[f32]) -> Result<Vec<f32>> {
        self.fits("the sample's gradient", sample)?;
        let parts = self.factors.iter().zip(sample);
        Ok(parts.map(|(f, g)| (f * f64::from(*g)) as f32).collect())
    }

    /// The first-order change of the reply's mean log-prob that this sample caused in the step.
    ///
    /// # Errors
    /// [`Error::Length`].
    pub fn influence(&self, reply: &[f32], sample: &[f32]) -> Result<f64> {
        self.fits("the reply's gradient", reply)?;
        self.fits("the sample's gradient", sample)?;
        let both = reply.iter().zip(sample);
        let parts = both.zip(&self.factors);
        Ok(parts
            .map(|((r, s), f)| f64::from(*r) * f64::from(*s) * f)
            .sum())
    }

    fn fits(&self, what: &'static str, values: &[f32]) -> Result<()> {
        same(what, values.len(), self.factors.len())
    }
}

fn same(what: &'static str, found: usize, expected: usize) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(Error::Length {
        what,
        found,
        expected,
    })
}

/// Summed in f64, in order.
fn dot(a: &[f32], b: &[f32]) -> Result<f64> {
    same("the sample's gradient", b.len(), a.len())?;
    let pairs = a.iter().zip(b);
    Ok(pairs.map(|(x, y)| f64::from(*x) * f64::from(*y)).sum())
}

/// The gradient's numbers, all of them finite.
fn finite(model: &Model, grads: &AdapterGrads) -> Result<Vec<f32>> {
    let norm = grads.norm(model.pool()).map_err(walk::backward)?;
    walk::finite("the gradient's norm", norm, 1)?;
    Ok(grads.values().map_err(walk::backward)?.into_owned())
}
