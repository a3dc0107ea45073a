//! What is put around a host's seams: a switch, a stopwatch, and the ways in which a reward rule or a learner goes wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use app::config::Plugins;
use parking_lot::Mutex;
use rl::{
    AdapterName, Batch, JudgedTurn, Learner, Policy, PolicyVersion, Proposal, RewardRule,
    ScoreRequest, TokenId, TurnReward, Verdict, Vote, Weights,
};

/// Tokens of a reply that says one rare token again and again.
const CIRCLE: usize = 24;

/// Off until the disaster begins. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Switch(Arc<AtomicBool>);

impl Switch {
    pub(crate) fn turn_on(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    fn is_on(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// When steps began, in the ledger's milliseconds. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stopwatch(Arc<Mutex<Vec<i64>>>);

impl Stopwatch {
    /// The first step that began at this time or later.
    pub(crate) fn first_since(&self, ms: i64) -> Option<i64> {
        self.0.lock().iter().copied().find(|start| *start >= ms)
    }

    /// The last step that began at this time or earlier.
    pub(crate) fn last_until(&self, ms: i64) -> Option<i64> {
        self.0.lock().iter().copied().rfind(|start| *start <= ms)
    }
}

/// Milliseconds since 1970, as the ledger counts them.
pub(crate) fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_millis()).ok())
        .unwrap_or(0)
}

/// A learner's step, gone wrong.
pub(crate) type Tamper =
    Arc<dyn Fn(&mut dyn Learner, &Batch) -> rl::Result<Proposal> + Send + Sync>;

/// A learner that is timed, and tampered with once the switch is on.
pub(crate) struct Tampered {
    pub(crate) inner: Box<dyn Learner>,
    pub(crate) switch: Switch,
    pub(crate) stopwatch: Stopwatch,
    pub(crate) tamper: Tamper,
}

impl Learner for Tampered {
    fn version(&self) -> PolicyVersion {
        self.inner.version()
    }

    fn step(&mut self, batch: &Batch) -> rl::Result<Proposal> {
        self.stopwatch.0.lock().push(now_ms());
        if self.switch.is_on() {
            (self.tamper)(&mut *self.inner, batch)
        } else {
            self.inner.step(batch)
        }
    }

    fn no_room_for(&self, sample: &rl::Sample) -> Option<String> {
        self.inner.no_room_for(sample)
    }

    fn stage(&mut self) -> rl::Result<()> {
        self.inner.stage()
    }

    fn unstage(&mut self) {
        self.inner.unstage();
    }

    fn deploy(&mut self, version: PolicyVersion) -> rl::Result<()> {
        self.inner.deploy(version)
    }

    fn reset(&mut self, version: PolicyVersion) -> rl::Result<()> {
        self.inner.reset(version)
    }

    fn restore(
        &mut self,
        version: PolicyVersion,
        adapter: &[u8],
        optimizer: &[u8],
    ) -> rl::Result<()> {
        self.inner.restore(version, adapter, optimizer)
    }
}

/// The step as it is.
pub(crate) fn honest() -> Tamper {
    Arc::new(|learner, batch| learner.step(batch))
}

/// Every place in which a number can be none: the batch, the weights, and what the step measured. A learner that takes one of
/// the first three gives a proposal; the last is for whoever asked.
pub(crate) fn nans() -> Tamper {
    let steps = AtomicU64::new(0);
    Arc::new(move |learner, batch| {
        let mut refused = Vec::new();
        let poisons: [fn(&mut rl::Sample); 2] = [
            |sample| sample.advantage[0] = f32::NAN,
            |sample| sample.behaviour[0] = f32::NAN,
        ];
        for poison in poisons {
            let mut batch = batch.clone();
            batch.samples.iter_mut().take(1).for_each(poison);
            match learner.step(&batch) {
                Ok(proposal) => return Ok(proposal),
                Err(error) => refused.push(error.to_string()),
            }
        }
        let parent = learner.version();
        let mut proposal = learner.step(batch)?;
        let mut weights = proposal.adapter.clone();
        let end = weights.len().saturating_sub(4);
        weights.truncate(end);
        weights.extend(f32::NAN.to_le_bytes());
        match learner.restore(parent, &weights, &proposal.optimizer) {
            Ok(()) => return learner.step(batch),
            Err(error) => refused.push(error.to_string()),
        }
        if steps.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) {
            let why = refused.join("; ");
            let what = "a step with a NaN".to_owned();
            return Err(rl::Error::Refused { what, why });
        }
        proposal.metrics.grad_norm = f64::NAN;
        Ok(proposal)
    })
}

