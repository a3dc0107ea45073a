//! Dr. GRPO: GRPO without its two biases. No division by the spread of a group, which favours tasks that are nearly always or nearly
//! never solved, and none by the length of a reply, which lets wrong replies grow.
//!
//! `A = R − mean` over the group, the same for every turn of a trajectory, with `R = o + w · (mean process reward)`. The trainer's
//! loss is a mean over samples of means over tokens (algorithms §3), so a reply of `n` tokens gives each of them `1/n`. This rule
//! weighs a turn by its length against a constant, and the two cancel:
//!
//! ```text
//! rl-weight_i = w_rl · n_i / M                                  M = max-tokens
//! L = 1/N Σ_i 1/n_i Σ_t rl-weight_i · ℓ(A_i, ρ_it)  =  w_rl/(N·M) Σ_i Σ_t ℓ(A_i, ρ_it)
//! ```
//!
//! for N samples and any surrogate ℓ that is homogeneous in A (all of ours are): every token counts the same, whatever its reply's
//! length. M changes only the scale: the longest reply that is allowed is the paper's choice and keeps weights at most `w_rl`. Two
//! things stay as they are: the term β · KL3, which is still a mean over each sample's tokens, and N, which is the batch's. Live
//! traffic has no group and no outcome: each turn is paid by its own votes, with the same weight.
//!
//! # Source
//! Understanding R1-Zero-Like Training (arXiv 2503.20783) §3.1 and §3.2.

use sdk::{
    Decision, Fault, Reward, Trajectory, TurnReward, Vote, config,
    groups::{self, Group},
    majority,
};

/// The greatest weight that the contract allows.
const GREATEST: f64 = 100.0;

/// The rule.
#[derive(Debug)]
pub struct DrGrpo;

impl Reward for DrGrpo {
    fn verdict(votes: Vec<Option<Vote>>) -> Result<Option<Decision>, Fault> {
        Ok(majority::decide(&votes))
    }

    fn turn_rewards(trajectory: Trajectory) -> Result<Vec<TurnReward>, Fault> {
        let rewards = groups::whole(&trajectory, config::number("process-weight")?);
        let per_token = config::number("rl-weight")? / config::number("max-tokens")?;
        let paid = |(turn, reward): (&sdk::JudgedTurn, Option<f64>)| {
            let rl_weight = per_token * f64::from(turn.tokens);
            if rl_weight > GREATEST {
                let tokens = turn.tokens;
                return Err(Fault::InvalidConfig(format!(
                    "a reply of {tokens} tokens would weigh {rl_weight:.0}, and {GREATEST} is allowed: raise `max-tokens` to the \
                     longest reply, or lower `rl-weight`"
                )));
            }
            Ok(TurnReward {
                reward,
                rl_weight,
                opd_weight: 0.0,
            })
        };
        trajectory.turns.iter().zip(rewards).map(paid).collect()
    }

    fn advantages(rewards: Group) -> Result<Group, Fault> {
        Ok(groups::by_trajectory(&rewards, groups::centred))
    }
}

sdk::export_reward!(DrGrpo);

#[cfg(test)]
mod tests {
    use sdk::{JudgedTurn, native};

    use super::*;

    fn configure(max_tokens: i32) {
        native::set_config("rl-weight", config::Value::Number(2.0));
        native::set_config("process-weight", config::Value::Number(0.0));
        native::set_config("max-tokens", config::Value::Integer(max_tokens));
    }

    fn paid(outcome: f64, tokens: &[u32]) -> Result<Vec<TurnReward>, Fault> {
        let turn = |tokens: &u32| JudgedTurn {
            tokens: *tokens,
            ..None.into()
        };
        DrGrpo::turn_rewards(Trajectory {
            turns: tokens.iter().map(turn).collect(),
            outcome: Some(outcome),
        })
    }

    #[test]
    fn the_trainers_mean_over_tokens_becomes_a_sum_over_a_constant() {
        configure(64);
        let lengths: [&[u32]; 3] = [&[4, 32], &[16], &[64, 1, 8]];
        let paid: Vec<_> = [1.0, 0.0, 0.5]
            .iter()
            .zip(lengths)
            .map(|(outcome, tokens)| paid(*outcome, tokens).unwrap())
            .collect();
        let rewards = paid
            .iter()
            .map(|turns| turns.iter().map(|turn| turn.reward).collect());
        let advantages = DrGrpo::advantages(rewards.collect()).unwrap();
        // The mean of the outcomes is 0.5.
        for (attempt, advantage) in [0.5, -0.5, 0.0].into_iter().enumerate() {
            for (turn, tokens) in lengths[attempt].iter().enumerate() {
                assert_eq!(advantages[attempt][turn], Some(advantage));
                // What a token counts in the trainer's loss, but for 1/N: 1/n · weight · A.
                let weight = paid[attempt][turn].rl_weight;
                let counts = weight * advantage / f64::from(*tokens);
                assert!(
                    (counts - 2.0 / 64.0 * advantage).abs() < 1e-15,
                    "{tokens} tokens"
                );
            }
        }
    }

    #[test]
    fn the_spread_of_a_group_does_not_scale_it() {
        let rewards = |scale: f64| vec![vec![Some(scale)], vec![Some(0.0)]];
        let found = |scale| DrGrpo::advantages(rewards(scale)).unwrap();
        assert_eq!(found(1.0), [[Some(0.5)], [Some(-0.5)]]);
        assert_eq!(found(0.125), [[Some(0.0625)], [Some(-0.0625)]]);
    }

    #[test]
    fn a_reply_that_is_far_longer_than_the_constant_is_a_fault_that_says_what_to_do() {
        configure(1);
        assert_eq!(paid(1.0, &[50]).unwrap()[0].rl_weight, 100.0);
        let fault = paid(1.0, &[51]).unwrap_err();
        assert!(matches!(&fault, Fault::InvalidConfig(_)) && fault.text().contains("51 tokens"));
    }
}
