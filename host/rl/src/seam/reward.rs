//! A reward scheme: votes and outcomes in, rewards, weights and advantages out. Never touches text or token ids.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Result, Verdict, Vote};

/// What a rule decides about one turn.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct TurnReward {
    /// None when there is nothing to reward: missing is not zero.
    pub reward: Option<f32>,
    /// The weight of the evaluative term (`w_rl`).
    pub rl_weight: f32,
    /// The weight of the directive term (`w_opd`).
    pub opd_weight: f32,
}

/// What a rule pays at once. Turns of live traffic are always paid alone.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sees {
    /// A turn, as soon as it is judged.
    #[default]
    Turn,
    /// A hosted episode, when it is over, with its outcome.
    Episode,
    /// All attempts at one task, when they are over, in relation to each other.
    Group,
}

/// One turn, as far as a rule sees it.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct JudgedTurn {
    /// What was decided about it.
    pub verdict: Option<Verdict>,
    /// The process reward: the mean of the votes that are present, from −1 to 1; none where no vote is.
    pub process: Option<f32>,
    /// The length of the reply, in tokens.
    pub tokens: u32,
    /// Whether its limit of tokens cut it off.
    pub cut: bool,
}

impl JudgedTurn {
    /// A turn of which the verdict alone is known.
    pub fn by(verdict: Option<Verdict>) -> Self {
        Self {
            verdict,
            ..Self::default()
        }
    }
}

/// What is known of every token of one reply; all lists have its length.
#[derive(Clone, PartialEq, Debug)]
pub struct TokenStreams<'a> {
    /// The turn's advantage, or its reward for a rule that sees a turn.
    pub advantage: Option<f32>,
    /// `log μ(a_t)`.
    pub behaviour: &'a [f32],
    /// `log π_T(a_t)`, one list an accepted hint.
    pub teachers: Vec<&'a [f32]>,
}

/// A reward scheme.
pub trait RewardRule: Send + Sync {
    /// The plugin's name and version, for the ledger.
    fn name(&self) -> String;

    /// What decides at this moment, where that can change: as [`crate::Judge::now`].
    fn now(&self) -> Option<Arc<dyn RewardRule>> {
        None
    }

    /// What it pays at once.
    fn sees(&self) -> Sees {
        Sees::Turn
    }

    /// What the votes decide; none when no vote is present.
    ///
    /// # Errors
    /// [`crate::Error::Guest`] when the plugin fails.
    fn verdict(&self, votes: &[Vote]) -> Result<Option<Verdict>>;

    /// Rewards and weights of the turns of one trajectory, in order. An outcome is the environment's oracle, from 0 to 1.
    ///
    /// # Errors
    /// [`crate::Error::Guest`] when the plugin fails, or gives a number that is not finite or out of range,
    /// or a list of another length.
    fn turn_rewards(&self, turns: &[JudgedTurn], outcome: Option<f64>) -> Result<Vec<TurnReward>>;

    /// Advantages of a group's turns: `rewards_gt[g][t]`, the same shape back.
    ///
    /// # Errors
    /// As [`RewardRule::turn_rewards`].
    fn advantages(&self, rewards_gt: &[Vec<Option<f32>>]) -> Result<Vec<Vec<Option<f32>>>>;

    /// The advantage of every token, for a rule that decides so finely; none leaves it to the method.
    ///
    /// # Errors
    /// As [`RewardRule::turn_rewards`].
    fn token_advantages(&self, streams: &TokenStreams<'_>) -> Result<Option<Vec<f32>>> {
        let _ = streams;
        Ok(None)
    }
}
