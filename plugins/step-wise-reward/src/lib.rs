//! Step-wise reward: the outcome of an episode and what the judge thought of each turn, compared turn by turn over a group.
//!
//! `r_i = o + mean_j v_ij` of turn i, and `A_i = (r_i − mean_i) / (std_i + 1e-6)` over the turns with the same index of all attempts.
//! Missing is not zero: without an outcome the process reward stands alone (so is live traffic paid), without votes the outcome, and
//! without both there is no reward. `outcome-reward` is the same rule without the process reward; `grpo-reward` pays whole
//! trajectories.
//!
//! # Source
//! OpenClaw-RL (arXiv 2603.10165) §3.4. Departs from it where a turn index has a single member: there that turn keeps its raw reward,
//! here its advantage is 0, since it was compared with nothing.

use sdk::{
    Decision, Fault, Reward, Trajectory, TurnReward, Vote, config,
    groups::{self, Group},
    majority,
};

/// The rule.
#[derive(Debug)]
pub struct StepWise;

impl Reward for StepWise {
    fn verdict(votes: Vec<Option<Vote>>) -> Result<Option<Decision>, Fault> {
        Ok(majority::decide(&votes))
    }

    fn turn_rewards(trajectory: Trajectory) -> Result<Vec<TurnReward>, Fault> {
        let (rl_weight, opd_weight) = (config::number("rl-weight")?, config::number("opd-weight")?);
        let sum = |process: Option<f64>| match (trajectory.outcome, process) {
            (None, None) => None,
            (outcome, process) => Some(outcome.unwrap_or(0.0) + process.unwrap_or(0.0)),
        };
        let reward = |process| TurnReward {
            reward: sum(process),
            rl_weight,
            opd_weight,
        };
        let turns = trajectory.turns.iter().map(groups::process);
        Ok(turns.map(reward).collect())
    }

    fn advantages(rewards: Group) -> Result<Group, Fault> {
        Ok(groups::by_turn_index(&rewards, groups::standardised))
    }
}

sdk::export_reward!(StepWise);

#[cfg(test)]
mod tests {
    use sdk::{JudgedTurn, native};

    use super::*;

    fn paid(outcome: Option<f64>, processes: &[Option<f64>]) -> Vec<Option<f64>> {
        native::set_config("rl-weight", config::Value::Number(1.0));
        native::set_config("opd-weight", config::Value::Number(0.5));
        let turn = |process: &Option<f64>| JudgedTurn {
            process: *process,
            ..None.into()
        };
        let turns = processes.iter().map(turn).collect();
        let rewards = StepWise::turn_rewards(Trajectory { turns, outcome }).unwrap();
        assert!(rewards.iter().all(|turn| turn.rl_weight == 1.0));
        assert!(rewards.iter().all(|turn| turn.opd_weight == 0.5));
        rewards.iter().map(|turn| turn.reward).collect()
    }

    #[test]
    fn a_turn_earns_the_outcome_and_its_own_votes_as_far_as_they_are_there() {
        let votes = [Some(-0.5), None];
        assert_eq!(paid(Some(1.0), &votes), [Some(0.5), Some(1.0)]);
        assert_eq!(paid(None, &votes), [Some(-0.5), None]);
    }

    #[test]
    fn turns_are_standardised_by_their_index_and_a_lone_one_has_advantage_zero() {
        let rewards = vec![
            vec![Some(1.0), Some(0.0), Some(9.0)],
            vec![Some(2.0), Some(0.0)],
            vec![Some(3.0), Some(6.0)],
        ];
        let found = StepWise::advantages(rewards).unwrap();
        // Index 0: mean 2, std 1. Index 1: mean 2, std √12. Index 2: alone.
        let late = [-2.0, -2.0, 4.0].map(|centred| centred / (12.0_f64.sqrt() + 1e-6));
        let first = [-1.0, 0.0, 1.0].map(|centred| centred / (1.0 + 1e-6));
        for (at, turns) in found.iter().enumerate() {
            assert!((turns[0].unwrap() - first[at]).abs() < 1e-12, "{found:?}");
            assert!((turns[1].unwrap() - late[at]).abs() < 1e-12, "{found:?}");
        }
        assert_eq!(found[0][2], Some(0.0));
    }
}
