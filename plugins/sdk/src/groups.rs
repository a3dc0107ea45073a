//! Arithmetic of rules that compare attempts at the same task.
//!
//! Pure numbers: which rule needs which of these is the rule's own business, and none of this sees a text or a token. Missing stays
//! missing: a turn without a reward takes no part in any mean and has no advantage. Start at [`whole`] and [`by_trajectory`].

use crate::{Decider, JudgedTurn, Sign, Trajectory};

/// Added to a standard deviation, so that nearly equal rewards do not become huge advantages.
pub const STD_FLOOR: f64 = 1e-6;

/// The rewards, or the advantages, of a group: one list a trajectory, in it one entry a turn.
pub type Group = Vec<Vec<Option<f64>>>;

/// The process reward of a turn: the word of a person or an oracle where one of them spoke, since they outrank the judge; else the
/// mean of the votes that are present.
pub fn process(turn: &JudgedTurn) -> Option<f64> {
    match turn.verdict {
        Some(decision) if decision.by != Decider::Judge => Some(match decision.sign {
            Sign::Good => 1.0,
            Sign::Neutral => 0.0,
            Sign::Bad => -1.0,
        }),
        _ => turn.process,
    }
}

/// The rewards of a trajectory that is paid as a whole: `R = outcome + process_weight · (mean process reward of its turns)` for
/// every turn of it.
///
/// Without an outcome each turn has its process reward alone, or none: that is live traffic, of which each turn is paid by its own
/// votes, and a task without an oracle.
pub fn whole(trajectory: &Trajectory, process_weight: f64) -> Vec<Option<f64>> {
    let turns = &trajectory.turns;
    let Some(outcome) = trajectory.outcome else {
        return turns.iter().map(process).collect();
    };
    let judged: Vec<f64> = turns.iter().filter_map(process).collect();
    let reward = outcome + process_weight * mean(&judged).unwrap_or(0.0);
    vec![Some(reward); turns.len()]
}

/// The mean; none of nothing. Exact for equal numbers, so that rounding never makes a spread where there is none.
pub fn mean(numbers: &[f64]) -> Option<f64> {
    let first = *numbers.first()?;
    let sum: f64 = numbers.iter().map(|number| number - first).sum();
    Some(first + sum / count(numbers))
}

/// `(x − mean) / (std + 1e-6)`, with the sample standard deviation (n − 1) as in `torch.std`. All 0 without spread: a lone number
/// was compared with nothing, and equal ones say nothing for or against any of them.
pub fn standardised(numbers: &[f64]) -> Vec<f64> {
    let centred = centred(numbers);
    if centred.iter().all(|number| *number == 0.0) {
        return centred;
    }
    let squares: f64 = centred.iter().map(|number| number * number).sum();
    let std = (squares / (count(numbers) - 1.0)).sqrt();
    centred
        .iter()
        .map(|number| number / (std + STD_FLOOR))
        .collect()
}

/// `x − mean`.
pub fn centred(numbers: &[f64]) -> Vec<f64> {
    let mean = mean(numbers).unwrap_or(0.0);
    numbers.iter().map(|number| number - mean).collect()
}

/// Advantages by turn index: `advantages` gets the rewards of all turns with the same index, and gives one number for each.
pub fn by_turn_index(rewards: &Group, advantages: impl Fn(&[f64]) -> Vec<f64>) -> Group {
    let mut group: Group = rewards
        .iter()
        .map(|turns| vec![None; turns.len()])
        .collect();
    let longest = rewards.iter().map(Vec::len).max().unwrap_or(0);
    for index in 0..longest {
        let reward = |turns: &Vec<Option<f64>>| turns.get(index).copied().flatten();
        let members: Vec<f64> = rewards.iter().filter_map(reward).collect();
        let mut found = advantages(&members).into_iter();
        for (turns, given) in group.iter_mut().zip(rewards) {
            if let (Some(turn), Some(_)) = (turns.get_mut(index), reward(given)) {
                *turn = found.next();
            }
        }
    }
    group
}

