//! Episodes with any replies: they end, their snapshots go on, and live traffic agrees with them.

use proptest::prelude::*;

use super::*;
use crate::traffic;

/// Replies that a model could make: right calls, wrong ones, words and rubbish.
fn replies() -> impl Strategy<Value = Vec<Action>> {
    let call = prop_oneof![
        Just(r#"{"name":"find_event","arguments":{"title":"Yoga class"}}"#.to_owned()),
        Just(
            r#"{"name":"add_event","arguments":{"title":"Tea","day":"Monday","hour":9}}"#
                .to_owned()
        ),
        (1..5, 8..19).prop_map(|(id, hour)| {
            Call::new(
                "move_event",
                json!({"id": id, "day": "Friday", "hour": hour}),
            )
            .to_json()
        }),
        (1..5).prop_map(|id| Call::new("cancel_event", json!({"id": id})).to_json()),
    ];
    let reply = prop_oneof![
        4 => proptest::collection::vec(call, 1..3).prop_map(|calls| text(calls.join("\n"))),
        1 => any::<String>().prop_map(text),
        1 => Just(text("Done.")),
        1 => r#"[{}",:a-z\[\]]{0,30}"#.prop_map(|junk| real(&[("add_event", &junk)])),
        1 => "[a-z{]{0,9}".prop_map(|cut| Action { finish: Finish::Length, ..text(cut) }),
    ];
    proptest::collection::vec(reply, 0..13)
}

proptest! {
    #[test]
    fn whatever_is_replied_the_episode_ends_in_time_and_its_numbers_hold(replies in replies(), difficulty in 1..=3) {
        let task = format!("calendar-move/{difficulty}/5");
        let mut session = start(&task);
        for reply in replies {
            if session.over {
                break;
            }
            session.act(reply).unwrap();
            let outcome = session.outcome().unwrap().unwrap();
            prop_assert!((0.0..=1.0).contains(&outcome.value));
            prop_assert!(outcome.metrics.iter().all(|metric| metric.value.is_finite() && metric.value >= 0.0));
        }
        prop_assert!(session.over || session.tally.replies < RULES.max_turns);
    }

    #[test]
    fn a_snapshot_goes_on_exactly_where_it_was_taken(replies in replies(), cut in 0..13_usize) {
        let mut original = start("calendar-book/3/5");
        let mut restored = None;
        for (place, reply) in replies.into_iter().enumerate() {
            if original.over {
                break;
            }
            if place == cut {
                let snapshot = original.snapshot().unwrap();
                let session = Session::restore(&snapshot, RULES).unwrap();
                restored = Some(session);
            }
            let step = original.act(reply.clone()).unwrap();
            if let Some(restored) = &mut restored {
                prop_assert_eq!(restored.act(reply).unwrap(), step);
            }
        }
        if let Some(restored) = &mut restored {
            prop_assert_eq!(restored.outcome().unwrap(), original.outcome().unwrap());
            prop_assert_eq!(restored.snapshot().unwrap(), original.snapshot().unwrap());
        }
    }

    #[test]
    fn live_traffic_finds_the_same_evidence_in_the_conversation_as_the_episode_gave(replies in replies()) {
        let mut session = start("calendar-book/3/6");
        let mut conversation = session.observe().unwrap().messages;
        for action in replies {
            if session.over {
                break;
            }
            let turn = Turn {
                request: conversation.clone(),
                response: action.reply.clone(),
                finish: action.finish,
            };
            let step = session.act(action).unwrap();
            conversation.push(turn.response.clone());
            conversation.extend(step.next.messages.iter().cloned());
            prop_assert_eq!(traffic::next_state(&turn, step.next.messages.clone()), Some(step.next));
        }
    }
}
