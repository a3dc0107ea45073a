//! One suite a seam: what every implementation must do, whoever wrote it. Each implementation's tests run it.
//!
//! A suite returns the first rule that was broken, with what was found; it never panics. [`crate::Policy`] and
//! [`crate::Learner`] need a model, so their suites live beside their implementations (`serving`, `trainer`).

use crate::{
    Action, AdapterName, Answer, AnswerForm, Choice, Decider, Environment, Feedback, FinishReason,
    Hint, Judge, JudgedTurn, Message, NextState, PolicyVersion, Question, Rating, RequestView,
    RewardRule, Role, Sampling, Seed, Sees, Served, SessionId, Shelf, Stored, TenantId, Turn,
    TurnId, TurnKind, TurnRequest, TurnSink, Verdict, Vote, VoteValue,
};

/// A rule that an implementation broke.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{rule}: {found}")]
pub struct Broken {
    /// The rule.
    pub rule: &'static str,
    /// What was found instead.
    pub found: String,
}

type Suite = Result<(), Broken>;

fn hold(rule: &'static str, holds: bool, found: impl std::fmt::Debug) -> Suite {
    if holds {
        Ok(())
    } else {
        Err(Broken {
            rule,
            found: format!("{found:?}"),
        })
    }
}

fn works<T>(rule: &'static str, result: crate::Result<T>) -> Result<T, Broken> {
    result.map_err(|error| Broken {
        rule,
        found: error.to_string(),
    })
}

/// A turn of a plain conversation, for suites and tests.
pub fn turn(request: &str, reply: &str) -> Turn {
    Turn {
        id: TurnId::new("turn-1"),
        tenant: TenantId::new("tenant"),
        session: SessionId::new("session"),
        user: None,
        parent: None,
        kind: TurnKind::Main,
        adapter: Some(AdapterName::new("main")),
        version: PolicyVersion::BASE,
        adapter_digest: String::new(),
        messages: vec![Message::user(request)],
        tools: Vec::new(),
        prompt: vec![1],
        response: vec![2],
        logprobs: vec![-0.5],
        sampling: Sampling::default(),
        reply: Message::assistant(reply),
        finish: FinishReason::Stop,
    }
}

/// A vote with this value.
pub fn vote(value: Option<VoteValue>) -> Vote {
    let absent = value.is_none().then(|| "it failed".to_owned());
    Vote {
        value,
        answers: Vec::new(),
        score: None,
        seed: Seed::new(0),
        absent,
    }
}

/// The suite of [`Environment`]: reads live traffic, lists tasks in a fixed order, plays single-use episodes that replay
/// by their seed.
///
/// # Errors
/// The first rule that is broken.
pub fn environment(environment: &dyn Environment, split: &str) -> Suite {
    hold(
        "a card has a name",
        !environment.card().name.is_empty(),
        environment.card(),
    )?;
    let messages = [Message::user("How do I boil an egg?")];
    let view = RequestView {
        messages: &messages,
        tools: &[],
    };
    works("plain traffic is classified", environment.classify(view))?;
    let turn = turn("How do I boil an egg?", "In water.");
    let next = works(
        "a reply's next state is read",
        environment.next_state(&turn, &[Message::user("Thanks.")]),
    )?;
    let text = next.map(|next| next.text).unwrap_or_default();
    hold(
        "a user's reply is in the next state",
        text.contains("Thanks."),
        text,
    )?;
    let nothing = works("no message is no error", environment.next_state(&turn, &[]))?;
    hold("no message is no next state", nothing.is_none(), nothing)?;
    let tasks = works("tasks are listed", environment.tasks(split))?;
    let again = works("tasks are listed", environment.tasks(split))?;
    hold(
        "tasks have a fixed order",
        tasks == again && !tasks.is_empty(),
        &again,
    )?;
    let unknown = environment
        .start(&"no such task".into(), Seed::new(1))
        .map(|_| ());
    hold("an unknown task is refused", unknown.is_err(), unknown)?;
    let play = || -> Result<Vec<Message>, Broken> {
        let mut episode = works("a task starts", environment.start(&tasks[0], Seed::new(7)))?;
        let mut said = works("an episode shows its beginning", episode.observe())?.messages;
        let action = Action {
            message: Message::assistant("In boiling water."),
            truncated: false,
        };
        for _ in 0..64 {
            let step = works("an action is taken", episode.act(&action))?;
            said.extend(step.observation.messages);
            if step.done.is_some() {
                let late = episode.act(&action);
                hold(
                    "an episode that is over takes no action",
                    late.is_err(),
                    late,
                )?;
                break;
            }
        }
        if let Some(outcome) = works("an outcome is asked for", episode.outcome())? {
            hold(
                "a score is from 0 to 1",
                (0.0..=1.0).contains(&outcome.score),
                outcome,
            )?;
        }
        Ok(said)
    };
    let (one, other) = (play()?, play()?);
    hold("an episode begins with a message", !one.is_empty(), &one)?;
    hold("the same seed plays the same episode", one == other, other)
}

