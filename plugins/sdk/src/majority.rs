//! The majority of votes: what most reward schemes begin with.

use crate::{Decider, Decision, Sign, TurnReward, Vote};

/// The unique mode of the votes that are present, decided by the judge. A tie is neutral; no vote present is no verdict.
pub fn decide(votes: &[Option<Vote>]) -> Option<Decision> {
    let count = |sign| {
        votes
            .iter()
            .flatten()
            .filter(|vote| vote.sign == sign)
            .count()
    };
    let counts = [Sign::Good, Sign::Neutral, Sign::Bad].map(|sign| (count(sign), sign));
    let (most, sign) = counts
        .into_iter()
        .max_by_key(|(count, _)| *count)
        .filter(|(most, _)| *most > 0)?;
    let unique = counts.iter().filter(|(count, _)| *count == most).count() == 1;
    Some(Decision {
        sign: if unique { sign } else { Sign::Neutral },
        by: Decider::Judge,
    })
}

/// The verdict as a number: +1, 0 or -1. Nothing where there is none; neutral and missing weigh 0.
pub fn reward(verdict: Option<Decision>, rl_weight: f64, opd_weight: f64) -> TurnReward {
    let reward = verdict.map(|verdict| match verdict.sign {
        Sign::Good => 1.0,
        Sign::Neutral => 0.0,
        Sign::Bad => -1.0,
    });
    let decided = reward.is_some_and(|reward| reward != 0.0);
    TurnReward {
        reward,
        rl_weight: if decided { rl_weight } else { 0.0 },
        opd_weight,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(votes: &[Option<Sign>], expected: Option<Sign>) {
        let vote = |sign: &Option<Sign>| sign.map(|sign| Vote { sign, score: None });
        let votes: Vec<_> = votes.iter().map(vote).collect();
        assert_eq!(
            decide(&votes).map(|decision| decision.sign),
            expected,
            "{votes:?}"
        );
    }

    #[test]
    fn the_unique_mode_wins_a_tie_is_neutral_and_nothing_is_no_verdict() {
        use Sign::{Bad, Good, Neutral};
        check(&[Some(Good), Some(Bad), Some(Good)], Some(Good));
        check(&[Some(Bad), None, Some(Bad)], Some(Bad));
        check(&[Some(Good), Some(Bad), None], Some(Neutral));
        check(&[Some(Good), Some(Bad), Some(Neutral)], Some(Neutral));
        check(&[None, None], None);
        check(&[], None);
    }
}
