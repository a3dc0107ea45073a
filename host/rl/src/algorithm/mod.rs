//! How a judged turn becomes per-token advantages: one algorithm a file (algorithms §3 to §5).
//!
//! Pure arithmetic on slices. Does not judge, choose a batch, store or train, and never sees text other than a
//! hint's length. Start at [`Method::sample`]; [`binary`] is the shortest algorithm, [`combined`] the default.
//!
//! # What counts as a signal
//! A *reward* is there when the reward rule gave a finite number other than 0: 0 (ambiguous) and none (no verdict)
//! both mean that there is nothing to learn from, and they never become a sample with advantage 0, which would
//! dilute the batch. A *hint* is there when a teacher scored every response token with a finite number; a teacher
//! that scored too few or too many tokens is left out, never cut or padded.

pub mod binary;
pub mod combined;
pub mod opd;

use serde::{Deserialize, Serialize};

use crate::{Hint, NotTrainable, Sample, SampleId, Turn};

/// The policy given one hint in its context, and what it thinks of the tokens that were sampled without it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct HintTeacher {
    /// The accepted hint.
    pub hint: Hint,
    /// `log π_T(a_t | s ⊕ hint, a_<t)` of **every** response token, the first included, at
    /// [`crate::Sampling::logprob_temperature`] of the turn.
    pub logprobs: Vec<f32>,
}

/// A turn with everything that was decided about it.
#[derive(Clone, PartialEq, Debug)]
pub struct Judged<'a> {
    /// The turn, exactly as it was served.
    pub turn: &'a Turn,
    /// `r`, or the group's advantage of the turn; none when there is no verdict.
    pub reward: Option<f32>,
    /// `w_rl`: multiplies the reward. 0 switches the evaluative term off.
    pub rl_weight: f32,
    /// `w_opd`: multiplies the distillation term. 0 switches it off.
    pub opd_weight: f32,
    /// One for each accepted hint, at most three.
    pub teachers: Vec<HintTeacher>,
}

/// Settings of the algorithms: `[algorithm]` of a recipe, beside the method.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// `C`: the bound of one token's `log π_T − log μ`. Without it one rare token outweighs the whole reply.
    pub opd_clip: f32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { opd_clip: 2.0 }
    }
}

impl Settings {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`crate::Error::Refused`] naming the key.
    pub fn validate(&self) -> crate::Result<()> {
        if self.opd_clip.is_finite() && self.opd_clip > 0.0 {
            return Ok(());
        }
        Err(crate::Error::Refused {
            what: "algorithm settings".into(),
            why: format!(
                "`opd-clip` is {}; it must be a finite number above 0",
                self.opd_clip
            ),
        })
    }
}

/// An algorithm.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// The verdict alone: [`binary`].
    Binary,
    /// The hint alone, on-policy distillation: [`opd`].
    Opd,
    /// Both: [`combined`].
    #[default]
    Combined,
}

impl Method {
    /// Whether the judge must be asked for a verdict.
    pub fn uses_reward(self) -> bool {
        matches!(self, Self::Binary | Self::Combined)
    }

    /// Whether the judge must be asked for hints, and the teacher for log-probs.
    pub fn uses_hints(self) -> bool {
        matches!(self, Self::Opd | Self::Combined)
    }

    /// The sample of a judged turn; none when the method finds no signal in it ([`Method::why_none`] tells which
    /// one is missing). The sample's id is derived from the turn's, so that a turn is trained at most once.
    ///
    /// ```
    /// use rl::algorithm::Method;
    /// let method: Method = serde_json::from_str("\"combined\"")?;
    /// assert!(method.uses_reward() && method.uses_hints());
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    pub fn sample(self, judged: &Judged<'_>, settings: &Settings) -> Option<Sample> {
        match self {
            Self::Binary => binary::sample(judged),
            Self::Opd => opd::sample(judged, settings),
            Self::Combined => combined::sample(judged, settings),
        }
    }

    /// Why [`Method::sample`] gives none. Meaningful only when it does.
    pub fn why_none(self, judged: &Judged<'_>) -> NotTrainable {
        if judged.turn.adapter.is_none() {
            return NotTrainable::BaseWeights;
        }
        if judged.turn.response.is_empty() || judged.turn.prompt.is_empty() {
            return NotTrainable::Empty;
        }
        match judged.reward {
            Some(reward) if self.uses_reward() && reward == 0.0 => NotTrainable::Ambiguous,
            Some(reward) if self.uses_reward() && !reward.is_finite() => {
                NotTrainable::RewardRefused
            }
            _ => NotTrainable::NoVerdict,
        }
    }
}

impl Judged<'_> {
    /// `w_rl · r`; none when there is no reward, it is 0 or not finite, or its weight is 0.
    fn evaluative(&self) -> Option<f32> {
        let term = self.rl_weight * self.reward?;
        (term.is_finite() && term != 0.0).then_some(term)
    }

    /// `w_opd · clip(log π_T(a_t) − log μ(a_t), ±C)` for every token, under the chosen hint; none without a hint,
    /// or when its weight is 0.
    fn directive(&self, settings: &Settings) -> Option<Vec<f32>> {
        if self.opd_weight == 0.0 || !self.opd_weight.is_finite() {
            return None;
        }
        let teacher = self.teacher()?;
        let bound = settings.opd_clip;
        let term = |(teacher, behaviour): (&f32, &f32)| {
            self.opd_weight * (teacher - behaviour).clamp(-bound, bound)
        };
        let pairs = teacher.logprobs.iter().zip(&self.turn.logprobs);
        Some(pairs.map(term).collect())
    }

    /// The teacher that is followed: the one with the shortest hint (in characters), the first of equals.
    ///
    /// Among hints that the judge accepted the shortest is the one that is hardest to misuse: a longer one carries
    /// more of the next state, which may be hostile. The overlap rules of algorithms §4 need top-k log-probs,
    /// which token-level distillation does not have.
    pub fn teacher(&self) -> Option<&HintTeacher> {
        let n = self.turn.response.len();
        self.teachers
            .iter()
            .filter(|t| t.logprobs.len() == n && t.logprobs.iter().all(|x| x.is_finite()))
            .min_by_key(|t| t.hint.text.chars().count())
    }

    /// The sample of a rule that decides by token: 0 leaves a token out of the loss and of its denominator. None when
    /// there are not as many finite numbers as tokens, or all are 0.
    pub fn sample_by_token(&self, advantages: Vec<f32>) -> Option<Sample> {
        let usable = advantages.len() == self.turn.response.len()
            && advantages.iter().all(|a| a.is_finite())
            && advantages.iter().any(|a| *a != 0.0);
        let weight = advantages.iter().map(|a| f32::from(*a != 0.0)).collect();
        let sample = usable.then(|| self.with_advantages(advantages)).flatten()?;
        Some(Sample { weight, ..sample })
    }

    /// The turn with these advantages, every token with weight 1; none when the turn cannot be trained.
    fn with_advantages(&self, advantage: Vec<f32>) -> Option<Sample> {
        let turn = self.turn;
        let sample = Sample {
            id: SampleId::new(format!("sample-{}", turn.id)),
            turn: turn.id.clone(),
            adapter: turn.adapter.clone()?,
            version: turn.version,
            prompt: turn.prompt.clone(),
            response: turn.response.clone(),
            behaviour: turn.logprobs.clone(),
            weight: vec![1.0; advantage.len()],
            advantage,
            temperature: turn.sampling.logprob_temperature(),
        };
        sample.validate().is_ok().then_some(sample)
    }
}

#[cfg(test)]
mod tests;
