//! Binary reward and hindsight-guided distillation together.
//!
//! Each term stands alone: a turn with a verdict and no hint has only the first, a turn with a hint and no verdict only the
//! second. The host multiplies the second weight by nothing when no hint was accepted. `rl-weight = 0` is pure OPD.

use sdk::{Decision, Fault, Reward, Trajectory, TurnReward, Vote, config, majority};

/// The rule.
#[derive(Debug)]
pub struct Combined;

impl Reward for Combined {
    fn verdict(votes: Vec<Option<Vote>>) -> Result<Option<Decision>, Fault> {
        Ok(majority::decide(&votes))
    }

    fn turn_rewards(trajectory: Trajectory) -> Result<Vec<TurnReward>, Fault> {
        let (rl_weight, opd_weight) = (config::number("rl-weight")?, config::number("opd-weight")?);
        let reward = |verdict: Option<Decision>| majority::reward(verdict, rl_weight, opd_weight);
        Ok(trajectory
            .turns
            .into_iter()
            .map(|turn| reward(turn.verdict))
            .collect())
    }
}

sdk::export_reward!(Combined);

#[cfg(test)]
mod tests {
    use sdk::{Decider, JudgedTurn, Sign, native};

    use super::*;

    #[test]
    fn a_turn_without_a_verdict_keeps_its_distillation_term() {
        native::set_config("rl-weight", config::Value::Number(1.0));
        native::set_config("opd-weight", config::Value::Number(0.5));
        let verdicts = vec![
            None,
            Some(Decision {
                sign: Sign::Bad,
                by: Decider::Person,
            }),
        ];
        let rewards = Combined::turn_rewards(Trajectory {
            turns: verdicts.into_iter().map(JudgedTurn::from).collect(),
            outcome: None,
        })
        .unwrap();
        let seen: Vec<_> = rewards
            .iter()
            .map(|turn| (turn.reward, turn.rl_weight, turn.opd_weight))
            .collect();
        assert_eq!(seen, [(None, 0.0, 0.5), (Some(-1.0), 1.0, 0.5)]);
    }
}
