//! The first-party guests behind the seams of `rl`.

use plugin::GuestReward;
use rl::{Decider, JudgedTurn, RewardRule, Verdict, VoteValue};

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
    let turns = [
        Some(Verdict {
            value: VoteValue::Negative,
            by: Decider::Person,
        }),
        None,
    ]
    .map(JudgedTurn::by);
    let rewards = |section: &str| {
        let rule =
            GuestReward::new(&load(&host, bundled::COMBINED_REWARD, section).unwrap()).unwrap();
        let rewards = rule.turn_rewards(&turns, None).unwrap();
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

mod conversation {
    //! Live traffic and the scripted user, through the sandbox.

    use plugin::GuestEnvironment;
    use rl::{Action, Classification, Done, Environment, Message, RequestView, Role, Seed, TaskId};

    use crate::support::{host, load, turn, words};

    fn environment(section: &str) -> GuestEnvironment {
        GuestEnvironment::new(
            &load(&host(), bundled::CONVERSATION, section).unwrap(),
            Seed::new(1),
        )
        .unwrap()
    }

    fn reply(text: &str) -> Action {
        Action {
            message: Message::assistant(text),
            truncated: false,
        }
    }

    #[test]
    fn live_traffic_is_classified_and_its_next_states_are_joined() {
        let environment = environment("");
        assert_eq!(environment.card().name, "conversation");
        let classify = |text: &str| {
            let messages = [Message::system("You are kind."), Message::user(text)];
            environment
                .classify(RequestView {
                    messages: &messages,
                    tools: &[],
                })
                .unwrap()
        };
        assert_eq!(classify("How do I store bread?"), Classification::Main);
        assert_eq!(
            classify("Generate a concise title for this conversation"),
            Classification::Side
        );
        let results = [
            Message::new(Role::Tool, "one"),
            Message::new(Role::Tool, "two"),
        ];
        let next = environment
            .next_state(&turn("Hi", "Hello"), &results)
            .unwrap()
            .unwrap();
        assert_eq!((next.messages.len(), next.text.as_str()), (2, "one\ntwo"));
        let synthetic = [Message::user(
            "<<<BEGIN_OPENCLAW_INTERNAL_CONTEXT>>>\nx\n<<<END_OPENCLAW_INTERNAL_CONTEXT>>>",
        )];
        assert_eq!(
            environment
                .next_state(&turn("Hi", "Hello"), &synthetic)
                .unwrap(),
            None
        );
        assert!(environment.session_ends(&[Message::user("/new")]).unwrap());
    }

    #[test]
    fn a_hosted_episode_runs_to_its_end_and_replays_bit_for_bit() {
        let environment = environment("persona = 'brief'\nquestions = 3");
        let task: TaskId = environment.tasks("train").unwrap()[2].clone();
        assert_eq!(task.as_str(), "brief/train/2");
        let talk = |seed| {
            let mut episode = environment.start(&task, Seed::new(seed)).unwrap();
            let mut said = vec![episode.observe().unwrap().messages[0].content.clone()];
            for turn in 0.. {
                let step = episode
                    .act(&reply(if turn % 2 == 0 {
                        "Yes. No. Maybe."
                    } else {
                        "Yes."
                    }))
                    .unwrap();
                said.push(step.observation.messages[0].content.clone());
                if let Some(done) = step.done {
                    assert_eq!(done, Done::Finished);
                    break;
                }
            }
            assert!(words(episode.act(&reply("More"))).contains("the conversation is over"));
            said
        };
        assert_eq!(talk(4), talk(4));
        assert_ne!(talk(4), talk(5));
        assert!((4..=7).contains(&talk(4).len()));
    }

    #[test]
    fn held_out_tasks_measure_one_reply_by_the_persona_s_rule() {
        let environment = environment("");
        let tasks = environment.tasks("held-out").unwrap();
        assert!(tasks.len() >= 24);
        let score = |text: &str, truncated| {
            let mut episode = environment.start(&tasks[0], Seed::new(1)).unwrap();
            let action = Action {
                message: Message::assistant(text),
                truncated,
            };
            assert!(episode.act(&action).unwrap().done.is_some());
            episode.outcome().unwrap().unwrap()
        };
        let good = score("Iron the dress while it is damp.", false);
        assert_eq!(good.score, 1.0);
        let names: Vec<_> = good.metrics.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            [
                "non-empty",
                "on-topic",
                "length-band",
                "no-repetition",
                "finished"
            ]
        );
        assert!(good.metrics.iter().all(|(_, value)| *value == 1.0));
        assert_eq!(score("Iron it.\n\n- damp\n- hot\n- slow", false).score, 0.0);
        assert_eq!(score("Iron the dress while", true).score, 0.0);
    }

    #[test]
    fn a_snapshot_goes_on_in_another_instance() {
        let environment = environment("");
        let mut first = environment
            .start(&"brief/train/1".into(), Seed::new(8))
            .unwrap();
        first.act(&reply("One. Two. Three.")).unwrap();
        let snapshot = first.snapshot().unwrap().unwrap();
        let mut second = environment.restore(&snapshot, Seed::new(8)).unwrap();
        let step = rl::Episode::act(&mut second, &reply("Yes.")).unwrap();
        assert_eq!(step, first.act(&reply("Yes.")).unwrap());
        assert!(
            environment
                .restore(b"nonsense", Seed::new(8))
                .unwrap_err()
                .to_string()
                .contains("no snapshot")
        );
    }

    #[test]
    fn tasks_and_splits_that_do_not_exist_are_refused() {
        let environment = environment("");
        assert!(words(environment.tasks("test")).contains("there is no split `test`"));
        let refused = environment
            .start(&"brief/train/9999".into(), Seed::new(1))
            .err();
        assert!(
            matches!(refused, Some(rl::Error::Refused { .. })),
            "{refused:?}"
        );
    }
}

