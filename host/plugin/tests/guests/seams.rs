//! The first-party guests behind the seams of `rl`.

use plugin::GuestReward;
use rl::{Decider, RewardRule, Verdict, VoteValue};

use crate::support::{host, load, vote};

#[test]
fn the_reward_rules_agree_with_the_native_majority() {
    use VoteValue::{Ambiguous, Negative, Positive};
    let host = host();
    let native = rl::seam::MajorityRule;
    let ballots = [
        vec![Some(Positive), Some(Negative), Some(Positive)],
        vec![Some(Negative), None, Some(Negative)],
        vec![Some(Positive), Some(Negative), None],
        vec![Some(Ambiguous)],
        vec![None, None],
        vec![],
    ];
    for guest in [bundled::BINARY_REWARD, bundled::COMBINED_REWARD] {
        let rule = GuestReward::new(&load(&host, guest, "").unwrap()).unwrap();
        for ballot in &ballots {
            let votes: Vec<_> = ballot.iter().copied().map(vote).collect();
            assert_eq!(
                rule.verdict(&votes),
                native.verdict(&votes),
                "{} {ballot:?}",
                rule.name()
            );
        }
    }
}

#[test]
fn a_configured_weight_reaches_the_reward() {
    let host = host();
    let verdicts = [
        Some(Verdict {
            value: VoteValue::Negative,
            by: Decider::Person,
        }),
        None,
    ];
    let rewards = |section: &str| {
        let rule =
            GuestReward::new(&load(&host, bundled::COMBINED_REWARD, section).unwrap()).unwrap();
        let rewards = rule.turn_rewards(&verdicts, None).unwrap();
        rewards
            .iter()
            .map(|r| (r.reward, r.rl_weight, r.opd_weight))
            .collect::<Vec<_>>()
    };
    assert_eq!(rewards(""), [(Some(-1.0), 1.0, 1.0), (None, 0.0, 1.0)]);
    assert_eq!(
        rewards("rl-weight = 0.5"),
        [(Some(-1.0), 0.5, 1.0), (None, 0.0, 1.0)]
    );
    assert_eq!(
        rewards("opd-weight = 3"),
        [(Some(-1.0), 1.0, 3.0), (None, 0.0, 3.0)]
    );
}

#[test]
fn advantages_keep_the_shape_of_the_rewards() {
    let host = host();
    let rule = GuestReward::new(&load(&host, bundled::BINARY_REWARD, "").unwrap()).unwrap();
    let group = [vec![Some(1.0), None], vec![], vec![Some(-1.0)]];
    assert_eq!(rule.advantages(&group).unwrap(), group);
    assert_eq!(rule.name(), "binary-reward 0.1.0");
}
