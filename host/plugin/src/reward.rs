//! A guest as a reward rule.

use std::fmt;

use rl::{Decider, RewardRule, Seed, TurnReward, Verdict, Vote};

use crate::{
    bindings::{
        reward::{RewardPlugin, exports::nextstate::plugin::reward as wit},
        types,
    },
    check, convert,
    error::Result,
    instance::Pool,
    load::Plugin,
    manifest::World,
};

/// A reward plugin behind the seam [`RewardRule`].
pub struct GuestReward {
    pool: Pool<RewardPlugin>,
}

impl fmt::Debug for GuestReward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuestReward")
            .field("plugin", &self.pool.plugin)
            .finish()
    }
}

impl GuestReward {
    /// Starts a plugin as a reward rule.
    ///
    /// # Errors
    /// [`crate::Error::Load`] when it is no reward rule.
    pub fn new(plugin: &Plugin) -> Result<Self> {
        plugin.expect_world(World::RewardPlugin)?;
        Ok(Self {
            pool: Pool::new(plugin)?,
        })
    }
}

impl RewardRule for GuestReward {
    fn name(&self) -> String {
        self.pool.plugin.name()
    }

    fn verdict(&self, votes: &[Vote]) -> rl::Result<Option<Verdict>> {
        let vote = |vote: &Vote| {
            let score = vote.score.map(f64::from).filter(|score| score.is_finite());
            vote.value.map(|value| types::Vote {
                sign: convert::sign(value),
                score,
            })
        };
        let votes: Vec<_> = votes.iter().map(vote).collect();
        let decision = self.pool.call("verdict", Seed::default(), |guest, store| {
            guest.nextstate_plugin_reward().call_verdict(store, &votes)
        })?;
        // Attack: a rule that claims a person's word, which would outrank everything.
        if decision.is_some_and(|decision| decision.by != wit::Decider::Judge) {
            let what = "a verdict on votes that is not by the judge";
            return Err(self.pool.refuse("verdict", what).into());
        }
        Ok(decision.map(|decision| Verdict {
            value: convert::sign_back(decision.sign),
            by: Decider::Judge,
        }))
    }

    fn turn_rewards(
        &self,
        verdicts: &[Option<Verdict>],
        outcome: Option<f64>,
    ) -> rl::Result<Vec<TurnReward>> {
        let decision = |verdict: &Verdict| wit::Decision {
            sign: convert::sign(verdict.value),
            by: match verdict.by {
                Decider::Judge => wit::Decider::Judge,
                Decider::Oracle => wit::Decider::Oracle,
                Decider::Person => wit::Decider::Person,
            },
        };
        let decisions = verdicts
            .iter()
            .map(|verdict| verdict.as_ref().map(decision))
            .collect();
        let trajectory = wit::Trajectory {
            verdicts: decisions,
            outcome,
        };
        let rewards = self
            .pool
            .call("turn-rewards", Seed::default(), |guest, store| {
                guest
                    .nextstate_plugin_reward()
                    .call_turn_rewards(store, &trajectory)
            })?;
        let checked = check::length("rewards", rewards.len(), verdicts.len())
            .and_then(|()| rewards.iter().map(turn_reward).collect());
        Ok(checked.map_err(|what| self.pool.refuse("turn-rewards", what))?)
    }

    fn advantages(&self, rewards_gt: &[Vec<Option<f32>>]) -> rl::Result<Vec<Vec<Option<f32>>>> {
        let wide =
            |turns: &Vec<Option<f32>>| turns.iter().map(|reward| reward.map(f64::from)).collect();
        let rewards: Vec<Vec<Option<f64>>> = rewards_gt.iter().map(wide).collect();
        let advantages_gt = self
            .pool
            .call("advantages", Seed::default(), |guest, store| {
                guest
                    .nextstate_plugin_reward()
                    .call_advantages(store, &rewards)
            })?;
        let checked = check::length("trajectories", advantages_gt.len(), rewards_gt.len())
            .and_then(|()| {
                rewards_gt
                    .iter()
                    .zip(&advantages_gt)
                    .map(advantages)
                    .collect()
            });
        Ok(checked.map_err(|what| self.pool.refuse("advantages", what))?)
    }
}

fn turn_reward(reward: &wit::TurnReward) -> Result<TurnReward, String> {
    Ok(TurnReward {
        reward: reward
            .reward
            .map(|reward| check::signed("a reward", reward))
            .transpose()?,
        rl_weight: check::weight("a weight", reward.rl_weight)?,
        opd_weight: check::weight("a weight", reward.opd_weight)?,
    })
}

fn advantages(
    (rewards_t, advantages_t): (&Vec<Option<f32>>, &Vec<Option<f64>>),
) -> Result<Vec<Option<f32>>, String> {
    check::length("advantages", advantages_t.len(), rewards_t.len())?;
    let pairs = rewards_t.iter().zip(advantages_t);
    pairs
        .map(|(reward, advantage)| match (reward, advantage) {
            (Some(_), Some(advantage)) => check::signed("an advantage", *advantage).map(Some),
            (None, None) => Ok(None),
            // Missing is not zero, and not anything else either.
            (None, Some(_)) => Err("an advantage for a turn that has no reward".into()),
            (Some(_), None) => Err("no advantage for a turn that has a reward".into()),
        })
        .collect()
}
