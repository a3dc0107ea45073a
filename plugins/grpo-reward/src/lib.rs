//! GRPO: an attempt is as good as it is better than the other attempts at its task, in units of their spread.
//!
//! `R = o + w · (mean process reward)` of a trajectory (`w = process-weight`, 0 by default) and `A = (R − mean) / (std + 1e-6)` over
//! the group, the same for every turn of a trajectory. A group without spread has advantage 0, and the host makes no samples of it;
//! its `drop-equal-groups` also drops groups that differ in votes alone. Live traffic has no group and no outcome: each turn is paid
//! by its own votes.
//!
//! # Source
//! DeepSeekMath (arXiv 2402.03300) §4.1.2, outcome supervision. Departs from it: 1e-6 is added to the standard deviation, which is
//! that of a sample (n − 1). The mean over each reply's tokens is the trainer's own (algorithms §3) and the paper's.

use sdk::{
    Decision, Fault, Reward, Trajectory, TurnReward, Vote, config,
    groups::{self, Group},
    majority,
};

/// The rule.
#[derive(Debug)]
pub struct Grpo;

impl Reward for Grpo {
    fn verdict(votes: Vec<Option<Vote>>) -> Result<Option<Decision>, Fault> {
        Ok(majority::decide(&votes))
    }

    fn turn_rewards(trajectory: Trajectory) -> Result<Vec<TurnReward>, Fault> {
        let rl_weight = config::number("rl-weight")?;
        let rewards = groups::whole(&trajectory, config::number("process-weight")?);
        let paid = |reward| TurnReward {
            reward,
            rl_weight,
            opd_weight: 0.0,
        };
        Ok(rewards.into_iter().map(paid).collect())
    }

    fn advantages(rewards: Group) -> Result<Group, Fault> {
        Ok(groups::by_trajectory(&rewards, groups::standardised))
    }
}

sdk::export_reward!(Grpo);

#[cfg(test)]
mod tests {
    use sdk::{JudgedTurn, native};

    use super::*;

    #[test]
    fn a_trajectory_is_paid_as_a_whole() {
        native::set_config("rl-weight", config::Value::Number(1.5));
        let paid = |weight, outcome| {
            native::set_config("process-weight", config::Value::Number(weight));
            let judged = JudgedTurn {
                process: Some(0.5),
                ..None.into()
            };
            let turns = vec![judged, None.into()];
            let rewards = Grpo::turn_rewards(Trajectory { turns, outcome }).unwrap();
            assert!(rewards.iter().all(|turn| turn.rl_weight == 1.5));
            let reward = |turn: &TurnReward| turn.reward;
            rewards.iter().map(reward).collect::<Vec<_>>()
        };
        assert_eq!(paid(0.0, Some(1.0)), [Some(1.0); 2]);
        assert_eq!(paid(0.4, Some(1.0)), [Some(1.2); 2]);
        assert_eq!(paid(0.4, None), [Some(0.5), None]);
    }

    #[test]
    fn advantages_are_standardised_over_trajectories_whatever_their_length() {
        let rewards = vec![vec![Some(1.0); 3], vec![Some(0.0)], vec![Some(0.0); 2]];
        let found = Grpo::advantages(rewards).unwrap();
        // Three members: mean 1/3, std 1/√3.
        let std = 3.0_f64.sqrt().recip() + 1e-6;
        for (turns, expected) in found.iter().zip([2.0 / 3.0, -1.0 / 3.0, -1.0 / 3.0]) {
            for turn in turns {
                assert!((turn.unwrap() - expected / std).abs() < 1e-12, "{found:?}");
            }
        }
    }

    #[test]
    fn attempts_that_are_all_alike_have_advantage_zero() {
        let rewards = vec![vec![Some(0.1); 3], vec![Some(0.1)]];
        let found = Grpo::advantages(rewards).unwrap();
        assert_eq!(found, [vec![Some(0.0); 3], vec![Some(0.0)]]);
    }
}
