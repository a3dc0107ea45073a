//! The ablation `outcome-only`: every turn of an episode earns its outcome, and no vote counts.
//!
//! `r_i = o`, standardised by turn index over the group exactly as `step-wise-reward` does it. Over whole trajectories it would be
//! `grpo-reward`, and an experiment that compares it with the step-wise rule would change two things at once: the process reward,
//! and what a turn is compared with. The judge still decides verdicts, for the record; no reward follows from them. Live traffic has
//! no outcome, so it has no reward here.
//!
//! # Source
//! OpenClaw-RL (arXiv 2603.10165) §3.4, `r_i` without the process reward.

use sdk::{
    Decision, Fault, Reward, Trajectory, TurnReward, Vote, config,
    groups::{self, Group},
    majority,
};

/// The rule.
#[derive(Debug)]
pub struct Outcome;

impl Reward for Outcome {
    fn verdict(votes: Vec<Option<Vote>>) -> Result<Option<Decision>, Fault> {
        Ok(majority::decide(&votes))
    }

    fn turn_rewards(trajectory: Trajectory) -> Result<Vec<TurnReward>, Fault> {
        let one = TurnReward {
            reward: trajectory.outcome,
            rl_weight: config::number("rl-weight")?,
            opd_weight: 0.0,
        };
        Ok(vec![one; trajectory.turns.len()])
    }

    fn advantages(rewards: Group) -> Result<Group, Fault> {
        Ok(groups::by_turn_index(&rewards, groups::standardised))
    }
}

sdk::export_reward!(Outcome);

#[cfg(test)]
mod tests {
    use sdk::{Decider, JudgedTurn, Sign, native};

    use super::*;

    #[test]
    fn no_vote_and_no_verdict_changes_a_reward() {
        native::set_config("rl-weight", config::Value::Number(2.0));
        let judged = JudgedTurn {
            verdict: Some(Decision {
                sign: Sign::Bad,
                by: Decider::Person,
            }),
            process: Some(-1.0),
            tokens: 9,
            cut: true,
        };
        let paid = |outcome| {
            let turns = vec![judged, None.into()];
            let rewards = Outcome::turn_rewards(Trajectory { turns, outcome }).unwrap();
            let seen = |turn: &TurnReward| (turn.reward, turn.rl_weight, turn.opd_weight);
            rewards.iter().map(seen).collect::<Vec<_>>()
        };
        assert_eq!(paid(Some(0.25)), [(Some(0.25), 2.0, 0.0); 2]);
        assert_eq!(paid(None), [(None, 2.0, 0.0); 2]);
    }

    #[test]
    fn a_late_turn_is_compared_only_with_attempts_that_came_as_far() {
        let rewards = vec![vec![Some(1.0)], vec![Some(0.0); 2], vec![Some(0.0); 2]];
        let found = Outcome::advantages(rewards).unwrap();
        // Index 0: mean 1/3, std 1/√3. Index 1: two failures, no spread.
        let std = 3.0_f64.sqrt().recip() + 1e-6;
        assert!((found[0][0].unwrap() - 2.0 / 3.0 / std).abs() < 1e-12);
        assert!((found[1][0].unwrap() + 1.0 / 3.0 / std).abs() < 1e-12);
        assert_eq!((found[1][1], found[2][1]), (Some(0.0), Some(0.0)));
    }
}