/// Advantages by trajectory: `advantages` gets the reward of each trajectory, the mean of its turns' (which are all the same where
/// there was an outcome, see [`whole`]), and gives one number for each: the advantage of every turn of it that has a reward. A
/// trajectory without any takes no part.
pub fn by_trajectory(rewards: &Group, advantages: impl Fn(&[f64]) -> Vec<f64>) -> Group {
    let reward = |turns: &Vec<Option<f64>>| {
        let present: Vec<f64> = turns.iter().copied().flatten().collect();
        mean(&present)
    };
    let members: Vec<f64> = rewards.iter().filter_map(reward).collect();
    let mut found = advantages(&members).into_iter();
    let of_trajectory = |turns: &Vec<Option<f64>>| {
        let advantage = reward(turns).and_then(|_| found.next());
        turns.iter().map(|turn| turn.and(advantage)).collect()
    };
    rewards.iter().map(of_trajectory).collect()
}

fn count(numbers: &[f64]) -> f64 {
    f64::from(u32::try_from(numbers.len()).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Decision;

    fn turn(process: Option<f64>) -> JudgedTurn {
        JudgedTurn {
            process,
            ..None.into()
        }
    }

    #[test]
    fn a_person_and_an_oracle_outrank_the_votes() {
        let said = |by| JudgedTurn {
            verdict: Some(Decision {
                sign: Sign::Bad,
                by,
            }),
            ..turn(Some(1.0))
        };
        assert_eq!(process(&said(Decider::Person)), Some(-1.0));
        assert_eq!(process(&said(Decider::Oracle)), Some(-1.0));
        assert_eq!(process(&said(Decider::Judge)), Some(1.0));
        assert_eq!(process(&turn(None)), None);
    }

    #[test]
    fn a_whole_trajectory_has_one_reward_and_without_an_outcome_each_turn_its_own() {
        let turns = vec![turn(Some(1.0)), turn(None), turn(Some(-0.5))];
        let paid = |outcome, weight| {
            let turns = turns.clone();
            whole(&Trajectory { turns, outcome }, weight)
        };
        assert_eq!(paid(Some(0.5), 0.0), [Some(0.5); 3]);
        // 0.5 + 2 · (1 − 0.5) / 2
        assert_eq!(paid(Some(0.5), 2.0), [Some(1.0); 3]);
        assert_eq!(paid(None, 2.0), [Some(1.0), None, Some(-0.5)]);
    }

    #[test]
    fn equal_numbers_have_no_spread_whatever_their_rounding() {
        // The plain sum of three tenths, divided by three, is not a tenth.
        assert_ne!((0.1 + 0.1 + 0.1) / 3.0, 0.1);
        assert_eq!(mean(&[0.1; 3]), Some(0.1));
        assert_eq!(standardised(&[0.1; 7]), [0.0; 7]);
        assert_eq!(standardised(&[5.0]), [0.0]);
        assert_eq!((mean(&[]), standardised(&[])), (None, vec![]));
    }

    #[test]
    fn a_trajectory_is_one_member_however_many_turns_it_has() {
        let rewards = vec![
            vec![Some(1.0), None, Some(1.0)],
            vec![Some(0.0)],
            vec![None],
            vec![],
        ];
        assert_eq!(
            by_trajectory(&rewards, centred),
            [
                vec![Some(0.5), None, Some(0.5)],
                vec![Some(-0.5)],
                vec![None],
                vec![]
            ]
        );
    }

    #[test]
    fn turns_are_compared_with_those_of_their_index_and_missing_ones_with_nothing() {
        let rewards = vec![vec![Some(1.0), Some(7.0)], vec![Some(4.0)], vec![None]];
        assert_eq!(
            by_turn_index(&rewards, centred),
            [vec![Some(-1.5), Some(0.0)], vec![Some(1.5)], vec![None]]
        );
        assert!(by_turn_index(&vec![], centred).is_empty());
    }
}
