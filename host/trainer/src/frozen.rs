//! The learner that measures everything and moves nothing: the control arm of an experiment.
//!
//! Runs the same forward, loss and backward as [`crate::LoraLearner`] and proposes the weights that it started from. What
//! improves under it was not the training.

use std::sync::Arc;
use std::time::Instant;

use policy::{Adapter, Deployed, Model, Slot};
use rl::{Batch, PolicyVersion, Proposal, Seed, StepMetrics};

use crate::adamw::Moments;
use crate::lora::{read_adapter, stage, start, unstage, writing};
use crate::walk::{self, Walk, Workspace};
use crate::{Config, Error, Result};

/// A learner whose proposals hold the weights that they started from.
#[derive(Debug)]
pub struct FrozenLearner {
    model: Arc<Model>,
    slot: Arc<Slot>,
    config: Config,
    version: PolicyVersion,
    adapter: Arc<Adapter>,
    steps: u64,
    proposed: bool,
    candidate: Option<Arc<Slot>>,
    walk: Walk,
    seed: Seed,
}

impl FrozenLearner {
    /// A learner that keeps the adapter in `slot`, or the fresh one of this seed, which changes nothing. Further passes and
    /// the optimizer's settings have no effect here.
    ///
    /// # Errors
    /// [`Error::Setting`] when the settings are refused, or say another rank or alpha than the slot's adapter has.
    pub fn new(model: Arc<Model>, slot: Arc<Slot>, config: Config, seed: Seed) -> Result<Self> {
        config.validate()?;
        let live = slot.load();
        let adapter = start(&model, &config, live.adapter.as_ref(), seed)?;
        Ok(Self {
            walk: Walk::new(&adapter, Workspace::default()),
            version: live.version,
            steps: 0,
            proposed: false,
            candidate: None,
            model,
            slot,
            config,
            adapter,
            seed,
        })
    }

    /// The same, with a place where proposals are put to be asked before they are live ([`rl::Learner::stage`]).
    #[must_use]
    pub fn with_candidate(mut self, slot: Arc<Slot>) -> Self {
        self.candidate = Some(slot);
        self
    }

    fn propose(&mut self, batch: &Batch) -> Result<Proposal> {
        let started = Instant::now();
        self.proposed = false;
        walk::check(&self.model, &self.walk.space, &self.config, batch)?;
        let metrics = self.walk.pass(
            &self.model,
            (&self.adapter, self.version, &self.slot),
            &self.config,
            batch,
            1,
        )?;
        let step = self.steps + 1;
        let proposal = Proposal {
            parent: self.version,
            adapter: self.adapter.to_safetensors().map_err(writing)?,
            optimizer: Moments {
                step,
                ..Moments::fresh()
            }
            .to_bytes()?,
            adapter_digest: self.adapter.digest(),
            settings: self.config.to_json(),
            metrics: StepMetrics {
                step,
                seconds: started.elapsed().as_secs_f64(),
                ..metrics
            },
        };
        self.proposed = true;
        Ok(proposal)
    }

    fn make_live(&mut self, version: PolicyVersion) {
        self.slot.publish(Deployed {
            version,
            adapter: Some(Arc::clone(&self.adapter)),
        });
        self.version = version;
        self.proposed = false;
    }
}

impl rl::Learner for FrozenLearner {
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
        let proposed = self.proposed.then_some(&self.adapter);
        stage(self.candidate.as_deref(), proposed, self.version)
    }

    fn unstage(&mut self) {
        unstage(self.candidate.as_deref());
    }

    fn reset(&mut self, version: PolicyVersion) -> rl::Result<()> {
        let fresh = start(&self.model, &self.config, None, self.seed);
        let fresh = fresh.map_err(|error| error.at_seam("going back to the base"))?;
        self.steps = 0;
        self.adapter = fresh;
        self.version = version;
        self.proposed = false;
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
        if !self.proposed {
            return Err(Error::NoProposal.at_seam("the deployment"));
        }
        self.steps += 1;
        self.make_live(version);
        Ok(())
    }

    fn restore(
        &mut self,
        version: PolicyVersion,
        adapter: &[u8],
        optimizer: &[u8],
    ) -> rl::Result<()> {
        let read = || -> Result<(Adapter, u64)> {
            let adapter = read_adapter(&self.model, &self.config, adapter)?;
            Ok((adapter, Moments::step_in(optimizer)?))
        };
        let (adapter, steps) = read().map_err(|error| error.at_seam("the restoration"))?;
        self.steps = steps;
        self.adapter = Arc::new(adapter);
        self.make_live(version);
        Ok(())
    }
}
