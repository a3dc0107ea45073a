//! RLOO: an attempt is as good as it is better than the mean of the *other* attempts at its task ("leave one out").
//!
//! `A_i = R_i − 1/(k−1) · Σ_{j≠i} R_j` for k attempts, the same for every turn of a trajectory; a group of one has advantage 0.
//! `R = o + w · (mean process reward)`, as in `grpo-reward`. Equal to `k/(k−1)` times the advantage of `dr-grpo-reward`. Live traffic
//! has no group and no outcome: each turn is paid by its own votes.
//!
//! # Source
//! Back to Basics (arXiv 2402.14740), the REINFORCE leave-one-out estimator; first Kool et al. 2019. Departs from it: there a reply is one action,
//! whose log-prob is the *sum* over its tokens, while the trainer's loss is the mean over them. `dr-grpo-reward` undoes that.

use sdk::{
    Decision, Fault, Reward, Trajectory, TurnReward, Vote, config,
    groups::{self, Group},
    majority,
};

/// The rule.
#[derive(Debug)]
pub struct Rloo;

impl Reward for Rloo {
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
        Ok(groups::by_trajectory(&rewards, left_out))
    }
}

/// Each number without the mean of the others; 0 for one alone.
fn left_out(rewards: &[f64]) -> Vec<f64> {
    let against_others = |(at, reward): (usize, &f64)| {
        let (before, rest) = rewards.split_at(at);
        let others: Vec<f64> = before.iter().chain(rest.iter().skip(1)).copied().collect();
        groups::mean(&others).map_or(0.0, |mean| reward - mean)
    };
    rewards.iter().enumerate().map(against_others).collect()
}

sdk::export_reward!(Rloo);

#[cfg(test)]
mod tests {
    use sdk::{JudgedTurn, native};

    use super::*;

    #[test]
    fn an_attempt_is_compared_with_the_others_and_not_with_itself() {
        // 3 − (1 + 0) / 2, 1 − (3 + 0) / 2, 0 − (3 + 1) / 2
        assert_eq!(left_out(&[3.0, 1.0, 0.0]), [2.5, -0.5, -2.0]);
        assert_eq!(left_out(&[7.0]), [0.0]);
        assert_eq!(left_out(&[0.1; 4]), [0.0; 4]);
        assert!(left_out(&[]).is_empty());
    }

    #[test]
    fn every_turn_of_an_attempt_has_its_advantage() {
        let rewards = vec![vec![Some(1.0), Some(1.0)], vec![Some(0.0)], vec![None]];
        let found = Rloo::advantages(rewards).unwrap();
        assert_eq!(found, [vec![Some(1.0); 2], vec![Some(-1.0)], vec![None]]);
    }

    #[test]
    fn the_process_reward_counts_as_much_as_it_is_told_to() {
        native::set_config("rl-weight", config::Value::Number(3.0));
        native::set_config("process-weight", config::Value::Number(0.5));
        let judged = JudgedTurn {
            process: Some(-1.0),
            ..None.into()
        };
        let trajectory = Trajectory {
            turns: vec![judged],
            outcome: Some(1.0),
        };
        let paid = Rloo::turn_rewards(trajectory).unwrap();
        assert_eq!((paid[0].reward, paid[0].rl_weight), (Some(0.5), 3.0));
    }
}
