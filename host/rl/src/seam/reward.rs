//! A reward scheme: votes and outcomes in, rewards, weights and advantages out. Never touches tokens.

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

/// A reward scheme.
pub trait RewardRule: Send + Sync {
    /// The plugin's name and version, for the ledger.
    fn name(&self) -> String;

    /// What the votes decide; none when no vote is present.
    ///
    /// # Errors
    /// [`crate::Error::Guest`] when the plugin fails.
    fn verdict(&self, votes: &[Vote]) -> Result<Option<Verdict>>;

    /// Rewards and weights of the turns of one trajectory, in order. An outcome is the environment's oracle.
    ///
    /// # Errors
    /// [`crate::Error::Guest`] when the plugin fails, or gives a number that is not finite or out of range,
    /// or a list of another length.
    fn turn_rewards(
        &self,
        verdicts: &[Option<Verdict>],
        outcome: Option<f64>,
    ) -> Result<Vec<TurnReward>>;

    /// Advantages of a group's turns: `rewards_gt[g][t]`, the same shape back.
    ///
    /// # Errors
    /// As [`RewardRule::turn_rewards`].
    fn advantages(&self, rewards_gt: &[Vec<Option<f32>>]) -> Result<Vec<Vec<Option<f32>>>>;
}
