//! The table of algorithms §5, and what must hold for every input.

use proptest::prelude::*;

use super::{HintTeacher, Judged, Method, Settings};
use crate::{Hint, NotTrainable, Turn};

fn turn() -> Turn {
    serde_json::from_str(include_str!("../../fixtures/turn.json")).unwrap()
}

fn teacher(text: &str, logprobs: &[f32]) -> HintTeacher {
    HintTeacher {
        hint: Hint { text: text.into() },
        logprobs: logprobs.to_vec(),
    }
}

fn judged(turn: &Turn, reward: Option<f32>, teachers: Vec<HintTeacher>) -> Judged<'_> {
    Judged {
        turn,
        reward,
        rl_weight: 1.0,
        opd_weight: 1.0,
        teachers,
    }
}

fn advantages(method: Method, judged: &Judged<'_>) -> Option<Vec<f32>> {
    method
        .sample(judged, &Settings::default())
        .map(|sample| sample.advantage)
}

#[test]
fn every_row_of_the_table_gives_its_sample_and_no_other() {
    let turn = turn(); // behaviour -1.0, -0.5
    let hint = || vec![teacher("Be brief, please.", &[-0.5, -1.0])]; // differences 0.5, -0.5
    let none = Vec::new;
    type Row = (
        Option<f32>,
        Vec<HintTeacher>,
        Option<[f32; 2]>,
        Option<[f32; 2]>,
        Option<[f32; 2]>,
    );
    let table: [Row; 10] = [
        (
            Some(1.0),
            hint(),
            Some([1.0, 1.0]),
            Some([0.5, -0.5]),
            Some([1.5, 0.5]),
        ),
        (
            Some(-1.0),
            hint(),
            Some([-1.0, -1.0]),
            Some([0.5, -0.5]),
            Some([-0.5, -1.5]),
        ),
        (
            Some(0.0),
            hint(),
            None,
            Some([0.5, -0.5]),
            Some([0.5, -0.5]),
        ),
        (None, hint(), None, Some([0.5, -0.5]), Some([0.5, -0.5])),
        (Some(1.0), none(), Some([1.0, 1.0]), None, Some([1.0, 1.0])),
        (
            Some(-1.0),
            none(),
            Some([-1.0, -1.0]),
            None,
            Some([-1.0, -1.0]),
        ),
        (Some(0.0), none(), None, None, None),
        (None, none(), None, None, None),
        (Some(f32::NAN), none(), None, None, None),
        (
            Some(f32::INFINITY),
            hint(),
            None,
            Some([0.5, -0.5]),
            Some([0.5, -0.5]),
        ),
    ];
    for (reward, teachers, binary, opd, combined) in table {
        let judged = judged(&turn, reward, teachers);
        for (method, want) in [
            (Method::Binary, binary),
            (Method::Opd, opd),
            (Method::Combined, combined),
        ] {
            let got = advantages(method, &judged);
            assert_eq!(got, want.map(Vec::from), "{method:?} of {judged:?}");
        }
    }
}

#[test]
fn the_shortest_hint_is_followed_and_the_first_of_equals() {
    let turn = turn();
    let long = teacher(
        "Write a reply of one sentence, in plain words.",
        &[-9.0, -9.0],
    );
    let short = teacher("Be brief, please.", &[-0.5, -0.5]);
    let equal = teacher("Be brief, friend.", &[-3.0, -3.0]);
    let judged = judged(&turn, None, vec![long, short, equal]);
    assert_eq!(advantages(Method::Opd, &judged), Some(vec![0.5, 0.0]));
}

#[test]
fn a_teacher_that_did_not_score_every_token_is_left_out_and_never_padded() {
    let turn = turn();
    for bad in [
        &[-0.5][..],
        &[-0.5, -0.5, -0.5],
        &[-0.5, f32::NAN],
        &[f32::NEG_INFINITY, -0.5],
    ] {
        let judged = judged(&turn, None, vec![teacher("Be brief.", bad)]);
        assert_eq!(advantages(Method::Opd, &judged), None);
        assert_eq!(Method::Opd.why_none(&judged), NotTrainable::NoVerdict);
    }
}

#[test]
fn weights_scale_their_own_term_only_and_zero_switches_it_off() {
    let turn = turn();
    let with = |rl_weight, opd_weight| Judged {
        rl_weight,
        opd_weight,
        ..judged(&turn, Some(-1.0), vec![teacher("Be brief.", &[-0.5, -1.0])])
    };
    assert_eq!(
        advantages(Method::Combined, &with(2.0, 0.0)),
        Some(vec![-2.0, -2.0])
    );
    assert_eq!(
        advantages(Method::Combined, &with(0.0, 3.0)),
        Some(vec![1.5, -1.5])
    );
    assert_eq!(advantages(Method::Combined, &with(0.0, 0.0)), None);
    assert_eq!(
        advantages(Method::Binary, &with(0.5, 9.0)),
        Some(vec![-0.5, -0.5])
    );
    assert_eq!(
        advantages(Method::Opd, &with(9.0, 0.5)),
        Some(vec![0.25, -0.25])
    );
    assert_eq!(advantages(Method::Opd, &with(1.0, f32::NAN)), None);
}

