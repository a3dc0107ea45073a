//! The learner that moves an adapter: forward, backward, clip, AdamW, wherever the model computes.
//!
//! Owns the adapter being trained and the optimizer's state, and nothing else: the base weights are shared with serving,
//! and what is live is in the [`Slot`], which the engine reads between two decode steps. [`crate::FrozenLearner`] is the
//! same without the moving.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use kernels::adamw::AdamW;
use policy::{Adapter, Deployed, Model, Slot, Trainee};
use rl::{Batch, PolicyVersion, Proposal, Seed, StepMetrics};

use crate::adamw::Moments;
use crate::walk::{self, Walk, Workspace};
use crate::{Config, Error, Result};

/// Trains a LoRA adapter with AdamW. One owner; called from one thread.
#[derive(Debug)]
pub struct LoraLearner {
    model: Arc<Model>,
    slot: Arc<Slot>,
    config: Config,
    version: PolicyVersion,
    trained: Trained,
    proposed: Option<Trained>,
    candidate: Option<Arc<Slot>>,
    walk: Walk,
    seed: Seed,
    keeps_one: bool,
}

/// An adapter and its optimizer after some steps.
#[derive(Debug)]
struct Trained {
    trainee: Trainee,
    steps: u64,
}

impl Trained {
    fn new(model: &Model, adapter: Arc<Adapter>, moments: Moments<'static>) -> Result<Self> {
        let [first, second] = [moments.first, moments.second].map(Cow::into_owned);
        let trainee = Trainee::new(model, adapter, [first, second]);
        Ok(Self {
            trainee: trainee.map_err(keeping)?,
            steps: moments.step,
        })
    }

    fn copy(&self) -> Result<Self> {
        let trainee = self.trainee.copy().map_err(keeping)?;
        let steps = self.steps;
        Ok(Self { trainee, steps })
    }

    /// The adapter's bytes and the optimizer's. The adapter's digest, which takes as long, is computed meanwhile.
    fn to_bytes(&self) -> Result<(Vec<u8>, Vec<u8>)> {
        let adapter = self.trainee.adapter();
        std::thread::scope(|scope| {
            // Without a thread it is computed when it is asked for.
            let aside = std::thread::Builder::new().name("digest".into());
            let _ = aside.spawn_scoped(scope, || adapter.digest());
            let [first, second] = self.trainee.moments().map_err(keeping)?;
            let step = self.steps;
            let moments = Moments {
                step,
                first,
                second,
            };
            Ok((
                adapter.to_safetensors().map_err(writing)?,
                moments.to_bytes()?,
            ))
        })
    }
}

impl LoraLearner {
    /// A learner that starts from the version and adapter in `slot`, with an optimizer that has made no step. While the slot
    /// holds the base model, it starts from a fresh adapter of this seed, which changes nothing yet; the slot is left alone.
    ///
    /// # Errors
    /// [`Error::Setting`] when the settings are refused, or say another rank or alpha than the slot's adapter has.
    pub fn new(model: Arc<Model>, slot: Arc<Slot>, config: Config, seed: Seed) -> Result<Self> {
        config.validate()?;
        let live = slot.load();
        let adapter = start(&model, &config, live.adapter.as_ref(), seed)?;
        Ok(Self {
            walk: Walk::new(&adapter, Workspace::default()),
            trained: Trained::new(&model, adapter, Moments::fresh())?,
            version: live.version,
            proposed: None,
            candidate: None,
            model,
            slot,
            config,
            seed,
            keeps_one: false,
        })
    }

    /// The same, with a place where proposals are put to be asked before they are live ([`rl::Learner::stage`]).
    #[must_use]
    pub fn with_candidate(mut self, slot: Arc<Slot>) -> Self {
        self.candidate = Some(slot);
        self
    }

    /// The same, computing in this memory instead of its own.
    #[must_use]
    pub fn with_workspace(mut self, space: Workspace) -> Self {
        self.walk.space = space;
        self
    }

    /// The same, whose slot keeps nothing but what is live: where nobody goes back, older versions only take memory.
    #[must_use]
    pub fn with_one_version(mut self) -> Self {
        self.keeps_one = true;
        self
    }

