//! An environment: hosts a quiz of sums, and leaves live traffic to the defaults of the SDK.
//!
//! The same task, seed and actions give the same episode, byte for byte. `nextstate/wit/environment.wit` says what each
//! function promises.

use sdk::{
    Action, ActionKind, Capabilities, Done, Environment, Episode, Fault, Message, ModalityCard,
    Observation, ObservationKind, OutcomeScore, Split, Step,
};

/// The environment.
#[derive(Debug)]
pub struct Sums;

/// One sum; whether it was answered, and rightly.
#[derive(Debug)]
pub struct Attempt(u32, u32, Option<bool>);

fn says(text: impl Into<String>) -> Observation {
    Observation::new(vec![Message::user(text)])
}

impl Environment for Sums {
    type Episode = Attempt;

    fn describe() -> ModalityCard {
        ModalityCard {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            action: ActionKind::Text,
            observation: ObservationKind::Text,
            tools: Vec::new(),
            capabilities: Capabilities::empty(),
        }
    }

    fn tasks(split: Split) -> Result<Vec<String>, Fault> {
        // No task is in both splits.
        let numbers = match split {
            Split::Train => 2..=9,
            Split::HeldOut => 10..=12,
        };
        Ok(numbers.map(|a| format!("{a}+{}", 2 * a + 1)).collect())
    }

    fn start(task: String, _seed: u32) -> Result<Attempt, Fault> {
        let numbers = task.split_once('+').and_then(|(a, b)| {
            let number = |text: &str| text.parse::<u16>().ok().map(u32::from);
            Some(Attempt(number(a)?, number(b)?, None))
        });
        numbers.ok_or_else(|| Fault::InvalidInput(format!("no task `{task}`")))
    }
}

impl Episode for Attempt {
    fn observe(&mut self) -> Result<Observation, Fault> {
        Ok(says(format!("What is {} + {}?", self.0, self.1)))
    }

    fn act(&mut self, action: Action) -> Result<Step, Fault> {
        if self.2.is_some() {
            return Err(Fault::InvalidInput("the episode is over".to_owned()));
        }
        let answer = (self.0 + self.1).to_string();
        let mut words = action.reply.content.split(|c: char| !c.is_alphanumeric());
        let right = words.any(|word| word == answer);
        self.2 = Some(right);
        Ok(Step {
            next: says(if right { "Right." } else { "Wrong." }),
            done: Some(Done::Finished),
        })
    }

    fn outcome(&mut self) -> Result<Option<OutcomeScore>, Fault> {
        Ok(self.2.map(|right| OutcomeScore {
            value: if right { 1.0 } else { 0.0 },
            metrics: Vec::new(),
        }))
    }
}

sdk::export_environment!(Sums);

#[cfg(test)]
#[test]
fn a_right_answer_scores() {
    let mut attempt = Sums::start("2+5".to_owned(), 1).unwrap();
    let reply = Message::new(sdk::Role::Assistant, "It is 7.");
    let finish = sdk::Finish::Stop;
    attempt.act(Action { reply, finish }).unwrap();
    assert_eq!(attempt.outcome().unwrap().unwrap().value, 1.0);
}
