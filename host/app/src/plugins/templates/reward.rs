//! A reward rule: the majority of the judge's votes rewards a turn, and the environment's score, where there is one, the last turn.
//!
//! Missing is not zero: a turn that nobody judged has no reward. `nextstate/wit/reward.wit` says what each function promises.

use sdk::{Decision, Fault, Reward, Trajectory, TurnReward, Vote, config, majority};

/// The rule.
#[derive(Debug)]
pub struct Rule;

impl Reward for Rule {
    fn verdict(votes: Vec<Option<Vote>>) -> Result<Option<Decision>, Fault> {
        Ok(majority::decide(&votes))
    }

    fn turn_rewards(trajectory: Trajectory) -> Result<Vec<TurnReward>, Fault> {
        // `plugin.toml` declares the key, its type, its range and its default; the host checks them.
        let weight = config::number("outcome-weight")?;
        let mut rewards: Vec<TurnReward> = trajectory
            .turns
            .into_iter()
            .map(|turn| majority::reward(turn.verdict, 1.0, 0.0))
            .collect();
        if let (Some(score), Some(last)) = (trajectory.outcome, rewards.last_mut()) {
            // A score is from 0 to 1, a reward on both sides of 0.
            last.reward = Some(2.0 * score - 1.0);
            last.rl_weight = weight;
        }
        Ok(rewards)
    }
}

sdk::export_reward!(Rule);

#[cfg(test)]
mod tests {
    use sdk::{Decider, Sign, native};

    use super::*;

    #[test]
    fn the_score_is_the_reward_of_the_last_turn_only() {
        native::set_config("outcome-weight", config::Value::Number(0.5));
        let good = Some(Decision {
            sign: Sign::Good,
            by: Decider::Judge,
        });
        let trajectory = Trajectory {
            turns: vec![good.into(), None.into()],
            outcome: Some(0.25),
        };
        let rewards = Rule::turn_rewards(trajectory).unwrap();
        assert_eq!((rewards[0].reward, rewards[0].rl_weight), (Some(1.0), 1.0));
        assert_eq!((rewards[1].reward, rewards[1].rl_weight), (Some(-0.5), 0.5));
    }

    #[test]
    fn nobody_s_word_is_no_reward() {
        native::set_config("outcome-weight", config::Value::Number(1.0));
        let trajectory = Trajectory {
            turns: vec![None.into()],
            outcome: None,
        };
        assert_eq!(Rule::turn_rewards(trajectory).unwrap()[0].reward, None);
    }
}
