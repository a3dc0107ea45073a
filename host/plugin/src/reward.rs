//! A guest as a reward rule.

use std::fmt;

use rl::{Decider, JudgedTurn, RewardRule, Seed, Sees, TokenStreams, TurnReward, Verdict, Vote};

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

    fn sees(&self) -> Sees {
        self.pool.plugin.manifest().sees
    }

    fn turn_rewards(
        &self,
        turns: &[JudgedTurn],
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
        let judged = |turn: &JudgedTurn| wit::JudgedTurn {
            verdict: turn.verdict.as_ref().map(decision),
            process: turn.process.map(f64::from),
            tokens: turn.tokens,
            cut: turn.cut,
        };
        let trajectory = wit::Trajectory {
            turns: turns.iter().map(judged).collect(),
            outcome,
        };
        let rewards = self
            .pool
            .call("turn-rewards", Seed::default(), |guest, store| {
                guest
                    .nextstate_plugin_reward()
                    .call_turn_rewards(store, &trajectory)
            })?;
        let checked = check::length("rewards", rewards.len(), turns.len())
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

    fn token_advantages(&self, streams: &TokenStreams<'_>) -> rl::Result<Option<Vec<f32>>> {
        const FUNCTION: &str = "token-advantages";
        if !self.pool.plugin.manifest().token_level {
            return Ok(None);
        }
        let wide = |numbers: &[f32]| numbers.iter().copied().map(f64::from).collect();
        let given = wit::TokenStreams {
            advantage: streams.advantage.map(f64::from),
            behaviour: wide(streams.behaviour),
            teachers: streams.teachers.iter().map(|list| wide(list)).collect(),
        };
        let advantages = self.pool.call(FUNCTION, Seed::default(), |guest, store| {
            guest
                .nextstate_plugin_reward()
                .call_token_advantages(store, &given)
        })?;
        let Some(advantages) = advantages else {
            return Ok(None);
        };
        let signed = |advantage: &f64| check::signed("an advantage", *advantage);
        let checked = check::length("advantages", advantages.len(), streams.behaviour.len())
            .and_then(|()| advantages.iter().map(signed).collect());
        Ok(Some(
            checked.map_err(|what| self.pool.refuse(FUNCTION, what))?,
        ))
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