/// The suite of [`Judge`]: asks about reactions, never reads a vote out of nothing, places hints in the user's message only.
///
/// # Errors
/// The first rule that is broken.
pub fn judge(judge: &dyn Judge) -> Suite {
    hold("a judge has a name", !judge.name().is_empty(), judge.name())?;
    let turn = turn("How do I boil an egg?", "In water.");
    let next = NextState::of(vec![Message::user(
        "No, that is too long. Please make it shorter.",
    )]);
    let ask = |seed| {
        works(
            "a reaction is asked about",
            judge.evaluate(&turn, &next, Seed::new(seed)),
        )
    };
    hold(
        "the same seed asks the same question",
        ask(1)? == ask(1)?,
        "two prompts",
    )?;
    let Question::Ask(prompt) = ask(1)? else {
        return Ok(());
    };
    hold(
        "a prompt holds text",
        !(prompt.messages.is_empty() && prompt.reply_prefix.is_empty()),
        &prompt,
    )?;
    if let AnswerForm::Choice(texts) = &prompt.answer {
        hold("a choice is among two or more", texts.len() >= 2, texts)?;
        let choices = |logprob: f32| {
            texts
                .iter()
                .map(|text| Choice {
                    text: text.clone(),
                    logprob,
                })
                .collect()
        };
        let answer = Answer {
            text: texts[0].clone(),
            choices: choices(f32::NAN),
            finish: FinishReason::Stop,
        };
        let read = works(
            "log-probs that are no numbers are no error",
            judge.read_vote(&turn, &next, &answer),
        )?;
        hold(
            "missing is not zero: without log-probs there is no vote",
            read.is_none(),
            read,
        )?;
    }
    let messages = [
        Message::system("Be good."),
        Message::user("One"),
        Message::assistant("Two"),
        Message::user("Three"),
    ];
    let hint = Hint {
        text: "Answer in one sentence.".into(),
    };
    let placed = works("a hint is placed", judge.place_hint(&messages, &hint))?;
    let whole: String = placed.iter().map(|m| m.content.as_str()).collect();
    hold(
        "the hint is in the teacher's context",
        whole.contains(&hint.text),
        &whole,
    )?;
    let replies = |messages: &[Message]| {
        messages
            .iter()
            .filter(|m| m.role == Role::Assistant)
            .cloned()
            .collect::<Vec<_>>()
    };
    hold(
        "no reply is changed by a hint",
        replies(&placed) == replies(&messages),
        &placed,
    )
}

