//! The three worlds, each of which misbehaves and then answers.

use sdk::{
    Action, ActionKind, Answer, Capabilities, Completion, Decider, Decision, Environment, Episode,
    Fault, Judge, Line, Message, ModalityCard, Observation, ObservationKind, OutcomeScore, Prompt,
    PromptFormat, PromptMessage, PromptPart, Question, Request, Reward, Role, Sign, Split, Step,
    Trajectory, Turn, TurnReward, Vote,
};

use crate::{answers, misbehave};

/// The guest.
#[derive(Debug)]
pub struct Faulty;

impl Reward for Faulty {
    fn verdict(votes: Vec<Option<Vote>>) -> Result<Option<Decision>, Fault> {
        misbehave()?;
        if let Some(verdict) = answers::verdict(&votes)? {
            return Ok(verdict);
        }
        Ok(Some(Decision {
            sign: Sign::Good,
            by: Decider::Judge,
        }))
    }

    fn turn_rewards(trajectory: Trajectory) -> Result<Vec<TurnReward>, Fault> {
        misbehave()?;
        if let Some(rewards) = answers::rewards(&trajectory)? {
            return Ok(rewards);
        }
        let reward = TurnReward {
            reward: Some(answers::number(1.0)?),
            rl_weight: answers::number(1.0)?,
            opd_weight: 0.0,
        };
        Ok(vec![reward; answers::length(trajectory.turns.len())?])
    }

    fn advantages(mut rewards: Vec<Vec<Option<f64>>>) -> Result<Vec<Vec<Option<f64>>>, Fault> {
        misbehave()?;
        let shape = answers::length(rewards.len())?;
        rewards.resize(shape, Vec::new());
        for reward in rewards.iter_mut().flatten() {
            *reward = Some(answers::number(1.0)?);
        }
        Ok(rewards)
    }
}

impl Judge for Faulty {
    fn evaluate(_: Turn, _: Observation) -> Result<Question, Fault> {
        misbehave()?;
        let part = PromptPart::Instruction(answers::text("Is it good?")?);
        Ok(Question::Ask(Prompt {
            messages: vec![PromptMessage {
                role: Role::User,
                parts: vec![part],
            }],
            format: PromptFormat::Chat,
            answer: Answer::Choice(vec!["yes".into(); answers::length(2)?]),
        }))
    }

    fn read_vote(_: Turn, _: Observation, _: Completion) -> Result<Option<Vote>, Fault> {
        misbehave()?;
        Ok(Some(Vote {
            sign: Sign::Good,
            score: Some(answers::number(1.0)?),
        }))
    }

    fn place_hint(messages: Vec<Message>, _: sdk::Hint) -> Result<Vec<Message>, Fault> {
        misbehave()?;
        Ok(messages.into_iter().skip(1).collect())
    }
}

impl Environment for Faulty {
    type Episode = Attempt;

    fn describe() -> ModalityCard {
        ModalityCard {
            name: "faulty".into(),
            version: "0.1.0".into(),
            action: ActionKind::Text,
            observation: ObservationKind::Text,
            tools: Vec::new(),
            capabilities: Capabilities::CONFIG | Capabilities::RANDOM | Capabilities::CLOCK,
        }
    }

    fn classify(_: Request) -> Result<Line, Fault> {
        misbehave()?;
        Ok(Line::Main)
    }

    fn next_state(_: Turn, messages: Vec<Message>) -> Result<Option<Observation>, Fault> {
        misbehave()?;
        let text = answers::text("fine")?;
        let messages = messages
            .into_iter()
            .map(|message| Message::new(message.role, text.clone()));
        Ok(Some(Observation::new(messages.collect())))
    }

    fn tasks(_: Split) -> Result<Vec<String>, Fault> {
        misbehave()?;
        Ok((0..answers::length(2)?)
            .map(|task| task.to_string())
            .collect())
    }

    fn start(task: String, _: u32) -> Result<Attempt, Fault> {
        match task.as_str() {
            "lazy" => Ok(Attempt { polite: true }),
            "0" | "1" => misbehave().map(|()| Attempt { polite: false }),
            _ => Err(Fault::InvalidInput(format!("no task `{task}`"))),
        }
    }
}

/// One attempt. A polite one misbehaves only when it acts.
#[derive(Debug)]
pub struct Attempt {
    polite: bool,
}

impl Episode for Attempt {
    fn observe(&mut self) -> Result<Observation, Fault> {
        if !self.polite {
            misbehave()?;
        }
        Ok(Observation::new(vec![Message::user(answers::text(
            "Hello.",
        )?)]))
    }

    fn act(&mut self, _: Action) -> Result<Step, Fault> {
        misbehave()?;
        Ok(Step {
            next: Observation::new(vec![Message::user(answers::text("Go on.")?)]),
            done: None,
        })
    }

    fn outcome(&mut self) -> Result<Option<OutcomeScore>, Fault> {
        Ok(Some(OutcomeScore {
            value: answers::number(0.5)?,
            metrics: Vec::new(),
        }))
    }
}
