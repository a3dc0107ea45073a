//! Votes, verdicts and hints (algorithms §2, §4). Missing is not zero.

use serde::{Deserialize, Serialize};

use crate::Seed;

/// What one answer of the judge says.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VoteValue {
    /// The reply did what was wanted.
    Positive,
    /// It did not.
    Negative,
    /// The next state does not tell.
    Ambiguous,
}

impl VoteValue {
    /// +1, −1 or 0.
    pub fn sign(self) -> f32 {
        match self {
            VoteValue::Positive => 1.0,
            VoteValue::Negative => -1.0,
            VoteValue::Ambiguous => 0.0,
        }
    }
}

/// One answer of the judge model, or the reason why there is none.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Vote {
    /// None when the vote failed, timed out or could not be read.
    pub value: Option<VoteValue>,
    /// The log-prob of each allowed answer: makes calibration measurable.
    pub answers: Vec<(String, f32)>,
    /// A number of the judge's own, higher is better (for example a calibrated log-odds).
    pub score: Option<f32>,
    /// The seed of its prompt.
    pub seed: Seed,
    /// Why it is absent.
    pub absent: Option<String>,
}

/// Who decided a verdict; the later in this list outranks the earlier.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decider {
    /// The majority of the judge's votes.
    Judge,
    /// A program: exit code, unit test, state hash.
    Oracle,
    /// A person, through the feedback call.
    Person,
}

/// What was decided about a turn.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Verdict {
    /// Positive, negative or ambiguous. *No verdict* is the absence of this record.
    pub value: VoteValue,
    /// Who decided.
    pub by: Decider,
}

/// A person's explicit judgement.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rating {
    /// 👍
    Up,
    /// 👎
    Down,
}

/// How the reply should have been different, in one to three sentences.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Hint {
    /// The hint.
    pub text: String,
}

/// The unique mode of the votes that are present.
///
/// A tie is [`VoteValue::Ambiguous`]; no vote present is `None`, never 0.
///
/// # Source
/// OpenClaw-RL (arXiv 2603.10165) §3.1; departs from it for absent votes, which it counts as 0.
///
/// ```
/// use rl::{VoteValue::*, majority};
/// assert_eq!(majority([Some(Positive), Some(Negative), Some(Positive)]), Some(Positive));
/// assert_eq!(majority([Some(Positive), Some(Negative), None]), Some(Ambiguous));
/// assert_eq!(majority([None, None, None]), None);
/// ```
pub fn majority(votes: impl IntoIterator<Item = Option<VoteValue>>) -> Option<VoteValue> {
    let mut counts = [0u32; 3];
    for value in votes.into_iter().flatten() {
        counts[match value {
            VoteValue::Positive => 0,
            VoteValue::Negative => 1,
            VoteValue::Ambiguous => 2,
        }] += 1;
    }
    let most = counts.into_iter().max().filter(|most| *most > 0)?;
    let unique = counts.iter().filter(|count| **count == most).count() == 1;
    Some(match counts.iter().position(|count| *count == most) {
        Some(0) if unique => VoteValue::Positive,
        Some(1) if unique => VoteValue::Negative,
        _ => VoteValue::Ambiguous,
    })
}
