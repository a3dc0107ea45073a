//! Binary RL: every token of the reply shares the verdict's sign (algorithms §3).
//!
//! Says nothing about *how* the reply should have been different; that is [`super::opd`]. The surrogate loss is the
//! trainer's business. Read [`super::combined`] next.

use super::Judged;
use crate::Sample;

/// `A_t = w_rl · r` for every response token; none without a reward, and for `r = 0`.
///
/// # Source
/// OpenClaw-RL (arXiv 2603.10165) §3.1. Departs from it for `r = 0`: it keeps such samples with advantage 0, which
/// count in the denominator and dilute the step.
///
/// ```
/// # use rl::algorithm::{binary, Judged};
/// # let turn: rl::Turn = serde_json::from_str(include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/turn.json")))?;
/// let mut judged =
///     Judged { turn: &turn, reward: Some(-1.0), rl_weight: 1.0, opd_weight: 1.0, teachers: vec![] };
/// assert_eq!(binary::sample(&judged).unwrap().advantage, [-1.0, -1.0]);
/// judged.reward = None;
/// assert!(binary::sample(&judged).is_none());
/// # Ok::<(), serde_json::Error>(())
/// ```
pub fn sample(judged: &Judged<'_>) -> Option<Sample> {
    let advantage = judged.evaluative()?;
    judged.with_advantages(vec![advantage; judged.turn.response.len()])
}
