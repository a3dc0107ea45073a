//! The verdict's sign and the hint's direction together (algorithms §5).
//!
//! | hint accepted | verdict ±1 | sample |
//! |---|---|---|
//! | yes | yes | both terms |
//! | yes | no | the hint's term only |
//! | no | yes | the verdict's term only; the hint's term is exactly 0 |
//! | no | no | no sample |
//!
//! Adds nothing of its own: the terms are those of [`super::binary`] and [`super::opd`].

use super::{Judged, Settings};
use crate::Sample;

/// `A_t = w_rl · r + w_opd · clip(log π_T(a_t) − log μ(a_t), ±C)`, a missing term being exactly 0; none when both
/// are missing.
///
/// # Source
/// OpenClaw-RL (arXiv 2603.10165) §3.3. Departs from it without a hint: there the policy is then pulled towards the
/// un-hinted base.
///
/// ```
/// # use rl::algorithm::{combined, HintTeacher, Judged, Settings};
/// # let turn: rl::Turn = serde_json::from_str(include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/turn.json")))?;
/// let hint = rl::Hint { text: "Answer in one sentence.".into() };
/// let teachers = vec![HintTeacher { hint, logprobs: vec![-0.75, -9.0] }];
/// let judged =
///     Judged { turn: &turn, reward: Some(-1.0), rl_weight: 1.0, opd_weight: 0.5, teachers };
/// let sample = combined::sample(&judged, &Settings::default()).unwrap();
/// assert_eq!(sample.advantage, [-0.875, -2.0]);
/// # Ok::<(), serde_json::Error>(())
/// ```
pub fn sample(judged: &Judged<'_>, settings: &Settings) -> Option<Sample> {
    let evaluative = judged.evaluative();
    let advantage = match (evaluative, judged.directive(settings)) {
        (Some(rl), Some(opd)) => opd.into_iter().map(|opd| rl + opd).collect(),
        (Some(rl), None) => vec![rl; judged.turn.response.len()],
        (None, Some(opd)) => opd,
        (None, None) => return None,
    };
    judged.with_advantages(advantage)
}