/// As if every reply had been the same rare token again and again, and had been praised.
pub(crate) fn attractor(policy: Arc<dyn Policy>, adapter: AdapterName) -> Tamper {
    Arc::new(move |learner, batch| {
        let token: TokenId = policy
            .encode_text(" xylophone")?
            .first()
            .copied()
            .unwrap_or_default();
        let mut batch = batch.clone();
        for sample in &mut batch.samples {
            let response = vec![token; CIRCLE];
            let behaviour = policy.score(ScoreRequest {
                weights: Weights::Adapter(adapter.clone()),
                prompt: sample.prompt.clone(),
                continuations: vec![response.clone()],
                temperature: sample.temperature,
            })?;
            sample.version = learner.version();
            sample.behaviour = behaviour.into_iter().flatten().collect();
            sample.advantage = vec![1.0; CIRCLE];
            sample.weight = vec![1.0; CIRCLE];
            sample.response = response;
        }
        learner.step(&batch)
    })
}

/// One reward rule until the switch is on, another from then on.
pub(crate) struct Changing {
    pub(crate) before: Arc<dyn RewardRule>,
    pub(crate) after: Arc<dyn RewardRule>,
    pub(crate) switch: Switch,
}

impl Changing {
    fn rule(&self) -> &dyn RewardRule {
        if self.switch.is_on() {
            &*self.after
        } else {
            &*self.before
        }
    }
}

impl RewardRule for Changing {
    fn name(&self) -> String {
        self.rule().name()
    }

    fn verdict(&self, votes: &[Vote]) -> rl::Result<Option<Verdict>> {
        self.rule().verdict(votes)
    }

    fn turn_rewards(
        &self,
        turns: &[JudgedTurn],
        outcome: Option<f64>,
    ) -> rl::Result<Vec<TurnReward>> {
        self.rule().turn_rewards(turns, outcome)
    }

    fn advantages(&self, rewards_gt: &[Vec<Option<f32>>]) -> rl::Result<Vec<Vec<Option<f32>>>> {
        self.rule().advantages(rewards_gt)
    }
}

/// A native rule whose every reward is no number: what the plugin seam would catch, past the plugin seam.
pub(crate) struct NanRule;

impl RewardRule for NanRule {
    fn name(&self) -> String {
        "nan native".into()
    }

    fn verdict(&self, votes: &[Vote]) -> rl::Result<Option<Verdict>> {
        rl::seam::MajorityRule.verdict(votes)
    }

    fn turn_rewards(
        &self,
        turns: &[JudgedTurn],
        outcome: Option<f64>,
    ) -> rl::Result<Vec<TurnReward>> {
        let mut rewards = rl::seam::MajorityRule.turn_rewards(turns, outcome)?;
        for reward in &mut rewards {
            reward.reward = Some(f32::NAN);
        }
        Ok(rewards)
    }

    fn advantages(&self, rewards_gt: &[Vec<Option<f32>>]) -> rl::Result<Vec<Vec<Option<f32>>>> {
        rl::seam::MajorityRule.advantages(rewards_gt)
    }
}

/// The real guest that goes wrong in this way, in a sandbox as every plugin.
pub(crate) fn faulty(abuse: &str) -> anyhow::Result<Arc<dyn RewardRule>> {
    let folder = tempfile::tempdir()?;
    let guest = bundled::fixtures::FAULTY;
    std::fs::write(folder.path().join("plugin.toml"), guest.manifest)?;
    std::fs::write(folder.path().join("plugin.wasm"), guest.component)?;
    let name = folder.path().to_string_lossy().into_owned();
    let section = folder.path().file_name().unwrap_or_default();
    let section = section.to_string_lossy().into_owned();
    let mut plugins = Plugins {
        reward: name,
        ..Plugins::default()
    };
    let granted = ["config", "random", "clock"].map(str::to_owned);
    plugins.grants.insert(section.clone(), granted.to_vec());
    let settings = [("abuse".to_owned(), abuse.into())];
    plugins
        .config
        .insert(section, settings.into_iter().collect());
    Ok(app::guests::load_plugins(
        &plugins,
        rl::Seed::new(0),
        plugin::outside::Outside::default(),
    )?
    .reward)
}
