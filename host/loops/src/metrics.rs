//! Every metric of the loops, declared once. Counts are since the start of the process; the ledger has the whole story.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

/// One label, whose name says nothing more than its metric does.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Label {
    /// The value.
    pub value: String,
}

/// The label with this value.
pub(crate) fn label(value: impl Into<String>) -> Label {
    Label {
        value: value.into(),
    }
}

/// The metrics. Cheap to clone; every clone counts into the same numbers.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    pub(crate) turns: Family<Label, Counter>,
    pub(crate) not_trainable: Family<Label, Counter>,
    pub(crate) closed: Family<Label, Counter>,
    pub(crate) votes: Family<Label, Counter>,
    pub(crate) verdicts: Family<Label, Counter>,
    pub(crate) hints: Family<Label, Counter>,
    pub(crate) feedback: Counter,
    pub(crate) samples: Counter,
    pub(crate) trained: Counter,
    pub(crate) steps: Family<Label, Counter>,
    pub(crate) fresh_tokens: Counter,
    pub(crate) rechecked_tokens: Counter,
    pub(crate) uncompared_tokens: Counter,
    pub(crate) mismatched_tokens: Counter,
    pub(crate) fingerprints: Family<Label, Counter>,
    pub(crate) plugin_failures: Family<Label, Counter>,
    pub(crate) episodes: Counter,
    pub(crate) restarts: Family<Label, Counter>,
    pub(crate) sessions: Gauge,
    pub(crate) version: Gauge,
    pub(crate) depth: Family<Label, Gauge>,
    pub(crate) oldest: Family<Label, Gauge<f64, std::sync::atomic::AtomicU64>>,
    pub(crate) judge_time: Timing,
    pub(crate) step_time: Timing,
    pub(crate) publish_time: Timing,
}

/// A histogram of seconds, from 1 ms to 17 minutes.
#[derive(Clone, Debug)]
pub(crate) struct Timing(pub(crate) Histogram);

impl Default for Timing {
    fn default() -> Self {
        Self(Histogram::new(exponential_buckets(0.001, 2.0, 21)))
    }
}

impl Metrics {
    /// Declares every metric in `registry`, under `loops_`.
    pub fn register(registry: &mut Registry) -> Self {
        let m = Self::default();
        let r = registry.sub_registry_with_prefix("loops");
        r.register("turns", "turns recorded, by kind", m.turns.clone());
        r.register(
            "not_trainable_turns",
            "turns that will not be trained, by reason",
            m.not_trainable.clone(),
        );
        r.register(
            "closed_turns",
            "turns whose wait ended, by how",
            m.closed.clone(),
        );
        r.register("votes", "judge votes, by value", m.votes.clone());
        r.register(
            "verdicts",
            "verdicts, by value and decider",
            m.verdicts.clone(),
        );
        r.register(
            "hints",
            "hints asked for, by what became of them",
            m.hints.clone(),
        );
        r.register("feedback", "feedback calls recorded", m.feedback.clone());
        r.register("samples", "samples made", m.samples.clone());
        r.register(
            "trained_samples",
            "samples in committed versions",
            m.trained.clone(),
        );
        r.register("steps", "optimizer steps, by outcome", m.steps.clone());
        register_exactness(r, &m);
        r.register(
            "plugin_failures",
            "failed or timed-out calls of plugins and of the judge model, by function",
            m.plugin_failures.clone(),
        );
        r.register("episodes", "hosted episodes finished", m.episodes.clone());
        r.register(
            "restarts",
            "loops started again after a failure",
            m.restarts.clone(),
        );
        r.register("sessions", "sessions in memory", m.sessions.clone());
        r.register("version", "newest committed version", m.version.clone());
        r.register(
            "queue_depth",
            "work that is not finished, by queue",
            m.depth.clone(),
        );
        r.register(
            "queue_oldest_seconds",
            "age of the oldest unfinished work",
            m.oldest.clone(),
        );
        r.register(
            "judge_seconds",
            "time to judge a turn",
            m.judge_time.0.clone(),
        );
        r.register(
            "step_seconds",
            "time of an optimizer step",
            m.step_time.0.clone(),
        );
        r.register(
            "publish_seconds",
            "time from a step's end until its version is live",
            m.publish_time.0.clone(),
        );
        m
    }
}

/// Whether what is trained is what was served.
fn register_exactness(r: &mut Registry, m: &Metrics) {
    r.register(
        "fresh_tokens",
        "tokens in steps that the weights before the step had sampled: compared with what training computes, whatever became of the step",
        m.fresh_tokens.clone(),
    );
    r.register(
        "rechecked_tokens",
        "tokens in steps of older weights, compared with what those compute: one sample a step, when they are still in memory",
        m.rechecked_tokens.clone(),
    );
    r.register(
        "uncompared_tokens",
        "tokens in steps that nothing was compared for: of older weights, or of a step that the learner refused",
        m.uncompared_tokens.clone(),
    );
    r.register(
        "mismatched_tokens",
        "fresh and rechecked tokens whose log-prob in training differs in any bit from the recorded one",
        m.mismatched_tokens.clone(),
    );
    r.register(
        "fingerprints",
        "fingerprints that replies of the trained adapter carry, against the ledger's: same, other, none",
        m.fingerprints.clone(),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_exposed_with_its_prefix_and_help() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        metrics.turns.get_or_create(&label("main")).inc();
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(
            text.contains("loops_turns_total{value=\"main\"} 1"),
            "{text}"
        );
        assert!(text.contains("# HELP loops_judge_seconds"), "{text}");
    }
}
