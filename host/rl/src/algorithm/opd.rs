//! Hindsight-guided on-policy distillation: the policy that knows the hint teaches the one that did not
//! (algorithms §4, token level).
//!
//! Does not make or accept hints: the judge does. Does not look at the verdict; [`super::combined`] does both.

use super::{Judged, Settings};
use crate::Sample;

/// `A_t = w_opd · clip(log π_T(a_t) − log μ(a_t), ±C)`; none without a hint.
///
/// Of several hints the shortest is followed ([`Judged::teacher`]).
///
/// # Source
/// OpenClaw-RL (arXiv 2603.10165) §3.2. Departs from it in the bound `C`, and in the choice of the hint, which there
/// is the longest one.
///
/// ```
/// # use rl::algorithm::{opd, HintTeacher, Judged, Settings};
/// # let turn: rl::Turn = serde_json::from_str(include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/turn.json")))?;
/// assert_eq!(turn.logprobs, [-1.0, -0.5]);
/// let hint = rl::Hint { text: "Answer in one sentence.".into() };
/// let teachers = vec![HintTeacher { hint, logprobs: vec![-0.75, -9.0] }];
/// let judged = Judged { turn: &turn, reward: None, rl_weight: 1.0, opd_weight: 1.0, teachers };
/// let sample = opd::sample(&judged, &Settings::default()).unwrap();
/// assert_eq!(sample.advantage, [0.25, -2.0]);
/// # Ok::<(), serde_json::Error>(())
/// ```
pub fn sample(judged: &Judged<'_>, settings: &Settings) -> Option<Sample> {
    judged.with_advantages(judged.directive(settings)?)
}
