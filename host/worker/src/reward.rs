//! The seam `RewardRule` over worker processes.

use rl::{JudgedTurn, RewardRule, Sees, TokenStreams, TurnReward, Verdict, Vote};

use crate::{answers, wire::Call, workers::Workers};

/// A reward plugin in processes of its own.
#[derive(Debug)]
pub struct SealedReward {
    workers: Workers,
}

impl SealedReward {
    /// The rule that these workers have loaded.
    ///
    /// # Errors
    /// [`plugin::Error::Load`] when it is another kind of plugin.
    pub fn new(workers: Workers) -> Result<Self, plugin::Error> {
        workers.check_world(plugin::World::RewardPlugin)?;
        Ok(Self { workers })
    }

    fn checked(&self, call: &Call<'_>, checked: Result<(), String>) -> rl::Result<()> {
        checked.map_err(|what| self.workers.refuse(call, what))
    }
}

impl RewardRule for SealedReward {
    fn name(&self) -> String {
        self.workers.name()
    }

    fn sees(&self) -> Sees {
        self.workers.manifest().sees
    }

    fn verdict(&self, votes: &[Vote]) -> rl::Result<Option<Verdict>> {
        let call = Call::Verdict(votes.into());
        let verdict: Option<Verdict> = self.workers.call(&call)?;
        self.checked(&call, answers::verdict(verdict.as_ref()))?;
        Ok(verdict)
    }

    fn turn_rewards(
        &self,
        turns: &[JudgedTurn],
        outcome: Option<f64>,
    ) -> rl::Result<Vec<TurnReward>> {
        let call = Call::TurnRewards(turns.into(), outcome);
        let rewards: Vec<TurnReward> = self.workers.call(&call)?;
        self.checked(&call, answers::rewards(&rewards, turns.len()))?;
        Ok(rewards)
    }

    fn advantages(&self, rewards_gt: &[Vec<Option<f32>>]) -> rl::Result<Vec<Vec<Option<f32>>>> {
        let call = Call::Advantages(rewards_gt.into());
        let advantages_gt: Vec<Vec<Option<f32>>> = self.workers.call(&call)?;
        self.checked(&call, answers::advantages(&advantages_gt, rewards_gt))?;
        Ok(advantages_gt)
    }

    fn token_advantages(&self, streams: &TokenStreams<'_>) -> rl::Result<Option<Vec<f32>>> {
        if !self.workers.manifest().token_level {
            return Ok(None);
        }
        let call = Call::TokenAdvantages {
            advantage: streams.advantage,
            behaviour: streams.behaviour.into(),
            teachers: streams.teachers.iter().map(|list| list.to_vec()).collect(),
        };
        let advantages: Option<Vec<f32>> = self.workers.call(&call)?;
        if let Some(advantages) = &advantages {
            let checked = answers::of_tokens(advantages, streams.behaviour.len());
            self.checked(&call, checked)?;
        }
        Ok(advantages)
    }
}
