//! What every family promises: solutions that work, and no held-out request in training.

use std::collections::BTreeSet;

use super::*;
use crate::{
    apis::NAMES,
    draw::Style,
    oracle,
    task::{self, Choice, DIFFICULTIES, HELD_OUT, TRAIN, Task},
    wire::{self, ToolsIn},
};

fn plan(task: &Task, style: Style) -> Plan {
    (task.family.plan)(&mut Draw::new(task, style), task.difficulty)
}

/// Some numbers of both splits.
fn tasks() -> impl Iterator<Item = Task> {
    let numbers = TRAIN.take(120).chain(HELD_OUT.take(40));
    let numbers: Vec<_> = numbers.collect();
    ALL.iter().flat_map(move |family| {
        let numbers = numbers.clone();
        DIFFICULTIES.flat_map(move |difficulty| {
            let numbers = numbers.clone().into_iter();
            numbers.map(move |number| Task {
                family,
                difficulty,
                number,
            })
        })
    })
}

#[test]
fn every_reference_solution_works_and_only_its_changing_calls_change_something() {
    for task in tasks() {
        let Plan {
            mut world,
            requests,
        } = plan(&task, Style::Plain);
        for request in &requests {
            let mut changes = 0;
            for call in &request.calls {
                let answer = world.call(&call.name, &call.arguments);
                assert!(!answer.failed, "{task}: {call:?}: {}", answer.result);
                changes += usize::from(answer.changed);
            }
            assert_eq!(changes, request.changes, "{task}");
            assert!(
                request.changes > 0 || request.answer.is_some(),
                "{task} asks for nothing"
            );
        }
    }
}

#[test]
fn the_difficulty_is_the_number_of_calls_and_requests() {
    for task in tasks() {
        let requests = plan(&task, Style::Plain).requests;
        let calls: Vec<_> = requests.iter().map(|request| request.calls.len()).collect();
        match task.difficulty {
            1 => assert_eq!(calls, [1], "{task}"),
            2 => assert!(matches!(calls[..], [2 | 3]), "{task}: {calls:?}"),
            _ => assert!(
                calls.len() == 2 && calls.iter().all(|calls| (1..=3).contains(calls)),
                "{task}"
            ),
        }
    }
}

#[test]
fn an_expected_answer_is_accepted_and_its_rivals_are_not() {
    for task in tasks() {
        for request in plan(&task, Style::Plain).requests {
            let Some(expected) = &request.answer else {
                continue;
            };
            let value = &expected.value;
            assert!(
                oracle::tells(&format!("It is {value}."), expected, &request.words),
                "{task}"
            );
            assert!(
                !expected.rivals.contains(value),
                "{task}: {value} is ambiguous"
            );
            for rival in &expected.rivals {
                assert!(
                    !oracle::tells(
                        &format!("It is {rival} or {value}."),
                        expected,
                        &request.words
                    ),
                    "{task}"
                );
            }
        }
    }
}

#[test]
fn no_held_out_request_was_ever_made_in_training() {
    for style in [Style::Plain, Style::Varied] {
        for family in &ALL {
            for difficulty in DIFFICULTIES {
                let first = |number: u32| {
                    let task = Task {
                        family,
                        difficulty,
                        number,
                    };
                    plan(&task, style).requests.remove(0).words
                };
                let trained: BTreeSet<_> = TRAIN.map(first).collect();
                let seen = HELD_OUT.map(first).filter(|words| trained.contains(words));
                assert_eq!(
                    seen.collect::<Vec<_>>(),
                    [""; 0],
                    "{}/{difficulty}",
                    family.name
                );
                assert!(
                    trained.len() > 30,
                    "{}/{difficulty} asks only {} things",
                    family.name,
                    trained.len()
                );
            }
        }
    }
}

#[test]
fn the_style_changes_words_and_nothing_else() {
    let mut varied = 0;
    for task in tasks() {
        let (one, other) = (plan(&task, Style::Plain), plan(&task, Style::Varied));
        assert_eq!(
            (one.world.hash(), one.goals()),
            (other.world.hash(), other.goals()),
            "{task}"
        );
        for (one, other) in one.requests.iter().zip(&other.requests) {
            assert_eq!(
                (&one.calls, &one.answer),
                (&other.calls, &other.answer),
                "{task}"
            );
        }
        varied += usize::from(one.requests[0].words != other.requests[0].words);
    }
    assert!(varied > tasks().count() / 4, "{varied}");
}

#[test]
fn an_easy_opening_is_short_enough_for_a_small_model() {
    // JSON and names are about three characters a token: 700 are about 230 tokens.
    for task in tasks().filter(|task| task.difficulty == 1) {
        let Plan { world, requests } = plan(&task, Style::Plain);
        let [opening] = wire::opening(world.functions(), ToolsIn::Message, &[], &requests[0].words)
            .try_into()
            .unwrap();
        let length = opening.content.chars().count();
        assert!(
            length <= 700,
            "{task}: {length} characters: {}",
            opening.content
        );
    }
}

#[test]
fn every_api_has_a_family_and_every_family_its_api() {
    let choice = |name: &str| Choice {
        families: vec![name.to_owned()],
        difficulty: 3,
        train: 1,
        held_out: 1,
    };
    for (api, _) in NAMES {
        assert!(
            task::ids(&choice(api), sdk::Split::Train).unwrap().len() >= 3,
            "{api}"
        );
    }
    for family in ALL {
        assert!(
            NAMES.iter().any(|(api, _)| *api == family.api),
            "{}",
            family.name
        );
    }
}