    fn propose(&mut self, batch: &Batch) -> Result<Proposal> {
        let started = Instant::now();
        self.proposed = None;
        walk::check(&self.model, &self.walk.space, &self.config, batch)?;
        let mut next = self.trained.copy()?;
        let mut metrics = StepMetrics::default();
        for pass in 1..=self.config.passes {
            let figures = self.walk.pass(
                &self.model,
                (next.trainee.adapter(), self.version, &self.slot),
                &self.config,
                batch,
                pass,
            )?;
            self.update(&mut next, figures.grad_norm, pass)?;
            merge(&mut metrics, &figures, pass);
        }
        metrics.step = next.steps;
        self.model
            .prepare(next.trainee.adapter())
            .map_err(walk::prepare)?;
        let (adapter, optimizer) = next.to_bytes()?;
        let proposal = Proposal {
            parent: self.version,
            adapter,
            optimizer,
            adapter_digest: next.trainee.adapter().digest(),
            settings: self.config.to_json(),
            metrics: StepMetrics {
                seconds: started.elapsed().as_secs_f64(),
                ..metrics
            },
        };
        self.proposed = Some(next);
        Ok(proposal)
    }

    /// One AdamW step along the walk's gradient, scaled down to the clip.
    fn update(&self, next: &mut Trained, norm: f64, pass: u32) -> Result<()> {
        let config = &self.config;
        let settings = AdamW {
            lr: config.lr,
            beta1: config.betas[0],
            beta2: config.betas[1],
            eps: config.eps,
            weight_decay: config.weight_decay,
        };
        next.steps += 1;
        let (model, scale) = (&self.model, clip_scale(config.grad_clip, norm));
        let (trainee, grads) = (&mut next.trainee, &self.walk.grads);
        trainee
            .step(model, &settings, next.steps, scale, grads)
            .map_err(|source| Error::Policy {
                action: "take an optimizer step",
                source,
            })?;
        let params = trainee.adapter().params();
        let norm = kernels::adamw::norm(model.pool(), params);
        walk::finite("the adapter's norm", norm, pass)
    }

    fn make_live(&mut self, version: PolicyVersion, trained: Trained) {
        self.slot.publish(Deployed {
            version,
            adapter: Some(Arc::clone(trained.trainee.adapter())),
        });
        if self.keeps_one {
            self.slot.forget();
        }
        self.version = version;
        self.trained = trained;
        self.proposed = None;
    }
}

impl rl::Learner for LoraLearner {
    fn version(&self) -> PolicyVersion {
        self.version
    }

    fn step(&mut self, batch: &Batch) -> rl::Result<Proposal> {
        self.propose(batch)
            .map_err(|error| error.at_seam("the step"))
    }

    fn no_room_for(&self, sample: &rl::Sample) -> Option<String> {
        let room = self.walk.space.check_room(sample);
        room.err().map(|error| error.to_string())
    }

    fn stage(&mut self) -> rl::Result<()> {
        let proposed = self.proposed.as_ref().map(|p| p.trainee.adapter());
        stage(self.candidate.as_deref(), proposed, self.version)
    }

    fn unstage(&mut self) {
        unstage(self.candidate.as_deref());
    }

    fn reset(&mut self, version: PolicyVersion) -> rl::Result<()> {
        let fresh = start(&self.model, &self.config, None, self.seed)
            .and_then(|adapter| Trained::new(&self.model, adapter, Moments::fresh()));
        self.trained = fresh.map_err(|error| error.at_seam("going back to the base"))?;
        self.version = version;
        self.proposed = None;
        self.slot.publish(Deployed {
            version,
            adapter: None,
        });
        Ok(())
    }

    fn deploy(&mut self, version: PolicyVersion) -> rl::Result<()> {
        if version <= self.version {
            let error = Error::Version {
                version,
                current: self.version,
            };
            return Err(error.at_seam("the deployment"));
        }
        let Some(proposed) = self.proposed.take() else {
            return Err(Error::NoProposal.at_seam("the deployment"));
        };
        self.make_live(version, proposed);
        Ok(())
    }

    fn restore(
        &mut self,
        version: PolicyVersion,
        adapter: &[u8],
        optimizer: &[u8],
    ) -> rl::Result<()> {
        let read = || -> Result<Trained> {
            let adapter = read_adapter(&self.model, &self.config, adapter)?;
            let moments = Moments::from_bytes(optimizer, adapter.params().len())?;
            self.model.prepare(&adapter).map_err(walk::prepare)?;
            Trained::new(&self.model, Arc::new(adapter), moments)
        };
        let trained = read().map_err(|error| error.at_seam("the restoration"))?;
        self.make_live(version, trained);
        Ok(())
    }
}

