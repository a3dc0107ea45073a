//! Binary RL: the majority of the judge's votes is the reward of a turn.
//!
//! Missing is not zero: a turn without a verdict has no reward. A neutral verdict and a missing one weigh 0, and so are
//! left out of the loss and of its denominator. Gives no weight to hints; `combined-reward` does.

use sdk::{Decision, Fault, Reward, Trajectory, TurnReward, Vote, config, majority};

/// The rule.
#[derive(Debug)]
pub struct Binary;

impl Reward for Binary {
    fn verdict(votes: Vec<Option<Vote>>) -> Result<Option<Decision>, Fault> {
        Ok(majority::decide(&votes))
    }

    fn turn_rewards(trajectory: Trajectory) -> Result<Vec<TurnReward>, Fault> {
        let rl_weight = config::number("rl-weight")?;
        let reward = |verdict: Option<Decision>| majority::reward(verdict, rl_weight, 0.0);
        Ok(trajectory
            .turns
            .into_iter()
            .map(|turn| reward(turn.verdict))
            .collect())
    }
}

sdk::export_reward!(Binary);

#[cfg(test)]
mod tests {
    use sdk::{Decider, JudgedTurn, Sign, native};

    use super::*;

    #[test]
    fn a_turn_without_a_verdict_has_no_reward_and_no_weight() {
        native::set_config("rl-weight", config::Value::Number(2.0));
        let by_judge = |sign| {
            Some(Decision {
                sign,
                by: Decider::Judge,
            })
        };
        let verdicts = vec![
            by_judge(Sign::Good),
            None,
            by_judge(Sign::Bad),
            by_judge(Sign::Neutral),
        ];
        let rewards = Binary::turn_rewards(Trajectory {
            turns: verdicts.into_iter().map(JudgedTurn::from).collect(),
            outcome: Some(1.0),
        })
        .unwrap();
        let seen: Vec<_> = rewards
            .iter()
            .map(|turn| (turn.reward, turn.rl_weight))
            .collect();
        assert_eq!(
            seen,
            [
                (Some(1.0), 2.0),
                (None, 0.0),
                (Some(-1.0), 2.0),
                (Some(0.0), 0.0)
            ]
        );
        assert!(rewards.iter().all(|turn| turn.opd_weight == 0.0));
    }

    #[test]
    fn a_weight_that_is_not_configured_is_a_fault() {
        let trajectory = Trajectory {
            turns: vec![None.into()],
            outcome: None,
        };
        assert!(matches!(
            Binary::turn_rewards(trajectory),
            Err(Fault::InvalidConfig(_))
        ));
    }

    #[test]
    fn an_advantage_is_the_reward() {
        let rewards = vec![vec![Some(1.0), None], vec![Some(-1.0)]];
        assert_eq!(Binary::advantages(rewards.clone()).unwrap(), rewards);
    }
}