#[test]
fn the_sample_carries_the_turn_as_it_was_served() {
    let turn = turn();
    let sample = Method::Binary
        .sample(&judged(&turn, Some(1.0), vec![]), &Settings::default())
        .unwrap();
    assert_eq!(sample.turn, turn.id);
    assert_eq!(Some(sample.adapter), turn.adapter);
    assert_eq!((sample.version, sample.temperature), (turn.version, 0.7));
    assert_eq!(
        (sample.prompt, sample.response),
        (turn.prompt, turn.response)
    );
    assert_eq!(
        (sample.behaviour, sample.weight),
        (turn.logprobs, vec![1.0, 1.0])
    );
}

#[test]
fn a_turn_that_cannot_be_trained_gives_no_sample_and_says_why() {
    let reasons = |turn: &Turn, reward, method: Method| {
        let judged = judged(turn, reward, vec![]);
        assert_eq!(advantages(method, &judged), None);
        method.why_none(&judged)
    };
    let base = Turn {
        adapter: None,
        ..turn()
    };
    let empty = Turn {
        response: vec![],
        logprobs: vec![],
        ..turn()
    };
    assert_eq!(
        reasons(&base, Some(1.0), Method::Binary),
        NotTrainable::BaseWeights
    );
    assert_eq!(
        reasons(&empty, Some(1.0), Method::Binary),
        NotTrainable::Empty
    );
    assert_eq!(
        reasons(&turn(), Some(0.0), Method::Combined),
        NotTrainable::Ambiguous
    );
    assert_eq!(
        reasons(&turn(), Some(0.0), Method::Opd),
        NotTrainable::NoVerdict
    );
    assert_eq!(
        reasons(&turn(), None, Method::Binary),
        NotTrainable::NoVerdict
    );
    assert_eq!(
        reasons(&turn(), Some(f32::NAN), Method::Binary),
        NotTrainable::RewardRefused
    );
}

#[test]
fn settings_that_make_no_sense_are_refused_by_name() {
    for opd_clip in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let error = Settings { opd_clip }.validate().unwrap_err().to_string();
        assert!(error.contains("opd-clip"), "{error}");
    }
    assert!(Settings::default().validate().is_ok());
    assert!(serde_json::from_str::<Settings>(r#"{"opd-clp": 1.0}"#).is_err());
}

proptest! {
    #[test]
    fn the_directive_term_is_bounded_and_the_opd_clip_reaches_it(
        logprobs in prop::collection::vec(-30.0f32..0.0, 2), clip in 0.01f32..4.0, opd_weight in 0.1f32..2.0
    ) {
        let turn = turn();
        let judged = Judged { opd_weight, ..judged(&turn, None, vec![teacher("Be brief.", &logprobs)]) };
        let sample = Method::Opd.sample(&judged, &Settings { opd_clip: clip }).unwrap();
        for (t, advantage) in sample.advantage.iter().enumerate() {
            prop_assert!(advantage.abs() <= opd_weight * clip);
            let difference = logprobs[t] - turn.logprobs[t];
            if difference.abs() < clip {
                prop_assert_eq!(*advantage, opd_weight * difference);
            }
        }
    }

    #[test]
    fn every_sample_is_valid_and_combined_is_the_sum_of_its_parts(
        reward in prop::option::of(prop::sample::select(vec![-1.0f32, 0.0, 1.0])),
        hinted in any::<bool>(), logprobs in prop::collection::vec(-30.0f32..0.0, 2)
    ) {
        let turn = turn();
        let teachers = if hinted { vec![teacher("Be brief.", &logprobs)] } else { vec![] };
        let judged = judged(&turn, reward, teachers);
        let settings = Settings::default();
        let [binary, opd, combined] = [Method::Binary, Method::Opd, Method::Combined]
            .map(|method| method.sample(&judged, &settings));
        prop_assert_eq!(combined.is_some(), binary.is_some() || opd.is_some());
        if let Some(combined) = combined {
            prop_assert!(combined.validate().is_ok());
            for t in 0..2 {
                let part = |sample: &Option<crate::Sample>| sample.as_ref().map_or(0.0, |s| s.advantage[t]);
                prop_assert_eq!(combined.advantage[t], part(&binary) + part(&opd));
            }
        }
    }
}