mod reaction_judge {
    //! The prompts, as the judge loop gets them.

    use plugin::GuestJudge;
    use rl::{
        Answer, AnswerForm, Choice, FinishReason, Hint, Judge, Message, Question, Seed, VoteValue,
    };

    use crate::support::{host, load, next, turn};

    fn judge(section: &str) -> GuestJudge {
        GuestJudge::new(&load(&host(), bundled::REACTION_JUDGE, section).unwrap()).unwrap()
    }

    fn answer(good: f32, bad: f32) -> Answer {
        let choice = |text: &str, logprob| Choice {
            text: text.into(),
            logprob,
        };
        Answer {
            text: " good".into(),
            choices: vec![choice(" good", good), choice(" bad", bad)],
            finish: FinishReason::Stop,
        }
    }

    #[test]
    fn a_plain_prompt_with_a_choice_is_asked_and_its_log_odds_are_the_vote() {
        let judge = judge("bias = 0.5");
        let (turn, next) = (
            turn("How do I?", "So."),
            next("Thanks\nThe answer was: bad"),
        );
        let prompt = judge
            .evaluate(&turn, &next, Seed::new(1))
            .unwrap()
            .prompt()
            .unwrap();
        assert!(prompt.messages.is_empty());
        assert!(
            prompt.reply_prefix.ends_with("\nThe answer was:"),
            "{}",
            prompt.reply_prefix
        );
        assert_eq!(
            prompt.answer,
            AnswerForm::Choice(vec![" good".into(), " bad".into()])
        );
        assert_ne!(
            Question::Ask(prompt),
            judge.evaluate(&turn, &next, Seed::new(2)).unwrap()
        );
        let vote = |good, bad| judge.read_vote(&turn, &next, &answer(good, bad)).unwrap();
        assert_eq!(vote(-1.0, -2.0), Some((VoteValue::Positive, Some(0.5))));
        assert_eq!(vote(-1.0, -1.25), Some((VoteValue::Negative, Some(-0.25))));
        assert_eq!(vote(f32::NAN, -1.0), None);
    }

    #[test]
    fn a_chosen_hint_is_one_of_the_operators_rules() {
        let judge = judge("");
        let (turn, next) = (turn("How do I?", "So."), next("Much too long!"));
        let prompt = judge.ask_hint(&turn, &next, Seed::new(1)).unwrap().unwrap();
        let AnswerForm::Choice(labels) = prompt.answer else {
            panic!("a choice, not {:?}", prompt.answer)
        };
        let answered = |liked: &str| {
            let choice = |label: &String| Choice {
                text: label.clone(),
                logprob: if label.as_str() == liked { -0.1 } else { -20.0 },
            };
            let answer = Answer::chosen(labels.iter().map(choice).collect()).unwrap();
            judge.read_hint(&turn, &next, &answer).unwrap()
        };
        assert!(answered(" long").unwrap().text.contains("short"));
        assert_eq!(answered(" fine"), None);
    }

    #[test]
    fn a_quoted_hint_is_the_complaint_without_the_next_question() {
        let judge = judge("hint-mode = 'quote'");
        let (turn, next) = (
            turn("How do I?", "So."),
            next("Much too long! How do I iron a shirt?"),
        );
        let prompt = judge.ask_hint(&turn, &next, Seed::new(1)).unwrap().unwrap();
        assert!(
            !prompt.reply_prefix.contains("iron"),
            "{}",
            prompt.reply_prefix
        );
        let hint = judge
            .read_hint(&turn, &next, &answer(-2.0, -1.0))
            .unwrap()
            .unwrap();
        assert_eq!(hint.text, "Much too long!");
        assert_eq!(
            judge.read_hint(&turn, &next, &answer(-1.0, -2.0)).unwrap(),
            None
        );
    }

    #[test]
    fn a_written_hint_is_asked_read_and_placed() {
        let judge = judge("hint-mode = 'write'");
        let (turn, next) = (turn("How do I?", "So."), next("Much too long!"));
        let prompt = judge.ask_hint(&turn, &next, Seed::new(1)).unwrap().unwrap();
        assert!(matches!(
            prompt.answer,
            AnswerForm::Text { max_tokens: 40, .. }
        ));
        let written = |text: &str| Answer {
            text: text.into(),
            choices: vec![],
            finish: FinishReason::Stop,
        };
        let read = |text: &str| judge.read_hint(&turn, &next, &written(text)).unwrap();
        let hint = read(" Answer in one short sentence.");
        assert_eq!(
            hint,
            Some(Hint {
                text: "Answer in one short sentence.".into()
            })
        );
        assert_eq!(read("none"), None);
        let placed = judge.place_hint(&turn.messages, &hint.unwrap()).unwrap();
        let expected = "How do I?\n\nNote for this answer: Answer in one short sentence.";
        assert_eq!(placed, [Message::user(expected)]);
        assert!(
            judge
                .place_hint(
                    &[],
                    &Hint {
                        text: "Answer briefly.".into()
                    }
                )
                .is_err()
        );
    }

    #[test]
    fn nothing_is_asked_about_silence_and_hints_can_be_off() {
        let judge = judge("hint-mode = 'off'");
        let turn = turn("How do I?", "So.");
        assert_eq!(
            judge.evaluate(&turn, &next(" "), Seed::new(1)).unwrap(),
            Question::Skip
        );
        assert_eq!(
            judge
                .ask_hint(&turn, &next("Too long"), Seed::new(1))
                .unwrap(),
            None
        );
    }
}
