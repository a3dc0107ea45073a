//! The rules of groups against numbers that a script computed apart from them: `fixtures/groups.py`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use dr_grpo_reward::DrGrpo;
use grpo_reward::Grpo;
use outcome_reward::Outcome;
use rloo_reward::Rloo;
use sdk::{JudgedTurn, Reward, Trajectory, TurnReward, config, native};
use serde::Deserialize;
use step_wise_reward::StepWise;

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Fixture {
    settings: Settings,
    groups: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Settings {
    process_weight: f64,
    max_tokens: i32,
}

#[derive(Deserialize)]
struct Case {
    group: Vec<Attempt>,
    expected: Expected,
}

#[derive(Deserialize)]
struct Attempt {
    outcome: Option<f64>,
    process: Vec<Option<f64>>,
    tokens: Vec<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Expected {
    step_wise: Numbers,
    outcome: Numbers,
    grpo: Numbers,
    rloo: Numbers,
    dr_grpo: Numbers,
}

#[derive(Deserialize)]
struct Numbers {
    rewards: Vec<Vec<Option<f64>>>,
    advantages: Vec<Vec<Option<f64>>>,
    /// 1 for every turn where it is missing.
    weights: Option<Vec<Vec<f64>>>,
}

fn check<R: Reward>(what: &str, group: &[Attempt], expected: &Numbers) {
    let paid: Vec<Vec<TurnReward>> = group
        .iter()
        .map(|attempt| {
            let pairs = attempt.process.iter().zip(&attempt.tokens);
            let turn = |(process, tokens): (&Option<f64>, &u32)| JudgedTurn {
                process: *process,
                tokens: *tokens,
                ..None.into()
            };
            let turns = pairs.map(turn).collect();
            let outcome = attempt.outcome;
            R::turn_rewards(Trajectory { turns, outcome }).unwrap()
        })
        .collect();
    let of = |part: fn(&TurnReward) -> Option<f64>| -> Vec<Vec<Option<f64>>> {
        let turns = |turns: &Vec<TurnReward>| turns.iter().map(part).collect();
        paid.iter().map(turns).collect()
    };
    let rewards = of(|turn| turn.reward);
    let one = |turns: &Vec<TurnReward>| vec![Some(1.0); turns.len()];
    let weights: Vec<Vec<Option<f64>>> = match &expected.weights {
        None => paid.iter().map(one).collect(),
        Some(weights) => {
            let turns = |turns: &Vec<f64>| turns.iter().copied().map(Some).collect();
            weights.iter().map(turns).collect()
        }
    };
    let advantages = R::advantages(rewards.clone()).unwrap();
    same(what, &rewards, &expected.rewards);
    same(what, &of(|turn| Some(turn.rl_weight)), &weights);
    same(what, &advantages, &expected.advantages);
}

fn same(what: &str, found: &[Vec<Option<f64>>], expected: &[Vec<Option<f64>>]) {
    let shape = |group: &[Vec<Option<f64>>]| -> Vec<Vec<bool>> {
        let turns = |turns: &Vec<Option<f64>>| turns.iter().map(Option::is_some).collect();
        group.iter().map(turns).collect()
    };
    assert_eq!(
        shape(found),
        shape(expected),
        "{what}: {found:?}, expected {expected:?}"
    );
    let pairs = found
        .iter()
        .flatten()
        .flatten()
        .zip(expected.iter().flatten().flatten());
    for (found, expected) in pairs {
        assert!(
            (found - expected).abs() < 1e-9,
            "{what}: {found}, expected {expected}"
        );
        // Nothing speaks for or against this turn, not even a rounding error: it must not become a sample.
        assert!(
            *expected != 0.0 || *found == 0.0,
            "{what}: {found}, expected exactly 0"
        );
    }
}

#[test]
fn every_rule_of_groups_gives_the_numbers_of_the_script() {
    let fixture: Fixture = serde_json::from_str(include_str!("../fixtures/groups.json")).unwrap();
    let Settings {
        process_weight,
        max_tokens,
    } = fixture.settings;
    native::set_config("rl-weight", config::Value::Number(1.0));
    native::set_config("opd-weight", config::Value::Number(1.0));
    native::set_config("process-weight", config::Value::Number(process_weight));
    native::set_config("max-tokens", config::Value::Integer(max_tokens));
    assert_eq!(fixture.groups.len(), 12);
    for (at, Case { group, expected }) in fixture.groups.iter().enumerate() {
        let name = |rule: &str| format!("{rule}, group {at}");
        check::<StepWise>(&name("step-wise"), group, &expected.step_wise);
        check::<Outcome>(&name("outcome"), group, &expected.outcome);
        check::<Grpo>(&name("grpo"), group, &expected.grpo);
        check::<Rloo>(&name("rloo"), group, &expected.rloo);
        check::<DrGrpo>(&name("dr-grpo"), group, &expected.dr_grpo);
    }
}
