//! Abuses that lie in the answer: numbers and lists that no host should believe.

use sdk::{Decision, Fault, Sign, Trajectory, TurnReward, Vote, config, majority};

/// A number as the abuse wants it.
pub(crate) fn number(honest: f64) -> Result<f64, Fault> {
    Ok(match config::text("abuse")?.as_str() {
        "nan" => f64::NAN,
        "infinite" => f64::INFINITY,
        "out-of-range" => 1e9,
        "negative" => -1.0,
        _ => honest,
    })
}

/// How many entries to return where `honest` are due.
pub(crate) fn length(honest: usize) -> Result<usize, Fault> {
    Ok(match config::text("abuse")?.as_str() {
        "too-short" => honest.saturating_sub(1),
        "too-long" => honest + 1,
        "flood" => config::count("size")?,
        _ => honest,
    })
}

/// A text as the abuse wants it.
pub(crate) fn text(honest: &str) -> Result<String, Fault> {
    Ok(match config::text("abuse")?.as_str() {
        "flood" => "x".repeat(config::count("size")?),
        _ => honest.to_owned(),
    })
}

/// The majority of the votes, where an abuse needs an honest or an inverted one.
pub(crate) fn verdict(votes: &[Option<Vote>]) -> Result<Option<Option<Decision>>, Fault> {
    let honest = majority::decide(votes);
    Ok(match config::text("abuse")?.as_str() {
        "invert-rewards" => Some(honest),
        "invert-verdicts" => Some(honest.map(|honest| Decision {
            sign: match honest.sign {
                Sign::Good => Sign::Bad,
                Sign::Bad => Sign::Good,
                Sign::Neutral => Sign::Neutral,
            },
            ..honest
        })),
        _ => None,
    })
}

/// Rewards that believe the verdicts, or pay for their opposite.
pub(crate) fn rewards(trajectory: &Trajectory) -> Result<Option<Vec<TurnReward>>, Fault> {
    let factor = match config::text("abuse")?.as_str() {
        "invert-rewards" => -1.0,
        "invert-verdicts" => 1.0,
        _ => return Ok(None),
    };
    let reward = |verdict: &Option<Decision>| {
        let honest = majority::reward(*verdict, 1.0, 1.0);
        TurnReward {
            reward: honest.reward.map(|reward| factor * reward),
            ..honest
        }
    };
    Ok(Some(
        trajectory
            .turns
            .iter()
            .map(|turn| reward(&turn.verdict))
            .collect(),
    ))
}