/// The suite of [`RewardRule`]: missing is not zero, and shapes come back as they went in.
///
/// # Errors
/// The first rule that is broken.
pub fn reward_rule(rule: &dyn RewardRule) -> Suite {
    use VoteValue::{Negative, Positive};
    hold("a rule has a name", !rule.name().is_empty(), rule.name())?;
    let verdict = |votes: &[Option<VoteValue>]| {
        let votes: Vec<_> = votes.iter().copied().map(vote).collect();
        works("votes are decided", rule.verdict(&votes)).map(|verdict| verdict.map(|v| v.value))
    };
    for (votes, expected) in [
        (
            &[Some(Positive), Some(Positive), Some(Negative)][..],
            Some(Positive),
        ),
        (&[Some(Negative), None, Some(Negative)], Some(Negative)),
        (&[None, None, None], None),
        (&[], None),
    ] {
        let found = verdict(votes)?;
        hold(
            "the majority of the present votes decides, and nobody's vote is none",
            found == expected,
            (votes, found),
        )?;
    }
    let decided = |value| {
        Some(Verdict {
            value,
            by: Decider::Judge,
        })
    };
    let turns = [decided(Positive), decided(Negative), None].map(|verdict| JudgedTurn {
        process: verdict.map(|verdict| verdict.value.sign()),
        tokens: 8,
        ..JudgedTurn::by(verdict)
    });
    let paid = |outcome| works("rewards are made", rule.turn_rewards(&turns, outcome));
    let rewards = paid(None)?;
    hold("one reward a turn", rewards.len() == 3, &rewards)?;
    let finite = rewards
        .iter()
        .all(|r| r.rl_weight.is_finite() && r.opd_weight.is_finite());
    hold("weights are finite", finite, &rewards)?;
    hold(
        "no verdict is no reward",
        rewards[2].reward.is_none(),
        rewards[2],
    )?;
    if rule.sees() == Sees::Turn {
        let ordered =
            matches!((rewards[0].reward, rewards[1].reward), (Some(good), Some(bad)) if good > bad);
        hold(
            "a positive verdict is worth more than a negative one",
            ordered,
            &rewards,
        )?;
    } else {
        let (failed, solved) = (paid(Some(0.0))?, paid(Some(1.0))?);
        let pairs = || failed.iter().zip(&solved);
        hold(
            "a better outcome is never worth less, and is worth more somewhere",
            pairs().all(|(failed, solved)| solved.reward >= failed.reward)
                && pairs().any(|(failed, solved)| solved.reward > failed.reward),
            (&failed, &solved),
        )?;
    }
    let group = [vec![Some(1.0), None], vec![Some(-1.0)]];
    let advantages = works("advantages are made", rule.advantages(&group))?;
    let shape = |group: &[Vec<Option<f32>>]| group.iter().map(Vec::len).collect::<Vec<_>>();
    hold(
        "advantages have the shape of rewards",
        shape(&advantages) == shape(&group),
        &advantages,
    )?;
    hold(
        "a missing reward has no advantage",
        advantages[0][1].is_none(),
        &advantages,
    )
}

/// The suite of [`TurnSink`]: every turn has its own id, and feedback on a reply that never was is refused.
///
/// # Errors
/// The first rule that is broken.
pub async fn turn_sink(sink: &dyn TurnSink) -> Suite {
    let request = TurnRequest {
        tenant: TenantId::new("tenant"),
        key: "key".into(),
        adapter: Some(AdapterName::new("main")),
        session: Some(SessionId::new("mine")),
        user: Some("ada".into()),
        kind: Some(TurnKind::Main),
        session_done: false,
        messages: vec![Message::user("Hi")],
        tools: Vec::new(),
    };
    let first = works("a turn begins", sink.begin(request.clone()).await)?;
    let second = works("a turn begins", sink.begin(request).await)?;
    hold(
        "turns have ids of their own",
        first.turn != second.turn,
        (&first, &second),
    )?;
    hold(
        "a client's session id is kept",
        first.session.as_str().contains("mine"),
        &first,
    )?;
    hold(
        "a client's word on the kind is kept",
        first.kind == TurnKind::Main,
        &first,
    )?;
    let rate = |turn: TurnId| Feedback {
        tenant: TenantId::new("tenant"),
        turn,
        rating: Some(Rating::Up),
        correction: None,
    };
    let unknown = sink.feedback(rate(TurnId::new("never"))).await;
    hold(
        "feedback on an unknown reply is refused",
        unknown.is_err(),
        unknown,
    )?;
    let id = first.turn.clone();
    let served = Served {
        version: PolicyVersion::BASE,
        adapter_digest: String::new(),
        prompt: vec![1],
        response: vec![2],
        logprobs: vec![-0.5],
        sampling: Sampling::default(),
        reply: Message::assistant("Hello"),
        finish: FinishReason::Stop,
    };
    works("a turn is recorded", sink.finish(first, served).await)?;
    works(
        "feedback on a served reply is recorded",
        sink.feedback(rate(id)).await,
    )
}

