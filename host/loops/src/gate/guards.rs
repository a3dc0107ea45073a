//! The guards: each a number from the probe replies, a limit, and a sentence.
//!
//! Pure arithmetic. A number that is not finite never passes.

use serde::{Deserialize, Serialize};

use super::{
    Limits, Probe,
    asking::{Spoken, total},
};
use crate::{evidence::Wealth, signs};

/// Where the ratio of the KL estimate is capped: e^3. One token that the candidate drew against all odds says little.
const MOST_LOG_RATIO: f64 = 3.0;

/// What a guard found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Finding {
    /// The guard, as its limit is called.
    pub name: String,
    /// Whose gate it is; none for the host's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// What was measured; none when it is no finite number.
    pub value: Option<f64>,
    /// What is allowed.
    pub limit: f64,
    /// Whether it is within the limit.
    pub passed: bool,
    /// Both in words; never a reply's, which lie where they can be erased.
    pub why: String,
}

/// One probe's replies and log-probs.
#[derive(Clone, Copy)]
pub(super) struct Scene<'a> {
    pub(super) probe: &'a Probe,
    pub(super) candidate: &'a Spoken,
    pub(super) live: &'a Spoken,
    pub(super) base: &'a Spoken,
    /// The candidate's reply under the live version and under the base.
    pub(super) under_live: &'a [f32],
    pub(super) under_base: &'a [f32],
    /// The candidate's and the base's reply under the base, as answers to another question: the likeliest of some.
    pub(super) elsewhere: [Option<f64>; 2],
    /// The live version's reply under the candidate.
    pub(super) live_under_candidate: &'a [f32],
}

impl Scene<'_> {
    /// Whether candidate and base do the task.
    pub(super) fn tasks(&self) -> Option<(bool, bool)> {
        let candidate = self.probe.check(&self.candidate.text)?;
        Some((candidate, self.probe.check(&self.base.text)?))
    }

    /// Whether the base finds a reply, the candidate's and its own, no likelier as an answer to this question than to another:
    /// then it answers none.
    fn off_topic(&self) -> [Option<bool>; 2] {
        let here = [self.under_base, &self.base.logprobs];
        [0, 1].map(|of| Some(total(here[of]) <= self.elsewhere[of]?))
    }
}

/// KL from what drew the tokens to the other, nats a token.
///
/// # Source
/// Schulman 2020, "Approximating KL divergence", k3: unbiased, never negative. Departs from it: the ratio is capped.
pub(super) fn kl<'a>(pairs: impl Iterator<Item = (&'a [f32], &'a [f32])>) -> f64 {
    mean(pairs.flat_map(|(drawn, other)| {
        drawn.iter().zip(other).map(|(drawn, other)| {
            let log_ratio = (f64::from(*other) - f64::from(*drawn)).min(MOST_LOG_RATIO);
            log_ratio.exp() - 1.0 - log_ratio
        })
    }))
}

/// The mean; 0 of nothing.
fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (count, sum) = values.fold((0_u32, 0.0), |(n, sum), value| (n + 1, sum + value));
    if count == 0 {
        0.0
    } else {
        sum / f64::from(count)
    }
}

fn entropy<'a>(replies: impl Iterator<Item = &'a Spoken>) -> f64 {
    mean(replies.flat_map(|reply| reply.logprobs.iter().map(|logprob| -f64::from(*logprob))))
}

/// The findings of one gate, the host's or a tenant's.
pub(super) struct Guards<'a> {
    pub(super) tenant: Option<&'a str>,
    pub(super) limits: &'a Limits,
    pub(super) scenes: &'a [Scene<'a>],
}

