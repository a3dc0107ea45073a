//! Software engineering: small git repositories with a bug, an issue, and hidden checks as the oracle.
//!
//! Hosts episodes on a jailed machine and reads the live traffic of coding agents ([`traffic`]). Does not judge turns, and shows the
//! model no more than a user would know. Start at [`episode`], then [`oracle`] for why a score can be believed, [`repos`] and
//! [`mutants`] for where tasks come from.

pub mod action;
pub mod edit;
pub mod episode;
pub mod guard;
pub mod image;
pub mod issue;
pub mod jail;
pub mod mutants;
pub mod oracle;
pub mod repos;
pub mod score;
pub mod task;
pub mod text;
pub mod traffic;

use sdk::{
    ActionKind, Capabilities, Environment, Fault, Line, Message, ModalityCard, Observation,
    ObservationKind, Request, Split, Turn,
    config::{self, Value},
    shell::Machine,
};

use crate::{
    episode::{Attempt, Limits},
    task::Task,
};

/// The plugin.
#[derive(Debug)]
pub struct Plugin;

impl Environment for Plugin {
    type Episode = Attempt<Machine>;

    fn describe() -> ModalityCard {
        ModalityCard {
            name: "swe".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            action: ActionKind::Text,
            observation: ObservationKind::Text,
            tools: action::tools(),
            capabilities: Capabilities::CONFIG | Capabilities::SHELL,
        }
    }

    fn classify(request: Request) -> Result<Line, Fault> {
        Ok(traffic::classify(&request.messages))
    }

    fn next_state(turn: Turn, new_messages: Vec<Message>) -> Result<Option<Observation>, Fault> {
        Ok(traffic::next_state(&turn, new_messages))
    }

    fn session_ends(messages: Vec<Message>) -> Result<bool, Fault> {
        Ok(traffic::ends(&messages))
    }

    fn tasks(split: Split) -> Result<Vec<String>, Fault> {
        match own_image() {
            Some(image) => image::tasks::<Machine>(&image, split),
            None => Ok(mutants::tasks(split)),
        }
    }

    fn start(task: String, seed: u32) -> Result<Self::Episode, Fault> {
        // Nothing is drawn: all attempts at a task meet the same issue, and differ by what the model does.
        let _ = seed;
        let task = match own_image() {
            Some(image) => image::task::<Machine>(&image, &task)?,
            None => Task::built_in(&task)?,
        };
        Attempt::start(task, limits()?)
    }
}

/// The operator's image, where there is one.
fn own_image() -> Option<String> {
    match config::get("image") {
        Some(Value::Text(image)) => Some(image),
        _ => None,
    }
}

fn limits() -> Result<Limits, Fault> {
    let seconds = u32::try_from(config::count("command-seconds")?).unwrap_or(u32::MAX);
    Ok(Limits {
        max_turns: config::count("max-turns")?.max(1),
        command_ms: seconds.saturating_mul(1000).clamp(1000, 60_000),
        output_chars: config::count("output-chars")?,
    })
}

sdk::export_environment!(Plugin);