/// Puts a proposal where it can be asked. Its version is not decided yet: the one after its parent names it meanwhile.
pub(crate) fn stage(
    slot: Option<&Slot>,
    proposed: Option<&Arc<Adapter>>,
    parent: PolicyVersion,
) -> rl::Result<()> {
    let staging = |error: Error| error.at_seam("the staging of a proposal");
    let slot = slot.ok_or_else(|| staging(Error::NoPlace))?;
    let adapter = proposed.ok_or_else(|| staging(Error::NoProposal))?;
    slot.publish(Deployed {
        version: parent.next(),
        adapter: Some(Arc::clone(adapter)),
    });
    Ok(())
}

/// Leaves the base weights in the candidate's place, and no candidate in memory.
pub(crate) fn unstage(slot: Option<&Slot>) {
    if let Some(slot) = slot {
        slot.publish(Deployed::default());
        slot.forget();
    }
}

/// The slot's adapter, or a fresh one.
pub(crate) fn start(
    model: &Model,
    config: &Config,
    live: Option<&Arc<Adapter>>,
    seed: Seed,
) -> Result<Arc<Adapter>> {
    if let Some(adapter) = live {
        check_shape(config, adapter)?;
        return Ok(Arc::clone(adapter));
    }
    let fresh = Adapter::init(model.config(), config.rank, config.alpha, seed.get());
    let fresh = fresh.map_err(|source| Error::Policy {
        action: "make an adapter",
        source,
    })?;
    Ok(Arc::new(fresh))
}

/// The adapter in these bytes, which must have the settings' rank.
pub(crate) fn read_adapter(model: &Model, config: &Config, bytes: &[u8]) -> Result<Adapter> {
    let adapter =
        Adapter::from_safetensors(bytes, model.config(), config.alpha).map_err(|source| {
            Error::Policy {
                action: "read the adapter",
                source,
            }
        })?;
    check_shape(config, &adapter)?;
    Ok(adapter)
}

/// Settings that say another adapter than the one that is trained would be settings that nothing reads.
pub(crate) fn check_shape(config: &Config, adapter: &Adapter) -> Result<()> {
    if adapter.rank() != config.rank {
        let why = format!(
            "is {}, but the adapter's rank is {}",
            config.rank,
            adapter.rank()
        );
        return Err(Error::Setting { key: "rank", why });
    }
    if adapter.alpha().to_bits() != config.alpha.to_bits() {
        let why = format!(
            "is {}, but the adapter's alpha is {}",
            config.alpha,
            adapter.alpha()
        );
        return Err(Error::Setting { key: "alpha", why });
    }
    Ok(())
}

/// What every gradient is multiplied with, as `torch.nn.utils.clip_grad_norm_` has it.
pub(crate) fn clip_scale(clip: f32, norm: f64) -> f32 {
    const FLOOR: f64 = 1e-6;
    let scale = f64::from(clip) / (norm + FLOOR);
    if scale < 1.0 { scale as f32 } else { 1.0 }
}

/// One step's figures from its passes': means of what a mean describes, the largest of norms and ratios, and the first
/// pass's comparison with what was recorded (later ones run other weights).
fn merge(step: &mut StepMetrics, pass: &StepMetrics, number: u32) {
    if number == 1 {
        *step = *pass;
        return;
    }
    let share = 1.0 / f64::from(number);
    let mean = |so_far: &mut f64, next: f64| *so_far += share * (next - *so_far);
    mean(&mut step.loss, pass.loss);
    mean(&mut step.pg_loss, pass.pg_loss);
    mean(&mut step.kl, pass.kl);
    mean(&mut step.ratio_mean, pass.ratio_mean);
    mean(&mut step.clipped, pass.clipped);
    step.grad_norm = step.grad_norm.max(pass.grad_norm);
    step.ratio_max = step.ratio_max.max(pass.ratio_max);
}

fn keeping(source: policy::Error) -> Error {
    Error::Policy {
        action: "keep the optimizer's state",
        source,
    }
}

pub(crate) fn writing(source: policy::Error) -> Error {
    Error::Policy {
        action: "write the adapter",
        source,
    }
}