impl Guards<'_> {
    /// All of them. `line` is the evidence of the versions before; it grows by this one's.
    pub(super) fn findings(&self, line: &mut Wealth) -> Vec<Finding> {
        let mut found = vec![self.finite()];
        found.extend(self.distances());
        found.extend(self.lengths());
        found.extend(self.manners());
        found.push(self.relevance());
        found.extend(self.tasks(line));
        found
    }

    fn finite(&self) -> Finding {
        let numbers = self.scenes.iter().flat_map(|scene| {
            let own = scene.candidate.logprobs.iter();
            own.chain(scene.live_under_candidate)
        });
        let bad = numbers.filter(|number| !number.is_finite()).count();
        let why = format!("{bad} log-probs of the candidate are no numbers");
        self.at_most("finite", bad as f64, 0.0, why)
    }

    fn distances(&self) -> [Finding; 3] {
        let scenes = self.scenes;
        let drift = mean(scenes.iter().flat_map(|scene| {
            let pairs = scene.live.logprobs.iter().zip(scene.live_under_candidate);
            pairs.map(|(own, candidate)| f64::from(*own) - f64::from(*candidate))
        }));
        let to_live = kl(scenes
            .iter()
            .map(|scene| (&*scene.candidate.logprobs, scene.under_live)));
        let to_base = kl(scenes
            .iter()
            .map(|scene| (&*scene.candidate.logprobs, scene.under_base)));
        let limits = self.limits;
        let say = |what: &str, value: f64| format!("{what} {value:.2} nats a token");
        [
            self.at_most(
                "drift",
                drift,
                limits.drift,
                say("the live version's replies lose", drift),
            ),
            self.at_most(
                "kl-live",
                to_live,
                limits.kl_live,
                say("the KL to the live version is", to_live),
            ),
            self.at_most(
                "kl-base",
                to_base,
                limits.kl_base,
                say("the KL to the base is", to_base),
            ),
        ]
    }

    fn lengths(&self) -> [Finding; 3] {
        let length = |of: fn(&Scene<'_>) -> usize| mean(self.scenes.iter().map(|s| of(s) as f64));
        let candidate = length(|scene| scene.candidate.tokens.len());
        let live = length(|scene| scene.live.tokens.len());
        // A reply has a token at least; so does the live version's.
        let ratio = candidate / live.max(1.0);
        let cut = self.rise(|spoken| f64::from(u8::from(spoken.cut_off)));
        let limits = self.limits;
        let why = format!("replies have {candidate:.1} tokens, the live version's {live:.1}");
        [
            self.at_most("longer", ratio, limits.longer, why.clone()),
            self.finding(
                "shorter",
                ratio,
                limits.shorter,
                ratio >= limits.shorter,
                why,
            ),
            self.at_most(
                "cut-off",
                cut,
                limits.cut_off,
                format!("the share of replies that the limit cuts off rises by {cut:.2}"),
            ),
        ]
    }

    fn manners(&self) -> [Finding; 3] {
        let candidate = entropy(self.scenes.iter().map(|scene| scene.candidate));
        let live = entropy(self.scenes.iter().map(|scene| scene.live));
        let base = entropy(self.scenes.iter().map(|scene| scene.base));
        let entropy = candidate - live.max(base);
        let repetition = self.above_base(|spoken| signs::repetition(&spoken.tokens));
        let errors = self.above_base(|spoken| f64::from(u8::from(spoken.broken().is_some())));
        let limits = self.limits;
        let broken = self.scenes.iter().find_map(|s| s.candidate.broken());
        let example = broken.map(|why| format!(" (one: {why})"));
        [
            self.at_most(
                "entropy",
                entropy,
                limits.entropy,
                format!("the entropy is {candidate:.2} nats a token, {entropy:+.2} above before"),
            ),
            self.at_most(
                "repetition",
                repetition,
                limits.repetition,
                format!("the share of repeated phrases rises by {repetition:.2}"),
            ),
            self.at_most(
                "errors",
                errors,
                limits.errors,
                format!(
                    "the share of broken replies rises by {errors:.2}{}",
                    example.unwrap_or_default()
                ),
            ),
        ]
    }

    fn relevance(&self) -> Finding {
        let share = |of: usize| {
            let off = |scene: &Scene<'_>| Some(f64::from(u8::from(scene.off_topic()[of]?)));
            mean(self.scenes.iter().filter_map(off))
        };
        let rise = share(0) - share(1);
        let why =
            format!("the share of replies that answer another question as well rises by {rise:.2}");
        self.at_most("off-topic", rise, self.limits.off_topic, why)
    }

    fn tasks(&self, line: &mut Wealth) -> [Finding; 2] {
        let limits = self.limits;
        line.begin_round();
        let (mut done, mut base_done, mut tasks) = (0_u32, 0_u32, 0_u32);
        for (candidate, base) in self.scenes.iter().filter_map(Scene::tasks) {
            tasks += 1;
            done += u32::from(candidate);
            base_done += u32::from(base);
            let failed = |done: bool| f64::from(u8::from(!done));
            line.see(failed(candidate), failed(base), limits.tolerance);
        }
        let fall = (f64::from(base_done) - f64::from(done)) / f64::from(tasks.max(1));
        let (wealth, most) = (line.value(), 1.0 / limits.alpha);
        [
            self.at_most(
                "score",
                fall,
                limits.score,
                format!("{done} of {tasks} tasks are done, {base_done} by the base"),
            ),
            self.finding(
                "tolerance",
                wealth,
                most,
                wealth < most,
                format!("the evidence that this line lost more tasks than it may is {wealth:.2}"),
            ),
        ]
    }

    /// How far a mean over the candidate's replies is above the base's: measured from the live version, a rise that is allowed
    /// once would be allowed again at every version.
    fn above_base(&self, measure: impl Fn(&Spoken) -> f64) -> f64 {
        let candidate = mean(self.scenes.iter().map(|scene| measure(scene.candidate)));
        candidate - mean(self.scenes.iter().map(|scene| measure(scene.base)))
    }

    /// How far a mean over the candidate's replies is above the larger one of live version and base.
    fn rise(&self, measure: impl Fn(&Spoken) -> f64) -> f64 {
        let candidate = mean(self.scenes.iter().map(|scene| measure(scene.candidate)));
        let live = mean(self.scenes.iter().map(|scene| measure(scene.live)));
        let base = mean(self.scenes.iter().map(|scene| measure(scene.base)));
        candidate - live.max(base)
    }

    fn at_most(&self, name: &str, value: f64, limit: f64, why: String) -> Finding {
        self.finding(name, value, limit, value <= limit, why)
    }

    fn finding(&self, name: &str, value: f64, limit: f64, within: bool, why: String) -> Finding {
        let passed = within && value.is_finite();
        Finding {
            name: name.to_owned(),
            tenant: self.tenant.map(str::to_owned),
            value: value.is_finite().then_some(value),
            limit,
            passed,
            why: format!("{why}; the limit is {limit}"),
        }
    }
}
