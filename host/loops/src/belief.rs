//! What a reward rule may make of what people and the judge said: weigh it, not say something else.
//!
//! Pure functions of one turn's votes, rating and reward. They decide no reward; they refuse one that nobody could have meant.

use rl::{Decider, Rating, TurnReward, Verdict, Vote, VoteValue, majority};

use crate::records::JudgedRecord;

const ALLOW: &str = " (if it is meant to: `[loops.judge] contrary-rewards = true`)";

/// A rule weighs what was said; it does not say something else. An inverted one would train the opposite of what people want,
/// and nothing downstream could tell: its samples look like any others. Whoever wants a rule that decides otherwise (a penalty
/// that outweighs praise, a verdict that one vote can veto) says so: `contrary`.
///
/// # Errors
/// [`rl::Error::Refused`]: a number that is not finite, a negative weight, a verdict that is not the majority of the votes, or
/// a reward of the opposite sign.
pub(crate) fn believe(
    votes: &[Vote],
    verdict: Option<Verdict>,
    reward: &TurnReward,
    contrary: bool,
) -> rl::Result<()> {
    let TurnReward {
        reward: paid,
        rl_weight,
        opd_weight,
    } = *reward;
    let numbers = [paid.unwrap_or(0.0), rl_weight, opd_weight];
    if numbers.iter().any(|number| !number.is_finite()) {
        return Err(refused(format!("a number is not finite: {reward:?}")));
    }
    if contrary || ledger::mutant::on("any-reward-believed") {
        return Ok(());
    }
    if rl_weight < 0.0 || opd_weight < 0.0 {
        return Err(refused(format!("a weight is negative: {reward:?}")));
    }
    let Some(Verdict { value, by }) = verdict else {
        return Ok(());
    };
    let said = majority(votes.iter().map(|vote| vote.value));
    if by == Decider::Judge && said != Some(value) {
        let why = format!("a verdict of {value:?}, where the votes give {said:?}{ALLOW}");
        return Err(refused(why));
    }
    if paid.is_some_and(|paid| paid * value.sign() < 0.0) {
        let why = format!("it pays for the opposite of a {value:?} verdict: {reward:?}{ALLOW}");
        return Err(refused(why));
    }
    Ok(())
}

/// What was said about a turn, whatever a rule makes of it: a rule that fails or lies must not blind the live guard.
pub(crate) fn said(record: &JudgedRecord) -> Option<Verdict> {
    let rated = record.feedback.as_ref().and_then(|said| said.rating);
    let by_votes = || {
        let value = majority(record.votes.iter().map(|vote| vote.value))?;
        let by = Decider::Judge;
        Some(Verdict { value, by })
    };
    let by_person = rated.map(|rating| Verdict {
        value: value(rating),
        by: Decider::Person,
    });
    by_person.or_else(by_votes)
}

pub(crate) fn value(rating: Rating) -> VoteValue {
    match rating {
        Rating::Up => VoteValue::Positive,
        Rating::Down => VoteValue::Negative,
    }
}

pub(crate) fn refused(why: String) -> rl::Error {
    rl::Error::Refused {
        what: "the reward rule's answer".to_owned(),
        why,
    }
}

#[cfg(test)]
mod tests {
    use VoteValue::{Ambiguous, Negative, Positive};
    use rl::Seed;

    use super::*;

    fn votes(values: &[VoteValue]) -> Vec<Vote> {
        let vote = |value: &VoteValue| Vote {
            value: Some(*value),
            answers: Vec::new(),
            score: None,
            seed: Seed::new(0),
            absent: None,
        };
        values.iter().map(vote).collect()
    }

    fn check(voted: &[VoteValue], verdict: (VoteValue, Decider), paid: f32, why: Option<&str>) {
        let verdict = Verdict {
            value: verdict.0,
            by: verdict.1,
        };
        let reward = TurnReward {
            reward: Some(paid),
            rl_weight: 1.0,
            opd_weight: 1.0,
        };
        let found = believe(&votes(voted), Some(verdict), &reward, false);
        let allowed = believe(&votes(voted), Some(verdict), &reward, true);
        assert_eq!(allowed.is_ok(), paid.is_finite());
        match (why, found) {
            (None, found) => found.unwrap(),
            (Some(why), Err(error)) => {
                let error = error.to_string();
                assert!(error.contains(why), "{error}");
            }
            (Some(why), Ok(())) => panic!("{verdict:?}, {paid}: not refused as {why}"),
        }
    }

    #[test]
    fn a_rule_may_weigh_what_was_said_and_not_turn_it_round() {
        let (judge, person) = (Decider::Judge, Decider::Person);
        check(
            &[Positive, Positive, Negative],
            (Positive, judge),
            0.2,
            None,
        );
        check(&[Negative], (Negative, judge), -3.0, None);
        check(&[Negative], (Negative, judge), 0.0, None);
        check(&[Negative, Positive], (Ambiguous, judge), 0.5, None);
        check(&[Negative], (Positive, person), 1.0, None);
        let opposite = Some("pays for the opposite");
        check(&[Positive], (Positive, judge), -1.0, opposite);
        check(&[Negative], (Negative, judge), 1.0, opposite);
        check(&[], (Negative, person), 1.0, opposite);
        let invented = Some("where the votes give");
        check(&[Negative, Negative], (Positive, judge), 1.0, invented);
        check(&[], (Positive, judge), 1.0, invented);
        check(&[Positive], (Positive, judge), f32::NAN, Some("not finite"));
    }

    #[test]
    fn a_negative_weight_is_the_opposite_too_and_is_refused() {
        for (rl_weight, opd_weight) in [(-1.0, 0.0), (1.0, -0.5)] {
            let reward = TurnReward {
                reward: None,
                rl_weight,
                opd_weight,
            };
            let error = believe(&[], None, &reward, false).unwrap_err().to_string();
            assert!(error.contains("a weight is negative"), "{error}");
        }
    }
}
