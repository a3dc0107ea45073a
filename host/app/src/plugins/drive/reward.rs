//! A reward rule's calls: votes that agree, differ and are absent; trajectories with and without an outcome; groups; and the tokens of
//! replies, where the manifest says that the rule decides them.

use rl::{Decider, JudgedTurn, RewardRule, TokenStreams, Verdict, VoteValue, seam::conformance};

use super::Transcript;

const VOTES: [&[Option<VoteValue>]; 6] = {
    use VoteValue::{Ambiguous, Negative, Positive};
    [
        &[Some(Positive), Some(Positive), Some(Negative)],
        &[Some(Negative), None, Some(Negative)],
        &[Some(Positive), Some(Negative)],
        &[Some(Ambiguous)],
        &[None, None, None],
        &[],
    ]
};

/// Tokens of a short reply and of one that is longer than most.
const LENGTHS: [usize; 2] = [4, 300];

pub(super) fn drive(rule: &dyn RewardRule, is_token_level: bool, transcript: &mut Transcript) {
    for votes in VOTES {
        let given: Vec<&str> = votes
            .iter()
            .map(|vote| vote.map_or("absent", sign))
            .collect();
        let given = format!("votes [{}]", given.join(" "));
        let votes: Vec<_> = votes.iter().copied().map(conformance::vote).collect();
        transcript.note("verdict", given, rule.verdict(&votes), |verdict| {
            verdict.map_or("no verdict".to_owned(), |verdict| {
                sign(verdict.value).to_owned()
            })
        });
    }
    let by = |value, by| Some(Verdict { value, by });
    let turns = [
        by(VoteValue::Positive, Decider::Judge),
        None,
        by(VoteValue::Ambiguous, Decider::Judge),
        by(VoteValue::Negative, Decider::Person),
    ]
    .map(|verdict| JudgedTurn {
        process: verdict.map(|verdict| verdict.value.sign() / 3.0),
        tokens: 20,
        ..JudgedTurn::by(verdict)
    });
    for outcome in [None, Some(0.0), Some(0.25), Some(1.0)] {
        let score = outcome.map_or("none".to_owned(), |score: f64| score.to_string());
        let given = format!("verdicts [good none neutral bad-by-a-person], outcome {score}");
        let rewards = rule.turn_rewards(&turns, outcome);
        transcript.note("turn-rewards", given, rewards, |rewards| {
            let turn = |turn: &rl::TurnReward| {
                let reward = turn
                    .reward
                    .map_or("none".to_owned(), |reward| reward.to_string());
                format!("{reward} (rl {} opd {})", turn.rl_weight, turn.opd_weight)
            };
            rewards.iter().map(turn).collect::<Vec<_>>().join(", ")
        });
    }
    transcript.note(
        "turn-rewards",
        "no turns",
        rule.turn_rewards(&[], None),
        |rewards| format!("{} rewards", rewards.len()),
    );
    let groups: [&[&[Option<f32>]]; 4] = [
        &[&[Some(1.0), None, Some(-1.0)]],
        &[&[Some(1.0)], &[Some(-1.0)], &[Some(-1.0)], &[Some(-1.0)]],
        // All alike: a rule that divides by the deviation must not divide by zero.
        &[&[Some(1.0), Some(1.0)], &[Some(1.0)]],
        &[],
    ];
    for group in groups {
        let group: Vec<Vec<Option<f32>>> = group.iter().map(|turns| turns.to_vec()).collect();
        let given = format!("rewards {}", numbers(&group));
        let advantages = rule.advantages(&group);
        transcript.note("advantages", given, advantages, |found| numbers(found));
    }
    if is_token_level {
        tokens(rule, transcript);
    }
}

fn tokens(rule: &dyn RewardRule, transcript: &mut Transcript) {
    for length in LENGTHS {
        let behaviour = vec![-0.5; length];
        let teacher = vec![-0.25; length];
        for (advantage, hints) in [(Some(1.0), 0), (Some(-1.0), 1), (None, 0), (None, 2)] {
            let streams = TokenStreams {
                advantage,
                behaviour: &behaviour,
                teachers: vec![teacher.as_slice(); hints],
            };
            let worth = advantage.map_or("none".to_owned(), |advantage: f32| advantage.to_string());
            let given = format!("{length} tokens, advantage {worth}, {hints} accepted hints");
            let found = rule.token_advantages(&streams);
            transcript.note("token-advantages", given, found, |found| match found {
                None => "the recipe's method decides".to_owned(),
                Some(all) => ends(all),
            });
        }
    }
}

/// The first and the last of many numbers.
fn ends(all: &[f32]) -> String {
    let shown = |some: &[f32]| {
        let some: Vec<String> = some.iter().map(f32::to_string).collect();
        some.join(" ")
    };
    match all {
        [first @ .., a, b] if first.len() > 4 => format!("{} … {a} {b}", shown(&first[..4])),
        few => shown(few),
    }
}

fn sign(value: VoteValue) -> &'static str {
    match value {
        VoteValue::Positive => "good",
        VoteValue::Ambiguous => "neutral",
        VoteValue::Negative => "bad",
    }
}

fn numbers(group: &[Vec<Option<f32>>]) -> String {
    let one = |number: &Option<f32>| number.map_or("none".to_owned(), |number| number.to_string());
    let turns = |turns: &Vec<Option<f32>>| {
        let all: Vec<String> = turns.iter().map(one).collect();
        format!("[{}]", all.join(" "))
    };
    let all: Vec<String> = group.iter().map(turns).collect();
    format!("[{}]", all.join(" "))
}
