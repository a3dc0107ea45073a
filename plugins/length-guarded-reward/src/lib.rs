//! Verdict and outcome with a guard against length: a reply that is too long, too short or cut off earns less.
//!
//! `r = v + w · (2o − 1) − penalty · g`, with the verdict `v` in {+1, 0, −1}, the outcome `o` in [0, 1] (`w = outcome-weight`) and how
//! far a reply of `n` tokens is out of bounds, `g` in [0, 1]:
//!
//! ```text
//! too long     (n − soft-tokens) / (max-tokens − soft-tokens), from 0 to 1; 1 when it was cut off
//! too short    (min-tokens − n) / min-tokens; 0 from min-tokens on
//! ```
//!
//! A part that is missing adds nothing, and without both there is no reward: a length alone is never paid for. With a penalty of at
//! most 1 the guard can take back what a verdict gave and never turn it around.
//!
//! # Source
//! DAPO (arXiv 2503.14476) §3.4, eq. 13, soft overlong punishment: the first line with `L_max = max-tokens` and
//! `L_cache = max-tokens − soft-tokens`. The second line is its mirror image, against bare answers that please a judge.

use sdk::{Decision, Fault, JudgedTurn, Reward, Trajectory, TurnReward, Vote, config, majority};

/// The rule.
#[derive(Debug)]
pub struct LengthGuarded;

impl Reward for LengthGuarded {
    fn verdict(votes: Vec<Option<Vote>>) -> Result<Option<Decision>, Fault> {
        Ok(majority::decide(&votes))
    }

    fn turn_rewards(trajectory: Trajectory) -> Result<Vec<TurnReward>, Fault> {
        let guard = Guard::configured()?;
        let penalty = config::number("penalty")?;
        let outcome_weight = config::number("outcome-weight")?;
        let (rl_weight, opd_weight) = (config::number("rl-weight")?, config::number("opd-weight")?);
        let outcome = trajectory
            .outcome
            .map(|score| outcome_weight * (2.0 * score - 1.0));
        let paid = |turn: &JudgedTurn| {
            let said = majority::reward(turn.verdict, rl_weight, opd_weight).reward;
            let earned = match (said, outcome) {
                (None, None) => None,
                (said, outcome) => Some(said.unwrap_or(0.0) + outcome.unwrap_or(0.0)),
            };
            let reward = earned.map(|earned| earned - penalty * guard.excess(turn));
            TurnReward {
                reward,
                rl_weight: if reward.is_some_and(|reward| reward != 0.0) {
                    rl_weight
                } else {
                    0.0
                },
                opd_weight,
            }
        };
        Ok(trajectory.turns.iter().map(paid).collect())
    }
}

/// The bounds of a reply, in tokens.
#[derive(Clone, Copy, Debug)]
struct Guard {
    min: f64,
    soft: f64,
    max: f64,
}

impl Guard {
    fn configured() -> Result<Self, Fault> {
        let tokens = |key| config::integer(key).map(f64::from);
        let (min, soft, max) = (
            tokens("min-tokens")?,
            tokens("soft-tokens")?,
            tokens("max-tokens")?,
        );
        if min <= soft && soft < max {
            return Ok(Self { min, soft, max });
        }
        Err(Fault::InvalidConfig(format!(
            "`min-tokens` {min} ≤ `soft-tokens` {soft} < `max-tokens` {max} does not hold"
        )))
    }

    /// How far a reply is out of bounds, from 0 to 1. One that was cut off is too long, however short it is.
    fn excess(&self, turn: &JudgedTurn) -> f64 {
        let tokens = f64::from(turn.tokens);
        if turn.cut {
            1.0
        } else if tokens < self.min {
            (self.min - tokens) / self.min
        } else {
            ((tokens - self.soft) / (self.max - self.soft)).clamp(0.0, 1.0)
        }
    }
}

sdk::export_reward!(LengthGuarded);

#[cfg(test)]
mod tests {
    use sdk::{Decider, Sign, native};

    use super::*;

    fn configure() {
        use config::Value::{Integer, Number};
        let values = [
            ("rl-weight", Number(1.0)),
            ("opd-weight", Number(0.5)),
            ("outcome-weight", Number(0.5)),
            ("penalty", Number(0.8)),
            ("min-tokens", Integer(10)),
            ("soft-tokens", Integer(100)),
            ("max-tokens", Integer(200)),
        ];
        values
            .into_iter()
            .for_each(|(key, value)| native::set_config(key, value));
    }

    fn reward(sign: Option<Sign>, tokens: u32, cut: bool, outcome: Option<f64>) -> Option<f64> {
        let by = Decider::Judge;
        let turn = JudgedTurn {
            verdict: sign.map(|sign| Decision { sign, by }),
            process: None,
            tokens,
            cut,
        };
        let turns = vec![turn];
        let paid = LengthGuarded::turn_rewards(Trajectory { turns, outcome }).unwrap();
        let weighs = paid[0].reward.is_some_and(|reward| reward != 0.0);
        assert_eq!(
            (paid[0].rl_weight, paid[0].opd_weight),
            (f64::from(weighs), 0.5)
        );
        paid[0].reward
    }

    #[test]
    fn a_reply_out_of_bounds_loses_linearly_up_to_the_whole_penalty() {
        configure();
        let good = |tokens, cut| reward(Some(Sign::Good), tokens, cut, None).unwrap();
        let check = |tokens, expected: f64| {
            assert!(
                (good(tokens, false) - expected).abs() < 1e-12,
                "{tokens} tokens"
            );
        };
        check(10, 1.0);
        check(100, 1.0);
        check(150, 1.0 - 0.8 * 0.5);
        check(200, 1.0 - 0.8);
        check(5_000, 1.0 - 0.8);
        check(5, 1.0 - 0.8 * 0.5);
        check(0, 1.0 - 0.8);
        assert!((good(3, true) - 0.2).abs() < 1e-12);
    }

    #[test]
    fn verdict_and_outcome_add_and_a_length_alone_is_not_paid_for() {
        configure();
        assert_eq!(reward(Some(Sign::Bad), 50, false, Some(1.0)), Some(-0.5));
        assert_eq!(reward(None, 50, false, Some(0.0)), Some(-0.5));
        assert_eq!(reward(Some(Sign::Neutral), 50, false, None), Some(0.0));
        assert_eq!(reward(None, 5_000, true, None), None);
    }

    #[test]
    fn bounds_in_the_wrong_order_are_a_fault() {
        for (min, soft, max) in [(101, 100, 200), (10, 200, 200)] {
            configure();
            for (key, value) in [
                ("min-tokens", min),
                ("soft-tokens", soft),
                ("max-tokens", max),
            ] {
                native::set_config(key, config::Value::Integer(value));
            }
            let (turns, outcome) = (vec![], None);
            let paid = LengthGuarded::turn_rewards(Trajectory { turns, outcome });
            assert!(
                matches!(paid, Err(Fault::InvalidConfig(_))),
                "{min} {soft} {max}"
            );
        }
    }
}