/// The suite of [`Shelf`]: switches at once, keeps what it showed, and changes nothing when it refuses. It begins with the
/// base version live; `served` tells which version a bucket gets, `adapters` are two adapters' bytes.
///
/// # Errors
/// The first rule that is broken.
pub fn shelf(
    shelf: &dyn Shelf,
    served: &dyn Fn(u64) -> PolicyVersion,
    adapters: [&[u8]; 2],
) -> Suite {
    let [one, two] = [1, 2].map(PolicyVersion::new);
    let serves = |rule, low, high| {
        let found = (served(0), served(u64::MAX));
        hold(rule, found == (low, high), found)
    };
    let refused = |rule, result: crate::Result<()>| {
        let is = matches!(result, Err(crate::Error::Refused { .. }));
        hold(rule, is, result)
    };
    let base = PolicyVersion::BASE;
    hold("the base version needs no bytes", shelf.holds(base), base)?;
    hold("nothing is held unseen", !shelf.holds(one), one)?;
    refused(
        "a version that is not held needs bytes",
        shelf.show(one, None),
    )?;
    let wrong = Stored::new(adapters[0]).with_digest("0123");
    refused("another digest is refused", shelf.show(one, Some(wrong)))?;
    let nothing = Some(Stored::new(&[]));
    refused(
        "bytes that are no adapter are refused",
        shelf.show(one, nothing),
    )?;
    serves("what was refused changes nothing", base, base)?;
    works(
        "a version is shown",
        shelf.show(one, Some(Stored::new(adapters[0]))),
    )?;
    serves("a version that is shown is live", one, one)?;
    let second = Some(Stored::new(adapters[1]));
    for share in [0.0, -1.0, 1.5, f64::NAN] {
        let tried = shelf.try_out(two, second, share);
        refused("a share is above 0 and at most 1", tried)?;
    }
    works("a version is tried out", shelf.try_out(two, second, 0.5))?;
    serves("a trial is for the lower buckets", two, one)?;
    shelf.end_trial();
    serves("a trial ends", one, one)?;
    hold("what was tried out is held", shelf.holds(two), two)?;
    works(
        "a held version needs no bytes",
        shelf.try_out(two, None, 0.5),
    )?;
    works("a held version needs no bytes", shelf.show(two, None))?;
    serves("what is shown ends the trial", two, two)?;
    works("the way back needs no bytes", shelf.show(one, None))?;
    works("the base version is shown", shelf.show(base, None))?;
    serves("the base version can be shown", base, base)?;
    shelf.forget();
    hold("what is forgotten is not held", !shelf.holds(two), two)?;
    serves("forgetting leaves what is live", base, base)
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::seam::{
        MajorityRule, MemoryShelf, MemorySink, NoJudge, StepwiseRule, Transcript, WordJudge,
    };

    #[test]
    fn the_native_implementations_conform() {
        let lines = ["Hello", "Thanks."].map(str::to_owned).to_vec();
        environment(&Transcript::new(vec![lines]), "train").unwrap();
        judge(&WordJudge).unwrap();
        judge(&NoJudge).unwrap();
        reward_rule(&MajorityRule).unwrap();
        reward_rule(&StepwiseRule).unwrap();
        let memory = MemoryShelf::default();
        shelf(&memory, &|bucket| memory.served(bucket), [b"one", b"two"]).unwrap();
        let sink = MemorySink::default();
        let suite = std::pin::pin!(turn_sink(&sink));
        // Everything in memory is ready at once: one poll runs the whole suite.
        assert_eq!(
            suite.poll(&mut Context::from_waker(Waker::noop())),
            Poll::Ready(Ok(()))
        );
        assert_eq!(sink.turns().len(), 1);
    }

    #[test]
    fn a_suite_names_the_rule_that_is_broken() {
        let broken = environment(&Transcript::default(), "train").unwrap_err();
        assert_eq!(broken.rule, "tasks have a fixed order");
    }
}
