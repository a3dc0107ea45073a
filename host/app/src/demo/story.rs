//! What one run of the demo did: the data behind the table, the curve and the report.

use std::collections::BTreeMap;

use super::curve::Point;
use super::exam::Exam;

/// One exchange with the scripted user.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Interaction {
    /// From 1.
    pub number: usize,
    /// What the user said.
    pub said: String,
    /// What the policy replied.
    pub reply: String,
    /// What the user said to that.
    pub reaction: String,
    /// The programmatic rule's mark of the reply (never trained on).
    pub score: f64,
    /// The version that replied.
    pub version: u64,
    /// Tokens of the reply.
    pub tokens: u32,
}

/// One version of the weights.
#[derive(Clone, Debug, serde::Serialize)]
pub struct VersionRow {
    /// Its number.
    pub version: u64,
    /// Samples it was trained on.
    pub samples: usize,
    /// What its step measured.
    pub metrics: BTreeMap<String, f64>,
}

/// Counts and times of the loops.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Figures {
    /// Turns whose verdict was positive, negative, ambiguous; and those without verdict.
    pub verdicts: [u64; 4],
    /// Hints accepted.
    pub hints: u64,
    /// Share of verdicts that agree with the programmatic rule, over turns that have both.
    pub judge_agreement: Option<f64>,
    /// Tokens of replies judged.
    pub tokens_judged: u64,
    /// Tokens of replies trained.
    pub tokens_trained: u64,
    /// Mean seconds from a reaction's record to its verdict's: votes, hints and teacher, and the wait for the engine.
    pub seconds_to_verdict: f64,
    /// Seconds spent in optimizer steps.
    pub seconds_training: f64,
    /// Seconds from the first question to the last version.
    pub seconds_talking: f64,
    /// Seconds of the whole run, exams included.
    pub seconds_total: f64,
    /// Token rows a second through the engine while talking: prompts, replies, votes, hints, teacher.
    pub tokens_per_second: f64,
    /// Most memory the process held, in bytes.
    pub peak_memory: Option<u64>,
    /// Fresh trained tokens whose recomputed log-prob differed in any bit from the recorded one.
    pub mismatched: u64,
}

/// One run of the demo.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Story {
    /// The model's name.
    pub model: String,
    /// The hidden preference.
    pub persona: String,
    /// Its rule in words: shown to the reader, never to the policy.
    pub rule: String,
    /// The algorithm.
    pub method: String,
    /// The run's seed.
    pub seed: u64,
    /// The exam before.
    pub before: Exam,
    /// The exam after.
    pub after: Exam,
    /// All exchanges.
    pub interactions: Vec<Interaction>,
    /// All versions.
    pub versions: Vec<VersionRow>,
    /// Counts and times.
    pub figures: Figures,
}

impl Story {
    /// How much more satisfied the user is on questions that were never trained.
    pub fn gain(&self) -> f64 {
        self.after.satisfaction().value - self.before.satisfaction().value
    }

    /// The points of the learning curve.
    pub fn points(&self) -> Vec<Point> {
        self.interactions
            .iter()
            .map(|i| Point {
                interaction: i.number,
                score: i.score,
                version: i.version,
            })
            .collect()
    }

    /// Guards that fell below what they were before by more than noise explains, by name.
    ///
    /// A guard holds when its mean after is at least 0.8, or not more than 0.10 below its mean before.
    pub fn broken_guards(&self) -> Vec<String> {
        self.after
            .guard_names()
            .into_iter()
            .filter(|name| {
                let (before, after) = (self.before.guard(name), self.after.guard(name));
                after < 0.8 && after < before - 0.10
            })
            .collect()
    }

    /// The held-out question whose reply tells the most: the one that gained most, then the longest before.
    pub fn showpiece(&self) -> Option<(&super::exam::Answer, &super::exam::Answer)> {
        self.before
            .answers
            .iter()
            .zip(&self.after.answers)
            .max_by(|a, b| {
                let key = |(before, after): &(&super::exam::Answer, &super::exam::Answer)| {
                    let topical = after.guards.values().sum::<f64>();
                    (after.score - before.score) + topical * 0.1
                };
                key(a).total_cmp(&key(b))
            })
    }
}

/// The most memory that this process ever held, in bytes; none where the system does not say.
pub fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}
